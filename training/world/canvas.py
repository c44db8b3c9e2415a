"""A picture of any size that antialiased shapes are painted on.

A Pen stands somewhere in the world with an angle and a size; what it draws is given in its own coordinates, so that
a hat is drawn the same on every head. Shapes between `outline` and its end get one dark line around all of them.
"""

import math
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from . import shapes
from .lights import DAY, Light

Stops = Sequence[tuple[float, str]]
ZERO, ONE = np.float32(0), np.float32(1)


@dataclass(frozen=True)
class View:
    """What the camera sees: the world point in the picture's middle; at zoom 1 the picture is one unit high."""

    x: float = 0.0
    y: float = 0.37
    zoom: float = 1.0


@lru_cache(maxsize=4096)
def rgb(colour: str) -> tuple[float, float, float]:
    """0 to 1 of `rrggbb`."""
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))


class Canvas:
    """pixels: float32 [3, height, width], 0 to 1.  covered: float32 [height, width], how much was painted over."""

    def __init__(self, height: int, width: int, view: View = View(), light: Light = DAY, background: str = "ffffff"):
        self.height, self.width, self.view, self.light = height, width, view, light
        self.pixels = np.empty((3, height, width), np.float32)
        self.pixels[:] = np.array(rgb(background), np.float32)[:, None, None]
        self.covered: np.ndarray | None = None
        self._group: list | None = None
        self._columns = np.arange(width, dtype=np.float32) + np.float32(0.5)
        self._rows = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)

    def track_cover(self) -> None:
        """From now on `covered` is kept."""
        self.covered = np.zeros((self.height, self.width), np.float32)

    def pen(self, depth: float = 1.0) -> "Pen":
        """In world coordinates. depth: how far the layer follows the camera; 1 near, 0 at the horizon."""
        scale = self.height * self.view.zoom
        x, y = self.view.x * depth, self.view.y
        return Pen(self, self.width / 2 - x * scale, self.height / 2 + y * scale, scale, 0.0, 1.0)

    def seen(self, depth: float = 1.0) -> tuple[float, float]:
        """World x of the picture's left and right edge in a layer."""
        half = self.width / (2 * self.height * self.view.zoom)
        return self.view.x * depth - half, self.view.x * depth + half

    def rows(self, shining: Stops, lit: Stops) -> None:
        """Fills the picture with bands that blend into each other, from the top down; two at one height are an edge.

        shining: (world y, colour) that the light does not change, then `lit` ones.
        """
        stops = [(y, rgb(colour)) for y, colour in shining] + [(y, self.light.on(rgb(colour))) for y, colour in lit]
        stops.reverse()
        heights = np.array([y for y, _ in stops])
        heights += 1e-7 * np.arange(len(heights))  # an edge is a step, not two colours at one place
        scale = self.height * self.view.zoom
        fine = (np.arange(4 * self.height) + 0.5) / 4  # four lines per row, whose mean is the antialiased row
        y = self.view.y - (fine - self.height / 2) / scale
        for channel in range(3):
            column = np.interp(y, heights, [colour[channel] for _, colour in stops])
            self.pixels[channel] = column.reshape(-1, 4).mean(axis=1)[:, None]
        if self.covered is not None:
            self.covered[:] = 1

    @contextmanager
    def outline(self, width: float = 0.011, colour: str = "2b2233"):
        """Shapes painted inside get a line of this width (world units) around them together."""
        outer, self._group = self._group, []
        try:
            yield
            group = self._group
        finally:
            self._group = outer
        grow = max(0.45, width * self.height * self.view.zoom)
        lit = self._lit(colour, False)
        for area, distance, _, lined in group:
            if lined:
                self._blend(area, _unit(np.float32(0.5 + grow) - distance), lit)
        for area, distance, fill, _ in group:
            self._blend(area, _unit(np.float32(0.5) - distance), fill)

    def _lit(self, colour: str, glow: bool) -> tuple[float, float, float]:
        return rgb(colour) if glow else self.light.on(rgb(colour))

    def _blend(self, area, cover: np.ndarray, colour) -> None:
        target = self.pixels[area]
        if isinstance(colour, tuple):
            colour = np.array(colour, np.float32)[:, None, None]
        target += cover * (colour - target)
        if self.covered is not None:
            kept = self.covered[area[1:]]
            kept += cover * (1 - kept)


def _unit(values: np.ndarray) -> np.ndarray:
    """Cut to 0..1 in place; np.clip takes twice the time on arrays as small as these."""
    np.maximum(values, ZERO, out=values)
    return np.minimum(values, ONE, out=values)


