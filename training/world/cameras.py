"""What the camera sees at a second of a scene."""

import math

from .acting import actor_x, thing_place
from .canvas import View
from .scenes import Scene
from .things import THINGS

SHOT_VIEWS = {"wide": (0.37, 1.0), "medium": (0.43, 1.5), "close": (0.47, 1.9)}  # height of the middle, zoom
THING_ZOOM = 2.4
FOLLOWED = 0.3  # how far from the middle, in pictures' heights, a walker gets before the camera goes along
SOFT = 0.08  # how gently it starts to
EASE = 2.2  # seconds in which a move of the camera does most of its way
PAN, TILT = 0.3, 0.12
ZOOM = {"wide": 0.5, "medium": 0.4, "close": 0.25}  # by how much more at the end of it


def view_at(scene: Scene, t: float) -> View:
    """The view at second t: pure, smooth, and for any length of time."""
    height, zoom = SHOT_VIEWS[scene.shot]
    names = [actor.character for actor in scene.actors]
    if scene.subject is not None and scene.subject not in names:
        return _thing_view(scene, t)
    if scene.subject is None:
        centre, followed = 0.0, sum(actor_x(scene, i, t) for i in range(len(names))) / len(names)
    else:
        index = names.index(scene.subject)
        centre, followed = actor_x(scene, index, 0.0), actor_x(scene, index, t)
        if scene.shot == "wide":
            centre = 0.0
    x = centre + _beyond(followed - centre, FOLLOWED / zoom)
    if scene.side != "front":
        height, zoom = height - 0.05, zoom * 1.12
    done = 1 - math.exp(-t / EASE)
    if scene.camera == "pans left":
        x -= PAN * (done - 0.3) / zoom
    elif scene.camera == "pans right":
        x += PAN * (done - 0.3) / zoom
    elif scene.camera == "zooms in":
        zoom *= 1 + ZOOM[scene.shot] * done
        height += (0.46 - height) * done
    elif scene.camera == "zooms out":
        zoom *= 1 + ZOOM[scene.shot] * (1 - done)
        height += (0.46 - height) * (1 - done)
    elif scene.camera == "tilts up":
        height += TILT * (done - 0.5) / zoom
    return View(x, height, zoom)


def place_shift(scene: Scene) -> float:
    """How far along a place the scene is; another side of the scene has another part of the place behind it."""
    shift = scene.chance("place").uniform(0, 40)
    return shift + {"front": 0.0, "left": 1.3, "right": -1.3}[scene.side]


def _beyond(x: float, limit: float) -> float:
    """What of x lies beyond -limit..limit, with a soft start; its slope goes from 0 to 1."""
    return _ramp(x - limit) - _ramp(-x - limit) - (_ramp(-limit) - _ramp(-limit))


def _ramp(x: float) -> float:
    return 0.5 * (x + math.sqrt(x * x + SOFT * SOFT))


def _thing_view(scene: Scene, t: float) -> View:
    """A close shot of an object on the ground; a held one is shown on its own too."""
    x, y = thing_place(scene)
    thing = THINGS[scene.subject]
    return View(x + 0.02 * math.sin(0.5 * t), y + thing.rest + 0.02, THING_ZOOM)
