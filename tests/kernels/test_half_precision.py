"""What decides whether a processor computes in 16 bits, and what says that the host does although it should not."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pack
from pack.kernels import half_precision
from pack.tests.support.half_computations import HalfComputations

# As oneDNN is told to be on a processor that has no more than AVX2.
ORDINARY = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
ASKED = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from pack.kernels.half_precision import computed_in
print(computed_in(torch.bfloat16), computed_in(torch.float16))
"""


def test_an_ordinary_processor_computes_in_float32():
    command = [sys.executable, "-c", ASKED, str(Path(pack.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ORDINARY}, check=True)
    assert done.stdout.split() == ["torch.float32"] * 2


def test_only_halves_on_a_processor_are_in_question(monkeypatch):
    monkeypatch.setattr(half_precision, "_on_this_processor", lambda dtype: False)
    for dtype in half_precision.HALF:
        assert half_precision.computed_in(dtype) == half_precision.computed_in(dtype, "cpu") == torch.float32
        assert (
            half_precision.computed_in(dtype, "cuda") == half_precision.computed_in(dtype, torch.device("mps")) == dtype
        )
    for dtype in (torch.float32, torch.float64, torch.int8):
        assert half_precision.in_hardware(dtype) and half_precision.computed_in(dtype) == dtype


@pytest.mark.parametrize("has", [{"avx512_bf16"}, {"amx_tile"}, set()])
def test_avx512_without_units_for_bf16_emulates_it(monkeypatch, has):
    monkeypatch.setattr(half_precision.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    for feature in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(
            torch.cpu, f"_is_{feature}_supported", lambda feature=feature: feature in has, raising=False
        )
    half_precision._on_this_processor.cache_clear()
    assert half_precision.in_hardware(torch.bfloat16) == bool(has)
    half_precision._on_this_processor.cache_clear()


def test_computations_are_told_from_storage():
    x = torch.ones(4, 4, dtype=torch.bfloat16)
    with HalfComputations() as half:
        torch.cat([x.float(), x.T.half().float()])[:2].contiguous().bfloat16().clone().isfinite().all()
    assert not half.found
    with HalfComputations() as half:
        x @ x
    assert half.found == {("mm", torch.bfloat16)}


@pytest.mark.parametrize("dtype", half_precision.HALF)
def test_a_vae_that_the_host_computes_in_halves_is_told_once(pack_nodes, tmp_path, monkeypatch, caplog, dtype):
    import comfy.sd
    from safetensors.torch import load_file

    from pack.dev.samples.tiny_models import write_vae

    own = pack_nodes.module("nodes.encoders.vae")
    monkeypatch.setattr(pack_nodes.module("kernels.half_precision"), "_on_this_processor", lambda dtype: False)
    own._warn_of_slow_nodes.cache_clear()
    vae = comfy.sd.VAE(sd=load_file(write_vae(tmp_path / "vae.safetensors")), dtype=dtype)
    with caplog.at_level(logging.WARNING):
        own.encoder(vae)
        own.decoder(vae)
    told = [record.message for record in caplog.records if "no units for" in record.message]
    flag = {torch.bfloat16: "--bf16-vae", torch.float16: "--fp16-vae"}[dtype]
    assert len(told) == 1 and told[0].endswith(f"start ComfyUI without {flag}.")
