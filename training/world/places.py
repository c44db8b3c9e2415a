"""The eight backgrounds. They go on for ever to both sides, so that a walk of a minute never leaves them.

Every place has layers at several depths; what is far moves less when the camera moves.
"""

import math
from collections.abc import Callable, Iterator

from .canvas import Canvas, Pen

HORIZON = 0.2  # height of the ground's far edge; characters stand at 0


def repeats(canvas: Canvas, depth: float, period: float, reach: float) -> Iterator[tuple[Pen, int]]:
    """Pens at every multiple of `period` of a layer that is in the picture, with its number.

    reach: how far to either side of a pen something is drawn.
    """
    left, right = canvas.seen(depth)
    pen = canvas.pen(depth)
    for k in range(math.floor((left - reach) / period), math.ceil((right + reach) / period) + 1):
        if left - reach <= k * period <= right + reach:
            yield pen.at(k * period, 0), k


def varied(k: int, salt: int = 0) -> float:
    """0 to 1, the same for the same numbers: makes one tree unlike the next."""
    return (math.sin(12.9898 * k + 78.233 * salt + 0.5) * 43758.5453) % 1.0


def _sky(canvas: Canvas, *below: tuple[float, str]) -> None:
    """Sky in the light's own colours, then `below` (world y, colour) from the horizon down."""
    top, middle, low = canvas.light.sky
    edge = below[0][0]
    canvas.rows(((1.0, top), (0.6, middle), (edge, low)), below)
    if canvas.light.stars:
        _stars(canvas, canvas.light.stars)


def _stars(canvas: Canvas, strength: float) -> None:
    for pen, k in repeats(canvas, 0.05, 0.22, 0.1):
        for salt in range(2):
            y = 0.45 + 0.55 * varied(k, salt)
            size = 0.007 + 0.006 * varied(k, salt + 5)
            pen.ellipse(0.2 * varied(k, salt + 2), y, size, size, "fffbe0", glow=True, alpha=strength)


def _cloud(pen: Pen, size: float) -> None:
    for x, y, r in ((-0.07, 0, 0.04), (0, 0.022, 0.055), (0.075, 0, 0.04)):
        pen.ellipse(x * size, y * size, r * 1.5 * size, r * size, "ffffff", alpha=0.85)


def _sun(canvas: Canvas, x: float = 0.45, y: float = 0.74) -> None:
    """Sun by day, a low one at dusk, the moon at night."""
    pen = canvas.pen(0.05)
    if canvas.light.name == "night":
        pen.ellipse(x, y, 0.1, 0.1, "b9c8ff", glow=True, soft=0.12, alpha=0.35)
        pen.ellipse(x, y, 0.06, 0.06, "f4f3d9", glow=True)
        pen.ellipse(x - 0.018, y + 0.014, 0.014, 0.014, "d9d8bd", glow=True)
        return
    if canvas.light.name == "dusk":
        y -= 0.3
    pen.ellipse(x, y, 0.13, 0.13, "fff1b0", glow=True, soft=0.14, alpha=0.5)
    pen.ellipse(x, y, 0.07, 0.07, "fff3b8" if canvas.light.name == "day" else "ffdf9a", glow=True)


def beach(canvas: Canvas, t: float) -> None:
    _sky(canvas, (HORIZON + 0.12, "1f8fc4"), (HORIZON - 0.03, "5fd0d8"))
    _sun(canvas)
    for pen, k in repeats(canvas, 0.1, 0.9, 0.2):
        _cloud(pen.at(0.3 * varied(k), 0.72 + 0.14 * varied(k, 1)), 1.1)
    left, right = canvas.seen(1.0)
    ground = canvas.pen(1.0)
    wave = 0.01 * math.sin(1.6 * t)
    ground.box((left + right) / 2, -0.38 + wave, (right - left) / 2 + 0.1, 0.545, "f4fdf6")
    ground.box((left + right) / 2, -0.4 + 0.6 * wave, (right - left) / 2 + 0.1, 0.545, "f7dd9b", low="d9a860")
    for pen, k in repeats(canvas, 0.5, 1.7, 0.4):
        _sail(pen.at(0.5, HORIZON + 0.1 + 0.006 * math.sin(2 * t + k)))
    for pen, k in repeats(canvas, 1.0, 0.62, 0.5):
        if k % 2:
            _palm(pen.at(0.12, 0.09), t)
        else:
            pen.ellipse(-0.2, 0.02, 0.03, 0.02, "ff8f70")
            pen.ellipse(0.3, 0.07, 0.02, 0.012, "fff2dc")


