"""What the demo gives to the workflows and draws of what they make; `make demo` itself runs with the nano models."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pack.dev.drawing import Card, frames_of, loudness_of, spread
from pack.dev.samples.workflow_inputs import probe, workflow_files
from pack.showcase import world
from pack.showcase.demo import set_aside
from pack.showcase.jobs import DEMOS, MAIN
from pack.showcase.loops import HEIGHT, MOST_BYTES, WIDTH, drawn, write_loop
from pack.showcase.runs import Run, note, runs
from pack.showcase.sheet import write_sheet
from pack.showcase.thumbnails import CARDS, SIDE, write_thumbnail
from pack.tests.support.video_clips import clip
from pack.training.world.prompts import VOCABULARY, roles

pytestmark = pytest.mark.workshop

SAID = ("text", "prompt", "connection_prompt", "prompts", "script")  # inputs that are prompts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder with its inputs and, for each workflow, a video of the planned length that brightens."""
    folder = tmp_path_factory.mktemp("demo")
    world.draw_inputs(folder / "input")
    for name, demo in DEMOS.items():
        levels = np.linspace(0, 255, demo.frames).astype(np.uint8)
        frames = [np.full((world.HEIGHT, world.WIDTH, 3), level) for level in levels]
        clip(folder / f"{name}.mp4", frames, demo.fps, size=(world.WIDTH, world.HEIGHT))
        note(Run(name, folder, len(demo.runs) * (f"{name}.mp4",), 1.5))
    return folder


def test_every_workflow_has_a_demo_and_a_card():
    assert DEMOS.keys() == CARDS.keys() == workflow_files().keys()
    assert len(MAIN) == 4 and set(MAIN) < DEMOS.keys()


@pytest.mark.parametrize("name", DEMOS)
def test_its_prompts_are_in_the_worlds_words(name: str):
    said = [value for values in DEMOS[name].changes.values() for key, value in values.items() if key in SAID]
    assert said
    for text in [*said, DEMOS[name].prompt]:
        for line in text.split("\n"):
            words = [
                word
                for word, _ in roles(
                    re.sub(
                        r"^((continue \d+s|cut \d+s|scene \d+s \[[^]]*\]|speak \[[^]]*\]):|\w+: audio_\d|pause .*)",
                        "",
                        line,
                    )
                )
            ]
            assert [word for word in words if word not in VOCABULARY and word not in ".,:"] == []


@pytest.mark.parametrize("name", DEMOS)
def test_its_files_are_drawn(name: str):
    demo = DEMOS[name]
    files = {
        value for values in demo.changes.values() for key, value in values.items() if key in ("image", "file", "audio")
    }
    assert files == set(demo.inputs) <= world.INPUTS.keys()


def test_inputs_are_as_the_jobs_plan_them(folder: Path):
    made = folder / "input"
    assert {path.name for path in made.iterdir()} == world.INPUTS.keys()
    for name in ("clip.mp4", "walk.mp4"):
        video = probe(made / name)
        assert (video.width, video.height, video.fps, video.frames) == (*world.INPUT_SIZE, 24, world.SOURCE_FRAMES)
    pause = loudness_of(made / "speech.wav", 34)[15:20]  # of 3.4 seconds
    assert max(pause) < 0.02 < min(max(loudness_of(made / f"{side}.wav", 4)) for side in ("left", "right"))


def test_the_last_run_of_a_workflow_is_kept(folder: Path):
    kept = runs(folder)
    assert kept.keys() == DEMOS.keys()
    note(Run("short_film", folder, ("short_film.mp4",), 7.5))
    assert runs(folder) == {**kept, "short_film": Run("short_film", folder, ("short_film.mp4",), 7.5)}


def test_a_run_knows_its_parts_and_who_speaks_when(folder: Path):
    kept = runs(folder)
    assert [len(part) for part in kept["storyboard_extension"].parts()] == [49, 24, 48, 24]
    both = kept["talking_avatar_two_people"]
    left, right = (np.asarray(both.loudest(index)).mean() for index in (0, 1))
    assert left < 127.5 < right  # the video brightens; the left one speaks first
    assert kept["dub_footage"].turns() == [pytest.approx((10, 91.6))]
    assert kept["dialogue"].turns() == [pytest.approx(turn) for turn in ((0, 25), (30, 55), (60, 85))]
    assert kept["film"].turns() == [pytest.approx((145, 226.6))] and kept["video_extension"].turns() == []


def test_sheets_of_earlier_runs_stay(tmp_path: Path):
    sheet = tmp_path / "sheet.png"
    for run in "abc":
        set_aside(sheet)
        sheet.write_text(run)
    assert [path.read_text() for path in (sheet, *sorted(tmp_path.glob("sheet_*.png")))] == ["c", "a", "b"]


def test_the_sheet_shows_every_run(folder: Path, tmp_path: Path):
    shown = [runs(folder)[name] for name in MAIN]
    with Image.open(write_sheet(tmp_path / "sheet.png", shown)) as sheet:
        all_of_them = sheet.size
    with Image.open(write_sheet(tmp_path / "one.png", shown[:1])) as sheet:
        assert sheet.width == all_of_them[0] and 3 * sheet.height < all_of_them[1]
        # The frames of the first workflow: dark ones above, bright ones below.
        pixels = np.asarray(sheet.convert("L"), dtype=float)
    assert pixels[300:320, 500:700].mean() < 60 < 180 < pixels[480:500, 1300:1500].mean()


@pytest.mark.parametrize("name", CARDS)
def test_thumbnails_are_what_the_browser_shows(folder: Path, tmp_path: Path, name: str):
    with Image.open(write_thumbnail(tmp_path / f"{name}.jpg", runs(folder)[name])) as picture:
        assert picture.format == "JPEG" and picture.size == (SIDE, SIDE)


@pytest.mark.parametrize("name", ["reference_to_video", "talking_avatar_two_people"])
def test_loops_stay_small_and_keep_the_pace(folder: Path, tmp_path: Path, name: str):
    run = runs(folder)[name]
    path = write_loop(tmp_path / "loop.webp", run)
    assert path.stat().st_size <= MOST_BYTES
    seconds = 0.0
    with Image.open(path) as loop:
        assert loop.size == (WIDTH, HEIGHT) and loop.info["loop"] == 0
        for index in range(loop.n_frames):
            loop.seek(index)
            loop.load()
            seconds += loop.info["duration"] / 1000
    assert seconds == pytest.approx(run.demo.frames / run.demo.fps + 0.7, abs=0.15)


@pytest.mark.parametrize("name", [*MAIN, "film"])
def test_what_is_asked_for_has_room_below_every_part(folder: Path, name: str):
    run, first = runs(folder)[name], 0
    for part in run.demo.parts:
        shown = np.asarray(drawn(run, run.frames()[first], first).convert("L"))
        assert shown[-4:].max() < 50, part
        first += part.frames


def test_words_are_put_into_lines():
    card = Card(200, 100)
    assert card.paragraph("One line.", 0, 0, 200, 10) == 13.5
    assert card.paragraph("A long sentence that needs several lines here.\nAnd one more.", 0, 0, 80, 10) >= 54
    assert card.finished().size == (200, 100)


def test_frames_are_spread_evenly(folder: Path):
    levels = [np.asarray(frame).mean() for frame in spread(frames_of(folder / "talking_avatar.mp4"), 3)]
    assert np.diff(levels) == pytest.approx([85, 85], abs=5)
