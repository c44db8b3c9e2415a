"""The footage of a dub: its frames as they are shown, and the crops that the model is given of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ...errors import InputError
from ...video.sources.source import Source, frames
from .clock import Clock
from .crops import Path, cut_out
from .heads import Heads, Rect
from .paste import in_crop, soft_edge
from .plan import Shot


def even_frames(source: Source, clock: Clock, first: int = 0) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3] of each shown frame from `first` on; of an odd side the last pixel is left out."""
    for pixels in frames(source, clock.rate, first):
        height, width = even(*pixels.shape[:2])
        yield pixels[:height, :width]


def even(*sides: int) -> tuple[int, ...]:
    """What H.264 can hold of these sides."""
    return tuple(side - side % 2 for side in sides)


@dataclass(frozen=True)
class Followed:
    """One shot as it is dubbed. path: of the crop.  radius: of the soft edge, in pixels of the footage."""

    shot: Shot
    path: Path
    radius: int


@dataclass(frozen=True)
class Footage:
    """What windows are made from and put into. shots: by their number in the plan; those that are dubbed."""

    source: Source
    clock: Clock
    heads: Heads
    shots: dict[int, Followed]
    width: int  # pixels of the crops
    height: int
    _edges: dict[str, tuple[tuple, torch.Tensor]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def frames(self, first: int) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3] of each shown frame from `first` on."""
        return even_frames(self.source, self.clock, first)

    def crops(self, number: int, made: Sequence[int]) -> torch.Tensor:
        """uint8 [n, height, width, 3] of made frames of a shot, in any order; outside of it they are mirrored."""
        followed = self.shots[number]
        wanted = [self._shown(followed.shot, one) for one in made]
        found: dict[int, np.ndarray] = {}
        first, last = min(wanted), max(wanted)
        needed = set(wanted)
        for shown, pixels in zip(range(first, last + 1), self.frames(first)):
            if shown in needed:
                found[shown] = cut_out(pixels, followed.path.at(shown), self.width, self.height)
        if not found:
            raise InputError("The footage cannot be read any more: load it again.")
        nearest = sorted(found)
        missing = needed.difference(found)  # a file that ends before its header says so
        found |= {shown: found[min(nearest, key=lambda one: abs(one - shown))] for shown in missing}
        return torch.from_numpy(np.stack([found[shown] for shown in wanted]))

    def taken(self, number: int, shown: int) -> tuple[Rect, torch.Tensor]:
        """(the whole part around a shot's crop in a shown frame, how much of it is made anew: float32 [h, w])."""
        followed = self.shots[number]
        part = self._part(followed.path.at(shown))
        inner = part.left > 0, part.top > 0, part.right < self.heads.width, part.bottom < self.heads.height
        key = self.heads.number(shown), part, followed.radius
        edge = self._cached("footage", key, lambda: soft_edge(self.heads.mask(shown, part), followed.radius, inner))
        return part, edge

    def taken_in_crop(self, number: int, made: int) -> torch.Tensor:
        """As `taken`, in the crop of a made frame: float32 [height, width]."""
        followed = self.shots[number]
        shown = self._shown(followed.shot, made)
        part, taken = self.taken(number, shown)
        crop = followed.path.at(shown)
        key = self.heads.number(shown), crop, followed.radius
        return self._cached("crop", key, lambda: in_crop(taken, part, crop, self.width, self.height))

    def crop(self, number: int, shown: int) -> Rect:
        return self.shots[number].path.at(shown)

    def _cached(self, where: str, key: tuple, edge: Callable[[], torch.Tensor]) -> torch.Tensor:
        """An edge, which is that of the frame before where mask and crop stand still."""
        if where not in self._edges or self._edges[where][0] != key:
            self._edges[where] = key, edge()
        return self._edges[where][1]

    def _shown(self, shot: Shot, made: int) -> int:
        return min(max(self.clock.shown(shot.within(made)), shot.first), shot.stop - 1)

    def _part(self, crop: Rect) -> Rect:
        left, top, right, bottom = crop.whole()
        return Rect(max(left, 0), max(top, 0), min(right, self.heads.width), min(bottom, self.heads.height))
