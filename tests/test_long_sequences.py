"""Long sequences pass in parts: the same numbers with less memory, and no more than ComfyUI is told of."""

import sys
from pathlib import Path

import pytest
import torch

import goldens
from pack.skyreels_v3 import transformer
from pack.skyreels_v3.context import extension_segments
from pack.skyreels_v3.params import TransformerParams

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import measure

GOLDENS = Path(__file__).parent / "goldens"
NAMES = ["dit_reference", "dit_extension", "dit_shot", "dit_avatar", "dit_avatar_two_people"]


@pytest.mark.parametrize("chunk, groups", [(5, 2), (16, 3), (1, 1)])
@pytest.mark.parametrize("name", NAMES)
def test_the_goldens_hold_in_parts(monkeypatch, name, chunk, groups):
    monkeypatch.setattr(transformer, "LONG", 1)
    monkeypatch.setattr(transformer, "CHUNK_TOKENS", chunk)
    monkeypatch.setattr(transformer, "HEAD_GROUPS", groups)
    for check in goldens.run(GOLDENS / f"{name}.safetensors"):
        assert check.passed, check


def test_a_long_sequence_needs_less(monkeypatch):
    """In tensors of the stream's size: five for a short sequence, four and a slice for a long one."""
    torch.manual_seed(0)
    params = TransformerParams(dim=128, ffn_dim=256, num_heads=4, num_layers=1, text_dim=32)
    network = transformer.SkyReelsTransformer(params)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    video, prefix = torch.randn(1, 16, 4, 64, 64), torch.randn(1, 16, 2, 64, 64)
    text, tokens = torch.randn(1, 512, 32), 6 * 32 * 32
    outputs, peaks = [], []
    for long in (tokens, tokens - 1):
        monkeypatch.setattr(transformer, "LONG", long)
        monkeypatch.setattr(transformer, "CHUNK_TOKENS", 128)

        def forward():
            with torch.inference_mode():
                return network(extension_segments(video, prefix), torch.tensor([500.0]), text)

        outputs.append(forward())
        peaks.append(measure.peak_allocated(forward) / (tokens * params.dim * 4))
    assert torch.equal(*outputs)
    assert peaks[0] > 5 and peaks[1] < 4.6
