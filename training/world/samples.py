"""What each of the four jobs is trained on: frames, what is given of them, and the prompt.

Pixels are uint8 [F, H, W, 3]; `signed` makes of them what a VAE encodes. Lengths and layouts are those of the jobs
themselves (skyreels_v3): 24 frames a second, 25 for the avatar, 4n + 1 frames, a continue's new frames 4n.
"""

import random
from dataclasses import dataclass, replace

import numpy as np
import torch

from ...skyreels_v3.jobs.avatar.plan import KEY_COPIES
from ...skyreels_v3.jobs.extension.plan import CUT_PREFIX_FRAMES, FPS, PREFIX_FRAMES
from ...skyreels_v3.recipes import FRAMES_PER_LATENT
from ...skyreels_v3.speech.recording import FPS as AVATAR_FPS
from .acting import actor_x, pose_at
from .cameras import view_at
from .canvas import Canvas
from .figures import draw_figure
from .looks import LOOKS
from .prompts import PHRASINGS, write
from .references import MOST, Reference, references
from .render import SIZE, render, render_clip
from .scenes import Scene, cut_scene, drawn_scene, possible_cuts
from .things import OBJECTS
from .voices import Speech, say, take_turns

CLOSER = ("wide", "medium", "medium", "close")  # where a picture has to say who it is, it has to be seen
LATEST = 6.0  # seconds of a scene at which a clip begins
KEY_LATER = (1.0, 8.0)  # seconds after a window that the frame it ends on may be from
TALKING = ("stands", "talks")  # what an avatar does beside speaking


@dataclass(frozen=True)
class ReferenceSample:
    """frames [F, H, W, 3] of a scene and one to four references of it."""

    scene: Scene
    prompt: str
    frames: np.ndarray
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class ExtensionSample:
    """prefix [P, H, W, 3], 4n + 1 frames, and the frames [N, H, W, 3], N = 4n, that go on from it.

    start: second of the scene at which the prefix begins.
    """

    scene: Scene
    prompt: str
    prefix: np.ndarray
    frames: np.ndarray
    start: float


@dataclass(frozen=True)
class ShotSample:
    """prefix [P, H, W, 3] of one shot and frames [F, H, W, 3] of the next, both 4n + 1. cut: the tag in the prompt."""

    before: Scene
    scene: Scene
    cut: str
    prompt: str
    prefix: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class AvatarSample:
    """frames [F, H, W, 3] of one or two people who speak.

    portrait: [H, W, 3], what the window begins from: another moment, or frame 0 itself.  motion: how many first frames
    are given (1 is the portrait).  key_frame: [H, W, 3] that the window ends on, given as its last KEY_COPIES frames,
    or None.  speech: of each person.  mouths: openness [people, F].  masks: float32 [people + 1, H, W], where each
    person is in the first frame, the background last.
    """

    scene: Scene
    prompt: str
    frames: np.ndarray
    portrait: np.ndarray
    motion: int
    key_frame: np.ndarray | None
    speech: tuple[Speech, ...]
    mouths: np.ndarray
    masks: np.ndarray


