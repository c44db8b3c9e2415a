"""What a scene is: who, what, where, doing what, in which light, seen by which camera. The rest is drawn from it.

A scene has no length: it can be asked for any second. `drawn_scene` draws one at random; `cut_scene` is the same scene
after a cut.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .lights import LIGHTS
from .looks import CHARACTERS
from .places import PLACES
from .things import OBJECTS

ACTIONS = ("stands", "walks left", "walks right", "jumps", "waves", "nods", "talks")
CAMERAS = ("still", "pans left", "pans right", "zooms in", "zooms out", "tilts up")
SHOTS = ("wide", "medium", "close")
SIDES = ("front", "left", "right")
BACKGROUNDS, TIMES = tuple(PLACES), tuple(LIGHTS)
# The tags that the shot switching checkpoint was trained with.
CUTS = ("ZOOM_IN_CUT", "ZOOM_OUT_CUT", "SHOT_REVERSE_SHOT_CUT", "MULTI_ANGLE_CUT", "CUT_AWAY_CUT")
SEEDS = 1 << 16


@dataclass(frozen=True)
class Actor:
    """character: of CHARACTERS.  action: of ACTIONS.  holds: one of OBJECTS in the right hand, or None."""

    character: str
    action: str = "stands"
    holds: str | None = None


@dataclass(frozen=True)
class Scene:
    """actors: one or two different characters, from the left.  thing: one of OBJECTS on the ground, or None.

    place: of BACKGROUNDS.  time: of TIMES.  camera: of CAMERAS.  shot: of SHOTS.  side: of SIDES, where the camera
    stands.  subject: the character or object that the shot is of; None is all of the scene.
    seed: everything a prompt does not say, such as where exactly someone stands and when they blink.
    """

    actors: tuple[Actor, ...]
    place: str
    time: str = "day"
    thing: str | None = None
    camera: str = "still"
    shot: str = "wide"
    side: str = "front"
    subject: str | None = None
    seed: int = 0

    def __post_init__(self):
        names = [actor.character for actor in self.actors]
        if len(names) not in (1, 2) or len(set(names)) < len(names):
            raise ValueError(f"A scene has one or two different characters, but {names} were given.")
        for kind, value, known in (
            *(("character", actor.character, CHARACTERS) for actor in self.actors),
            *(("action", actor.action, ACTIONS) for actor in self.actors),
            *(("object", actor.holds, (None, *OBJECTS)) for actor in self.actors),
            ("object", self.thing, (None, *OBJECTS)),
            ("place", self.place, BACKGROUNDS),
            ("time", self.time, TIMES),
            ("camera", self.camera, CAMERAS),
            ("shot", self.shot, SHOTS),
            ("side", self.side, SIDES),
            ("subject", self.subject, (None, *names, *self.objects)),
        ):
            if value not in known:
                raise ValueError(f"The {kind} is {value!r}, but it is one of {', '.join(map(str, known))}.")

    @property
    def objects(self) -> tuple[str, ...]:
        """Every object, held ones first."""
        held = [actor.holds for actor in self.actors if actor.holds]
        return (*held, *([self.thing] if self.thing else []))

    @property
    def said(self) -> "Scene":
        """What a prompt can say of it."""
        return replace(self, seed=0)

    def chance(self, what: str) -> random.Random:
        """Random numbers of their own for every use, the same in every run."""
        return random.Random(f"{self.seed} {what}")


def drawn_scene(
    rng: random.Random,
    people: int | None = None,
    actions: Sequence[str] = ACTIONS,
    cameras: Sequence[str] = CAMERAS,
    shots: Sequence[str] = SHOTS,
    things: float = 0.5,
) -> Scene:
    """A scene at random. people: 1 or 2, None for either.  things: the chance of each object."""
    people = people or rng.choice((1, 1, 1, 2))
    free = list(OBJECTS)
    rng.shuffle(free)
    actors = tuple(
        Actor(name, rng.choice(actions), free.pop() if rng.random() < things else None)
        for name in rng.sample(CHARACTERS, people)
    )
    shot = rng.choice(shots)
    return Scene(
        actors=actors,
        place=rng.choice(BACKGROUNDS),
        time=rng.choice(TIMES),
        thing=free.pop() if rng.random() < things else None,
        camera=rng.choice(cameras),
        shot=shot,
        subject=None if shot == "wide" else rng.choice(actors).character,
        seed=rng.randrange(SEEDS),
    )


def possible_cuts(scene: Scene) -> tuple[str, ...]:
    """The tags that mean something in this scene."""
    possible = {
        "ZOOM_IN_CUT": scene.shot != "close",
        "ZOOM_OUT_CUT": scene.shot != "wide",
        "SHOT_REVERSE_SHOT_CUT": len(scene.actors) == 2,
        "MULTI_ANGLE_CUT": True,
        "CUT_AWAY_CUT": scene.thing is not None and scene.subject != scene.thing,
    }
    return tuple(tag for tag in CUTS if possible[tag])


def cut_scene(scene: Scene, tag: str) -> Scene:
    """The scene after a cut: the same people in the same clothes in the same place, framed anew, camera at rest.

    Raises ValueError for a cut that means nothing there, such as a reverse shot of someone alone.
    """
    if tag not in possible_cuts(scene):
        raise ValueError(f"[{tag}] means nothing here; possible are {', '.join(possible_cuts(scene))}.")
    names = [actor.character for actor in scene.actors]
    shown = scene.subject if scene.subject in names else names[0]
    changed = {
        "ZOOM_IN_CUT": {"shot": "close", "subject": shown},
        "ZOOM_OUT_CUT": {"shot": "wide", "subject": None},
        "SHOT_REVERSE_SHOT_CUT": {"shot": "close", "subject": names[1 - names.index(shown)] if names[1:] else None},
        "MULTI_ANGLE_CUT": {"side": "right" if scene.side != "right" else "left"},
        "CUT_AWAY_CUT": {"shot": "close", "subject": scene.thing},
    }[tag]
    return replace(scene, camera="still", **changed)
