"""The padding of a prompt, merged into one token that counts as many: the same numbers from fewer keys."""

import pytest
import torch

from pack.skyreels_v3.model import transformer
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.model.prompt_padding import merge_padding
from pack.skyreels_v3.model.sequence import avatar_segments, extension_segments


def prompts(*lengths, width=32):
    text = torch.randn(len(lengths), 512, width, generator=torch.Generator().manual_seed(1))
    for prompt, length in zip(text, lengths, strict=True):
        prompt[length:] = 0
    return text


@pytest.mark.parametrize(("lengths", "tokens"), [((7,), 8), ((7, 90), 91), ((0,), 1), ((1,), 2)])
def test_padding_is_one_token_that_counts_as_many(lengths, tokens):
    text = prompts(*lengths)
    features, counts = merge_padding(text)
    assert torch.equal(features, text[:, :tokens])
    assert counts[:-1].eq(0).all() and counts.exp().sum() == pytest.approx(512, rel=1e-5)


@pytest.mark.parametrize("length", [511, 512])
def test_a_full_prompt_stays_as_it_is(length):
    assert merge_padding(prompts(length)) is None


def test_a_graphics_card_attends_to_all_tokens():
    assert merge_padding(prompts(7).to("meta")) is None


@pytest.mark.parametrize("lengths", [(7,), (40, 300), (0, 512)])
@pytest.mark.parametrize("avatar", [False, True])
def test_the_output_is_that_of_all_tokens(monkeypatch, lengths, avatar):
    torch.manual_seed(0)
    audio = AudioParams(width=32, layers=3, dim=32) if avatar else None
    params = TransformerParams(
        dim=128, ffn_dim=256, num_heads=2, num_layers=2, text_dim=32, in_dim=36 if avatar else 16,
        image_dim=24 if avatar else None, audio=audio,
    )  # fmt: skip
    network = transformer.SkyReelsTransformer(params)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    video, given = torch.randn(len(lengths), 16, 3, 8, 8), {}
    segments = extension_segments(video, torch.randn(len(lengths), 16, 2, 8, 8))
    if avatar:
        segments = avatar_segments(video, torch.randn(len(lengths), 20, 3, 8, 8))
        given = {"image": torch.randn(len(lengths), 257, 24), "audio": torch.randn(1, 9, 5, 3, 32)}
    with torch.inference_mode():
        timestep = torch.full((len(lengths),), 500.0)
        few = network(segments, timestep, prompts(*lengths), **given)
        monkeypatch.setattr(transformer, "merge_padding", lambda text: None)
        wanted = network(segments, timestep, prompts(*lengths), **given)
    assert (few - wanted).norm() / wanted.norm() < 1e-5
    assert not torch.equal(few, wanted) or 512 in lengths
