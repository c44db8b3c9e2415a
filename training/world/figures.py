"""How a character is drawn: legs, body, arms and head from a Look, in a Pose. What only one has is in `looks`."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from .canvas import Pen

SHOULDER, ARM = (0.098, 0.285), 0.15  # where an arm begins, and its length
NECK, HEAD = 0.325, 0.155  # height of the neck; of the head's middle above it
EYE, MOUTH = (0.066, 0.022), -0.062  # from the head's middle
MOUTH_COLOUR, TONGUE, INK = "5e1224", "ee7285", "2b2233"
LOOK_ASIDE = 0.026  # how far the face moves to the side that the character turns to


@dataclass(frozen=True)
class Pose:
    """One moment of a character.

    x, y: of the feet, in the world.  facing: -1 left to 1 right.  stride: legs, -1 to 1.  arms: left and right in the
    picture, radians from hanging down to the side.  tilt: of the body, nod: of the head; radians.  lower: the head,
    by so much.  mouth: 0 closed to 1 open.  blink: 0 open eyes to 1 closed.  stretch: of the body's height.
    """

    x: float = 0.0
    y: float = 0.0
    facing: float = 0.0
    stride: float = 0.0
    arms: tuple[float, float] = (0.35, 0.35)
    tilt: float = 0.0
    nod: float = 0.0
    lower: float = 0.0
    mouth: float = 0.0
    blink: float = 0.0
    stretch: float = 1.0
    size: float = 1.0


Draw = Callable[[Pen, Pose], None]


def nothing(pen: Pen, pose: Pose) -> None:
    """For a Look that has nothing there."""


@dataclass(frozen=True)
class Look:
    """What a character is made of. Colours are "rrggbb"; a pair is upper and lower.

    head: half width, half height, roundness of the corners.  face: colour around the mouth.  body: half width at the
    hips.  voice: hertz of the speech's pitch, and size of the mouth's resonances.
    behind, worn, hat, features: drawn behind everything, on the body, behind or above the head, in the face.
    """

    name: str
    skin: tuple[str, str]
    face: str
    coat: tuple[str, str]
    sleeve: str
    hand: str
    leg: str
    shoe: str
    head: tuple[float, float, float] = (0.168, 0.15, 0.14)
    hips: float = 0.104
    eyes: tuple[float, float] = EYE
    eye_size: float = 1.0
    legs: bool = True
    voice: tuple[float, float] = (150.0, 1.0)
    behind: Draw = nothing
    worn: Draw = nothing
    back_of_head: Draw = nothing
    hat: Draw = nothing
    features: Draw = nothing


def draw_figure(world: Pen, look: Look, pose: Pose, held: Callable[[Pen], None] | None = None) -> None:
    """Paints a character. held: paints what its right hand holds, with a pen whose origin is the hand."""
    pen = body_pen(world, pose)
    paint = world.canvas.outline
    with paint():
        look.behind(pen, pose)
    if look.legs:
        with paint():
            _legs(pen, look, pose)
    with paint():
        pen.polygon(
            [(-look.hips, 0.125), (look.hips, 0.125), (0.062, 0.315), (-0.062, 0.315)],
            look.coat[0],
            radius=0.032,
            low=look.coat[1],
        )
        look.worn(pen, pose)
    for side, angle in zip((-1, 1), pose.arms):
        with paint():
            _arm(pen, look, side, angle)
    draw_head(head_pen(pen, pose), look, pose)
    if held is not None:
        hand = hand_pen(world, pose)
        held(hand)
        with paint(0.009):
            hand.ellipse(0, 0, 0.027, 0.027, look.hand)


def draw_head(head: Pen, look: Look, pose: Pose) -> None:
    """Paints the head alone; the pen stands in its middle."""
    wide, high, corner = look.head
    with head.canvas.outline():
        look.back_of_head(head, pose)
        head.box(0, 0, wide, high, look.skin[0], radius=corner, low=look.skin[1])
        look.features(head.at(LOOK_ASIDE * pose.facing, 0), pose)
        _eyes(head.at(LOOK_ASIDE * pose.facing, 0), look, pose)
        draw_mouth(head.at(LOOK_ASIDE * pose.facing, MOUTH), pose.mouth)
        look.hat(head, pose)


def body_pen(world: Pen, pose: Pose) -> Pen:
    return world.at(pose.x, pose.y, angle=pose.tilt, scale=pose.size)


def head_pen(body: Pen, pose: Pose) -> Pen:
    """Stands in the middle of the head."""
    neck = body.at(0, NECK * pose.stretch - pose.lower, angle=pose.nod)
    return neck.at(0, HEAD)


def hand_pen(world: Pen, pose: Pose) -> Pen:
    """Upright, on the right hand."""
    angle = pose.arms[1]
    x, y = SHOULDER[0] + ARM * math.sin(angle), SHOULDER[1] - ARM * math.cos(angle)
    return body_pen(world, pose).at(x, y, angle=-pose.tilt)


def draw_mouth(pen: Pen, openness: float) -> None:
    """A smile that opens: nothing but its height changes, in step with the openness."""
    high = 0.0065 + 0.0425 * openness
    wide = 0.052 - 0.006 * openness
    pen.curve([(-wide, 0.012), (-0.026, 0.001), (0.026, 0.001), (wide, 0.012)], 0.0065, MOUTH_COLOUR, lined=False)
    pen.ellipse(0, -0.6 * high, 0.046, high, MOUTH_COLOUR, lined=False)
    if openness > 0.25:
        pen.ellipse(0, -1.12 * high, 0.026, 0.36 * high, TONGUE, lined=False)


def _eyes(pen: Pen, look: Look, pose: Pose) -> None:
    x, y = look.eyes
    size = look.eye_size
    for side in (-1, 1):
        eye = pen.at(side * x, y, scale=size)
        if pose.blink > 0.6:
            eye.curve([(-0.03, 0.004), (0, -0.006), (0.03, 0.004)], 0.008, INK, lined=False)
            continue
        open_ = 1 - pose.blink
        eye.ellipse(0, 0, 0.037, 0.045 * open_, "ffffff", lined=False)
        eye.ellipse(0.01 * pose.facing, -0.002, 0.0235, 0.03 * open_, INK, lined=False)
        eye.ellipse(0.01 * pose.facing - 0.008, 0.011 * open_, 0.0085, 0.0085, "ffffff", lined=False)


def _legs(pen: Pen, look: Look, pose: Pose) -> None:
    for side in (-1, 1):
        swing = pose.stride * side
        foot = (side * 0.052 + 0.055 * swing, 0.026 + 0.03 * max(0.0, swing * (pose.facing or 1)))
        pen.line(side * 0.048, 0.125, *foot, 0.036, look.leg)
        pen.ellipse(foot[0] + 0.014 * pose.facing, foot[1] - 0.002, 0.05, 0.03, look.shoe)


def _arm(pen: Pen, look: Look, side: int, angle: float) -> None:
    x, y = side * SHOULDER[0], SHOULDER[1]
    hand = (x + side * ARM * math.sin(angle), y - ARM * math.cos(angle))
    pen.line(x, y, *hand, 0.031, look.sleeve, r1=0.027)
    pen.ellipse(*hand, 0.035, 0.035, look.hand)
