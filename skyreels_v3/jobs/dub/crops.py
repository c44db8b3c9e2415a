"""The crop that follows a head through a shot: of one size, moving softly, never outside of the picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .heads import Rect

SOFT = 0.2  # seconds: the standard deviation of the smoothing in time
ROOM = 1.1  # times what the head reaches to, at least


@dataclass(frozen=True)
class Path:
    """The crop in the frames from `first` on. width, height: of all.  corners: left and top [n, 2], in pixels."""

    first: int
    width: float
    height: float
    corners: np.ndarray

    def at(self, shown: int) -> Rect:
        """Before and behind the frames that were looked at it stands still."""
        left, top = self.corners[min(max(shown - self.first, 0), len(self.corners) - 1)].tolist()
        return Rect(left, top, left + self.width, top + self.height)


def needed(heads: Sequence[Rect | None], width: int, height: int, context: float) -> tuple[float, float]:
    """(width, height) in pixels of a crop for the largest of these heads. context: times as wide as the head."""
    sizes = [(head.width, head.height) for head in heads if head is not None]
    wide, high = (max(sides) for sides in zip(*sizes))
    return min(context * wide, width), min(context * high, height)


def follow(
    heads: Sequence[Rect | None],
    first: int,
    rate: float,
    frame: tuple[int, int],
    shape: float,
    context: float,
) -> Path:
    """The crop through one shot, which holds the head in every frame.

    heads: in the frames from number `first` on, one of them at least.  rate: of them, a second.  frame: (width, height)
    of the footage.  shape: width / height that the crop has where the footage has room for it.
    """
    known = [number for number, head in enumerate(heads) if head is not None]
    found = np.array([head for head in heads if head is not None], np.float64)
    middles = (found[:, :2] + found[:, 2:]) / 2
    everywhere = np.arange(len(heads))
    path = np.stack([np.interp(everywhere, known, middles[:, axis]) for axis in (0, 1)], axis=1)
    path = smoothed(path, SOFT * rate)
    far = np.abs(found - np.tile(path[known], 2)).reshape(-1, 2, 2).max(axis=(0, 1))
    sizes = found[:, 2:] - found[:, :2]
    width, height = np.maximum(2 * ROOM * far, context * sizes.max(axis=0))
    width, height = max(width, height * shape), max(height, width / shape)
    width, height = min(width, frame[0]), min(height, frame[1])
    corners = np.clip(path - np.array([width, height]) / 2, 0, np.array(frame) - [width, height])
    return Path(first, float(width), float(height), corners)


def smoothed(path: np.ndarray, deviation: float) -> np.ndarray:
    """A path [n, 2] without its shake: a Gaussian over the frames, of those that are there near the ends."""
    reach = math.ceil(3 * deviation)
    if reach < 1 or (path == path[0]).all():
        return path
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    total = np.convolve(np.ones(len(path)), weights)[reach : reach + len(path)]
    return np.stack([np.convolve(axis, weights)[reach : reach + len(path)] / total for axis in path.T], axis=1)


def cut_out(pixels: np.ndarray, crop: Rect, width: int, height: int) -> np.ndarray:
    """A crop of a frame, uint8 [H, W, 3], as uint8 [height, width, 3]; Lanczos."""
    high, wide = pixels.shape[:2]
    box = crop.within(Rect(0, 0, wide, high), wide, high)  # not beyond it by a rounding
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=box))


def back(made: np.ndarray, crop: Rect, part: Rect) -> np.ndarray:
    """What was made of a crop, [h, w, 3] uint8 or [h, w] float32, in the pixels of a whole part inside of the crop."""
    box = part.within(crop, made.shape[1], made.shape[0])
    size = int(part.width), int(part.height)
    return np.asarray(Image.fromarray(made).resize(size, Image.Resampling.LANCZOS, box=box))
