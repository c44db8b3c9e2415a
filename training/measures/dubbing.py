"""Dubs of drawn footage: somebody who stands or walks, and already says something, is given another recording."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ...skyreels_v3.measures.lag import sync
from ...skyreels_v3.speech.recording import FPS
from ..world.acting import pose_at
from ..world.cameras import view_at
from ..world.canvas import Canvas
from ..world.figures import body_pen, draw_head, head_pen
from ..world.looks import CHARACTERS, LOOKS
from ..world.prompts import write
from ..world.render import render_clip
from ..world.scenes import BACKGROUNDS, Actor, Scene
from ..world.voices import Speech, say
from .lips import mouths, track

SIZE = (192, 128)  # width, height of the footage
BEFORE = 0.4  # seconds of it before what is spoken anew, and behind
SECONDS = 2.6  # of the recording
STILL, MOVING = "talks", "walks right"
MOUTH = 0.45  # of a head's height, from below: what is above counts as away from the mouth
LUMA = (0.2126, 0.7152, 0.0722)
LAGS = 5  # frames


@dataclass(frozen=True)
class DubTrial:
    """frames: of the footage, uint8 [F, H, W, 3].  heads: float32 [F, H, W], 1 where the head is.

    start: seconds, of what is said anew.  old: what is said in the footage.  speech: what is to be said.
    """

    scene: Scene
    prompt: str
    seed: int
    start: float
    frames: np.ndarray
    heads: np.ndarray
    old: Speech
    speech: Speech

    @property
    def character(self) -> str:
        return self.scene.actors[0].character

    @property
    def spoken(self) -> slice:
        """Frames that are spoken anew."""
        first = round(self.start * FPS)
        return slice(first, first + len(self.mouth))

    @property
    def mouth(self) -> np.ndarray:
        return self.speech.mouth(round(self.speech.seconds * FPS), FPS)

    @property
    def silenced(self) -> "DubTrial":
        """The same footage, in which nothing is said."""
        return replace(self, speech=Speech(np.zeros_like(self.speech.wave), (), self.speech.seconds))

    @property
    def away(self) -> np.ndarray:
        """Where the head is and the mouth is not, bool [F, H, W]."""
        rows = np.arange(self.heads.shape[1])[:, None]
        inside = self.heads > 0
        top = np.array([np.flatnonzero(one.any(axis=1))[[0, -1]] for one in inside])
        limit = top[:, 1] - MOUTH * (top[:, 1] - top[:, 0])
        return inside & (rows[None] < limit[:, None, None])


def dub_trials(count: int, action: str, seconds: float = SECONDS, seed: int = 0) -> Iterator[tuple[DubTrial, DubTrial]]:
    """Twins: the same footage with two recordings."""
    for number in range(count):
        rng = random.Random(f"dub {seed} {number}")
        name, place, chance = rng.choice(CHARACTERS), rng.choice(BACKGROUNDS), rng.randrange(1 << 16)
        scene = Scene((Actor(name, action),), place, shot="medium", subject=name, seed=chance)
        total = round((seconds + 2 * BEFORE) * FPS)
        old = say(name, total / FPS, chance + 9)
        frames = render_clip(scene, total, FPS, size=SIZE, mouths=old.mouth(total, FPS)[None])
        heads = np.stack([head_mask(scene, frame / FPS) for frame in range(total)])
        prompt = write(replace(scene, actors=(Actor(name, "talks"),)))
        made = [
            DubTrial(scene, prompt, chance, BEFORE, frames, heads, old, say(name, seconds, chance + n)) for n in (0, 1)
        ]
        yield made[0], made[1]


def head_mask(scene: Scene, t: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    """float32 [H, W], 1 where the head of the first actor is at second t."""
    canvas = Canvas(size[1], size[0], view_at(scene, t))
    canvas.track_cover()
    pose = pose_at(scene, 0, t)
    draw_head(head_pen(body_pen(canvas.pen(), pose), pose), LOOKS[scene.actors[0].character], pose)
    return (canvas.covered > 0.5).astype(np.float32)


def dub_scores(trial: DubTrial, twin: DubTrial, made: np.ndarray) -> dict[str, float]:
    """Numbers of one dub. made: all its frames, uint8 [F, H, W, 3].

    lips: correlation with its own recording within one frame; twin: with the other one's; old: with what the footage
    said.  lag: frames.  motion: root mean square distance of the head from the footage's, in picture heights.
    outside, away: PSNR in dB outside of the mask, and inside of it away from the mouth.  luma: mean difference there,
    of 255.
    """
    part, name = trial.spoken, trial.character
    found, there = (track(frames[part], name) for frames in (made, trial.frames))
    mouth = mouths(made[part], found)
    ratio = SIZE[0] / SIZE[1]
    apart = [((one.x - other.x) * ratio) ** 2 + (one.y - other.y) ** 2 for one, other in zip(found, there)]
    change = made.astype(np.float64) - trial.frames
    away = trial.away[part]
    return {
        "lips": sync(mouth, trial.mouth, 1)[0],
        "twin": sync(mouth, twin.mouth, 1)[0],
        "old": sync(mouth, trial.old.mouth(len(trial.frames), FPS)[part], 1)[0],
        "lag": abs(sync(mouth, trial.mouth, LAGS)[1]),
        "motion": float(np.sqrt(np.mean(apart))),
        "outside": psnr(change[trial.heads == 0]),
        "away": psnr(change[part][away]),
        "luma": float((change[part][away] @ LUMA).mean()),
    }


def openness_in_silence(trial: DubTrial, made: np.ndarray) -> float:
    """How far the mouth opens, 0 to 1, where nothing is said. trial: a `silenced` one."""
    frames = made[trial.spoken]
    return float(mouths(frames, track(frames, trial.character)).mean())


def psnr(change: np.ndarray) -> float:
    """Decibels; infinite where nothing is changed. change: of values of 255."""
    error = float((change**2).mean())
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)
