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
    looks = [look(np.asarray(frame)) for frame in frames]
    return next((index for index in range(len(looks) - 1, 0, -1) if _is_cut(looks, index)), None)


def hard_cuts(frames: Iterable[np.ndarray]) -> Iterator[int]:
    """The indices of the first frames after every hard cut, as `last_cut` tells them. Memory does not grow with them.

    frames: uint8 [H, W, 3] each, of one size, best consecutive ones.
    """
    looks: list[Look] = []
    first, index = 0, 1  # the number of the oldest look; of the frame that may be behind a cut
    for frame in chain(frames, [None]):
        if frame is not None:
            looks.append(look(frame))
        known = first + len(looks)
        while index < known and (frame is None or index + NEAR <= known):
            if _is_cut(looks, index - first):
                yield index
            index += 1
        gone = max(0, index - NEAR - first)
        looks, first = looks[gone:], first + gone


def all_cuts(looks: Sequence[Look]) -> list[int]:
    """The indices of the first frames of all shots but the first. looks: of a video's frames, all of them."""
    return [index for index in range(1, len(looks)) if _is_cut(looks, index)]


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