def _sail(pen: Pen) -> None:
    pen.convex([(-0.05, 0), (0.05, 0), (0.035, -0.025), (-0.035, -0.025)], "8c3b2e")
    pen.convex([(0.002, 0.01), (0.002, 0.1), (0.045, 0.01)], "ffffff")
    pen.convex([(-0.005, 0.01), (-0.005, 0.08), (-0.035, 0.01)], "ffe3d0")


def _palm(pen: Pen, t: float) -> None:
    pen.line(0, 0, 0.05, 0.25, 0.026, "a9713c", r1=0.02)
    pen.line(0.05, 0.25, 0.03, 0.5, 0.02, "a9713c", r1=0.015)
    sway = 0.02 * math.sin(1.3 * t)
    for x, y in ((-0.2, 0.0), (-0.13, 0.11), (0.02, 0.14), (0.15, 0.1), (0.2, -0.02)):
        pen.line(0.03, 0.5, 0.03 + x + sway, 0.5 + y, 0.03, "3fa34d", r1=0.006)
        pen.line(0.03 + x + sway, 0.5 + y, 0.03 + 1.2 * x + sway, 0.46 + y, 0.016, "2f8f43", r1=0.003)


def forest(canvas: Canvas, t: float) -> None:
    _sky(canvas, (HORIZON + 0.1, "6fb35c"), (HORIZON - 0.05, "5aa84a"), (-0.12, "2f6b2e"))
    _sun(canvas, 0.1, 0.85)
    for depth, period, colour, low, size in (
        (0.35, 0.24, "4f9a6b", "3b7f58", 0.8),
        (0.65, 0.42, "2f7d4f", "225c3b", 1.1),
    ):
        for pen, k in repeats(canvas, depth, period, 0.25):
            _fir(pen.at(0.1 * varied(k), HORIZON - 0.02), colour, low, size * (0.8 + 0.4 * varied(k, 3)))
    for pen, k in repeats(canvas, 1.0, 0.8, 0.35):
        if varied(k) > 0.45:
            _trunk(pen.at(0.1, 0.13))
        else:
            _mushroom(pen.at(0.25, 0.11))
            pen.ellipse(-0.1, 0.12, 0.08, 0.05, "3d9445", low="2f7a38")


def _fir(pen: Pen, colour: str, low: str, size: float) -> None:
    pen = pen.at(0, 0, scale=size)
    pen.box(0, 0.02, 0.016, 0.05, "6b4a2f")
    for y, wide in ((0.05, 0.13), (0.16, 0.105), (0.26, 0.075)):
        pen.convex([(-wide, y), (wide, y), (0, y + 0.2)], colour, low=low)


def _trunk(pen: Pen) -> None:
    pen.convex([(-0.055, 0), (0.055, 0), (0.045, 0.9), (-0.045, 0.9)], "7a5233", low="5c3c24")
    pen.convex([(-0.085, 0), (0.085, 0), (0.0, 0.13)], "5c3c24")
    pen.ellipse(0.005, 0.42, 0.018, 0.028, "4a2e1b")


def _mushroom(pen: Pen) -> None:
    pen.box(0, 0.02, 0.016, 0.03, "fff3e0", radius=0.01)
    pen.polygon([(-0.045, 0.045), (0.045, 0.045), (0.02, 0.075), (-0.02, 0.075)], "e5383b", 0.012)
    pen.ellipse(-0.015, 0.06, 0.009, 0.009, "ffffff")


