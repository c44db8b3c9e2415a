"""What is measured of frames: smoothness, seams, a mouth's lag."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from pack.skyreels_v3.measures.lag import sync
from pack.skyreels_v3.measures.seams import Seam, frame_change
from pack.skyreels_v3.measures.smoothness import smoothness

PICTURE = np.asarray(Image.fromarray(data.astronaut()).convert("L").resize((1200, 1200)))


def pan(count: int, speed: int, twice: int = 1) -> torch.Tensor:
    """uint8 [count, 36, 64]: speed of 768 pixels a frame; twice: how often each is shown."""
    lefts = [20 + index // twice * twice * speed for index in range(count)]
    shown = [Image.fromarray(PICTURE[300:732, left : left + 768]).resize((64, 36), Image.BOX) for left in lefts]
    return torch.from_numpy(np.stack(shown))


@pytest.mark.parametrize("speed", [3, 10, 20])
def test_smooth_motion_is_told_from_judder_and_flicker(speed: int):
    smooth = pan(16, speed)
    juddering = pan(16, speed, twice=2)
    flickering = (smooth.float() * (1 - 0.1 * (torch.arange(16) % 2)[:, None, None])).byte()
    steady, judder, flicker = map(smoothness, (smooth, juddering, flickering))
    assert steady > 0.55 and judder < steady / 2 and flicker < steady - 0.1


def test_what_does_not_move_has_no_smoothness_and_cuts_do_not_count():
    still = pan(12, 0)
    assert smoothness(still) is None and smoothness(still[:2]) is None and smoothness(still[:0]) is None
    smooth = pan(12, 10)
    both = torch.cat([smooth, smooth.flip(2)])
    assert smoothness(both) < smoothness(smooth) - 0.1
    assert smoothness(both, [12]) == pytest.approx(smoothness(smooth), abs=0.1)


def test_a_seam_is_the_same_from_frames_and_from_their_colours():
    frames = torch.randint(0, 255, (20, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    frames[10:] = frames[10:] // 2
    seam = Seam.of(frames[:10], frames[10:], 3.0)
    means = frames.float().mean(dim=(1, 2))
    assert seam == Seam.between(means[:10], means[10:], frame_change(frames[9], frames[10]), 3.0)
    assert seam.colour == pytest.approx(63.5, abs=3)


@pytest.mark.parametrize("late", [-4, 0, 3])
def test_a_lag_is_found_in_frames(late: int):
    heard = np.random.default_rng(0).random(80)
    best, lag = sync(np.roll(heard, late), heard)
    assert lag == late and best > 0.99
