"""What the measures look for: a small picture of every head and object in every light, and where it fits best.

The templates have one size; the frame is shrunk to many, so that the camera's zoom is found too. A head is then ten
pixels wide: noise and blur have little weight there, shape and colours are what is left. How well a template fits is
the mean squared difference of colours over what it covers, in relation to how varied its own colours are: a plain
patch fits in many places by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..world.canvas import Canvas, View
from ..world.figures import Pose, draw_head
from ..world.lights import LIGHTS
from ..world.looks import LOOKS
from ..world.things import THINGS, draw_thing

UNIT = {"head": 24, "thing": 48}  # pixels of a template per world unit
BOXES = {"head": (0.25, 0.2, 0.28), "thing": (0.17, 0.2, 0.2)}  # half width, below and above the middle, world units
ZOOMS = tuple(0.84 * 1.09**i for i in range(14))  # of the camera: 0.84 to 2.6
# How much a template's own variety counts: without it plain ones are found everywhere, with all of it busy ones are.
POWER = {"head": 0.35, "thing": 0.5}
SHOWN = {"head": 0.62, "thing": 0.8}  # of a template that must lie inside the frame
INSIDE = 0.975  # how much smaller than the truth the best fit is: it keeps off the edges, where frames are mixed
FINE = 5  # lines of a template before it is shrunk, per pixel


@dataclass(frozen=True)
class Found:
    """Something seen. x, y: its middle as a share of the frame's width and height, from the top left.

    zoom: of the camera, if it stands where characters stand.  error: how badly the template fits; 0 is perfect.
    light: that it fits in.
    """

    name: str
    x: float
    y: float
    zoom: float
    error: float
    light: str


def shrunk(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """float32 [height, width, 3] in 0..1 of a frame uint8 [H, W, 3] of any size, averaged over areas."""
    rows, columns = _areas(frame.shape[0], height), _areas(frame.shape[1], width)
    pixels = frame.astype(np.float32) * np.float32(1 / 255)
    lines = (rows @ pixels.reshape(len(pixels), -1)).reshape(height, -1, 3)
    return np.matmul(columns, lines)


def find(
    frame: np.ndarray,
    kind: str,
    zooms: tuple[float, float] = (0.0, 9.0),
    names: tuple[str, ...] | None = None,
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> list[Found]:
    """The best place of every head or object (kind: "head", "thing"), best first. frame: uint8 [H, W, 3].

    zooms: from, to, of those that are looked through.  names: look for these alone.
    boxes: left, top, right, bottom as shares of the frame; only middles inside one of them count.
    """
    high, wide = frame.shape[:2]
    bank = _bank(kind, names)
    heights = sorted({max(4, round(UNIT[kind] / zoom)) for zoom in ZOOMS}, reverse=True)
    heights = [height for height in heights if zooms[0] <= UNIT[kind] / height <= zooms[1]]
    least, spots = [], []  # of every zoom: the lowest error of each template, and its place
    for height in heights:
        width = max(4, round(height * wide / high))
        error = bank.errors(shrunk(frame, width, height))
        if boxes:
            across = (np.arange(error.shape[2]) + bank.shift[0]) / width
            down = (np.arange(error.shape[1]) + bank.shift[1]) / height
            allowed = np.zeros(error.shape[1:], bool)
            for left, top, right, bottom in boxes:
                allowed |= ((down >= top) & (down <= bottom))[:, None] & ((across >= left) & (across <= right))
            error = np.where(allowed, error, np.inf)
        places = error.reshape(len(error), -1).argmin(axis=1)
        rows, columns = np.divmod(places, error.shape[2])
        least.append(error.reshape(len(error), -1)[np.arange(len(error)), places])
        spots.append(
            [
                ((_between(e[y], x) + bank.shift[0]) / width, (_between(e[:, x], y) + bank.shift[1]) / height)
                for e, y, x in zip(error, rows, columns)
            ]
        )
    if not heights:
        return []
    least = np.stack(least)
    found = []
    for name in dict.fromkeys(name for name, _ in bank.names):
        mine = [i for i, (other, _) in enumerate(bank.names) if other == name]
        level, index = divmod(int(least[:, mine].argmin()), len(mine))
        index = mine[index]
        height = float(np.interp(_between(least[:, index], level), range(len(heights)), heights))
        zoom = UNIT[kind] / (INSIDE * height)
        found.append(Found(name, *spots[level][index], zoom, float(least[level, index]), bank.names[index][1]))
    return sorted((one for one in found if np.isfinite(one.error)), key=lambda one: one.error)


@dataclass(frozen=True)
class _Bank:
    """names: of each template, with its light.  weights: [n, h * w], how much a pixel counts.  colours: weighted,
    [n, h * w * 3].  squares: weighted and summed over colours, [n, h * w].  variety: standard deviation of its colours.
    shape: h, w.
    shift: from the first pixel of a place to the middle of what is found there, x, y.  margin: x, y.
    shown: of a template, that must lie inside the frame.
    """

    names: tuple[tuple[str, str], ...]
    weights: np.ndarray
    colours: np.ndarray
    squares: np.ndarray
    variety: np.ndarray
    shape: tuple[int, int]
    shift: tuple[float, float]
    margin: tuple[int, int]
    shown: float

    def errors(self, small: np.ndarray) -> np.ndarray:
        """[n, places down, places across] of each template everywhere in a frame, inf where too little is inside."""
        (mx, my), (h, w) = self.margin, self.shape
        pad = ((my, my), (mx, mx))
        image = np.pad(small, (*pad, (0, 0)))
        inside = np.pad(np.ones(small.shape[:2], np.float32), pad)
        squares = (image * image).sum(axis=-1)
        down, across = image.shape[0] - h + 1, image.shape[1] - w + 1

        def patches(plane):
            views = np.lib.stride_tricks.sliding_window_view(plane, (h, w), axis=(0, 1))
            return (np.moveaxis(views, 2, -1) if plane.ndim == 3 else views).reshape(down * across, -1)

        windows, shown, energy = patches(image), patches(inside), patches(squares)
        weight = self.weights @ shown.T
        total = self.weights @ energy.T + self.squares @ shown.T - 2 * (self.colours @ windows.T)
        whole = self.weights.sum(axis=1, keepdims=True)
        total /= self.variety[:, None]
        error = np.where(weight >= self.shown * whole, total / np.maximum(weight, 1e-3), np.inf)
        return error.reshape(len(error), down, across)


@lru_cache(maxsize=32)
def _bank(kind: str, only: tuple[str, ...] | None) -> _Bank:
    unit = UNIT[kind]
    half, below, above = BOXES[kind]
    width, up, down = round(2 * half * unit), round(above * unit), round(below * unit)
    height = up + down
    names, weights, colours = [], [], []
    for name in only or (LOOKS if kind == "head" else THINGS):
        for light in LIGHTS.values():
            middle = (up - height / 2) / unit
            size = (height * FINE, width * FINE)
            canvas = Canvas(*size, View(0.0, middle, unit / height), light.near, "808080")
            canvas.track_cover()
            if kind == "head":
                draw_head(canvas.pen(), LOOKS[name], Pose())
            else:
                draw_thing(canvas.pen(), THINGS[name], 0.0)
            cells = (height, FINE, width, FINE)
            cover = canvas.covered.reshape(cells).mean(axis=(1, 3))
            names.append((name, light.name))
            weights.append(np.clip(1.6 * cover - 0.6, 0, 1))
            colours.append(canvas.pixels.reshape(3, *cells).mean(axis=(2, 4)).transpose(1, 2, 0))
    weight = np.stack(weights).astype(np.float32)
    colour = np.stack(colours).astype(np.float32)
    count = len(names)
    squares = weight * (colour * colour).sum(axis=-1)
    mass = weight.sum(axis=(1, 2))
    mean = (weight[..., None] * colour).sum(axis=(1, 2)) / mass[:, None]
    variety = (squares.sum(axis=(1, 2)) / mass - (mean * mean).sum(axis=1)) ** POWER[kind]
    margin = (width // 3, height // 3)
    return _Bank(
        tuple(names),
        weight.reshape(count, -1),
        (weight[..., None] * colour).reshape(count, -1),
        squares.reshape(count, -1),
        variety,
        (height, width),
        (width / 2 - margin[0], up - margin[1]),
        margin,
        SHOWN[kind],
    )


def _between(errors: np.ndarray, place: int) -> float:
    """The lowest point of the parabola through an error and its neighbours."""
    if 0 < place < len(errors) - 1:
        before, here, after = errors[place - 1 : place + 2]
        bend = before - 2 * here + after
        if np.isfinite(bend) and bend > 1e-9:
            return place + float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
    return float(place)


@lru_cache(maxsize=256)
def _areas(pixels: int, cells: int) -> np.ndarray:
    """[cells, pixels]: how much of each pixel lies in each cell, rows of sum 1."""
    edges = np.linspace(0, pixels, cells + 1)
    index = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], index + 1) - np.maximum(edges[:-1, None], index)
    overlap = np.maximum(overlap, 0)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
