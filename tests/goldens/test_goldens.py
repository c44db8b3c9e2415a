"""The official numbers, and the command that compares them."""

import shutil
from pathlib import Path

import pytest
import torch

from pack.tests.goldens import run as goldens
from pack.tests.support.golden import LinearVAE, read, relative_error

FOLDER = Path(__file__).parent
FILES = sorted(path for path in FOLDER.iterdir() if goldens.kind_of(path.stem) and path.suffix != ".md")
pytestmark = pytest.mark.host  # some compare ComfyUI's own parts


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path):
    checks = goldens.run(path)
    assert checks
    assert [check for check in checks if not check.passed] == []


def test_every_kind_has_a_file():
    assert {goldens.kind_of(path.stem) for path in FILES} == set(goldens.KINDS)


def test_the_longest_kind_counts(monkeypatch):
    monkeypatch.setitem(goldens.KINDS, "pipeline_reference_guided_long", lambda golden: [])
    assert goldens.kind_of("my_pipeline_reference_guided_long_2") == "pipeline_reference_guided_long"
    assert goldens.kind_of("pipeline_reference_b") == "pipeline_reference"
    assert goldens.kind_of("holiday") is None


def test_command_passes_and_fails(tmp_path, capsys):
    good = FOLDER / "dit_shot.safetensors"
    assert goldens.main([str(good)]) == 0
    assert "ok" in capsys.readouterr().out

    # The name is part of the recipe: under another one, the weights are others and the numbers wrong.
    renamed = tmp_path / "dit_shot_renamed.safetensors"
    shutil.copy(good, renamed)
    broken = tmp_path / "dit_shot_broken.safetensors"
    broken.write_bytes(good.read_bytes()[:5000])
    unknown = tmp_path / "holiday.safetensors"
    shutil.copy(good, unknown)
    not_json = tmp_path / "sizes.json"
    not_json.write_text("{")
    for bad in (renamed, broken, unknown, not_json, tmp_path / "dit_shot_missing.safetensors"):
        assert goldens.main([str(bad), str(good)]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert "FAIL" in lines[0] and lines[1].endswith("ok")
    assert goldens.main([]) == 2


def test_linear_vae_inverts_itself_on_its_range():
    vae = LinearVAE("anything")
    latents = torch.randn(1, 16, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 0.1
    pixels = vae.decode(latents)
    assert pixels.shape == (1, 3, 9, 32, 40)
    again = vae.encode(pixels)
    # Later frames come back; the first latent frame sees its one frame four times.
    assert relative_error(again[:, :, 1:], latents[:, :, 1:]) < 1e-5


def test_relative_error_of_wrong_results_is_infinite():
    ones = torch.ones(3)
    assert relative_error(torch.ones(4), ones) == float("inf")
    assert relative_error(torch.tensor([1.0, float("nan"), 1.0]), ones) == float("inf")


def test_text_is_zero_behind_its_tokens():
    golden = read(FOLDER / "pipeline_avatar_guided.safetensors")
    for name, tokens in golden.note["text_tokens"].items():
        text = golden.input(name)
        assert text[:, :tokens].abs().sum(-1).min() > 0
        assert not text[:, tokens:].any()
