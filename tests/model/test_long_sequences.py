"""Long sequences pass in parts: the same numbers with less memory, and no more than ComfyUI is told of."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch

from pack.benchmarks.harness import measure
from pack.dev.samples.tiny_models import write_transformer
from pack.formats.encoding import Encoding
from pack.formats.linear import PackedLinear
from pack.formats.registry import format_of
from pack.skyreels_v3.model import memory, transformer
from pack.skyreels_v3.model.chunking import USUAL, Chunking
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.model.sequence import avatar_segments, extension_segments, reference_segments
from pack.skyreels_v3.model.transformer import Runtime
from pack.tests.goldens import run as goldens
from pack.tests.support.out_of_memory import OUT_OF_MEMORY

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
NAMES = ["dit_reference", "dit_extension", "dit_shot", "dit_avatar", "dit_avatar_two_people"]


@pytest.mark.parametrize("chunk, groups, keys", [(5, 2, 1), (16, 3, 2), (1, 1, 1), (7, 4, 4)])
@pytest.mark.parametrize("name", NAMES)
def test_the_goldens_hold_in_parts(monkeypatch, name, chunk, groups, keys):
    def parted(golden):
        model = network(golden)
        model.forward = partial(model.forward, runtime=Runtime(chunking=Chunking(1, chunk, groups, keys)))
        return model

    network = goldens.network
    monkeypatch.setattr(goldens, "network", parted)
    for check in goldens.run(GOLDENS / f"{name}.safetensors"):
        assert check.passed, check


def test_a_long_sequence_needs_less():
    """In tensors of the stream's size: five for a short sequence, four and a slice for a long one, three or two and a
    half where keys and values are made by groups of heads."""
    torch.manual_seed(0)
    params = TransformerParams(dim=128, ffn_dim=256, num_heads=4, num_layers=2, text_dim=32)
    network = transformer.SkyReelsTransformer(params)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    video, prefix = torch.randn(1, 16, 4, 64, 64), torch.randn(1, 16, 2, 64, 64)
    text, tokens = torch.randn(1, 512, 32), 6 * 32 * 32
    outputs, peaks = [], []
    for long, keys in ((tokens, 1), (tokens - 1, 1), (0, 2), (0, 4)):
        runtime = Runtime(chunking=Chunking(long, tokens=128, key_groups=keys))

        def forward(runtime=runtime):
            with torch.inference_mode():
                return network(extension_segments(video, prefix), torch.tensor([500.0]), text, runtime=runtime)

        outputs.append(forward())
        peaks.append(measure.peak_allocated(forward) / (tokens * params.dim * 4))
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert peaks[0] > 5 and peaks[1] < 4.6 and peaks[2] < 3.6 and peaks[3] < 3.1


SIZES = [(2, 8, 12), (5, 16, 16), (8, 32, 32)]


@pytest.mark.parametrize("frames, height, width", SIZES)
@pytest.mark.parametrize(
    "job, keys", [("reference", 1), ("reference", 2), ("extension", 1), ("avatar", 1), ("avatar", 2)]
)
def test_the_byte_model_is_what_is_measured(job, keys, frames, height, width):
    """Never below the peak of a forward, and not far above it."""
    chunking = Chunking(long=1024, tokens=256, key_groups=keys)
    avatar = {"in_dim": 36, "image_dim": 64, "audio": AudioParams(hidden=8, width=16, tokens=4, dim=16)}
    extra = avatar if job == "avatar" else {}
    params = TransformerParams(dim=256, ffn_dim=691, num_heads=4, num_layers=2, text_dim=32, **extra)
    network = transformer.SkyReelsTransformer(params)
    video = torch.randn(1, 16, frames, height, width)
    beside = torch.randn(1, 20 if job == "avatar" else 16, frames if job == "avatar" else 3, height, width)
    make = {"reference": reference_segments, "extension": extension_segments, "avatar": avatar_segments}[job]
    segments = make(video, beside)
    given = {}
    if job == "avatar":
        given = {"image": torch.randn(1, 257, 64), "audio": torch.randn(1, 4 * frames - 3, 5, 12, 16)}
    text = torch.randn(1, 512, 32)
    tokens = sum(segment.latents.shape[2] for segment in segments) * height * width // 4

    def forward():
        with torch.inference_mode():
            network(segments, torch.tensor([500.0]), text, runtime=Runtime(chunking=chunking), **given)

    fixed = 4 * 769 * 256 * 4  # embeddings, keys and values of text and image: little beside a real sequence
    peak, model = measure.peak_allocated(forward), memory.forward_bytes(params, tokens, 4, chunking)
    real = model - memory.PROMPT - (memory.SPEECH if job == "avatar" else 0)  # which are those of real prompts
    assert peak <= 1.02 * real + fixed and real <= 1.35 * peak


def test_queries_keys_and_values_share_one_quantised_input(monkeypatch):
    """int8 layers with one rotation quantise their input once, alone or in parts, and give what they give apart."""
    torch.manual_seed(0)
    params = TransformerParams(dim=128, ffn_dim=256, num_heads=4, num_layers=1, text_dim=32)
    network = transformer.SkyReelsTransformer(params)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    layers = [(network.blocks[0].self_attn, name) for name in "qkv"] + [(network.blocks[0].ffn, "0")]
    int8 = format_of(Encoding("int8", 64))
    for parent, name in layers:
        old = getattr(parent, name)
        packed = PackedLinear(
            old.in_features, old.out_features, int8, int8.pack(old.weight.detach()), old.bias.detach()
        )
        setattr(parent, name, packed)
    video, text = torch.randn(1, 16, 2, 8, 8), torch.randn(1, 512, 32)
    inputs = []
    network.blocks[0].self_attn.k.register_forward_pre_hook(lambda _, given: inputs.append(type(given[0]).__name__))

    def forward(chunking):
        with torch.inference_mode():
            segments = extension_segments(video, video)
            return network(segments, torch.tensor([500.0]), text, runtime=Runtime(chunking=chunking))

    together = forward(USUAL)
    in_parts = forward(Chunking(long=1, tokens=7))
    monkeypatch.setattr(PackedLinear, "quantised_input", lambda self, device: None)
    apart = forward(Chunking(long=1, tokens=7))
    assert inputs[0] == inputs[1] == "QuantisedRows" and inputs[-1] == "Tensor"
    for output in (in_parts, apart):
        torch.testing.assert_close(output, together, rtol=1e-5, atol=1e-5)


def test_what_other_code_does_to_a_layer_holds_in_parts():
    """Another module in a layer's place, and a hook that hands a layer another dtype than the sequence has."""
    torch.manual_seed(0)
    params = TransformerParams(dim=128, ffn_dim=256, num_heads=4, num_layers=1, text_dim=32)
    network = transformer.SkyReelsTransformer(params)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    block, nf4 = network.blocks[0], format_of(Encoding("nf4"))
    block.ffn[2] = torch.nn.Sequential(block.ffn[2])
    old = block.cross_attn.o
    block.cross_attn.o = PackedLinear(128, 128, nf4, nf4.pack(old.weight.detach()), old.bias.detach())
    block.cross_attn.o.register_forward_pre_hook(lambda _, given: (given[0].bfloat16(),))
    block.cross_attn.o.register_forward_hook(lambda _, given, made: made.float())
    video, text = torch.randn(1, 16, 2, 8, 8), torch.randn(1, 512, 32)

    def forward(chunking):
        with torch.inference_mode():
            segments = extension_segments(video, video)
            return network(segments, torch.tensor([500.0]), text, runtime=Runtime(chunking=chunking))

    together = forward(USUAL)
    torch.testing.assert_close(forward(Chunking(long=1, tokens=7)), together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["nf4", "Q4_K"])
