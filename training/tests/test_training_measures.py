"""What the measures read from true frames with blur and noise: they are to judge generated ones."""

import random
from dataclasses import replace

import numpy as np
import pytest

from pack.skyreels_v3.measures.lag import sync
from pack.training.measures.lips import mouth_track
from pack.training.measures.motion import colour_drift, colours, path_of
from pack.training.measures.seeing import characters, look_at, objects
from pack.training.measures.surroundings import place_of
from pack.training.world.render import render, render_clip
from pack.training.world.scenes import Actor, Scene, drawn_scene
from pack.training.world.things import OBJECTS
from pack.training.world.voices import say

pytestmark = pytest.mark.workshop

RIGHT = 0.98


def degraded(frames: np.ndarray, seed: int = 0) -> np.ndarray:
    """With a Gaussian blur of one pixel and noise of 5 %. frames: uint8 [F, H, W, 3]."""
    taps = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    taps /= taps.sum()
    out = frames.astype(np.float32)
    for axis in (1, 2):
        padded = np.pad(out, [(3, 3) if i == axis else (0, 0) for i in range(4)], mode="edge")
        out = sum(tap * np.take(padded, np.arange(i, i + out.shape[axis]), axis) for i, tap in enumerate(taps))
    out = out + np.random.default_rng(seed).normal(0, 0.05 * 255, out.shape)
    return out.clip(0, 255).astype(np.uint8)


def seen(scene: Scene, t: float, seed: int) -> np.ndarray:
    return degraded(render(scene, t)[None], seed)[0]


def test_who_is_seen():
    rng = random.Random(11)
    right = []
    for i in range(60):
        scene = drawn_scene(rng, people=1)
        found = characters(seen(scene, rng.uniform(0, 2), i))[0]
        right.append(found.name == scene.actors[0].character)
    assert np.mean(right) >= RIGHT


def test_two_people_are_seen_where_they_are():
    rng = random.Random(12)
    right = []
    for i in range(40):
        scene = drawn_scene(rng, people=2, actions=("stands", "waves", "talks", "nods"), shots=("wide",))
        found = sorted(characters(seen(scene, 0.5, i), 2), key=lambda one: one.x)
        right.append([one.name for one in found] == [actor.character for actor in scene.actors])
    assert np.mean(right) >= RIGHT


def test_which_object_is_seen():
    rng = random.Random(13)
    right = []
    for i in range(60):
        scene = drawn_scene(rng, people=1, shots=("wide",), cameras=("still",), things=0.0)
        name, actor = rng.choice(OBJECTS), scene.actors[0]
        held = rng.random() < 0.5
        scene = replace(scene, thing=None if held else name, actors=(replace(actor, holds=name if held else None),))
        frame = seen(scene, 0.4, i)
        found = objects(frame, characters(frame)[0])
        right.append(bool(found) and found[0].name == name)
    assert np.mean(right) >= RIGHT


def test_where_and_when_it_is():
    rng = random.Random(14)
    places, times = [], []
    for i in range(60):
        scene = drawn_scene(rng)
        place, time, _ = place_of(seen(scene, rng.uniform(0, 2), i))
        places.append(place == scene.place)
        times.append(time == scene.time)
    assert np.mean(places) >= RIGHT
    assert np.mean(times) >= 0.95  # in space, day and dusk are nearly the same


def test_one_look_says_it_all():
    scene = Scene((Actor("panda", holds="balloon"),), "beach")
    sight = look_at(degraded(render(scene, 0.0)[None])[0])
    assert [one.name for one in sight.characters] == ["panda"]
    assert (sight.thing.name, sight.place, sight.time) == ("balloon", "beach", "day")
    # Larger frames are looked at in the same way.
    large = look_at(render(scene, 0.0, (240, 160)))
    assert (large.characters[0].name, large.thing.name, large.place) == ("panda", "balloon", "beach")


@pytest.mark.parametrize("character", ["robot", "ghost", "pirate"])
def test_lips_are_read(character):
    scene = Scene((Actor(character, "stands"),), "stage", "dusk", shot="medium", subject=character, seed=3)
    mouth = say(character, 2.0, 5).mouth(50)
    read = mouth_track(degraded(render_clip(scene, 50, 25, 1.0, mouths=mouth[None])), character)
    best, lag = sync(read, mouth)
    assert best > 0.9 and lag == 0
    assert np.abs(read - mouth).mean() < 0.15
    shut = mouth_track(degraded(render_clip(scene, 5, 25, mouths=np.zeros((1, 5)))), character)
    assert shut.max() < 0.2
    # With the speech of other moments it has little in common.
    others = [np.corrcoef(read, say(character, 2.0, seed).mouth(50))[0, 1] for seed in range(20, 30)]
    assert np.mean(others) < 0.4


def test_motion_is_followed():
    for action, way in (("walks left", -1), ("walks right", 1), ("stands", 0)):
        scene = Scene((Actor("fox", action),), "snow", seed=1)
        path = path_of(degraded(render_clip(scene, 12, 12)), "fox", 12)
        assert path.velocity[0] == pytest.approx(0.24 * way, abs=0.04)
        assert path.jumps.max() < 0.08
    still = render_clip(Scene((Actor("fox"),), "snow", seed=1), 2, 1)
    moved = np.concatenate([still, np.roll(still, 12, axis=2)])
    assert path_of(moved, "fox").jumps.max() > 0.1


def test_colours_are_counted():
    frames = render_clip(Scene((Actor("king"),), "room"), 4)
    assert colours(frames).shape == (4, 7)
    assert colour_drift(frames, 2) < 0.01
    assert colour_drift(np.concatenate([frames, (frames * 0.8).astype(np.uint8)]), 4) > 0.03
