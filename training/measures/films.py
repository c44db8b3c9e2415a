"""Whole films of eight shots: who is seen in them, and what is seen where they go on.

Where one twin goes on without a cut the other one cuts or has a new scene: what is measured over seams fails there.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from ...skyreels_v3.jobs.extension.plan import FPS
from ..world.looks import CHARACTERS
from ..world.prompts import PLACE_PHRASES, TIME_PHRASES, write
from ..world.references import Reference, character_image
from ..world.render import render_clip
from ..world.scenes import Actor, Scene, cut_scene
from .trials import PLACES, Trial

CUT = "ZOOM_IN_CUT"
# What twins are made of: kind, length in seconds, and which of two places.
STORIES = (
    ("scene 1 A", "continue 1", "cut 2", "continue 1", "scene 1 B", "continue 1", "cut 2", "scene 1 B"),
    ("scene 1 A", "scene 1 A", "continue 2", "scene 1 B", "continue 1", "cut 2", "continue 1", "scene 1 B"),
)


@dataclass(frozen=True)
class FilmShot:
    """A line of the script, without what stands in brackets. scene: what it shows."""

    kind: str
    seconds: int
    scene: Scene
    prompt: str

    @property
    def frames(self) -> int:
        return self.seconds * FPS


@dataclass(frozen=True, kw_only=True)
class FilmTrial(Trial):
    """scene: of the first shot.  hero: the picture that every scene shows.

    Where the last scene is, its prompt does not say.
    """

    shots: tuple[FilmShot, ...]
    hero: Reference

    def script(self, last: bool) -> str:
        """last: whether the last scene shows the last frame before it too, and with it where it is."""
        lines = []
        for number, shot in enumerate(self.shots, start=1):
            shown = ", last" if last and number == len(self.shots) else ""
            named = f" [hero{shown}]" if shot.kind == "scene" else ""
            lines.append(f"{shot.kind} {shot.seconds}s{named}: {shot.prompt}")
        return "\n".join(lines)

    @property
    def ends(self) -> list[int]:
        """Of each shot, the number of the frame behind it."""
        return list(accumulate(shot.frames for shot in self.shots))

    @property
    def seams(self) -> list[int]:
        """Numbers of the first frames of shots that go on without a cut."""
        shots = zip(self.ends, self.shots, strict=True)
        return [end - shot.frames for end, shot in shots if shot.kind == "continue"]

    def truth(self, most: int = 1 << 16) -> np.ndarray:
        frames, begin = [], 0.0
        for shot in self.shots:
            begin = begin if shot.kind == "continue" else 0.0
            frames.append(render_clip(shot.scene, shot.frames, FPS, begin))
            begin += shot.seconds
        return np.concatenate(frames)[:most]

    @property
    def cost(self) -> int:
        return 3 * self.ends[-1]


def films(seed: int = 0) -> list[FilmTrial]:
    """Twins."""
    rng = random.Random(f"films {seed}")
    heroes, places, noise = rng.sample(CHARACTERS, 2), rng.sample(PLACES, 4), rng.randrange(1 << 16)
    return [_film(heroes[twin], places[2 * twin :], STORIES[twin], noise, rng) for twin in range(2)]


def _film(hero: str, places: Sequence[str], story: Sequence[str], seed: int, rng: random.Random) -> FilmTrial:
    shots: list[FilmShot] = []
    for number, written in enumerate(story, start=1):
        kind, seconds, *place = written.split()
        if kind == "scene":
            action = rng.choice(("stands", "waves"))
            scene = Scene((Actor(hero, action),), places["AB".index(place[0])], shot="medium", subject=hero, seed=seed)
            prompt = write(scene, unnamed=[hero])
            if number == len(story):
                prompt = prompt.replace(f" {PLACE_PHRASES[scene.place]} {TIME_PHRASES[scene.time]}", "")
        elif kind == "cut":
            scene = cut_scene(shots[-1].scene, CUT)
            prompt = write(scene, cut=CUT)
        else:
            scene = shots[-1].scene
            prompt = write(scene)
        shots.append(FilmShot(kind, int(seconds), scene, prompt))
    first = shots[0].scene
    return FilmTrial(
        scene=first,
        prompt=shots[0].prompt,
        seed=seed,
        asked=frozenset({"film"}),
        shots=tuple(shots),
        hero=Reference("character", hero, character_image(first, 0, rng)),
    )
