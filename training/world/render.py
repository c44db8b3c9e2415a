"""Frames of a scene, of any size."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .acting import pose_at, thing_place
from .cameras import place_shift, view_at
from .canvas import Canvas, Pen
from .figures import draw_figure
from .lights import LIGHTS
from .looks import LOOKS
from .places import PLACES
from .scenes import Scene
from .things import THINGS, draw_thing

SIZE = (96, 64)  # width, height: of the frames that the measures are made for
SHADOW = "1b1430"
Mouths = Sequence[float | None]  # of every actor


def render(
    scene: Scene, t: float, size: tuple[int, int] = SIZE, mouths: Mouths = (None, None), people: bool = True
) -> np.ndarray:
    """The frame at second t, uint8 [height, width, 3].

    size: width, height.  mouths: openness of each actor, 0 to 1; None lets the action decide.
    people: False leaves actors and objects out: the background, completed.
    """
    width, height = size
    view = view_at(scene, t)
    canvas = Canvas(height, width, replace(view, x=view.x + place_shift(scene)), LIGHTS[scene.time])
    PLACES[scene.place](canvas, t)
    canvas.view, canvas.light = view, canvas.light.near
    if people:
        draw_people(canvas.pen(), scene, t, mouths)
    return to_bytes(canvas.pixels)


def render_clip(
    scene: Scene,
    frames: int,
    fps: float = 24,
    start: float = 0.0,
    size: tuple[int, int] = SIZE,
    mouths: np.ndarray | None = None,
) -> np.ndarray:
    """Frames uint8 [frames, height, width, 3] from second `start` on. mouths: [actors, frames], NaN: as it acts."""
    out = np.empty((frames, size[1], size[0], 3), np.uint8)
    for i in range(frames):
        now = (None, None) if mouths is None else [None if np.isnan(m) else float(m) for m in mouths[:, i]]
        out[i] = render(scene, start + i / fps, size, now)
    return out


def draw_people(world: Pen, scene: Scene, t: float, mouths: Mouths = (None, None)) -> None:
    """Paints actors with what they hold, and the object on the ground, with their shadows."""
    for index, actor in enumerate(scene.actors):
        pose = pose_at(scene, index, t, mouths[index])
        world.ellipse(pose.x, 0.0, 0.16, 0.03, SHADOW, soft=0.03, alpha=0.3)
        draw_figure(world, LOOKS[actor.character], pose, _held(actor.holds, t))
    if scene.thing:
        x, y = thing_place(scene)
        thing = THINGS[scene.thing]
        world.ellipse(x, y, 0.09, 0.02, SHADOW, soft=0.02, alpha=0.3)
        draw_thing(world.at(x, y + thing.rest), thing, t)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of float32 [3, H, W] in 0 to 1."""
    return (pixels.transpose(1, 2, 0).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _held(name: str | None, t: float):
    if name is None:
        return None
    thing = THINGS[name]
    return lambda hand: draw_thing(hand.at(-thing.grip[0], -thing.grip[1]), thing, t)
