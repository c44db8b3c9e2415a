"""Whether frames move on steadily: how much of what changes is explained by steady motion.

Every frame is guessed from its two neighbours, block by block, each block moved by one step as it came and went. What
the guess lacks is judder, flicker, popping. VBench's motion smoothness has the same idea, with a network that guesses
(Huang et al., VBench, 2024); its numbers are others.
"""

from collections.abc import Iterable
from itertools import product

import torch
from torch.nn import functional

REACH = 3  # pixels that a block may move from one frame to the next, in each direction
BLOCK = 4  # pixels
STILL = 0.4  # steps of 8 bits: what changes less than that from frame to frame is noise
FRAMES = 64  # that are looked at together


def smoothness(grey: torch.Tensor, cuts: Iterable[int] = ()) -> float | None:
    """1 where steady motion explains all that changes, 0 where it explains nothing; None where nothing moves.

    grey: uint8 [F, h, w], best about 64 pixels wide.  cuts: first frames of shots, over which nothing is guessed.
    """
    kept = torch.ones(len(grey), dtype=torch.bool)
    kept[:1] = kept[-1:] = False
    for cut in cuts:
        kept[max(0, cut - 1) : cut + 1] = False
    left = changed = 0.0
    for places in kept.nonzero().flatten().split(FRAMES):
        before, middle, after = (grey[places + step].float() for step in (-1, 0, 1))
        left += float(_unexplained(before, middle, after).sum())
        changed += float((middle - before).abs().mean(dim=(1, 2)).sum() + (after - middle).abs().mean(dim=(1, 2)).sum())
    count = int(kept.sum())
    if not count or changed / 2 / count < STILL:
        return None
    return max(0.0, 1 - 2 * left / changed)


def _unexplained(before: torch.Tensor, middle: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Mean difference of each frame to its best guess, [n]. All: float32 [n, h, w]."""
    high, wide = middle.shape[1:]
    earlier, later = (functional.pad(part[:, None], [REACH] * 4, mode="replicate")[:, 0] for part in (before, after))
    best = None
    for down, right in product(range(-REACH, REACH + 1), repeat=2):
        top, left, low, far = REACH - down, REACH - right, REACH + down, REACH + right
        guess = (earlier[:, top : top + high, left : left + wide] + later[:, low : low + high, far : far + wide]) / 2
        error = functional.avg_pool2d((middle - guess).abs()[:, None], BLOCK, ceil_mode=True)
        best = error if best is None else torch.minimum(best, error)
    assert best is not None
    return best.mean(dim=(1, 2, 3))
