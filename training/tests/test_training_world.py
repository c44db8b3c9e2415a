"""The drawn world: the same frames every time, all of it can be drawn and told apart, prompts say what it shows."""

import itertools
import random

import numpy as np
import pytest

from pack.training.measures.templates import shrunk
from pack.training.world.acting import actor_x
from pack.training.world.cameras import view_at
from pack.training.world.canvas import Canvas, View
from pack.training.world.figures import Pose, draw_figure
from pack.training.world.looks import CHARACTERS, LOOKS
from pack.training.world.prompts import PHRASINGS, ROLES, UNNAMED, VOCABULARY, PromptError, read, roles, write
from pack.training.world.references import references
from pack.training.world.render import render, render_clip
from pack.training.world.scenes import (
    ACTIONS,
    BACKGROUNDS,
    CAMERAS,
    CUTS,
    SHOTS,
    TIMES,
    Actor,
    Scene,
    cut_scene,
    drawn_scene,
    possible_cuts,
)
from pack.training.world.things import OBJECTS, THINGS, draw_thing

pytestmark = pytest.mark.workshop


def picture(draw, light=None) -> np.ndarray:
    canvas = Canvas(48, 48, View(0.0, 0.4, 1.0), background="9db3a2")
    draw(canvas.pen())
    return canvas.pixels


def test_a_scene_is_the_same_every_time():
    scene = drawn_scene(random.Random(3))
    assert drawn_scene(random.Random(3)) == scene
    assert np.array_equal(render(scene, 1.3), render(scene, 1.3))
    # A clip is its frames: nothing depends on what was drawn before.
    assert np.array_equal(render_clip(scene, 5, 24, start=1.0)[3], render(scene, 1.0 + 3 / 24))