@dataclass(frozen=True, slots=True)
class Pen:
    """A place, angle (radians, counter-clockwise), size and side (-1 mirrors) on a canvas; `x`, `y` in pixels."""

    canvas: Canvas
    x: float
    y: float
    scale: float
    angle: float
    flip: float

    def at(self, x: float, y: float, angle: float = 0.0, scale: float = 1.0, flip: float = 1.0) -> "Pen":
        """A pen that stands at (x, y) of this one."""
        px, py = self.place(x, y)
        return Pen(self.canvas, px, py, self.scale * scale, self.angle + self.flip * angle, self.flip * flip)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel (from the top left) of a point."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x = x * self.flip
        return self.x + (cos * x - sin * y) * self.scale, self.y - (sin * x + cos * y) * self.scale

    # Each shape: coordinates of this pen, colour "rrggbb". low: colour at its lower end.  glow: shines in the dark.
    # soft: its edge blends over so much.  alpha: how much it hides.  lined: it counts for the outline of its group.

    def ellipse(self, x, y, rx, ry, colour, angle=0.0, **paint) -> None:
        reach = max(rx, ry) if angle else None
        bounds = (x - (reach or rx), y - (reach or ry), x + (reach or rx), y + (reach or ry))
        if angle:
            pen = self.at(x, y, angle)
            pen._paint((-rx, -ry, rx, ry), lambda u, v: shapes.ellipse(u, v, rx, ry), colour, **paint)
            return
        self._paint(bounds, lambda u, v: shapes.ellipse(u - np.float32(x), v - np.float32(y), rx, ry), colour, **paint)

    def box(self, x, y, hx, hy, colour, radius=0.0, **paint) -> None:
        bounds = (x - hx, y - hy, x + hx, y + hy)
        radius = min(radius, hx, hy)
        self._paint(
            bounds, lambda u, v: shapes.box(u - np.float32(x), v - np.float32(y), hx, hy, radius), colour, **paint
        )

    def line(self, x0, y0, x1, y1, r0, colour, r1=None, **paint) -> None:
        r1 = r0 if r1 is None else r1
        r = max(r0, r1)
        bounds = (min(x0, x1) - r, min(y0, y1) - r, max(x0, x1) + r, max(y0, y1) + r)
        self._paint(bounds, lambda u, v: shapes.line(u, v, x0, y0, x1, y1, r0, r1), colour, **paint)

    def polygon(self, points, colour, radius=0.0, **paint) -> None:
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        bounds = (min(xs) - radius, min(ys) - radius, max(xs) + radius, max(ys) + radius)
        self._paint(bounds, lambda u, v: shapes.polygon(u, v, points, radius), colour, **paint)

    def convex(self, points, colour, **paint) -> None:
        """A convex polygon in either order of its corners."""
        (ax, ay), (bx, by), (cx, cy) = points[:3]
        if (bx - ax) * (cy - ay) < (by - ay) * (cx - ax):
            points = points[::-1]
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        bounds = (min(xs), min(ys), max(xs), max(ys))
        self._paint(bounds, lambda u, v: shapes.convex(u, v, points), colour, **paint)

    def curve(self, points, r, colour, **paint) -> None:
        """A stroke through points."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        bounds = (min(xs) - r, min(ys) - r, max(xs) + r, max(ys) + r)
        pairs = list(pairwise(points))
        self._paint(
            bounds, lambda u, v: shapes.union([shapes.line(u, v, *a, *b, r, r) for a, b in pairs]), colour, **paint
        )

    def _paint(self, bounds, distance, colour, low=None, glow=False, soft=0.0, alpha=1.0, lined=True) -> None:
        canvas, scale = self.canvas, self.scale
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        left, bottom, right, top = bounds
        corners = [self.place(px, py) for px in (left, right) for py in (bottom, top)]
        margin = 1.5 + soft * scale + (0.012 * canvas.height * canvas.view.zoom if canvas._group is not None else 0)
        x0 = max(0, math.floor(min(c[0] for c in corners) - margin))
        x1 = min(canvas.width, math.ceil(max(c[0] for c in corners) + margin))
        y0 = max(0, math.floor(min(c[1] for c in corners) - margin))
        y1 = min(canvas.height, math.ceil(max(c[1] for c in corners) + margin))
        if x0 >= x1 or y0 >= y1:
            return
        # Pixels back into this pen's coordinates.
        dx = (canvas._columns[x0:x1] - np.float32(self.x)) * np.float32(1 / scale)
        dy = (np.float32(self.y) - canvas._rows[y0:y1]) * np.float32(1 / scale)
        if self.angle:
            u = (np.float32(cos) * dx + np.float32(sin) * dy) * np.float32(self.flip)
            v = np.float32(cos) * dy - np.float32(sin) * dx
        else:
            u, v = dx * np.float32(self.flip), dy
        pixels = distance(u, v) * np.float32(scale)
        area = (slice(None), slice(y0, y1), slice(x0, x1))
        fill = canvas._lit(colour, glow)
        if low is not None:
            share = _unit((np.float32(top) - v) * np.float32(1 / (top - bottom)))
            ends = np.array([fill, canvas._lit(low, glow)], np.float32)[:, :, None, None]
            fill = ends[0] + share * (ends[1] - ends[0])
        if canvas._group is not None:
            canvas._group.append((area, pixels, fill, lined))
            return
        width = max(1.0, soft * scale)
        cover = _unit(np.float32(0.5) - pixels * np.float32(1 / width))
        if alpha < 1:
            cover *= np.float32(alpha)
        canvas._blend(area, cover, fill)
