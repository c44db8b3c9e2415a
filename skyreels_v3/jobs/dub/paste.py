"""What the model made of a head, put back into the footage: a soft edge inside of the mask, colours that meet there."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .heads import Rect

CELLS = 24  # across the longer side of a crop: colours are matched at this grain
SPREAD = 3.0  # cells: the standard deviation with which the border's colours reach into the head
SURROUNDINGS = 0.02  # of a crop that must be around the head for its border to be matched; else all of it is
MOST = 0.25  # of the range of [-1, 1]: what differs more is another picture, not another colour


def soft_edge(mask: torch.Tensor, radius: int, inner: Sequence[bool] = (False,) * 4) -> torch.Tensor:
    """How much of the head is taken of what was made, float32 [h, w]: 0 outside of the mask, rising over `radius`
    pixels inside of it. An edge of the picture is no edge: there the mask goes on.

    inner: which of the part's left, top, right and bottom lie within the picture: a mask that fades over them ends.
    """
    if radius < 1:
        return mask
    inside = (mask > 0).float()[None, None]
    padded = F.pad(inside, (radius,) * 4, mode="replicate")[0, 0]
    for dim, first, last in ((1, inner[0], inner[2]), (0, inner[1], inner[3])):
        if first:
            padded.narrow(dim, 0, radius).zero_()
        if last:
            padded.narrow(dim, -radius, radius).zero_()
    width = 2 * radius + 1
    near = _sums(_sums(padded.int(), width, 1), width, 0) / width**2
    return (2 * near - 1).clamp_(0, 1) * mask


def _sums(counts: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    """Sums over `width` neighbours along one side, int32; pooling takes 20 times as long for wide edges."""
    total = counts.cumsum(dim, dtype=torch.int32)
    total = torch.cat([torch.zeros_like(total.narrow(dim, 0, 1)), total], dim)
    length = counts.shape[dim] - width + 1
    return total.narrow(dim, width, length) - total.narrow(dim, 0, length)


def in_crop(values: torch.Tensor, part: Rect, crop: Rect, width: int, height: int) -> torch.Tensor:
    """float32 [height, width] of a crop, of values [h, w] in the pixels of the whole part around it."""
    edges = crop.within(part, values.shape[1], values.shape[0])
    picture = Image.fromarray(values.contiguous().numpy())
    return torch.from_numpy(np.array(picture.resize((width, height), Image.Resampling.BILINEAR, box=edges)))


def matched(made: torch.Tensor, footage: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
    """A made crop [3, H, W] in [-1, 1] with the footage's colours at its border, and softly on from there.

    footage: the same crop of it.  taken: [H, W], see `soft_edge`. The difference around the head is measured in coarse
    cells and spread into it, so that structure which moved averages out. Without surroundings all of the crop counts.
    """
    height, width = taken.shape
    around = (taken <= 0).float()
    if around.mean() < SURROUNDINGS:
        around = torch.ones_like(taken)
    scale = CELLS / max(height, width)
    grid = max(1, round(height * scale)), max(1, round(width * scale))
    cells = F.adaptive_avg_pool2d(torch.cat([(footage - made) * around, around[None]])[None], grid)
    spread = _blurred(cells, SPREAD)[0]
    offset = (spread[:3] / spread[3:].clamp(min=1e-6)).clamp(-MOST, MOST)
    offset = F.interpolate(offset[None], (height, width), mode="bilinear", align_corners=False)[0]
    return (made + offset).clamp(-1, 1)


def put_back(pixels: np.ndarray, made: np.ndarray, taken: torch.Tensor, part: Rect) -> np.ndarray:
    """A frame, uint8 [H, W, 3], with `made` [h, w, 3] uint8 in a whole part of it; where `taken` is 0 it stays."""
    left, top, right, bottom = map(int, part)
    under = pixels[top:bottom, left:right].astype(np.float32)
    mixed = under + taken.numpy()[..., None] * (made.astype(np.float32) - under)
    result = pixels.copy()
    result[top:bottom, left:right] = mixed.round().astype(np.uint8)
    return result


def _blurred(cells: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian over [1, C, h, w], with nothing around it; wide enough that every cell is reached."""
    for dim in (2, 3):
        places = torch.arange(cells.shape[dim], dtype=torch.float32)
        weights = torch.exp(-0.5 * ((places[:, None] - places) / deviation) ** 2).clamp(min=1e-8)
        cells = (cells.movedim(dim, -1) @ weights).movedim(-1, dim)
    return cells
