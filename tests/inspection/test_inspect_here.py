"""What tools/inspect_model.py says of this machine: as Load Model and Plan would, from the header alone."""

import argparse
import json

import pytest
import torch

from pack.formats.kinds import Precision
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.weights import load_weights
from pack.skyreels_v3.jobs.estimates.budget import Machine
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.skyreels_v3.units import GB
from pack.tests.inspection.test_inspect_model import check, header_only
from pack.tests.support import dialects
from pack.tools import inspect_model
from pack.tools.inspecting import here
from pack.tools.inspecting.here import describe, plan_here, weights_bytes

R2V, A2V = TransformerParams(), TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Models of real size with nothing in them."""
    folder = tmp_path_factory.mktemp("real")
    return {
        "r2v": open_checkpoint(header_only(folder / "r2v.safetensors", expected_shapes(R2V))),
        "a2v": open_checkpoint(header_only(folder / "a2v.safetensors", expected_shapes(A2V))),
        "a2v fp32": open_checkpoint(header_only(folder / "a2v_fp32.safetensors", expected_shapes(A2V), "F32", 4)),
    }


def said(checkpoint, vram: float, ram: float, device: str = "cuda") -> tuple[str, ...]:
    return describe(checkpoint, Machine(device, int(vram * GB), int(vram * GB), int(ram * GB), int(ram * GB), GB // 2))


@pytest.mark.parametrize(
    ("model", "vram", "ram", "words"),
    [
        ("r2v", 12, 64, ("Precision int8", "take 14.5 GB of RAM.", "It fits: 6.6")),  # as the README's tables
        ("r2v", 24, 64, ("Precision int8", "take 14.5 GB of RAM.", "It fits: all weights stay")),
        ("r2v", 12, 16, ("Precision nf4", "take 8.4 GB of RAM.", "It fits: all weights stay")),
        ("r2v", 80, 64, ("as in the file", "take 28.6 GB of RAM.", "It fits: all weights stay")),
        ("r2v", 80, 16, ("as in the file", "28.6 GB of RAM, more than is free: what does not fit", "It fits")),
        ("a2v", 8, 64, ("Precision int8", "take 19.2 GB of RAM.", "It fits: 14.5")),
        ("a2v", 2, 64, ("Precision int8", "take 19.2 GB of RAM.", "cannot fit: it needs at least")),
        ("a2v", 8, 10, ("Precision nf4", "11.1 GB of RAM, more than is free: close other", "It fits")),
        ("a2v fp32", 80, 64, ("as in the file", "take 37.8 GB of RAM.", "It fits")),
    ],
)
def test_real_models(real, model, vram, ram, words):
    first, *others = said(real[model], vram, ram)
    assert (
        first == f"There are {vram}.0 GB of VRAM, {vram}.0 GB of it free, and {ram}.0 GB of RAM, {ram}.0 GB of it free."
    )
    assert len(others) == 3 and all(word in sentence for word, sentence in zip(words, others, strict=True))


def test_machines_without_a_card(real):
    lines = said(real["r2v"], 64, 64, "cpu")
    assert "No graphics card" in lines[0] and "everything stays in RAM" in lines[-1]
    lines = said(real["r2v"], 64, 64, "mps")
    assert lines[0].startswith("There are 64.0 GB of RAM") and "everything stays in RAM" in lines[-1]


@pytest.mark.parametrize("dialect", ["bf16", "fp8 mixed", "int8 tensorwise", "nvfp4", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("precision", [Precision.AUTO, Precision.INT8, Precision.NF4])
def test_bytes_are_those_of_the_loaded_model(tmp_path, dialect, precision):
    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE)
    (path,) = tmp_path.iterdir()
    checkpoint = open_checkpoint(path)
    loaded = sum(tensor.nbytes for tensor in load_weights(checkpoint, precision, torch.bfloat16).tensors.values())
    assert abs(weights_bytes(checkpoint, precision) / loaded - 1) < 0.05  # scales of so narrow rows


def test_amounts_of_memory():
    written = {"12": 12, "12GB": 12, "12.5 g": 12.5, "12,5GB": 12.5, "16GiB": 16 * 1.024**3, "24576 MiB": 24 * 1.024**3}
    assert {text: here.gigabytes(text) for text in written} == pytest.approx(written)
    for text in ("", "x", "-3", "0", "nan", "12 GBs", "GB"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no amount of memory: write GB"):
            here.gigabytes(text)


def test_the_tool_says_it(tmp_path, capsys, monkeypatch):
    path = str(header_only(tmp_path / "r2v.safetensors", expected_shapes(R2V)))
    assert inspect_model.main([path, "--vram", "12", "--ram", "32"]) == 0
    line = json.loads(capsys.readouterr().out)
    check(line)
    assert "12.0 GB of VRAM" in line["here"][0] and line["here"][1].startswith("Precision int8")
    inspect_model.main([path, "--vram", "12GB", "--ram=32 gb"])
    assert json.loads(capsys.readouterr().out) == line
    inspect_model.main([path])
    line = json.loads(capsys.readouterr().out)
    check(line)
    assert len(line["here"]) == 4
    for error, words in (
        (ImportError(), "Run this with ComfyUI's Python"),
        (RuntimeError("no\ndriver"), "(no driver)"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(here, "machine_with", fail)
        assert words in plan_here(None, None)(open_checkpoint(tmp_path / "r2v.safetensors"))[0]