def signed(frames: np.ndarray) -> torch.Tensor:
    """[1, 3, F, H, W] float32 in [-1, 1] of frames uint8 [F, H, W, 3]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def reference_sample(rng: random.Random, frames: int = 25, size: tuple[int, int] = SIZE) -> ReferenceSample:
    """frames: 4n + 1; 1 is an image."""
    scene = drawn_scene(rng, shots=CLOSER, things=0.7)
    clip = render_clip(scene, frames, FPS, rng.uniform(0, 1), size)
    return ReferenceSample(scene, _prompt(scene, rng), clip, tuple(references(scene, rng, size)))


def object_sample(rng: random.Random, frames: int = 25, size: tuple[int, int] = SIZE) -> ReferenceSample:
    """A close shot of an object on the ground, and a picture of it: in a hand it is too small to be learnt from."""
    thing = rng.choice(OBJECTS)
    scene = drawn_scene(rng, people=1, cameras=("still",), things=0.0)
    scene = replace(scene, thing=thing, shot="close", subject=thing)
    clip = render_clip(scene, frames, FPS, rng.uniform(0, 1), size)
    shown = [one for one in references(scene, rng, size, MOST) if one.kind == "object" or rng.random() < 0.5]
    return ReferenceSample(scene, _prompt(scene, rng), clip, tuple(shown))


def extension_sample(
    rng: random.Random,
    new: int = 24,
    prefix: int = PREFIX_FRAMES,
    size: tuple[int, int] = SIZE,
    roll: int | None = None,
) -> ExtensionSample:
    """new: frames, 4n.  prefix: 4n + 1.  roll: how many rolls of `new` frames lie before; None draws a start."""
    scene = drawn_scene(rng)
    start = rng.uniform(0, LATEST) if roll is None else roll * new / FPS
    clip = render_clip(scene, prefix + new, FPS, start, size)
    return ExtensionSample(scene, _prompt(scene, rng), clip[:prefix], clip[prefix:], start)


def shot_sample(
    rng: random.Random, frames: int = 25, prefix: int | None = None, size: tuple[int, int] = SIZE
) -> ShotSample:
    """frames, prefix: 4n + 1; None draws one of the lengths that cuts have."""
    scene = drawn_scene(rng, cameras=("still",))
    cut = rng.choice(possible_cuts(scene))
    after = cut_scene(scene, cut)
    prefix = prefix or rng.choice(list(CUT_PREFIX_FRAMES.values()))
    start = rng.uniform(0, 2)
    return ShotSample(
        scene,
        after,
        cut,
        _prompt(after, rng, cut),
        render_clip(scene, prefix, FPS, start, size),
        render_clip(after, frames, FPS, start + prefix / FPS, size),
    )


def avatar_sample(
    rng: random.Random, frames: int = 25, people: int = 1, size: tuple[int, int] = SIZE, motion: int | None = None
) -> AvatarSample:
    """A window of a talking film. frames: 4n + 1.  motion: first frames that are given; None draws 1 or 5."""
    shots = ("medium", "close") if people == 1 else ("wide",)
    scene = drawn_scene(rng, people, TALKING, ("still",), shots, things=0.2)
    seconds = frames / AVATAR_FPS
    turns = take_turns(seconds, scene.seed) if people == 2 else (None,)
    names = [actor.character for actor in scene.actors]
    speech = tuple(say(name, seconds, scene.seed + i, turns[i]) for i, name in enumerate(names))
    mouths = np.stack([one.mouth(frames, AVATAR_FPS) for one in speech])
    start = rng.uniform(0, LATEST)
    clip = render_clip(scene, frames, AVATAR_FPS, start, size, mouths)
    motion = motion or rng.choice((1, FRAMES_PER_LATENT + 1))
    closed = (0.0, 0.0)
    # A window that goes on is given its own first frames; the first one a picture from another moment.
    portrait = render(scene, start + rng.uniform(*KEY_LATER), size, closed) if motion == 1 else clip[0]
    key_frame = None
    if rng.random() < 0.5:
        later = start + seconds + rng.uniform(*KEY_LATER)
        key_frame = render(scene, later, size, tuple(rng.random() * rng.choice((0, 1)) for _ in closed))
    return AvatarSample(
        scene, _prompt(scene, rng), clip, portrait, motion, key_frame, speech, mouths, people_masks(scene, start, size)
    )


def given_frames(sample: AvatarSample) -> tuple[np.ndarray, np.ndarray]:
    """The condition's frames [F, H, W, 3], grey where nothing is given, and which ones are given, bool [F]."""
    frames = np.full_like(sample.frames, 128)
    given = np.zeros(len(frames), bool)
    frames[: sample.motion] = sample.portrait if sample.motion == 1 else sample.frames[: sample.motion]
    given[: sample.motion] = True
    if sample.key_frame is not None:
        frames[-KEY_COPIES:], given[-KEY_COPIES:] = sample.key_frame, True
    return frames, given


def people_masks(scene: Scene, t: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Where each person is at second t, and the background last: float32 [people + 1, H, W] of 0 and 1."""
    masks = []
    for index, actor in enumerate(scene.actors):
        canvas = Canvas(size[1], size[0], view_at(scene, t))
        canvas.track_cover()
        draw_figure(canvas.pen(), LOOKS[actor.character], pose_at(scene, index, t))
        masks.append(canvas.covered > 0.5)
    masks.append(~np.any(masks, axis=0))
    return np.stack(masks).astype(np.float32)


def rolls(scene: Scene, count: int = 10, new: int = 24, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A prefix and `count` rolls of one scene in one piece: what a long extension is held against."""
    return render_clip(scene, PREFIX_FRAMES + count * new, FPS, 0.0, size)


def speed(scene: Scene, index: int = 0) -> float:
    """World units a second of an actor, to the right."""
    return actor_x(scene, index, 1.0) - actor_x(scene, index, 0.0)


def _prompt(scene: Scene, rng: random.Random, cut: str | None = None) -> str:
    return write(scene, rng.randrange(PHRASINGS), cut)
