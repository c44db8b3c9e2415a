"""The twelve characters. Each is told apart at 96 x 64 by its shape, its colours and what it wears on its head."""

import math

from .canvas import Pen
from .figures import INK, LOOK_ASIDE, Look, Pose


def _blush(pen: Pen, colour: str = "f59a9a") -> None:
    for side in (-1, 1):
        pen.ellipse(side * 0.105, -0.045, 0.024, 0.016, colour, lined=False)


# --- robot: a box with an antenna


def _robot_hat(head: Pen, pose: Pose) -> None:
    head.box(0, 0.172, 0.012, 0.035, "7d93a8")
    head.ellipse(0, 0.222, 0.03, 0.03, "ff4d4d", glow=True)


def _robot_back(head: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        head.box(side * 0.178, 0, 0.022, 0.05, "5f7c99", radius=0.012)


def _robot_features(pen: Pen, pose: Pose) -> None:
    pen.box(0, -0.01, 0.125, 0.105, "dff6fb", radius=0.04, lined=False)


def _robot_worn(pen: Pen, pose: Pose) -> None:
    pen.box(0, 0.22, 0.05, 0.036, "34495e", radius=0.01, lined=False)
    for i, colour in enumerate(("ff4d4d", "ffd23f", "3ddc84")):
        pen.ellipse(-0.027 + 0.027 * i, 0.22, 0.0105, 0.0105, colour, lined=False, glow=True)


# --- fox: pointed ears, white cheeks, a brush


def _fox_tail(pen: Pen, pose: Pose) -> None:
    sway = 0.02 * math.sin(6 * pose.x + 3 * pose.stride)
    side = -1 if pose.facing > 0.3 else 1
    pen.line(side * 0.07, 0.13, side * (0.2 + sway), 0.2, 0.035, "f0802b", r1=0.06)
    pen.line(side * (0.2 + sway), 0.2, side * (0.225 + sway), 0.27, 0.058, "f0802b", r1=0.035)
    pen.line(side * (0.222 + sway), 0.262, side * (0.23 + sway), 0.3, 0.04, "fff4e6", r1=0.014)


def _fox_ears(head: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        head.polygon([(side * 0.15, 0.06), (side * 0.03, 0.125), (side * 0.135, 0.255)], "f0802b", radius=0.01)
        head.polygon([(side * 0.125, 0.12), (side * 0.075, 0.14), (side * 0.126, 0.215)], "4a2a1f", lined=False)


def _fox_features(pen: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 0.068, -0.062, 0.082, 0.07, "fff4e6", angle=side * 0.35, lined=False)
    pen.ellipse(0, -0.07, 0.08, 0.068, "fff4e6", lined=False)
    pen.ellipse(0, -0.018, 0.02, 0.014, INK, lined=False)


def _fox_worn(pen: Pen, pose: Pose) -> None:
    pen.box(0, 0.312, 0.085, 0.024, "2f9e6e", radius=0.02)
    pen.box(0.05, 0.268, 0.022, 0.045, "2f9e6e", radius=0.012)


# --- astronaut: a white suit and a round helmet


def _helmet(head: Pen, pose: Pose) -> None:
    head.ellipse(0, 0.005, 0.205, 0.19, "f3f5f8", low="c3cbd8")


def _visor(pen: Pen, pose: Pose) -> None:
    pen.polygon([(-0.1, 0.11), (0.02, 0.13), (0.1, 0.1), (0.03, 0.075), (-0.05, 0.085)], "7a4a2b", 0.018, lined=False)
    _blush(pen, "f09a80")


def _visor_edge(head: Pen, pose: Pose) -> None:
    head.line(0.11, 0.1, 0.135, 0.06, 0.011, "ffffff", lined=False)
    head.ellipse(0.2, 0.1, 0.022, 0.022, "ff9f1c")


def _suit(pen: Pen, pose: Pose) -> None:
    pen.box(0, 0.225, 0.05, 0.038, "5a6b85", radius=0.012, lined=False)
    pen.box(-0.017, 0.23, 0.016, 0.014, "ff5964", lined=False)
    pen.box(0.022, 0.23, 0.012, 0.014, "39c0ed", lined=False)
    pen.box(0, 0.12, 0.095, 0.012, "ff9f1c", lined=False)


def _pack(pen: Pen, pose: Pose) -> None:
    pen.box(0, 0.23, 0.135, 0.09, "9aa5b8", radius=0.03)


# --- ghost: a sheet that floats


def _sheet(pen: Pen, pose: Pose) -> None:
    wave = 0.012 * math.sin(9 * pose.x + 4 * pose.stride)
    pen.polygon([(-0.125, 0.08), (0.125, 0.08), (0.11, 0.36), (-0.11, 0.36)], "eef0ff", 0.03, low="b9b5f2")
    for i in range(3):
        pen.ellipse(-0.1 + 0.1 * i, 0.06 + wave * (-1) ** i, 0.052, 0.055, "b9b5f2")


def _wisp(head: Pen, pose: Pose) -> None:
    head.polygon([(-0.09, 0.12), (0.08, 0.13), (0.035, 0.195), (0.085, 0.235), (-0.02, 0.215)], "f6f7ff", 0.012)


# --- king: crown, beard at the sides, red cape


def _cape(pen: Pen, pose: Pose) -> None:
    pen.polygon([(-0.165, 0.05), (0.165, 0.05), (0.1, 0.31), (-0.1, 0.31)], "c81d38", 0.025, low="8c1230")
    for i in range(5):
        pen.ellipse(-0.152 + 0.076 * i, 0.04, 0.036, 0.024, "fff6ea")


def _crown(head: Pen, pose: Pose) -> None:
    points = [(-0.13, 0.105), (0.13, 0.105), (0.155, 0.25), (0.075, 0.175), (0, 0.27), (-0.075, 0.175), (-0.155, 0.25)]
    head.polygon(points, "ffd23f", 0.006, low="f0a51e")
    for x, colour in ((-0.075, "e8384f"), (0, "3a86ff"), (0.075, "e8384f")):
        head.ellipse(x, 0.135, 0.018, 0.018, colour, lined=False)


def _king_beard(pen: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        pen.line(side * 0.15, 0.03, side * 0.115, -0.1, 0.026, "f4f1ea", r1=0.035, lined=False)
    pen.line(-0.09, -0.138, 0.09, -0.138, 0.03, "f4f1ea", lined=False)
    pen.ellipse(0, -0.026, 0.02, 0.014, "e59a7c", lined=False)


def _ermine(pen: Pen, pose: Pose) -> None:
    pen.box(0, 0.302, 0.1, 0.028, "fff6ea", radius=0.025)
    pen.ellipse(0, 0.245, 0.02, 0.02, "ffd23f", lined=False)


# --- wizard: a tall blue hat with a star, a long beard below the mouth


def _wizard_hat(head: Pen, pose: Pose) -> None:
    head.polygon(
        [(-0.13, 0.11), (0.13, 0.11), (0.05, 0.27), (0.075, 0.38), (-0.01, 0.31)], "3446c4", 0.012, low="2433a0"
    )
    head.ellipse(0, 0.1, 0.22, 0.034, "4659e0")
    star = [
        (0.004 + r * math.sin(a), 0.19 + r * math.cos(a))
        for a, r in ((i * math.pi / 5, 0.042 if i % 2 == 0 else 0.018) for i in range(10))
    ]
    head.polygon(star, "ffe066", lined=False, glow=True)


def _wizard_beard(head: Pen, pose: Pose) -> None:
    head.polygon(
        [(-0.14, -0.05), (0.14, -0.05), (0.06, -0.22), (0, -0.3), (-0.06, -0.22)], "e8ecf4", 0.02, low="b9c3d6"
    )


def _wizard_features(pen: Pen, pose: Pose) -> None:
    pen.ellipse(0, -0.022, 0.026, 0.019, "e8977a", lined=False)
    for side in (-1, 1):
        pen.line(side * 0.1, 0.076, side * 0.04, 0.084, 0.011, "e8ecf4", lined=False)


def _robe(pen: Pen, pose: Pose) -> None:
    pen.polygon([(-0.12, 0.05), (0.12, 0.05), (0.09, 0.2), (-0.09, 0.2)], "3446c4", 0.025, low="2433a0")
    pen.box(0, 0.175, 0.105, 0.014, "ffe066", radius=0.01, lined=False)


# --- panda: black ears and eye patches, a bamboo-green waistcoat


def _panda_ears(head: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        head.ellipse(side * 0.128, 0.125, 0.056, 0.056, "2a2a33")


def _panda_patches(pen: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        pen.ellipse(side * 0.07, 0.012, 0.052, 0.064, "2a2a33", angle=side * -0.5, lined=False)
    pen.ellipse(0, -0.03, 0.02, 0.013, "2a2a33", lined=False)


def _panda_belly(pen: Pen, pose: Pose) -> None:
    pen.ellipse(0, 0.19, 0.075, 0.075, "fbfbf7", lined=False)


# --- frog: eyes on top


def _frog_eyes(head: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        head.ellipse(side * 0.095, 0.125, 0.064, 0.064, "5cc24a")


def _frog_features(pen: Pen, pose: Pose) -> None:
    pen.ellipse(0, -0.07, 0.135, 0.068, "d9f2a0", lined=False)
    for side in (-1, 1):
        pen.ellipse(side * 0.016, -0.008, 0.006, 0.006, "2f7a2c", lined=False)


def _frog_belly(pen: Pen, pose: Pose) -> None:
    pen.ellipse(0, 0.2, 0.068, 0.085, "d9f2a0", lined=False)


# --- pirate: black hat with a bone, an eye patch, a striped shirt


def _pirate_hat(head: Pen, pose: Pose) -> None:
    head.polygon([(-0.205, 0.11), (0.205, 0.11), (0.13, 0.2), (0, 0.26), (-0.13, 0.2)], "26222e", 0.014)
    head.line(-0.19, 0.108, 0.19, 0.108, 0.012, "e6b422", lined=False)
    head.ellipse(0, 0.185, 0.03, 0.028, "f5f1e6", lined=False)
    head.line(-0.045, 0.15, 0.045, 0.15, 0.009, "f5f1e6", lined=False)


def _stripes(pen: Pen, pose: Pose) -> None:
    for y, wide in ((0.275, 0.078), (0.215, 0.096), (0.155, 0.115)):
        pen.box(0, y, wide, 0.015, "d6303a", radius=0.01, lined=False)
    pen.box(0, 0.115, 0.12, 0.02, "e6b422", radius=0.01, lined=False)


def _pirate_features(pen: Pen, pose: Pose) -> None:
    pen.line(-0.15, -0.09, -0.1, -0.125, 0.024, "3b2418", r1=0.026, lined=False)
    pen.line(0.15, -0.09, 0.1, -0.125, 0.024, "3b2418", r1=0.026, lined=False)
    pen.line(-0.1, -0.132, 0.1, -0.132, 0.022, "3b2418", lined=False)


def _eye_patch(head: Pen, pose: Pose) -> None:
    pen = head.at(LOOK_ASIDE * pose.facing, 0)
    pen.line(-0.14, 0.07, 0.14, -0.01, 0.008, "26222e", lined=False)
    pen.ellipse(-0.066, 0.022, 0.05, 0.052, "26222e", lined=False)
    _pirate_hat(head, pose)


# --- rabbit: long ears


def _rabbit_ears(head: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        ear = head.at(side * 0.07, 0.12, angle=-side * 0.16 - 0.08 * pose.stride)
        ear.ellipse(0, 0.11, 0.046, 0.135, "f7a8c4")
        ear.ellipse(0, 0.11, 0.022, 0.1, "fde3ec", lined=False)


def _rabbit_features(pen: Pen, pose: Pose) -> None:
    pen.ellipse(0, -0.075, 0.085, 0.062, "fff0f5", lined=False)
    pen.ellipse(0, -0.026, 0.018, 0.012, "d9487d", lined=False)
    _blush(pen, "f27ca4")


def _bow(pen: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        pen.polygon([(0, 0.3), (side * 0.06, 0.33), (side * 0.06, 0.27)], "7b4bd8", 0.008)
    pen.ellipse(0, 0.3, 0.018, 0.018, "5b2fb3", lined=False)


# --- dragon: horns, wings, a spiked tail


def _wings(pen: Pen, pose: Pose) -> None:
    lift = 0.03 * math.sin(5 * pose.x + 4 * pose.stride)
    for side in (-1, 1):
        points = [(0.07, 0.22), (0.21, 0.37 + lift), (0.265, 0.27 + lift), (0.2, 0.25), (0.2, 0.17), (0.13, 0.19)]
        pen.polygon([(side * x, y) for x, y in points], "f5c542", 0.012, low="e58a2e")
    pen.line(-0.06, 0.12, -0.2, 0.07, 0.045, "8a4fd0", r1=0.02)
    pen.polygon([(-0.19, 0.1), (-0.19, 0.045), (-0.26, 0.08)], "f5c542", 0.008)


def _horns(head: Pen, pose: Pose) -> None:
    for side in (-1, 1):
        head.polygon([(side * 0.115, 0.1), (side * 0.055, 0.13), (side * 0.15, 0.25)], "fff1c9", 0.01)
    for i in range(3):
        y = 0.195 - 0.012 * abs(i - 1)
        head.polygon([(-0.055 + 0.038 * i, 0.13), (-0.019 + 0.038 * i, 0.13), (-0.037 + 0.038 * i, y)], "f5c542", 0.006)


def _snout(pen: Pen, pose: Pose) -> None:
    pen.ellipse(0, -0.068, 0.115, 0.068, "d9b8f5", lined=False)
    for side in (-1, 1):
        pen.ellipse(side * 0.032, -0.03, 0.009, 0.007, "5b2a94", lined=False)


def _dragon_belly(pen: Pen, pose: Pose) -> None:
    pen.ellipse(0, 0.2, 0.066, 0.09, "f9e3a1", lined=False)
    for y in (0.165, 0.2, 0.235):
        pen.line(-0.045, y, 0.045, y, 0.005, "e0b866", lined=False)


# --- girl: yellow raincoat with a hood, black fringe


def _hood(head: Pen, pose: Pose) -> None:
    head.ellipse(0, 0.015, 0.215, 0.2, "ffc928", low="f0a41c")
    head.polygon([(-0.06, 0.19), (0.06, 0.19), (0.015, 0.25)], "ffc928", 0.012)


def _fringe(pen: Pen, pose: Pose) -> None:
    pen.polygon([(-0.128, 0.01), (-0.135, 0.1), (-0.06, 0.135), (0.06, 0.135), (0.135, 0.1), (0.128, 0.01),
                 (0.1, 0.075), (-0.08, 0.085)], "2a1c24", 0.012, lined=False)  # fmt: skip
    _blush(pen, "ee8a76")


def _buttons(pen: Pen, pose: Pose) -> None:
    for y in (0.27, 0.21, 0.15):
        pen.ellipse(0, y, 0.012, 0.012, "2f6fdb", lined=False)


LOOKS: dict[str, Look] = {
    look.name: look
    for look in (
        Look("robot", ("9fb4c7", "7b92a8"), "dff6fb", ("a9bdcf", "71889e"), "7d93a8", "5f7c99", "7d93a8", "4a627a",
             head=(0.165, 0.142, 0.035), voice=(95, 0.95), worn=_robot_worn, back_of_head=_robot_back,
             hat=_robot_hat, features=_robot_features),
        Look("fox", ("f58a32", "ea7424"), "fff4e6", ("f0802b", "e06d1c"), "f0802b", "4a2a1f", "e06d1c", "4a2a1f",
             voice=(190, 1.12), behind=_fox_tail, worn=_fox_worn, back_of_head=_fox_ears, features=_fox_features),
        Look("astronaut", ("f7cfa8", "f0bd92"), "f7cfa8", ("f3f5f8", "c9d1de"), "e6eaf0", "ff9f1c", "dde3ec", "8592a8",
             head=(0.152, 0.135, 0.12), hips=0.115, voice=(125, 1.0), behind=_pack, worn=_suit, back_of_head=_helmet,
             features=_visor, hat=_visor_edge),
        Look("ghost", ("f6f7ff", "d2d4ff"), "e3e4ff", ("eef0ff", "d4d2fb"), "e3e3ff", "f6f7ff", "b9b5f2", "b9b5f2",
             head=(0.16, 0.165, 0.155), legs=False, eye_size=1.1, voice=(240, 1.2), behind=_sheet, back_of_head=_wisp,
             features=lambda pen, pose: _blush(pen, "c9a0ee")),
        Look("king", ("f5c9a6", "ecb48c"), "f5c9a6", ("7b2cbf", "5a189a"), "7b2cbf", "f5c9a6", "3c1a66", "3b2418",
             hips=0.115, voice=(85, 0.9), behind=_cape, worn=_ermine, hat=_crown, features=_king_beard),
        Look("wizard", ("f3c9ae", "e9b797"), "f3c9ae", ("3446c4", "2433a0"), "4659e0", "f3c9ae", "2433a0", "5a3a22",
             head=(0.158, 0.145, 0.13), legs=True, voice=(110, 0.97), behind=_robe, back_of_head=_wizard_beard,
             hat=_wizard_hat, features=_wizard_features),
        Look("panda", ("ffffff", "ececec"), "f8f8f5", ("3a3a44", "2a2a33"), "2a2a33", "2a2a33", "2a2a33", "1d1d24",
             head=(0.178, 0.15, 0.145), hips=0.115, eye_size=0.85, voice=(140, 1.05), worn=_panda_belly,
             back_of_head=_panda_ears, features=_panda_patches),
        Look("frog", ("6ed055", "4cb53e"), "d9f2a0", ("5cc24a", "3f9f37"), "5cc24a", "8be36b", "4cb53e", "2f7a2c",
             head=(0.185, 0.13, 0.125), eyes=(0.095, 0.13), voice=(165, 1.15), worn=_frog_belly,
             back_of_head=_frog_eyes, features=_frog_features),
        Look("pirate", ("c98a5e", "b87a50"), "c98a5e", ("fbf3e4", "efe3cd"), "26335c", "c98a5e", "26335c", "26222e",
             voice=(105, 0.93), worn=_stripes, features=_pirate_features, hat=_eye_patch),
        Look("rabbit", ("f9b4cd", "f29abb"), "fff0f5", ("bfe8ff", "8fd0f2"), "a9ddfa", "f9b4cd", "f29abb", "e07aa3",
             voice=(230, 1.22), worn=_bow, back_of_head=_rabbit_ears, features=_rabbit_features),
        Look("dragon", ("9a5fe0", "7d41c4"), "d9b8f5", ("8a4fd0", "6f38b4"), "8a4fd0", "b98af0", "6f38b4", "4e2590",
             hips=0.112, voice=(90, 0.88), behind=_wings, worn=_dragon_belly, back_of_head=_horns, features=_snout),
        Look("girl", ("9c6846", "8a5838"), "9c6846", ("ffc928", "f0a41c"), "ffc928", "9c6846", "3f7fd6", "e23b3b",
             head=(0.155, 0.142, 0.13), hips=0.125, voice=(210, 1.16), worn=_buttons, back_of_head=_hood,
             features=_fringe),
    )
}  # fmt: skip
CHARACTERS = tuple(LOOKS)
