"""What the nano models are asked for when they are measured, and the truth about it.

Trials come as twins, two after each other, who differ in whatever they are asked for: what was made for one is
measured against the other as the control. Twins share the seed of their noise, so that it makes no difference.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...skyreels_v3.jobs.extension.plan import CUT_PREFIX_FRAMES, FPS, PREFIX_FRAMES
from ...skyreels_v3.speech.recording import FPS as AVATAR_FPS
from ..world.looks import CHARACTERS
from ..world.prompts import write
from ..world.references import Reference, character_image, object_image, place_image
from ..world.render import render, render_clip
from ..world.samples import people_masks
from ..world.scenes import BACKGROUNDS, TIMES, Actor, Scene, cut_scene
from ..world.things import OBJECTS
from ..world.voices import RATE, Speech, say

ROLL = 24  # new frames of a roll: a line `continue 1s`
CUT_SECONDS = 2  # the shortest cut
WINDOW = 33  # frames of the avatar
PAIR_WINDOW = 49
SECONDS = ((WINDOW - 1) / AVATAR_FPS, 3.2)  # of speech: one window, and several with key frames
ROLLS = 10
ANCHOR = 0.5  # of colours, over many rolls


@dataclass(frozen=True, kw_only=True)
class Trial:
    """scene: what has to be seen.  asked: what is measured in it, and differs from its twin.  seed: of the noise."""

    scene: Scene
    prompt: str
    seed: int
    asked: frozenset[str]

    def truth(self, most: int = 1 << 16) -> np.ndarray:
        """What the renderer shows, uint8 [F, H, W, 3]: no more than `most` frames."""
        raise NotImplementedError

    @property
    def cost(self) -> int:
        """Frames that are encoded or decoded for it."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ReferenceTrial(Trial):
    """The prompt leaves open who and what is shown: the references say it. frames: 4n + 1."""

    references: tuple[Reference, ...]
    frames: int = 25

    def truth(self, most: int = 1 << 16) -> np.ndarray:
        return render_clip(self.scene, min(most, self.frames), FPS)

    @property
    def cost(self) -> int:
        return self.frames


@dataclass(frozen=True, kw_only=True)
class ExtensionTrial(Trial):
    """prefix [25, H, W, 3], from `start` seconds on, goes on for so many rolls. colour_anchor: of Extend Video."""

    prefix: np.ndarray
    start: float
    rolls: int = 1
    colour_anchor: float = 0.0

    @property
    def begin(self) -> float:
        """Second of the scene at which the new frames begin."""
        return self.start + PREFIX_FRAMES / FPS

    def truth(self, most: int = 1 << 16) -> np.ndarray:
        return render_clip(self.scene, min(most, self.rolls * ROLL), FPS, self.begin)

    @property
    def cost(self) -> int:
        return self.rolls * (2 * PREFIX_FRAMES + ROLL)


@dataclass(frozen=True, kw_only=True)
class ShotTrial(Trial):
    """prefix [9, H, W, 3] is followed by a cut to `scene`. before: the scene of the prefix."""

    before: Scene
    cut: str
    prefix: np.ndarray

    def truth(self, most: int = 1 << 16) -> np.ndarray:
        return render_clip(self.scene, min(most, CUT_SECONDS * FPS), FPS, len(self.prefix) / FPS)

    @property
    def cost(self) -> int:
        return CUT_SECONDS * FPS


@dataclass(frozen=True, kw_only=True)
class AvatarTrial(Trial):
    """Who is in the portrait [H, W, 3] says what is in `speech`, one for each.

    frames: of the video.  mouths: openness [people, frames].  masks: float32 [people + 1, H, W].
    """

    portrait: np.ndarray
    masks: np.ndarray
    speech: tuple[Speech, ...]
    frames: int
    window: int

    @property
    def mouths(self) -> np.ndarray:
        return np.stack([one.mouth(self.frames, AVATAR_FPS) for one in self.speech])

    def truth(self, most: int = 1 << 16) -> np.ndarray:
        return render_clip(self.scene, min(most, self.frames), AVATAR_FPS, mouths=self.mouths)

    @property
    def cost(self) -> int:
        return 2 * self.frames


def trials(rounds: int = 1, rolls: int = ROLLS, seed: int = 0) -> list[Trial]:
    """Every kind of trial, with its twin. rounds: how often, with other scenes.  rolls: of the long extension.

    Later rounds have what the first leaves out: cuts of other kinds, and speech longer than a window.
    """
    asked: list[Trial] = []
    for number in range(rounds):
        rng = random.Random(f"{seed} {number}")
        for kind in (_who, _where, _walk, _camera, _shot):
            asked += kind(rng)
        asked += [*_walk_on(rng), *_long(rng, rolls if number == 0 else 1)]
        asked += _cuts(rng, number)
        asked += [*_speakers(rng, SECONDS[number > 0]), *_silence(rng), *_two(rng), *_thing(rng)]
    return asked


