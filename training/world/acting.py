"""Where everyone is at a second of a scene, and in which pose. Pure functions of the scene and the time."""

import math

from .figures import Pose
from .looks import LOOKS
from .scenes import Scene

WALK = 0.24  # world units a second
STEPS = 1.5  # double steps a second
BLINK = 0.16  # seconds
HOLDING = 1.35  # radians of the arm that holds something


def start_x(scene: Scene, index: int) -> float:
    """Where an actor stands at second 0."""
    chance = scene.chance(f"start {index}")
    jitter = chance.uniform(-0.06, 0.06)
    if len(scene.actors) == 2:
        side = -1 if index == 0 else 1
        if scene.side != "front":  # seen from the other side they have changed places
            side = -side
        return 0.31 * side + 0.5 * jitter
    return jitter - 0.22 * direction(scene.actors[0].action)


def direction(action: str) -> int:
    """-1 where an action goes to the left, 1 to the right, 0 nowhere."""
    return {"walks left": -1, "walks right": 1}.get(action, 0)


def actor_x(scene: Scene, index: int, t: float) -> float:
    return start_x(scene, index) + WALK * direction(scene.actors[index].action) * t


def chatter(scene: Scene, index: int, t: float) -> float:
    """Openness of a mouth that talks without a recording."""
    phase = scene.chance(f"chatter {index}").uniform(0, 60)
    t = t + phase
    syllables = 0.5 - 0.5 * math.cos(2 * math.pi * 3.6 * t + 1.3 * math.sin(2 * math.pi * 0.83 * t))
    loud = 0.6 + 0.4 * math.sin(2 * math.pi * 0.47 * t)
    pause = min(1.0, max(0.0, 4 * (0.78 + math.sin(2 * math.pi * 0.31 * t))))
    return syllables * loud * pause


def pose_at(scene: Scene, index: int, t: float, mouth: float | None = None) -> Pose:
    """The pose of an actor at second t. mouth: 0 to 1 where speech says so, else the action does."""
    actor = scene.actors[index]
    phase = scene.chance(f"phase {index}").uniform(0, 2 * math.pi)
    breath = math.sin(1.9 * t + phase)
    y, stride, tilt, nod, lower = 0.0, 0.0, 0.0, 0.015 * math.sin(1.1 * t + phase), 0.0
    left, right = 0.3 + 0.03 * breath, 0.3 + 0.03 * breath
    facing = 0.55 * (1 if index == 0 else -1) * (-1 if scene.side != "front" else 1) if scene.actors[1:] else 0.0
    if scene.side != "front":
        facing += 0.8 if scene.side == "left" else -0.8
    if step := direction(actor.action):
        beat = 2 * math.pi * STEPS * t + phase
        stride, facing = math.sin(beat), float(step)
        y = 0.014 * abs(math.cos(beat))
        left, right = 0.3 + 0.35 * max(0.0, stride), 0.3 + 0.35 * max(0.0, -stride)
        tilt = -0.03 * step
    elif actor.action == "jumps":
        beat = (1.1 * t + phase) % 1.0
        y = 0.17 * max(0.0, math.sin(math.pi * (beat - 0.25) / 0.75)) if beat > 0.25 else 0.0
        lower = 0.03 * math.sin(math.pi * beat / 0.25) if beat < 0.25 else 0.0
        left = right = 0.45 + 9 * min(y, 0.14)
    elif actor.action == "waves":
        swing = 2.45 + 0.38 * math.sin(2 * math.pi * 1.7 * t + phase)
        left, right = (swing, right) if actor.holds else (left, swing)
        tilt = 0.02 * math.sin(2 * math.pi * 0.85 * t + phase)
    elif actor.action == "nods":
        lower = 0.021 * (1 - math.cos(2 * math.pi * 1.25 * t + phase))
    elif actor.action == "talks":
        left = 0.45 + 0.2 * math.sin(2.3 * t + phase)
        right = 0.45 + 0.2 * math.sin(2.9 * t + phase + 1)
        nod += 0.025 * math.sin(3.1 * t + phase)
    if actor.holds:
        right = HOLDING + 0.05 * breath
    if not LOOKS[actor.character].legs:
        y += 0.035 + 0.018 * math.sin(2.2 * t + phase)
    if mouth is None:
        mouth = chatter(scene, index, t) if actor.action == "talks" else 0.0
    return Pose(
        x=actor_x(scene, index, t),
        y=y,
        facing=max(-1.0, min(1.0, facing)),
        stride=stride,
        arms=(left, right),
        tilt=tilt,
        nod=nod,
        lower=lower - 0.003 * breath,
        mouth=min(1.0, max(0.0, mouth)),
        blink=_blink(scene, index, t),
    )


def _blink(scene: Scene, index: int, t: float) -> float:
    """Every few seconds the eyes close and open within BLINK."""
    chance = scene.chance(f"blink {index}")
    every, first = chance.uniform(2.3, 3.9), chance.uniform(0.4, 2.0)
    since = (t - first) % every
    return 1 - abs(2 * since / BLINK - 1) if since < BLINK else 0.0


def thing_place(scene: Scene) -> tuple[float, float]:
    """Where the object on the ground stands: x, and y of the ground there."""
    chance = scene.chance("thing")
    if len(scene.actors) == 2:
        return chance.uniform(-0.03, 0.03), -0.07
    side = direction(scene.actors[0].action) or chance.choice((-1, 1))
    if scene.actors[0].holds:
        side = -1
    x = start_x(scene, 0) + 0.37 * side + chance.uniform(-0.02, 0.04)
    return x if abs(x) < 0.55 else math.copysign(0.55, x), -0.05