def city(canvas: Canvas, t: float) -> None:
    _sky(canvas, (HORIZON, "6f7790"), (0.09, "565d75"), (-0.13, "3a4056"))
    _sun(canvas, -0.4, 0.8)
    for pen, k in repeats(canvas, 0.3, 0.26, 0.2):
        high = 0.3 + 0.3 * varied(k)
        pen.box(0.05, HORIZON + high / 2, 0.11, high / 2, "8d93b8", low="a3a7c9")
    for pen, k in repeats(canvas, 0.6, 0.44, 0.3):
        _house(pen.at(0.04, HORIZON - 0.015), k, canvas.light.name != "day")
    ground = canvas.pen(1.0)
    left, right = canvas.seen(1.0)
    ground.box((left + right) / 2, 0.165, (right - left) / 2 + 0.1, 0.012, "c6cad6")
    for pen, k in repeats(canvas, 1.0, 0.5, 0.2):
        pen.box(0, -0.03, 0.1, 0.01, "f4d35e")
        if k % 3 == 0:
            pen.box(0.1, 0.38, 0.012, 0.22, "30354a")
            pen.ellipse(0.1, 0.63, 0.15, 0.15, "ffe9a0", glow=True, soft=0.25, alpha=0.45)
            pen.ellipse(0.1, 0.62, 0.035, 0.035, "fff4c4", glow=True)


def _house(pen: Pen, k: int, lit: bool) -> None:
    high = 0.42 + 0.28 * varied(k, 1)
    wall = ("b0483f", "c97f4a", "55639e", "7c4f86")[int(4 * varied(k, 2))]
    pen.box(0, high / 2, 0.19, high / 2, wall)
    pen.box(0, high, 0.2, 0.014, "33384f")
    for row in range(3):
        for column in range(3):
            on = lit and varied(3 * k + column, row + 7) > 0.35
            pen.box(-0.11 + 0.11 * column, high - 0.09 - 0.13 * row, 0.032, 0.042,
                    "ffe08a" if on else "bcd6ea", glow=on)  # fmt: skip


def room(canvas: Canvas, t: float) -> None:
    canvas.rows((), ((1.0, "efd9b8"), (HORIZON, "e8c99c"), (HORIZON, "b0713f"), (-0.2, "7f4a26")))
    left, right = canvas.seen(1.0)
    wall = canvas.pen(0.8)
    for pen, _ in repeats(canvas, 0.8, 0.2, 0.1):
        pen.box(0.05, 0.6, 0.03, 0.4, "e8c697")
    wall.box(canvas.view.x * 0.8, HORIZON + 0.018, (right - left) / 2 + 0.1, 0.022, "fdf6e9")
    for pen, k in repeats(canvas, 0.8, 1.5, 0.6):
        _window(pen.at(-0.42, 0.6), canvas)
        _shelf(pen.at(0.38, 0.55), k)
    for pen, _ in repeats(canvas, 1.0, 1.6, 0.6):
        pen.ellipse(0.0, 0.0, 0.52, 0.085, "c8434f")
        pen.ellipse(0.0, 0.0, 0.44, 0.066, "f0b8a0")
        pen.ellipse(0.0, 0.0, 0.36, 0.05, "c8434f")


def _window(pen: Pen, canvas: Canvas) -> None:
    top, _, low = canvas.light.sky
    pen.box(0, 0, 0.17, 0.2, "fdf6e9")
    pen.box(0, 0, 0.145, 0.175, top, low=low, glow=True)
    pen.box(0, 0, 0.01, 0.18, "fdf6e9")
    pen.box(0, 0, 0.15, 0.01, "fdf6e9")
    for side in (-1, 1):
        pen.convex([(side * 0.21, 0.22), (side * 0.1, 0.22), (side * 0.17, -0.2), (side * 0.22, -0.22)], "4a9c8e")


