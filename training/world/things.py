"""The ten objects. Each is drawn round its middle, about 0.2 high, and has a grip where a hand holds it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .canvas import Pen
from .figures import INK


@dataclass(frozen=True)
class Thing:
    """draw: paints it, at seconds t.  grip: of the hand, from its middle.  rest: height of its middle on the ground.
    shines: it has a halo."""

    name: str
    draw: Callable[[Pen, float], None]
    grip: tuple[float, float]
    rest: float = 0.1
    shines: bool = False


def _ball(pen: Pen, t: float) -> None:
    turned = pen.at(0, 0, angle=-0.4)
    turned.ellipse(0, 0, 0.1, 0.1, "fbfbfb")
    turned.ellipse(-0.052, 0, 0.036, 0.084, "ef3b4a", lined=False)
    turned.ellipse(0.052, 0, 0.036, 0.084, "2d7ff0", lined=False)
    turned.ellipse(0, 0, 0.02, 0.096, "ffc928", lined=False)
    pen.ellipse(-0.035, 0.045, 0.02, 0.014, "ffffff", lined=False)


def _cup(pen: Pen, t: float) -> None:
    pen.ellipse(-0.082, 0.0, 0.046, 0.05, "19b5a5")
    pen.ellipse(-0.082, 0.0, 0.022, 0.026, INK, lined=False)
    pen.polygon([(-0.065, -0.085), (0.065, -0.085), (0.08, 0.075), (-0.08, 0.075)], "22d3c0", 0.012, low="129488")
    pen.ellipse(0, 0.078, 0.085, 0.02, "f2fffd", lined=False)
    pen.ellipse(0, 0.076, 0.065, 0.012, "6b3d22", lined=False)
    pen.ellipse(0, -0.01, 0.028, 0.028, "f2fffd", lined=False)


def _kite(pen: Pen, t: float) -> None:
    sway = 0.02 * math.sin(4 * t)
    pen.curve([(0, -0.12), (0.03 + sway, -0.17), (-0.02 - sway, -0.21), (0.015, -0.25)], 0.006, "f4f1ea", lined=False)
    pen.polygon([(0, 0.14), (0.1, 0.02), (0, -0.13), (-0.1, 0.02)], "ff3d7f", 0.004)
    pen.polygon([(0, 0.13), (0, 0.02), (-0.093, 0.02)], "ffe14a", lined=False)
    pen.polygon([(0, 0.02), (0, -0.12), (0.093, 0.02)], "3be0ff", lined=False)


def _lamp(pen: Pen, t: float) -> None:
    pen.box(0, -0.05, 0.01, 0.06, "b5762a")
    pen.ellipse(0, -0.105, 0.06, 0.018, "b5762a")
    pen.polygon([(-0.092, 0.0), (0.092, 0.0), (0.05, 0.105), (-0.05, 0.105)], "fff3a0", 0.008, low="ffd24a", glow=True)


def _umbrella(pen: Pen, t: float) -> None:
    pen.line(0, -0.16, 0, 0.1, 0.009, "8a5a34")
    pen.polygon([(-0.13, 0.045), (-0.1, 0.11), (-0.04, 0.145), (0.04, 0.145), (0.1, 0.11), (0.13, 0.045)],
                "e0245e", 0.01)  # fmt: skip
    pen.polygon([(-0.05, 0.043), (-0.035, 0.147), (0.035, 0.147), (0.05, 0.043)], "fff3f6", 0.004, lined=False)
    pen.ellipse(0, 0.175, 0.012, 0.016, "8a5a34")


def _fish(pen: Pen, t: float) -> None:
    sway = 0.02 * math.sin(7 * t)
    pen.polygon([(0.06, 0), (0.145, 0.065 + sway), (0.145, -0.065 + sway)], "ff7a1a", 0.01)
    pen.ellipse(-0.02, 0, 0.108, 0.07, "ff9a2e", low="ff7a1a")
    pen.box(-0.035, 0, 0.013, 0.058, "ffffff", radius=0.01, lined=False)
    pen.box(0.03, 0, 0.012, 0.05, "ffffff", radius=0.01, lined=False)
    pen.ellipse(-0.085, 0.02, 0.017, 0.017, "ffffff", lined=False)
    pen.ellipse(-0.089, 0.02, 0.01, 0.01, INK, lined=False)


def _balloon(pen: Pen, t: float) -> None:
    sway = 0.012 * math.sin(2.2 * t)
    pen.curve([(0, -0.2), (0.01, -0.12), (sway, -0.05)], 0.005, "f4f1ea", lined=False)
    pen.polygon([(sway - 0.02, -0.06), (sway + 0.02, -0.06), (sway, -0.03)], "d3121f", 0.003)
    pen.ellipse(sway, 0.06, 0.092, 0.108, "ff2b38", low="d3121f")
    pen.ellipse(sway - 0.035, 0.1, 0.02, 0.03, "ffb3b8", angle=-0.4, lined=False)


def _flower(pen: Pen, t: float) -> None:
    pen.line(0, -0.13, 0, 0.03, 0.01, "2f9e44")
    pen.ellipse(0.04, -0.06, 0.04, 0.018, "40c057", angle=0.5)
    for i in range(6):
        a = i * math.pi / 3 + 0.1 * math.sin(2 * t)
        pen.ellipse(0.06 * math.sin(a), 0.06 + 0.06 * math.cos(a), 0.037, 0.037, "fffdf5")
    pen.ellipse(0, 0.06, 0.038, 0.038, "ffb700", lined=False)


def _book(pen: Pen, t: float) -> None:
    pen.box(0, 0, 0.085, 0.105, "1f7a3d", radius=0.012, low="125a2b")
    pen.box(0.07, 0, 0.012, 0.092, "fffbe8", lined=False)
    pen.box(-0.068, 0, 0.012, 0.105, "0e4521", lined=False)
    pen.box(0.0, 0.04, 0.04, 0.022, "ffd23f", lined=False)


def _guitar(pen: Pen, t: float) -> None:
    pen.line(0, 0.0, 0, 0.18, 0.014, "5a3417")
    pen.box(0, 0.19, 0.024, 0.026, "3b2110", radius=0.008)
    pen.ellipse(0, 0.005, 0.06, 0.055, "c8762b")
    pen.ellipse(0, -0.075, 0.085, 0.075, "d98a38", low="b5641e")
    pen.ellipse(0, -0.04, 0.027, 0.027, "3b2110", lined=False)
    pen.box(0, -0.105, 0.035, 0.008, "3b2110", lined=False)


THINGS: dict[str, Thing] = {
    thing.name: thing
    for thing in (
        Thing("ball", _ball, (-0.07, -0.06), 0.1),
        Thing("cup", _cup, (-0.105, 0.0), 0.097),
        Thing("kite", _kite, (0.0, -0.24), 0.26),
        Thing("lamp", _lamp, (-0.03, -0.1), 0.12, shines=True),
        Thing("umbrella", _umbrella, (-0.0, -0.15), 0.17),
        Thing("fish", _fish, (-0.05, -0.055), 0.09),
        Thing("balloon", _balloon, (0.0, -0.19), 0.24),
        Thing("flower", _flower, (0.0, -0.1), 0.14),
        Thing("book", _book, (-0.08, -0.06), 0.105),
        Thing("guitar", _guitar, (0.0, 0.12), 0.15),
    )
}
OBJECTS = tuple(THINGS)


def draw_thing(pen: Pen, thing: Thing, t: float) -> None:
    """Paints an object, the pen in its middle."""
    if thing.shines:
        pen.ellipse(0, 0.03, 0.17, 0.15, "fff3a0", soft=0.2, alpha=0.45, glow=True)
    with pen.canvas.outline(0.009):
        thing.draw(pen, t)