def swapped(things: Sequence) -> list:
    """The same with twins exchanged: the control."""
    return [things[i ^ 1] for i in range(len(things))]


# --- reference to video


def _who(rng: random.Random) -> Iterator[Trial]:
    """One prompt, word for word, and other pictures."""
    place, time, action = rng.choice(BACKGROUNDS), rng.choice(("day", "dusk")), rng.choice(("stands", "waves"))
    names, things, seed = rng.sample(CHARACTERS, 2), rng.sample(OBJECTS, 2), rng.randrange(1 << 16)
    for name, thing in zip(names, things):
        scene = Scene((Actor(name, action, thing),), place, time, shot="medium", subject=name, seed=seed)
        yield _reference(scene, rng, seed, {"character", "held"}, ("object",))


def _where(rng: random.Random) -> Iterator[Trial]:
    """Another place and time of day, in words and as a picture."""
    names, places, times = rng.sample(CHARACTERS, 2), rng.sample(PLACES, 2), rng.sample(TIMES, 2)
    seed = rng.randrange(1 << 16)
    for name, place, time in zip(names, places, times):
        scene = Scene((Actor(name, "stands"),), place, time, shot="medium", subject=name, seed=seed)
        yield _reference(scene, rng, seed, {"character", "place", "time"}, ("place",))


def _walk(rng: random.Random) -> Iterator[Trial]:
    """To the left and to the right, by night and by day."""
    name, places, seed = rng.choice(CHARACTERS), rng.sample(PLACES, 2), rng.randrange(1 << 16)
    for place, time, way in zip(places, ("night", "day"), ("left", "right")):
        scene = Scene((Actor(name, f"walks {way}"),), place, time, shot="medium", subject=name, seed=seed)
        yield _reference(scene, rng, seed, {"place", "time", "action"})


def _camera(rng: random.Random) -> Iterator[Trial]:
    """Pans, because where a head is can be read more exactly than how large it is."""
    name, place, seed = rng.choice(CHARACTERS), rng.choice(BACKGROUNDS), rng.randrange(1 << 16)
    for way in ("left", "right"):
        scene = Scene(
            (Actor(name, "stands"),), place, "day", camera=f"pans {way}", shot="medium", subject=name, seed=seed
        )
        yield _reference(scene, rng, seed, {"camera"})


def _shot(rng: random.Random) -> Iterator[Trial]:
    names, place, seed = rng.sample(CHARACTERS, 2), rng.choice(BACKGROUNDS), rng.randrange(1 << 16)
    for name, shot in zip(names, ("wide", "close")):
        scene = Scene((Actor(name, "nods"),), place, "day", shot=shot, subject=name, seed=seed)
        yield _reference(scene, rng, seed, {"character", "shot"})


def _thing(rng: random.Random) -> Iterator[Trial]:
    """One prompt, word for word, and other objects, close: in a hand they are few pixels."""
    name, place = rng.choice(CHARACTERS), rng.choice(PLACES)
    things, seed = rng.sample(OBJECTS, 2), rng.randrange(1 << 16)
    for thing in things:
        scene = Scene((Actor(name),), place, thing=thing, shot="close", subject=thing, seed=seed)
        yield _reference(scene, rng, seed, {"object"}, ("object",))


def _reference(
    scene: Scene, rng: random.Random, seed: int, asked: set[str], pictures: Sequence[str] = ()
) -> ReferenceTrial:
    """With a picture of the character and, where `pictures` says so, of the object and the place."""
    name = scene.actors[0].character
    given = [Reference("character", name, character_image(scene, 0, rng))]
    if "object" in pictures:
        thing = scene.objects[0]
        given.append(Reference("object", thing, object_image(thing, rng)))
    if "place" in pictures:
        given.append(Reference("place", scene.place, place_image(scene.place, rng, time=scene.time)))
    unnamed = [reference.name for reference in given if reference.kind != "place"]
    prompt = write(scene, unnamed=unnamed)
    return ReferenceTrial(scene=scene, prompt=prompt, seed=seed, asked=frozenset(asked), references=tuple(given))


# Space is dark at any time of day, and the stage is lit by lamps.
PLACES = tuple(place for place in BACKGROUNDS if place not in ("space", "stage"))


# --- extension and cuts


def _walk_on(rng: random.Random) -> Iterator[Trial]:
    """Someone who walks goes on doing so."""
    name, places, seed = rng.choice(CHARACTERS), rng.sample(PLACES, 2), rng.randrange(1 << 16)
    for place, way in zip(places, ("left", "right")):
        scene = Scene((Actor(name, f"walks {way}"),), place, shot="medium", subject=name, seed=seed)
        yield _extension(scene, seed, {"seam", "motion", "picture"})