def _shelf(pen: Pen, k: int) -> None:
    for y in (0.0, 0.2):
        pen.box(0, y, 0.2, 0.012, "7a4a28")
        for i in range(7):
            high = 0.05 + 0.025 * varied(i, k + int(10 * y))
            colour = ("c94c4c", "4c7ac9", "e0b040", "5f9e6e", "8a5fb0")[int(5 * varied(i + 3, int(10 * y)))]
            pen.box(-0.16 + 0.05 * i, y + 0.012 + high, 0.02, high, colour)


def desert(canvas: Canvas, t: float) -> None:
    _sky(canvas, (HORIZON + 0.04, "e9a05a"), (HORIZON - 0.06, "e2883f"), (-0.14, "b8602a"))
    _sun(canvas, 0.3, 0.78)
    for pen, _ in repeats(canvas, 0.2, 0.85, 0.5):
        pen.polygon([(-0.3, HORIZON), (-0.22, 0.4), (-0.1, 0.46), (0.1, 0.44), (0.2, 0.36), (0.28, HORIZON)], "c4573a",
                    0.01, low="d97d4e")  # fmt: skip
        pen.line(-0.2, 0.34, 0.2, 0.33, 0.012, "a8442f")
    for pen, k in repeats(canvas, 0.5, 0.7, 0.6):
        pen.ellipse(0.1, HORIZON - 0.04, 0.45, 0.1 + 0.03 * varied(k), "f0b268", low="e09040")
    for pen, k in repeats(canvas, 1.0, 0.75, 0.3):
        if varied(k, 4) > 0.4:
            _cactus(pen.at(0.1, 0.13), 0.8 + 0.4 * varied(k))
        else:
            pen.ellipse(0.0, 0.11, 0.07, 0.035, "a3562f", low="823f20")


def _cactus(pen: Pen, size: float) -> None:
    pen = pen.at(0, 0, scale=size)
    pen.line(0, 0, 0, 0.32, 0.042, "3d8f55")
    pen.curve([(0, 0.13), (0.1, 0.15), (0.105, 0.24)], 0.028, "3d8f55")
    pen.curve([(0, 0.19), (-0.09, 0.2), (-0.095, 0.28)], 0.026, "3d8f55")
    pen.line(0.012, 0.02, 0.012, 0.32, 0.006, "62b578")
    pen.ellipse(0, 0.365, 0.022, 0.018, "ff5d8f")


def snow(canvas: Canvas, t: float) -> None:
    _sky(canvas, (HORIZON + 0.03, "e6f0fa"), (-0.15, "b3cbe6"))
    _sun(canvas, -0.35, 0.8)
    for pen, k in repeats(canvas, 0.2, 0.62, 0.4):
        high = 0.5 + 0.15 * varied(k)
        pen.convex([(-0.36, HORIZON), (0.36, HORIZON), (0.02, high)], "8aa5cc", low="b4c8e4")
        pen.polygon([(-0.1, high - 0.1), (-0.03, high - 0.07), (0.04, high - 0.11), (0.11, high - 0.09), (0.02, high)],
                    "ffffff")  # fmt: skip
    for pen, k in repeats(canvas, 0.6, 0.5, 0.3):
        tree = pen.at(0.1 * varied(k), HORIZON, scale=0.85 + 0.3 * varied(k, 1))
        tree.box(0, 0.02, 0.014, 0.04, "6b4a3a")
        for y, wide in ((0.05, 0.1), (0.14, 0.075)):
            tree.convex([(-wide, y), (wide, y), (0, y + 0.16)], "f7fbff", low="3e7f7a")
    for pen, _ in repeats(canvas, 1.0, 1.9, 0.3):
        _snowman(pen.at(0.75, 0.1))
    _flakes(canvas, t)