def test_every_word_of_the_world_can_be_drawn():
    scenes = [Scene((Actor(name, action),), "room") for name in CHARACTERS for action in ACTIONS[::2]]
    scenes += [Scene((Actor("fox", action, OBJECTS[0]),), "beach") for action in ACTIONS]
    scenes += [Scene((Actor("fox"),), place, time) for place in BACKGROUNDS for time in TIMES]
    scenes += [Scene((Actor("king", holds=name),), "snow", thing=OBJECTS[i - 1]) for i, name in enumerate(OBJECTS)]
    scenes += [
        Scene((Actor("frog"), Actor("girl")), "city", camera=camera, shot=shot, subject="girl")
        for camera, shot in itertools.product(CAMERAS, SHOTS)
    ]
    for scene in scenes:
        frame = render(scene, 0.7)
        assert frame.shape == (64, 96, 3) and frame.dtype == np.uint8
        assert frame.std() > 10, scene


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (80, 80), (256, 160), (33, 17)])
def test_frames_of_any_size_show_the_same(size):
    scene = Scene((Actor("robot", "waves"),), "forest", seed=5)
    frame = render(scene, 0.5, size)
    assert frame.shape == (size[1], size[0], 3)
    # The middle column of every size is the same part of the world.
    middle = shrunk(frame, 3 * size[0] // size[1] or 1, 8)
    assert np.isfinite(middle).all()
    twice = shrunk(render(scene, 0.5, (2 * size[0], 2 * size[1])), *size)
    assert np.abs(twice - frame / 255).mean() < 0.03


def test_characters_and_objects_differ_at_a_glance():
    figures = [shrunk(_bytes(picture(lambda pen, n=n: draw_figure(pen, LOOKS[n], Pose()))), 12, 12) for n in CHARACTERS]
    things = [
        shrunk(_bytes(picture(lambda pen, n=n: draw_thing(pen.at(0, 0.4, scale=3), THINGS[n], 0.0))), 12, 12)
        for n in OBJECTS
    ]
    for pictures in (figures, things):
        for a, b in itertools.combinations(pictures, 2):
            assert np.sqrt(((a - b) ** 2).mean()) > 0.05


def test_a_walk_of_a_minute_stays_in_the_picture_and_moves_evenly():
    for action in ("walks left", "walks right"):
        for scene in (Scene((Actor("fox", action),), "desert"), Scene((Actor("fox", action), Actor("king")), "city")):
            xs = np.array([actor_x(scene, 0, t) - view_at(scene, t).x for t in np.arange(0, 60, 1 / 24)])
            if len(scene.actors) == 1:
                assert np.abs(xs).max() < 0.45
            assert np.abs(np.diff(xs)).max() < 0.011


def test_a_cut_changes_the_framing_and_nothing_else():
    rng = random.Random(1)
    met = set()
    for _ in range(40):
        scene = drawn_scene(rng)
        for tag in possible_cuts(scene):
            met.add(tag)
            after = cut_scene(scene, tag)
            assert (after.actors, after.place, after.time, after.seed) == (
                scene.actors,
                scene.place,
                scene.time,
                scene.seed,
            )
            assert (after.shot, after.side, after.subject) != (scene.shot, scene.side, scene.subject)
    assert met == set(CUTS)
    with pytest.raises(ValueError, match="means nothing here"):
        cut_scene(Scene((Actor("fox"),), "room"), "SHOT_REVERSE_SHOT_CUT")


def test_prompts_say_everything_and_are_read_back():
    rng = random.Random(0)
    for _ in range(250):
        scene = drawn_scene(rng)
        cut = rng.choice((None, *possible_cuts(scene)))
        shown = cut_scene(scene, cut) if cut else scene
        written = {write(shown, phrasing, cut) for phrasing in range(PHRASINGS)}
        assert len(written) == PHRASINGS
        for prompt in written:
            assert read(prompt) == (shown.said, cut), prompt


def test_the_vocabulary_is_small_and_known():
    assert len(VOCABULARY) == len(set(VOCABULARY)) <= 120
    with pytest.raises(PromptError, match="does not know: dances"):
        read("A fox dances on the beach.")
    with pytest.raises(PromptError, match="needs a character"):
        read("On the beach by day.")
    with pytest.raises(PromptError, match="one or two different characters"):
        read("A fox and a king and a frog stands on the beach.")


def test_names_can_be_left_to_pictures():
    rng = random.Random(2)
    for phrasing in (*range(PHRASINGS),) * 20:
        scene = drawn_scene(rng)
        named = {*(actor.character for actor in scene.actors), *scene.objects}
        prompt = write(scene, phrasing, unnamed=named)
        words = [word for word, _ in roles(prompt)]
        assert named.isdisjoint(words) and {word for word in words if word.isalpha()} <= set(VOCABULARY)
        with pytest.raises(PromptError, match="leaves open who"):
            read(prompt)
        first = scene.actors[0].character
        one = write(scene, phrasing, unnamed={first})
        assert one.count(" character") >= 1 and "second character" not in one and first not in one
    scene = Scene((Actor("fox"), Actor("king", "waves", "lamp")), "room", subject="king", shot="close", thing="ball")
    assert write(scene, unnamed={"king", "ball"}) == (
        "A close shot of the second character. A fox stands and a second character waves, holding a lamp, in the room "
        "by day. An object is between the fox and the second character."
    )


def test_every_word_has_its_role():
    scene = Scene((Actor("fox", "walks left", "cup"), Actor("king", "waves")), "room", camera="zooms in", thing="ball")
    said = {role: " ".join(word for word, of in roles(write(scene)) if of == role) for role in ROLES}
    assert {role: words for role, words in said.items() if words} == {
        "first character": "fox",
        "first action": "walks left",
        "first held": "cup",
        "second character": "king",
        "second action": "waves",
        "thing": "ball",
        "place": "room",
        "time": "day",
        "camera": "zooms in",
    }
    heard = dict(
        roles("[ZOOM_IN_CUT] A close shot of the second character from the left side. A shiny character nods.")
    )
    assert heard["[ZOOM_IN_CUT]"] == "cut" and heard["close"] == "shot" and heard["left"] == "side"
    assert heard["second"] == "subject" and heard["shiny"] == ""
    assert set(UNNAMED) > {"character", "object"}


def test_prompts_of_ones_own_are_understood_in_any_order():
    scene, cut = read("At dusk a pirate walks left in the snow and holds a lamp. The camera zooms in.")
    assert cut is None
    assert scene == Scene((Actor("pirate", "walks left", "lamp"),), "snow", "dusk", camera="zooms in")


def test_references_are_not_cut_out_of_the_clip():
    rng = random.Random(4)
    kinds = set()
    for _ in range(25):
        scene = drawn_scene(rng)
        given = references(scene, rng)
        assert 1 <= len(given) <= 4
        kinds |= {reference.kind for reference in given}
        clip = render_clip(scene, 3, 2).astype(np.float32) / 255
        for reference in given:
            assert reference.image.shape == (64, 96, 3)
            nearest = np.abs(clip - reference.image / np.float32(255)).mean(axis=(1, 2, 3)).min()
            assert nearest > 0.02, reference.kind
    assert kinds == {"character", "object", "place"}


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return (pixels.transpose(1, 2, 0).clip(0, 1) * 255).astype(np.uint8)
