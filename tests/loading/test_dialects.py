"""Every kind of file that artists hold opens, is called what it is, and gives the numbers it stands for."""

import pytest
import torch

from pack.formats.kinds import KINDS, Precision
from pack.model_loaders.checkpoint import open_checkpoint
from pack.model_loaders.weights import load_weights
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects

NAMES = {
    "bf16": "bf16",
    "fp16": "fp16",
    "fp8 plain": "fp8",
    "fp8 plain e5m2": "fp8",
    "fp8 old": "fp8 scaled",
    "fp8 mixed": "fp8 scaled",
    "int8 rotated": "int8",
    **{kind.word: kind.word for kind in KINDS.values() if kind.word in dialects.DIALECTS},
    "F16": "fp16",
}


def opened(tmp_path, dialect, job=Job.REFERENCE, **options):
    means = dialects.write(dialect, tmp_path / "r2v", job, **options)
    (path,) = tmp_path.glob("r2v.*")
    return open_checkpoint(path, job), means


@pytest.mark.parametrize("dialect", dialects.DIALECTS)
def test_numbers(tmp_path, dialect):
    """Unpacked to float32, a file gives what it stands for; kept packed, what is unpacked for a call is the same."""
    checkpoint, means = opened(tmp_path, dialect)
    assert NAMES.get(dialect, checkpoint.precision) in checkpoint.precision
    high = load_weights(checkpoint, Precision.BF16, torch.float32).tensors
    assert high.keys() == means.keys()
    for name, weight in high.items():
        torch.testing.assert_close(weight, means[name], rtol=2e-6, atol=1e-7, msg=name)
    kept = load_weights(checkpoint, Precision.AUTO, torch.float32)
    for layer, format in kept.formats.items():
        name = f"{layer}.weight"
        parts = {key.removeprefix(f"{layer}."): part for key, part in kept.tensors.items() if key.startswith(name)}
        weight = format.unpack(parts, *means[name].shape, torch.float32)
        torch.testing.assert_close(weight, means[name], rtol=2e-6, atol=1e-7, msg=name)
    assert bool(kept.formats) == checkpoint.is_packed == (dialect.lower() not in ("bf16", "fp16", "f16"))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("dialect", dialects.DIALECTS)
def test_prefixes(tmp_path, dialect, prefix):
    checkpoint, means = opened(tmp_path, dialect, Job.AVATAR, prefix=prefix)
    assert checkpoint.job is Job.AVATAR
    high = load_weights(checkpoint, Precision.BF16, torch.float32).tensors
    assert all(torch.allclose(high[name], means[name], rtol=2e-6, atol=1e-7) for name in means)


@pytest.mark.parametrize("dialect", dialects.SAFETENSORS)
def test_diffusers_names(tmp_path, dialect):
    checkpoint, means = opened(tmp_path, dialect, names="diffusers")
    assert checkpoint.dialect == "diffusers"
    high = load_weights(checkpoint, Precision.BF16, torch.float32).tensors
    assert all(torch.allclose(high[name], means[name], rtol=2e-6, atol=1e-7) for name in means)
