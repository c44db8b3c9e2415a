"""A film's folder between runs: its keys, what is deleted from it, and kills at any moment."""

# ruff: noqa: F811, fixtures of another file are arguments here
from pathlib import Path

import av
import pytest
import torch

from pack.tests.comfyui.test_extension_nodes import decoded, kept_parts, of_file
from pack.tests.comfyui.test_film_nodes import (
    STORY,
    cast,  # noqa: F401, fixture
    film,  # noqa: F401, fixture
    forwards,  # noqa: F401, fixture
    models,  # noqa: F401, fixture
    own_folders,  # noqa: F401, fixture
    shown,  # noqa: F401, fixture
)

pytestmark = pytest.mark.usefixtures("computes_in_float32")

TAKES = [
    *("34972fa798bf004e6b2e141ca0b49768", "cd5909c3a5d8d0332e6efd48ddd01922"),
    *("ce551f71d2aabe1280ce3c0741b69d61", "dca71fb6dbee0d020ae0900d93b357d7"),
]
KEPT_PARTS = [*(f"{kind}-{key}{end}" for key in TAKES for kind, end in (("take", ""), ("window", "-000")))]
KEPT = {"shots-1922afd455d151aa15a38069b08a731b": sorted([*KEPT_PARTS, "video-df3b15392b0f49ad969384197633d2fd"])}


def test_files_of_the_folder_may_be_deleted_by_hand(film, forwards, tmp_path):
    script = "scene 0.2s [anna]: x\ncontinue 0.2s: y"
    whole = decoded(film(script)[0])[0]
    for names, jobs in (("window-*", ["reference", "extension"]), ("*.jpg", []), ("lock", [])):
        forwards.clear()
        for path in [*tmp_path.rglob(names), *tmp_path.rglob("video-*")]:
            path.unlink()
        assert torch.equal(decoded(film(script)[0])[0], whole) and forwards == jobs
    assert len(list(tmp_path.rglob("*.jpg"))) == 2


def test_the_last_film_stays_until_there_is_a_new_one(film, pack_nodes, monkeypatch):
    before, *_ = film("scene 0.2s [anna]: x")
    monkeypatch.setattr(pack_nodes.module("nodes.runs.results"), "_given", set())  # of a ComfyUI that was started again
    with monkeypatch.context() as stopped, pytest.raises(Killed):
        stopped.setattr(pack_nodes.module("nodes.runs.film.run").FilmRun, "_make", killed)
        film("scene 0.2s [cafe]: x")
    assert Path(before).exists()
    after, *_ = film("scene 0.2s [cafe]: x")
    assert Path(after).exists() and not Path(before).exists()


def test_keys_of_kept_films_stay(film, models, pack_nodes, tmp_path, monkeypatch):
    """A release that computes other keys makes artists' films anew: these were computed once and stay."""
    monkeypatch.setattr(av, "__version__", "fixed")
    Member = pack_nodes.module("nodes.inputs.cast").Member
    names = ("reference_model", "model", "shot_model")
    given = {name: of_file(models[name], tmp_path / f"{name}.safetensors") for name in names}
    grey = torch.full((1, 64, 96, 3), 0.5)
    voice = {"waveform": torch.zeros(1, 1, 8000), "sample_rate": 16000}
    script = "scene 0.5s [anna]: x\ncontinue 0.5s {seed 3}: y\ncut 2s {name a}: z\nscene 0.2s [anna, a]: w"
    given |= {"width": 96, "height": 64, "guidance": 2.0, "negative": "dark", "clip_vision": None}
    film(script, **given, cast=(Member("anna", grey, voice),))
    assert kept_parts(tmp_path / "output") == KEPT


class Killed(BaseException):
    """Nothing is done any more after this, as after kill -9."""


def killed(*_, **__):
    raise Killed


@pytest.mark.workshop
def test_killed_at_any_moment_it_comes_to_the_same_frames(film, forwards, comfyui, tmp_path, pack_nodes, monkeypatch):
    whole = decoded(film(STORY)[0])[0]
    made = len(forwards)
    comfyui.folder_paths.set_output_directory(str(tmp_path / "other"))
    monkeypatch.setattr(pack_nodes.module("nodes.runs.film.run").FilmRun, "_join_so_far", lambda *_: False)
    folder = pack_nodes.module("skyreels_v3.resume.folder").RunFolder
    write, left = folder._write, [0]

    def killed_at(self, *args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        write(self, *args, **kwargs)
        if left[0] == 0:
            raise Killed

    forwards.clear()
    monkeypatch.setattr(folder, "_write", killed_at)
    kills = 0
    for moment in range(1, 100):
        left[0] = moment % 3  # before, or right after, the next notes of what is done
        try:
            path, *_ = film(STORY)
            break
        except Killed:
            kills += 1
    monkeypatch.setattr(folder, "_write", write)
    if kills < 100:
        path, *_ = film(STORY)
    assert kills >= 10 and torch.equal(decoded(path)[0], whole)
    assert made <= len(forwards) <= made + kills, "only what was being made is lost"
