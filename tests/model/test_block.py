"""One block: what it leaves out, and what it computes in one pass."""

import sys

import torch
import torch.nn.functional as F

from pack.formats.encoding import Encoding
from pack.formats.linear import PackedLinear
from pack.formats.registry import format_of
from pack.skyreels_v3.model import audio_attention, transformer
from pack.skyreels_v3.model.chunking import USUAL, Chunking
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.model.sequence import extension_segments, reference_segments, shot_segments
from pack.skyreels_v3.model.transformer import Runtime


def network(layers: int = 2) -> transformer.SkyReelsTransformer:
    torch.manual_seed(0)
    made = transformer.SkyReelsTransformer(
        TransformerParams(dim=128, ffn_dim=256, num_heads=4, num_layers=layers, text_dim=32)
    )
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.requires_grad_(False)


VIDEO, BESIDE, TEXT = torch.randn(1, 16, 3, 8, 8), torch.randn(1, 16, 2, 8, 8), torch.randn(1, 512, 32)
FRAME = 16  # tokens


def forward(model, segments, chunking=USUAL, around=None):
    runtime = Runtime(chunking=chunking, **({} if around is None else {"run_block": around}))
    return model(segments, torch.tensor([500.0]), TEXT, runtime=runtime)


def test_the_last_block_computes_only_what_is_predicted():
    model = network()
    seen: dict[str, int] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0].shape[1]}))
    for make in (reference_segments, extension_segments, shot_segments):
        forward(model, make(VIDEO, BESIDE))
        assert seen["blocks.0.self_attn.q"] == seen["blocks.1.self_attn.k"] == seen["blocks.1.self_attn.v"] == 5 * FRAME
        for name in ("self_attn.q", "self_attn.o", "cross_attn.q", "cross_attn.o", "ffn.0", "ffn.2"):
            assert seen[f"blocks.1.{name}"] == 3 * FRAME, name


def test_what_is_left_out_is_not_missed():
    """The same video where the last block computes every token, and in parts of any size."""
    model, whole = network(), network()
    for block in whole.blocks:
        block.forward = lambda x, step, wanted=None, block=block: type(block).forward(block, x, step)
    for make in (reference_segments, extension_segments, shot_segments):
        segments = make(VIDEO, BESIDE)
        expected = forward(model, segments)
        torch.testing.assert_close(forward(whole, segments), expected, rtol=1e-5, atol=1e-5)
        for tokens in (1, 7, 33, 64):
            own = forward(model, segments, Chunking(long=1, tokens=tokens, head_groups=3))
            torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def test_a_block_can_be_run_again_with_a_copy():
    """As hooks do: what they hand on has the shape of the whole sequence after the last block too."""
    model = network()
    shapes = []

    def around(index, block, x):
        x = block(x.clone())
        shapes.append(tuple(x.shape))
        return x

    own = forward(model, extension_segments(VIDEO, BESIDE), around=around)
    assert torch.equal(own, forward(model, extension_segments(VIDEO, BESIDE)))
    assert shapes == [(1, 5 * FRAME, 128)] * 2


def test_a_packed_layer_applies_gelu_itself(monkeypatch):
    model = network(layers=1)
    expected = forward(model, [*reference_segments(VIDEO, BESIDE)])
    for kind, tolerance in (("int8", 0.03), ("float8_e4m3fn", 0.06), ("nf4", 0.2)):
        format = format_of(Encoding(kind, 64 if kind == "int8" else 0))
        plain = network(layers=1).blocks[0].ffn[0]
        packed = PackedLinear(128, 256, format, format.pack(plain.weight), plain.bias)
        x = torch.randn(2, 5, 128)
        torch.testing.assert_close(packed(x, gelu=True), F.gelu(packed(x), approximate="tanh"), rtol=1e-5, atol=1e-6)
        asked = []
        packed.register_forward_pre_hook(lambda _, args, given, asked=asked: asked.append(given), with_kwargs=True)
        model.blocks[0].ffn[0] = packed
        own = forward(model, reference_segments(VIDEO, BESIDE))
        assert asked == [{"gelu": True}]
        assert (own - expected).norm() < tolerance * expected.norm()


def test_a_lora_comes_before_gelu(pack_nodes):
    """Beside a packed layer it is added to the product, so the layer must not apply GELU on its own."""
    operations = pack_nodes.module("nodes.weights.layers")
    formats = pack_nodes.module("formats.registry"), pack_nodes.module("formats.encoding")
    format = formats[0].format_of(formats[1].Encoding("int8", 64))
    packed = operations.Packed(128, 256, format, format.pack(torch.randn(256, 128)), torch.randn(256))
    assert packed.takes_gelu
    packed.branches = (lambda x, y: y + 1,)
    assert not packed.takes_gelu
    plain = operations.branching(sys.modules["comfy.ops"].disable_weight_init).Linear(8, 8)
    assert not getattr(plain, "takes_gelu", False)


def test_parts_are_cut_where_frames_end():
    def pieces(start, stop):
        cut = audio_attention.whole_frames(slice(start, stop), 4)
        return [(tokens.start, tokens.stop, frames.start, frames.stop) for tokens, frames in cut]

    assert pieces(0, 12) == [(0, 12, 0, 3)]
    assert pieces(1, 3) == [(0, 2, 0, 1)]
    assert pieces(3, 5) == [(0, 1, 0, 1), (1, 2, 1, 2)]
    assert pieces(2, 11) == [(0, 2, 0, 1), (2, 6, 1, 2), (6, 9, 2, 3)]
    assert pieces(4, 9) == [(0, 4, 1, 2), (4, 5, 2, 3)]
