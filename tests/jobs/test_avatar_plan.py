"""Windows, key frames, speech indices, sizes and printed plans of an avatar; the official counts are in the goldens."""

import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.avatar.plan import Timing, plan_avatar, plan_windows
from pack.skyreels_v3.speech.features import around_frames, audio_windows, mirrored

SQUARE = (1024, 1024)
SMALL = Timing(window=21, motion=5, drop=4)


@pytest.mark.parametrize("timing", [Timing(), SMALL, Timing(9, 1, 0), Timing(33, 13, 7)])
def test_any_length_is_made_whole(timing):
    for frames in range(1, 900):
        _, key_pass, windows, padded = plan_windows(frames, timing)
        assert (key_pass.start, key_pass.stop, key_pass.motion) == (0, timing.window, 1)
        if frames < timing.window:
            assert not windows and padded == frames and key_pass.new_frames == frames
            continue
        assert sum(window.new_frames for window in windows) == frames
        assert frames <= padded < frames + timing.step and windows[-1].stop == padded
        shown = 0
        for index, window in enumerate(windows):
            assert window.stop - window.start == timing.window
            assert window.start + window.new_start == shown
            assert 0 < window.new_frames and window.new_stop <= timing.window
            assert window.motion == (timing.motion if index else 1)
            # The next window starts from frames that this one has shown.
            assert window.new_stop >= timing.motion
            shown += window.new_frames
        keys = [window.key_frame for window in windows]
        assert keys == sorted(keys) and keys[-1] == timing.window - 1 and keys[0] >= 0


def test_speech_goes_on_with_its_reversed_tail():
    plan = plan_avatar(SQUARE, 30, width=64, height=64, timing=SMALL)
    assert [(window.start, window.stop) for window in plan.windows] == [(0, 21), (12, 33)]
    features = torch.arange(30).float().view(1, 30, 1, 1)
    tail = features[:, -3:].flip(1)
    padded = torch.cat([features, tail], dim=1)
    for window in plan.passes:
        heard = audio_windows(features, plan.speech_indices(window))
        wanted = padded[:, around_frames(window.start, window.stop, 33)]
        assert heard.shape == (1, 21, 5, 1, 1) and torch.equal(heard, wanted)


def test_short_speech_is_held_at_its_end():
    plan = plan_avatar(SQUARE, 10, width=64, height=64, timing=SMALL)
    indices = plan.speech_indices(plan.key_pass)
    assert indices[0].tolist() == [0, 0, 0, 1, 2]
    assert indices[9].tolist() == [7, 8, 9, 9, 9]
    assert indices[10:].unique().tolist() == [8, 9]
    assert plan.single and plan.passes == (plan.key_pass,)


def test_around_and_mirrored():
    assert around_frames(2, 4, 100, 3).tolist() == [[1, 2, 3], [2, 3, 4]]
    assert mirrored(torch.tensor([8, 9, 10, 11, 12]), 10).tolist() == [8, 9, 9, 8, 7]


@pytest.mark.parametrize(
    "portrait, options, size",
    [
        ((1024, 1024), {"resolution": "720P"}, (960, 960)),
        ((1024, 1024), {}, (640, 640)),
        ((1024, 1024), {"resolution": "480P"}, (640, 640)),
        ((1920, 1080), {"resolution": "540P"}, (960, 544)),
        ((1080, 1920), {"resolution": "720P"}, (720, 1280)),
        ((2000, 500), {"resolution": "480P"}, (1216, 320)),
        ((500, 500), {"width": 330, "height": 250}, (336, 256)),
    ],
)
def test_sizes(portrait, options, size):
    plan = plan_avatar(portrait, 100, **options)
    assert (plan.width, plan.height) == size
    assert plan.latent_shape == (1, 16, 21, size[1] // 8, size[0] // 8)
    assert plan.tokens == 21 * size[0] * size[1] // 256


def test_what_is_printed():
    plan = plan_avatar((4000, 1000), 146, width=650, height=512, people=2)
    text = plan.describe().splitlines()
    assert text[0] == (
        "656 x 512 pixels, 146 frames (5.84 s at 25 a second), 2 people, a key-frame pass and 3 windows of 4 steps"
    )
    assert text[4].replace("|", " ").split() == ["1", "0", "2.76", "69", "31"]
    assert text[6].replace("|", " ").split() == ["3", "5.32", "5.84", "13", "80"]
    assert text[8] == "Size 650 x 512 became 656 x 512: sides come in 16 pixels."
    assert text[9] == "The portrait of 4000 x 1000 fills 656 x 512: 68 % of it is cut away at the left and right."
    assert plan.steps == 16
    assert "one window of 4 steps\nThe speech is shorter" in plan_avatar(SQUARE, 80).describe()
    assert "top and bottom" in plan_avatar((500, 2000), 80, width=512, height=512).describe()


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"frames": 0}, "no frames"),
        ({"frames": 7500}, "300.0 s long, but at most 200 s"),
        ({"people": 9}, "Speech of 9 people"),
        ({"width": 512}, "width and height together"),
        ({"width": 512, "height": 512, "resolution": "480P"}, "the resolution alone"),
        ({"resolution": "4K"}, "480P, 540P, 720P"),
        ({"timing": Timing(80, 5, 12)}, "The window has 80 frames"),
        ({"timing": Timing(81, 4, 12)}, "The motion has 4 frames"),
        ({"timing": Timing(81, 5, 76)}, "leaves no new frames"),
        ({"timing": Timing(9, 5, 0)}, "leaves no new frames"),
        ({"timing": Timing(81, 5, -1)}, "leaves no new frames"),
    ],
)
def test_what_makes_no_plan(arguments, said):
    with pytest.raises(InputError, match=said):
        plan_avatar(SQUARE, **{"frames": 100, **arguments})


def test_the_limit_can_be_lifted():
    plan = plan_avatar(SQUARE, 7500, max_seconds=300)
    assert sum(window.new_frames for window in plan.windows) == 7500
    assert plan_windows(6000, limit=5000).frames == 5000
