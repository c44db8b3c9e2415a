"""Where the head is in every frame of the footage: from masks, a box, or nothing, which is the whole picture."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import InputError
from ...speech.box import read_box

INSIDE = 0.5  # of a mask: from here on a pixel is the head
GAP = 0.5  # seconds for which a mask may vanish between two others: it is a slip of what made it


class Rect(NamedTuple):
    """A rectangle in pixels of the footage; right and bottom lie outside."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    def whole(self) -> "Rect":
        """With whole sides, all of it inside."""
        return Rect(*(int(np.floor(side)) for side in self[:2]), *(int(np.ceil(side)) for side in self[2:]))

    def within(self, shown: "Rect", width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in a picture of width x height pixels that shows the rectangle `shown`."""
        across, down = width / shown.width, height / shown.height
        left, right = ((side - shown.left) * across for side in (self.left, self.right))
        top, bottom = ((side - shown.top) * down for side in (self.top, self.bottom))
        return max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)


class Heads:
    """The head in frames of width x height pixels.

    fixed: it is the same in every frame.  everywhere: it is the whole picture.  empty: frames of the footage that were
    looked at and show no head; nothing is changed in them.
    """

    def __init__(
        self,
        width: int,
        height: int,
        masks: torch.Tensor | None = None,
        box: str = "",
        number: Callable[[int], int] = lambda shown: shown,
    ):
        """masks: a ComfyUI MASK [n, h, w] or [h, w] of any size, one for all frames or one for each; counts before
        box, see `read_box`.  number: which of many masks is that of a shown frame.

        Raises InputError for a mask without a pixel, and for what is no mask or box.
        """
        self.width, self.height = width, height
        self._number, self._near = number, {}
        self.empty: list[int] = []
        if masks is not None:
            self._masks = _checked(masks)
        else:
            left, top, right, bottom = read_box(box) if box.strip() else (0, 0, 1, 1)
            self._masks = torch.zeros(1, height, width)
            self._masks[0, _sides(top, bottom, height), _sides(left, right, width)] = 1
        self.fixed = len(self._masks) == 1
        self.everywhere = self.fixed and bool((self._masks[0] >= INSIDE).all())
        self._last: tuple[int, torch.Tensor] | None = None  # the mask stretched to the frame that was asked for last
        if self.fixed and self._bounds(0) is None:
            raise InputError("The mask shows no one: paint over the head, or disconnect it to use the whole picture.")

    def look(self, first: int, stop: int, rate: float) -> list[Rect | None]:
        """Where the head is in the shown frames first to stop, None where it is not.

        The frames are of one shot. A mask that vanishes for less than half a second is that of the frame nearest in
        time.
        """
        if self.fixed:
            return [self._bounds(0)] * (stop - first)
        found = {shown: self._bounds(self._number(shown)) for shown in range(first, stop)}
        seen = np.array([shown for shown, bounds in found.items() if bounds is not None])
        for shown in (shown for shown, bounds in found.items() if bounds is None):
            behind = int(np.searchsorted(seen, shown))
            if 0 < behind < len(seen) and seen[behind] - seen[behind - 1] <= GAP * rate + 1:
                near = min(seen[behind - 1 : behind + 1], key=lambda one: abs(one - shown))
                self._near[shown] = int(near)
                found[shown] = found[int(near)]
            else:
                self.empty.append(shown)
        return list(found.values())

    def number(self, shown: int) -> int:
        """Which of the masks is that of a shown frame."""
        return 0 if self.fixed else self._number(self._near.get(shown, shown))

    def mask(self, shown: int, part: Rect) -> torch.Tensor:
        """float32 [h, w], 0 to 1, of a whole part of a shown frame."""
        number = self.number(shown)
        if self._last is None or self._last[0] != number:
            mask = self._masks[number].detach().to("cpu", torch.float32)
            if mask.shape != (self.height, self.width):
                mask = F.interpolate(mask[None, None], (self.height, self.width), mode="nearest")[0, 0]
            self._last = number, mask.clamp(0, 1)
        left, top, right, bottom = map(int, part)
        return self._last[1][top:bottom, left:right]

    def _bounds(self, number: int) -> Rect | None:
        inside = self._masks[number] >= INSIDE
        rows, columns = (inside.any(dim=dim).nonzero().flatten() for dim in (1, 0))
        if not len(rows):
            return None
        high, wide = inside.shape
        across, down = self.width / wide, self.height / high
        return Rect(
            columns[0].item() * across, rows[0].item() * down, (columns[-1].item() + 1) * across,
            (rows[-1].item() + 1) * down,
        )  # fmt: skip


def _checked(masks: torch.Tensor) -> torch.Tensor:
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or 0 in masks.shape:
        raise InputError(f"The mask is {' x '.join(map(str, masks.shape))}, but frames x height x width is needed.")
    if not all(map(math.isfinite, torch.aminmax(masks))):  # a sum of halves may be infinite, torch.isfinite copies
        raise InputError("The mask holds numbers that are none (NaN or infinity): look at the node that made it.")
    return masks


def _sides(first: float, last: float, length: int) -> slice:
    begin = min(round(first * length), length - 1)
    return slice(begin, max(round(last * length), begin + 1))