def _snowman(pen: Pen) -> None:
    pen.ellipse(0, 0.07, 0.09, 0.085, "ffffff", low="cfdef0")
    pen.ellipse(0, 0.19, 0.06, 0.058, "ffffff", low="dfeaf7")
    pen.line(-0.05, 0.14, 0.05, 0.14, 0.014, "d94f5c")
    pen.line(0, 0.19, -0.05, 0.185, 0.011, "ff8c2e", r1=0.003)
    for x in (-0.022, 0.022):
        pen.ellipse(x, 0.21, 0.008, 0.008, "2b2233")


def _flakes(canvas: Canvas, t: float) -> None:
    for pen, k in repeats(canvas, 0.8, 0.16, 0.08):
        for salt in range(2):
            y = 0.95 - (0.11 * t + 1.1 * varied(k, salt)) % 1.1
            pen.ellipse(0.15 * varied(k, salt + 2) + 0.03 * math.sin(t + k), y, 0.009, 0.009, "ffffff", alpha=0.9)


def space(canvas: Canvas, t: float) -> None:
    canvas.rows(((1.0, "0b0724"), (0.6, "24104f"), (HORIZON, "54206f")), ())
    _stars(canvas, 1.0)
    far = canvas.pen(0.1)
    far.ellipse(-0.42, 0.7, 0.15, 0.15, "f2a65a", low="c4553b")
    far.line(-0.54, 0.66, -0.3, 0.74, 0.02, "f9cf8e")
    far.line(-0.66, 0.63, -0.18, 0.77, 0.011, "ffe8bd")
    far.ellipse(0.5, 0.78, 0.08, 0.08, "63c7e8", low="2f6fb5")
    for pen, k in repeats(canvas, 0.5, 0.6, 0.5):
        pen.ellipse(0.1, HORIZON - 0.05, 0.36, 0.1 + 0.05 * varied(k), "837fa8", low="6a6692")
    left, right = canvas.seen(1.0)
    canvas.pen(1.0).box((left + right) / 2, -0.26, (right - left) / 2 + 0.1, 0.43, "b6b3cf", low="6e6a94")
    for pen, k in repeats(canvas, 1.0, 0.42, 0.2):
        pen.ellipse(0.1 * varied(k), -0.07 + 0.18 * varied(k, 2), 0.07 + 0.03 * varied(k), 0.02, "827ea6")


def stage(canvas: Canvas, t: float) -> None:
    canvas.rows((), ((1.0, "6a0f22"), (HORIZON, "a31a33"), (HORIZON, "d69552"), (-0.2, "8a5526")))
    for pen, _ in repeats(canvas, 0.9, 0.17, 0.1):
        pen.box(0, 0.61, 0.034, 0.41, "7d1229", low="6a0f22")
        pen.box(0.055, 0.61, 0.015, 0.41, "c42743", low="b0203b")
    for pen, _ in repeats(canvas, 0.9, 0.26, 0.2):
        pen.ellipse(0, 0.92, 0.14, 0.09, "e0a32e")
        pen.ellipse(0, 0.935, 0.14, 0.09, "8a1630")
    for pen, _ in repeats(canvas, 1.0, 1.5, 0.6):
        for side in (-1, 1):
            pen.convex([(side * 0.42, 1.0), (side * 0.5, 1.0), (side * 0.28, 0.04), (side * -0.18, 0.04)], "fff3c4",
                        soft=0.05, alpha=0.16, glow=True)  # fmt: skip
        pen.ellipse(0, 0.02, 0.42, 0.065, "f6cf8b", soft=0.04, alpha=0.8)
    for pen, _ in repeats(canvas, 1.0, 0.24, 0.1):
        pen.line(-0.12, 0.15, 0.12, 0.15, 0.004, "9c602c")
        pen.ellipse(0, -0.1, 0.03, 0.02, "fff0b0", glow=True)


PLACES: dict[str, Callable[[Canvas, float], None]] = {
    "beach": beach,
    "forest": forest,
    "city": city,
    "room": room,
    "desert": desert,
    "snow": snow,
    "space": space,
    "stage": stage,
}