def test_a_weight_is_unpacked_once_for_all_parts_of_a_sequence(monkeypatch, kind):
    """As far as it fits beside the rest: what a layer does at each call costs a small card a third of its time."""
    torch.manual_seed(0)
    params = TransformerParams(dim=256, ffn_dim=512, num_heads=4, num_layers=2, text_dim=32)
    network = transformer.SkyReelsTransformer(params)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    format = format_of(Encoding(kind))
    for block in network.blocks:
        for parent, name in [(block.self_attn, n) for n in "qkvo"] + [(block.ffn, "0"), (block.ffn, "2")]:
            old, parts = getattr(parent, name), {}
            if kind == "nf4":
                parts = format.pack(old.weight.detach())
            else:
                codes = torch.randint(0, 256, (old.out_features, old.in_features // 256 * 144), dtype=torch.uint8)
                codes.unflatten(-1, (-1, 144))[..., :4] = torch.tensor([0.01, 0.01]).half().view(torch.uint8)
                parts = {"weight": codes}
            packed = PackedLinear(old.in_features, old.out_features, format, parts, old.bias.detach())
            setattr(parent, name, packed)
    video, text = torch.randn(1, 16, 3, 24, 32), torch.randn(1, 512, 32)
    made, unpack = [], type(format).unpack
    monkeypatch.setattr(type(format), "unpack", lambda *given: made.append(None) or unpack(*given))

    def forward(chunking, video=video):
        made.clear()
        with torch.inference_mode():
            segments = extension_segments(video, video)
            return network(segments, torch.tensor([500.0]), text, runtime=Runtime(chunking=chunking))

    whole, once = forward(USUAL), len(made)
    in_parts = forward(Chunking(long=1, tokens=100))
    torch.testing.assert_close(in_parts, whole, rtol=1e-4, atol=1e-4)
    assert len(made) == 12 <= once  # whole, there is no room to keep the feed-forward for both ranges of modulation
    assert not any(layer._ready for layer in network.modules() if isinstance(layer, PackedLinear))
    # 32 tokens in two parts take less memory than the feed-forward's weights.
    forward(Chunking(long=1, tokens=16), video[..., :8, :8])
    assert len(made) > 12


@pytest.mark.parametrize("how", OUT_OF_MEMORY)
def test_out_of_memory_steps_down(pack_nodes, tmp_path, monkeypatch, how):
    """A step that does not fit is made again in smaller parts, as are all after it: same numbers, no second failure."""
    import comfy.sample

    Job = pack_nodes.module("skyreels_v3.recipes").Job
    condition = pack_nodes.module("nodes.network.condition")
    levels = pack_nodes.module("skyreels_v3.model.chunking").LEVELS
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    patcher = pack_nodes.module("nodes.models.load").load_patcher(str(path))
    network = patcher.model.diffusion_model
    text = torch.randn(1, 512, 4096, generator=torch.Generator().manual_seed(1))
    job = condition.JobCondition(Job.REFERENCE, torch.zeros(1, 16, 4, 8, 12))
    positive = condition.attach([[text, {}]], job)
    latent = torch.zeros(1, 16, 3, 8, 12)
    noise = comfy.sample.prepare_noise(latent, 5)

    def sample():
        return comfy.sample.sample(patcher, noise, 2, 1.0, "euler", "simple", positive, positive, latent, seed=5)

    wanted, tried, failures = sample(), [], [1]
    failure = OUT_OF_MEMORY[how]

    def attend(x, modulation, inputs, wanted):
        tried.append(inputs.runtime.chunking)
        if failures:
            failures.pop()
            raise failure
        return type(layer).forward(layer, x, modulation, inputs, wanted)

    layer = network.blocks[1].self_attn
    layer.forward = attend
    torch.testing.assert_close(sample(), wanted, rtol=1e-5, atol=1e-5)
    assert tried == [levels[0], levels[1], levels[1]]
    sample()
    assert tried[3:] == [levels[1]] * 2  # the next roll of the same size does not run out again
    network_module = pack_nodes.module("nodes.network.network")
    monkeypatch.setattr(network_module, "chunking_here", lambda *_: lambda *_: levels[2])
    sample()
    assert tried[5:] == [levels[2]] * 2  # where less is free than then, smaller parts are planned
    monkeypatch.undo()
    failures[:] = [1, 1]
    with pytest.raises(type(failure), match=re.escape(str(failure))):
        sample()


def test_comfyui_is_told_that_memory_ran_out(pack_nodes, monkeypatch):
    """0.33 clears what a card that ran out in the middle of its queue would report once more, at the next call."""
    import comfy.model_management

    told = []
    monkeypatch.setattr(comfy.model_management, "is_oom", told.append, raising=False)
    is_out_of_memory = pack_nodes.module("nodes.versions").is_out_of_memory
    assert all(map(is_out_of_memory, OUT_OF_MEMORY.values())) and told == [*OUT_OF_MEMORY.values()]
