"""Reference images of a scene: its characters, object and place, taken from another moment and drawn anew.

A reference that is cut out of the clip teaches a model to paste it back. Here it has another pose, scale, light and
time; a subject stands on white, grey or another place, holds something else or nothing; the place is shown without
anyone, from another spot. What has to be kept is who it is.
"""

import random
from dataclasses import dataclass, replace

import numpy as np

from .acting import pose_at
from .canvas import Canvas, View
from .figures import HEAD, NECK, draw_figure
from .lights import LIGHTS
from .looks import LOOKS
from .places import PLACES
from .render import SIZE, to_bytes
from .scenes import ACTIONS, BACKGROUNDS, TIMES, Scene
from .things import THINGS, draw_thing

MOST = 4  # slots of the model
PLAIN = ("ffffff", "ffffff", "e8e8ec", "d8e4ee")
LATER = (3.0, 30.0)  # seconds after the clip's start that the other moment lies


@dataclass(frozen=True)
class Reference:
    """kind: "character", "object" or "place".  name: of what it shows.  image: uint8 [height, width, 3]."""

    kind: str
    name: str
    image: np.ndarray


def references(
    scene: Scene, rng: random.Random, size: tuple[int, int] = SIZE, count: int | None = None
) -> list[Reference]:
    """One to four references: the characters first, then the object and the place in any order.

    count: how many at most; None draws it.  size: width, height.
    """
    subjects = [("character", actor.character) for actor in scene.actors]
    others = [("object", name) for name in scene.objects[:1]] + [("place", scene.place)]
    rng.shuffle(others)
    wanted = [*subjects, *others][: count or rng.randint(1, MOST)]
    return [Reference(kind, name, _draw(scene, kind, name, rng, size)) for kind, name in wanted]


def _draw(scene: Scene, kind: str, name: str, rng: random.Random, size: tuple[int, int]) -> np.ndarray:
    if kind == "place":
        return place_image(name, rng, size, scene.time)
    if kind == "object":
        return object_image(name, rng, size)
    index = [actor.character for actor in scene.actors].index(name)
    return character_image(scene, index, rng, size)


def character_image(scene: Scene, index: int, rng: random.Random, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A character of a scene at another moment, doing something else, alone."""
    actor = replace(scene.actors[index], action=rng.choice(ACTIONS), holds=None)
    alone = Scene((actor,), scene.place, seed=rng.randrange(1 << 16))
    pose = replace(pose_at(alone, 0, rng.uniform(*LATER)), x=rng.uniform(-0.1, 0.1), y=0.0)
    whole = rng.random() < 0.4
    middle = 0.4 if whole else NECK + HEAD
    zoom = rng.uniform(1.0, 1.2) if whole else rng.uniform(1.5, 2.0)
    canvas = _canvas(size, View(0.0, middle, zoom), rng, scene.place)
    draw_figure(canvas.pen(), LOOKS[actor.character], pose)
    return to_bytes(canvas.pixels)


def object_image(name: str, rng: random.Random, size: tuple[int, int] = SIZE) -> np.ndarray:
    """An object alone, somewhat turned."""
    canvas = _canvas(size, View(rng.uniform(-0.04, 0.04), rng.uniform(-0.03, 0.03), rng.uniform(1.7, 2.6)), rng, None)
    pen = canvas.pen().at(0, 0, angle=rng.uniform(-0.2, 0.2), flip=rng.choice((-1, 1)))
    draw_thing(pen, THINGS[name], rng.uniform(*LATER))
    return to_bytes(canvas.pixels)


def place_image(name: str, rng: random.Random, size: tuple[int, int] = SIZE, time: str | None = None) -> np.ndarray:
    """A place without anyone, from another spot. time: of day; None draws it."""
    view = View(rng.uniform(0, 40), rng.uniform(0.34, 0.44), rng.uniform(0.95, 1.3))
    canvas = Canvas(size[1], size[0], view, LIGHTS[time or rng.choice(TIMES)])
    PLACES[name](canvas, rng.uniform(*LATER))
    return to_bytes(canvas.pixels)


def _canvas(size: tuple[int, int], view: View, rng: random.Random, place: str | None) -> Canvas:
    """Plain, or for a character now and then another place than its own."""
    canvas = Canvas(size[1], size[0], view, LIGHTS["day"].near, rng.choice(PLAIN))
    if place is not None and rng.random() < 0.35:
        light = LIGHTS[rng.choice(TIMES)]
        canvas.view, canvas.light = replace(view, x=rng.uniform(0, 40)), light
        PLACES[rng.choice([other for other in BACKGROUNDS if other != place])](canvas, rng.uniform(*LATER))
        canvas.view, canvas.light = view, light.near
    return canvas
