"""The shipped nano checkpoints are small, open as real ones do, do what they are asked for, and their control fails."""

import json
import os
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.skyreels_v3.recipes import Job
from pack.tests.support.plugin import ROOT
from pack.training.measures.bounds import MEASURES
from pack.training.models.autoencoder import Autoencoder
from pack.training.models.nano import params_of
from pack.training.models.shipped import FILES, MODELS, NANO

pytestmark = pytest.mark.workshop

MOST_BYTES = 20_000_000


def test_together_they_are_small():
    files = {*MODELS.values(), *FILES.values()}
    assert {file.name for file in NANO.iterdir()} == files
    assert sum((NANO / name).stat().st_size for name in files) <= MOST_BYTES


@pytest.mark.parametrize("job", list(Job), ids=lambda job: job.value)
def test_the_loader_knows_the_job_the_sizes_and_the_precision(job):
    checkpoint = open_checkpoint(NANO / MODELS[job])
    assert checkpoint.job is job
    assert checkpoint.params == params_of(job)
    assert "int8" in checkpoint.precision


def test_the_stock_loader_decodes_what_was_trained(comfyui):
    import torch

    model = Autoencoder().eval()
    model.load_state_dict({name: weight.float() for name, weight in load_file(NANO / FILES["vae"]).items()})
    comfyui.folder_paths.add_model_folder_path("vae", str(NANO))
    comfyui.folder_paths.filename_list_cache.clear()
    (vae,) = comfyui.nodes.VAELoader().load_vae(FILES["vae"])
    latents = torch.randn(1, 16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = vae.decode(latents * model.deviation + model.mean) * 2 - 1
        wanted = model.decode(latents).clamp(-1, 1).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(found.float().reshape(wanted.shape), wanted, rtol=0, atol=0.01)


@pytest.fixture(scope="module")
def said():
    """What `python training/measure.py --quick` says of them."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "training" / "measure.py"), "--quick"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    lines = done.stdout.strip().splitlines()
    assert lines, done.stderr[-4000:]
    return json.loads(lines[-1])


@pytest.mark.parametrize(
    "measure", [one for one in MEASURES if one.held and one.quick], ids=lambda measure: measure.name
)
def test_the_nano_models_pass_and_their_control_fails(measure, said):
    found = said["measures"][measure.name]
    assert found["pass"], found
    assert found["control_fails"], found
