"""What can be measured of a take without a model that judges: motion, the seam before it, likeness to pictures.

They compare takes of one line. None says whether a shot is good: a still picture has the best seam of all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

EVERY = 4  # pixels that are looked at, in each direction
NEAR = 8  # frames on either side whose mean colours are compared


@dataclass(frozen=True)
class Seam:
    """In steps of 8 bits. jump: by how much the first frame changes more than others do.  colour: step of the mean."""

    jump: float
    colour: float

    @classmethod
    def of(cls, before: torch.Tensor, after: torch.Tensor, motion: float) -> "Seam":
        """before, after: frames on either side, uint8 [n, H, W, 3].  motion: mean change between frames of the take."""
        jump = max(0.0, frame_change(before[-1], after[0]) - motion)
        colours = [part.float().mean(dim=(0, 1, 2)) for part in (before[-NEAR:], after[:NEAR])]
        return cls(jump, float((colours[0] - colours[1]).abs().mean()))


def frame_change(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean difference of two frames, uint8 [H, W, 3]."""
    grids = [frame[::EVERY, ::EVERY].float() for frame in (one, other)]
    return float((grids[0] - grids[1]).abs().mean())


def likeness(frame: torch.Tensor, pictures: Sequence[torch.Tensor]) -> float:
    """How like a frame is to the most unlike of the pictures, up to 1: cosine of the means of CLIP's tokens.

    All are tokens [1, n, width], the first one that of the whole picture.
    """
    looks = [tokens[:, 1:].mean(dim=1) for tokens in (frame, *pictures)]
    return min(float(torch.cosine_similarity(looks[0], look, dim=1)) for look in looks[1:])


def score_of(measures: Mapping[str, float]) -> float | None:
    """By which the best take is chosen: likeness where that is known, else the seam; None where neither is."""
    if "likeness" in measures:
        return measures["likeness"]
    if "jump" in measures:
        return -(measures["jump"] + measures["colour"])
    return None
