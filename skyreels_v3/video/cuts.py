"""Finding a hard cut inside a few frames: what came before it belongs to another shot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

GRID = (32, 18)  # blocks across and down: coarse enough that a moving edge changes few of them
BINS = 32  # of brightness
NEAR = 3  # frames on either side that are looked at: a flash is over by then
LEAST = 0.05  # of the whole range: two pictures nearer than this are one shot however still it is
TIMES = 2.0  # a cut changes that many times more than the motion beside it
HISTOGRAM = 0.1  # how much a changed histogram weighs beside changed blocks


def last_cut(frames: Sequence[np.ndarray] | np.ndarray | torch.Tensor) -> int | None:
    """The index of the first frame after the last hard cut, or None where all frames are one shot.

    frames: uint8 [n, H, W, 3] or a sequence of [H, W, 3], of any one size, best a few dozen consecutive ones.
    Flashes (the picture before comes back), fades, dissolves and fast motion (change on both sides) are no cuts.
    What starts within the last NEAR - 1 frames can't be distinguished from a flash and counts as a cut.
    """
    looks = [_look(np.asarray(frame)) for frame in frames]
    for index in range(len(looks) - 1, 0, -1):
        before = range(max(0, index - NEAR), index)
        after = range(index, min(len(looks), index + NEAR))
        across = min(_change(looks[a], looks[b]) for a in before for b in after)
        if across < LEAST:
            continue
        beside = [_change(looks[one], looks[one + 1]) for side in (before, after) for one in side[:-1]]
        if across >= TIMES * max(beside, default=0.0):
            return index
    return None


def _look(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean-free brightness of the blocks, histogram of brightness), both from 0 to 1."""
    grey = Image.fromarray(frame).convert("L")
    blocks = np.asarray(grey.resize(GRID, Image.Resampling.BOX), dtype=np.float32) / 255
    counts = np.histogram(blocks, bins=BINS, range=(0, 1))[0] / blocks.size
    return blocks - blocks.mean(), counts


def _change(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> float:
    """How different two frames are, 0 to about 1. A change of the whole picture's brightness counts little."""
    blocks = float(np.abs(one[0] - other[0]).mean())
    return blocks + HISTOGRAM * blocks * float(np.abs(one[1] - other[1]).sum() / 2)
