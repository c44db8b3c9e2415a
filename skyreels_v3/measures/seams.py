"""How frames change from one to the next, and whether they do more so over a seam.

They compare takes of one line. None says whether a shot is good: a still picture has the best seam of all.
"""

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
        colours = [part.float().mean(dim=(1, 2)) for part in (before[-NEAR:], after[:NEAR])]
        return cls.between(colours[0], colours[1], frame_change(before[-1], after[0]), motion)

    @classmethod
    def between(cls, before: torch.Tensor, after: torch.Tensor, change: float, motion: float) -> "Seam":
        """before, after: mean colours of frames on either side [n, 3], 0 to 255.  change: over the seam."""
        step = (before[-NEAR:].mean(dim=0) - after[:NEAR].mean(dim=0)).abs().mean()
        return cls(max(0.0, change - motion), float(step))


def frame_change(one: torch.Tensor, other: torch.Tensor) -> float:
    """Mean difference of two frames, uint8 [H, W, 3]."""
    grids = [frame[::EVERY, ::EVERY].float() for frame in (one, other)]
    return float((grids[0] - grids[1]).abs().mean())
