"""Finding hard cuts: what came before one belongs to another shot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from PIL import Image

GRID = (32, 18)  # blocks across and down: coarse enough that a moving edge changes few of them
BINS = 32  # of brightness
NEAR = 3  # frames on either side that are looked at: a flash is over by then
LEAST = 0.05  # of the whole range: two pictures nearer than this are one shot however still it is
TIMES = 2.0  # a cut changes that many times more than the motion beside it
HISTOGRAM = 0.1  # how much a changed histogram weighs beside changed blocks
Look = tuple[np.ndarray, np.ndarray]


def last_cut(frames: Sequence[np.ndarray] | np.ndarray | torch.Tensor) -> int | None:
    """The index of the first frame after the last hard cut, or None where all frames are one shot.

    frames: uint8 [n, H, W, 3] or a sequence of [H, W, 3], of any one size, best a few dozen consecutive ones.
    Flashes (the picture before comes back), fades, dissolves and fast motion (change on both sides) are no cuts.
    What starts within the last NEAR - 1 frames can't be distinguished from a flash and counts as a cut.
    """
    return max(hard_cuts(look(np.asarray(frame)) for frame in frames), default=None)


def hard_cuts(looks: Iterable[Look]) -> Iterator[int]:
    """The indices of the first frames after every hard cut. looks: of consecutive frames, of which few are kept."""
    near: list[Look] = []
    first, index = 0, 1  # the number of the oldest look; of the frame that may be behind a cut
    for seen in chain(looks, [None]):
        if seen is not None:
            near.append(seen)
        known = first + len(near)
        while index < known and (seen is None or index + NEAR <= known):
            if _is_cut(near, index - first):
                yield index
            index += 1
        gone = max(0, index - NEAR - first)
        near, first = near[gone:], first + gone


def _is_cut(looks: Sequence[Look], index: int) -> bool:
    before = range(max(0, index - NEAR), index)
    after = range(index, min(len(looks), index + NEAR))
    across = min(_change(looks[a], looks[b]) for a in before for b in after)
    if across < LEAST:
        return False
    beside = [_change(looks[one], looks[one + 1]) for side in (before, after) for one in side[:-1]]
    return across >= TIMES * max(beside, default=0.0)


def look(frame: np.ndarray) -> Look:
    """What cuts are found by: mean-free brightness of the blocks, histogram of brightness, both 0 to 1."""
    grey = Image.fromarray(frame).convert("L")
    blocks = np.asarray(grey.resize(GRID, Image.Resampling.BOX), dtype=np.float32) / 255
    counts = np.histogram(blocks, bins=BINS, range=(0, 1))[0] / blocks.size
    return blocks - blocks.mean(), counts


def _change(one: Look, other: Look) -> float:
    """How different two frames are, 0 to about 1. A change of the whole picture's brightness counts little."""
    blocks = float(np.abs(one[0] - other[0]).mean())
    return blocks + HISTOGRAM * blocks * float(np.abs(one[1] - other[1]).sum() / 2)