def _long(rng: random.Random, rolls: int) -> Iterator[Trial]:
    """Ten rolls of someone who stays, with the anchor that our page advises; the twin is one roll, as the control."""
    names, places, seed = rng.sample(CHARACTERS, 2), rng.sample(PLACES, 2), rng.randrange(1 << 16)
    for name, place, time, count in zip(names, places, ("day", "dusk"), (rolls, 1)):
        scene = Scene((Actor(name, "waves"),), place, time, shot="medium", subject=name, seed=seed)
        yield _extension(scene, seed, {"seam", "picture", *(["long"] if count > 1 else [])}, count, ANCHOR)


def _extension(scene: Scene, seed: int, asked: set[str], rolls: int = 1, anchor: float = 0.0) -> ExtensionTrial:
    start = 0.4
    return ExtensionTrial(
        scene=scene,
        prompt=write(scene),
        seed=seed,
        asked=frozenset(asked),
        prefix=render_clip(scene, PREFIX_FRAMES, FPS, start),
        start=start,
        rolls=rolls,
        colour_anchor=anchor,
    )


_CUT_TWINS = (("ZOOM_IN_CUT", "ZOOM_OUT_CUT"), ("CUT_AWAY_CUT", "MULTI_ANGLE_CUT"), ("SHOT_REVERSE_SHOT_CUT",) * 2)


def _cuts(rng: random.Random, number: int) -> Iterator[Trial]:
    names, places, seed = rng.sample(CHARACTERS, 4), rng.sample(PLACES, 2), rng.randrange(1 << 16)
    tags = _CUT_TWINS[number % len(_CUT_TWINS)]
    for i, (tag, place) in enumerate(zip(tags, places)):
        name, other = names[i], names[i + 2]
        actors = (Actor(name, "stands"),)
        if tag == "SHOT_REVERSE_SHOT_CUT":
            actors = (Actor(name, "talks"), Actor(other, "stands"))
        thing = rng.choice(OBJECTS) if tag == "CUT_AWAY_CUT" else None
        shot = "wide" if tag in ("ZOOM_IN_CUT", "CUT_AWAY_CUT", "MULTI_ANGLE_CUT") else "close"
        before = Scene(actors, place, "day", thing, shot=shot, subject=None if shot == "wide" else name, seed=seed)
        after = cut_scene(before, tag)
        asked = {"subject", "place"}
        if tag != "CUT_AWAY_CUT" and tags[0] != tags[1]:  # twins with the same cut do not differ in their framing
            asked.add("framing")
        yield ShotTrial(
            scene=after,
            prompt=write(after, cut=tag),
            seed=seed,
            asked=frozenset(asked),
            before=before,
            cut=tag,
            prefix=render_clip(before, CUT_PREFIX_FRAMES[CUT_SECONDS], FPS),
        )


# --- avatar


def _speakers(rng: random.Random, seconds: float) -> Iterator[Trial]:
    """The same portrait with other speech."""
    name, place, seed = rng.choice(CHARACTERS), rng.choice(PLACES), rng.randrange(1 << 16)
    scene = Scene((Actor(name, "talks"),), place, shot="medium", subject=name, seed=seed)
    for take in range(2):
        yield _avatar(scene, [say(name, seconds, seed + take)], seed, {"speech"})


def _silence(rng: random.Random) -> Iterator[Trial]:
    """One who keeps silent, and another who speaks."""
    names, places, seed = rng.sample(CHARACTERS, 2), rng.sample(PLACES, 2), rng.randrange(1 << 16)
    seconds = SECONDS[0]
    for name, place, asked in zip(names, places, ("silence", "speech")):
        scene = Scene((Actor(name, "stands"),), place, shot="close", subject=name, seed=seed)
        speech = say(name, seconds, seed)
        if asked == "silence":
            speech = Speech(np.zeros_like(speech.wave), (), seconds)
        yield _avatar(scene, [speech], seed, {asked, "character", "picture"})


def _two(rng: random.Random) -> Iterator[Trial]:
    """The same two people; first the left one speaks and then the right one, and the other way round."""
    names, seed = rng.sample(CHARACTERS, 2), rng.randrange(1 << 16)
    scene = Scene((Actor(names[0], "stands"), Actor(names[1], "stands")), rng.choice(PLACES), seed=seed)
    seconds = (PAIR_WINDOW - 1) / AVATAR_FPS
    turns = [[(0.08, 0.9)], [(1.0, 1.86)]]
    for order in (turns, turns[::-1]):
        speech = [say(name, seconds, seed + i, turn) for i, (name, turn) in enumerate(zip(names, order))]
        yield _avatar(scene, speech, seed, {"two"}, PAIR_WINDOW)


def _avatar(scene: Scene, speech: Sequence[Speech], seed: int, asked: set[str], window: int = WINDOW) -> AvatarTrial:
    frames = len(speech[0].wave) * AVATAR_FPS // RATE
    return AvatarTrial(
        scene=scene,
        prompt=write(scene),
        seed=seed,
        asked=frozenset(asked),
        portrait=render(scene, 0.0, mouths=(0.0, 0.0)),
        masks=people_masks(scene, 0.0),
        speech=tuple(speech),
        frames=frames,
        window=window,
    )
