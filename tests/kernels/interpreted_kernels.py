"""The Triton kernels in Triton's interpreter, each against its eager reference.

Run by test_kernels.py in a process of its own, because TRITON_INTERPRET must be set before Triton is imported. One of
each kind in `make test`, the other dtypes and sizes in the workshop: the interpreter is slow.
"""

import importlib
import math
import os

import numpy as np
import pytest
import torch
import triton.language as tl
import triton.runtime.interpreter as interpreter

from pack import kernels
from pack.kernels import dispatch, triton_int8_linear, triton_modulation, triton_norm_rope, triton_quantise
from pack.kernels.quantised_rows import KINDS, Quantisation, QuantisedRows, quantise_rows, rows_like
from pack.kernels.rotation import rotate
from pack.tests.support.golden import normal, relative_error

assert os.environ.get("TRITON_INTERPRET") == "1", "tests/kernels/test_kernels.py runs this file"


def workshop(*values):
    return pytest.param(*values, marks=pytest.mark.workshop)


DTYPES = (torch.bfloat16, workshop(torch.float32), workshop(torch.float16))
# Heads and numbers of a head: 128, 320, 512, 384 and 60 wide.
HEADS = (workshop(1, 128), workshop(1, 320), workshop(4, 128), (3, 128), (3, 20))
EPS = 1e-6
CUT_OFF = {tl.bfloat16: torch.bfloat16, tl.float8e4nv: torch.float8_e4m3fn}


@pytest.fixture(autouse=True)
def rounds_as_devices_do(monkeypatch):
    """The interpreter cuts numbers off where they become bfloat16 or fp8; devices round to the nearest."""
    convert = interpreter._convert_float

    def rounded(numbers, source, target, mode):
        if source != tl.float32 or target not in CUT_OFF:
            return convert(numbers, source, target, mode)
        out = torch.from_numpy(np.ascontiguousarray(numbers).view(np.float32)).to(CUT_OFF[target])
        bits = np.uint16 if out.itemsize == 2 else np.uint8
        return out.view(torch.int16 if out.itemsize == 2 else torch.uint8).numpy().view(bits).reshape(numbers.shape)

    monkeypatch.setattr(interpreter, "_convert_float", rounded)


def assert_close(own: torch.Tensor, wanted: torch.Tensor, roundings: int = 1) -> None:
    """Equal but for the order of float32 sums, which moves few results to the next number of their dtype."""
    assert own.dtype == wanted.dtype and own.shape == wanted.shape
    eps = torch.finfo(wanted.dtype).eps
    little = 4e-6 * max(wanted.float().abs().max().item(), 1)
    torch.testing.assert_close(own.float(), wanted.float(), rtol=roundings * eps, atol=little)
    if wanted.dtype != torch.float32:
        assert ((own.float() - wanted.float()).abs() > little).float().mean() < 0.02


def assert_same_codes(own: QuantisedRows, wanted: QuantisedRows) -> None:
    """The same scales but for their last bits, and codes that are at most the next one, seldom."""
    assert own.codes.dtype == wanted.codes.dtype and own.codes.shape == wanted.codes.shape
    assert own.scale.shape == wanted.scale.shape and (own.rotation, own.dtype) == (wanted.rotation, wanted.dtype)
    torch.testing.assert_close(own.scale, wanted.scale, rtol=2e-6, atol=0)
    differ = own.codes.float() != wanted.codes.float()
    assert differ.float().mean() < 0.01
    # Neighbouring codes: as integers in order, those of fp8 too.
    steps = own.codes.view(torch.int8).int() - wanted.codes.view(torch.int8).int()
    assert steps.abs().max() <= 1


def tokens(key: str, length: int, width: int, dtype: torch.dtype, batch: int = 2) -> torch.Tensor:
    return (normal(key, (batch, length, width)) * 3 + 0.5).to(dtype)


def modulation(rows: int, width: int) -> tuple[torch.Tensor, ...]:
    """gate, shift, scale: views of six rows, as the network has them."""
    return normal("modulation", (rows, 6, width)).unbind(1)[2:5]


def quantisations(width: int) -> list[Quantisation]:
    fitting = [rotation for rotation in (0, 4, 16, 64, 256) if not rotation or width % rotation == 0]
    return [Quantisation("int8", rotation) for rotation in fitting] + [Quantisation("fp8")]


# Norm, modulation, gate.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "batch, length, width, rows",
    [workshop(1, 1, 128, 1), workshop(1, 33, 128, 1), (2, 7, 320, 2), workshop(2, 1, 512, 2), (2, 7, 512, 1)],
)
def test_norm_and_modulation(dtype, batch, length, width, rows):
    gate, shift, scale = modulation(rows, width)
    x, y = (tokens(key, length, width, dtype, batch) for key in "xy")
    own = triton_modulation.norm_modulate(x, shift, scale, EPS)
    wanted = kernels.norm_modulate.eager(x, shift, scale, EPS)
    assert_close(own, wanted)
    assert torch.equal(own, triton_modulation.norm_modulate(x, shift, scale, EPS))

    for g in (gate, None):
        stream, both = x.clone(), x.clone()
        assert triton_modulation.add_gated_(stream, y, g) is stream
        wanted = kernels.add_gated_.eager(x.clone(), y, g)
        assert_close(stream, wanted)
        normed = triton_modulation.add_gated_norm_modulate_(both, y, g, shift, scale, EPS)
        assert torch.equal(both, stream)
        assert_close(normed, kernels.norm_modulate.eager(stream, shift, scale, EPS))


def test_one_part_of_a_sequence_into_another():
    """Token ranges are views: of two videos, neither contiguous; what lies beside them stays."""
    gate, shift, scale = modulation(2, 128)
    whole, more = tokens("x", 9, 128, torch.bfloat16), tokens("y", 9, 256, torch.bfloat16)[..., 64:192]
    x, y, span = whole.clone(), more, slice(2, 7)
    for how in (None, Quantisation("int8", 64), Quantisation("fp8")):
        x.copy_(whole)
        out, wanted = (rows_like(x, how) for _ in range(2))
        for part in (out, wanted):
            for tensor in (part,) if how is None else (part.codes, part.scale):
                tensor.fill_(7)
        given = (gate, shift, scale, EPS, how)
        returned = triton_modulation.add_gated_norm_modulate_(x[:, span], y[:, span], *given, out=out[:, span])
        reference = whole.clone()
        kernels.add_gated_norm_modulate_.eager(reference[:, span], y[:, span], *given, out=wanted[:, span])
        assert_close(x, reference)
        if how is None:
            assert returned.data_ptr() == out[:, span].data_ptr()
            assert_close(out, wanted)
        else:
            assert returned.codes.data_ptr() == out[:, span].codes.data_ptr()
            assert_outside(out, span)
            assert relative_error(out.unpacked()[:, span].float(), wanted.unpacked()[:, span].float()) < 0.02


def assert_outside(rows: QuantisedRows, span: slice) -> None:
    outside = [i for i in range(rows.shape[1]) if not span.start <= i < span.stop]
    assert (rows.codes[:, outside].float() == 7).all() and (rows.scale[:, outside] == 7).all()


def test_numbers_that_do_not_lie_side_by_side_are_left_to_the_reference():
    _, shift, scale = modulation(1, 128)
    x = tokens("x", 5, 256, torch.float32)[..., ::2]
    assert triton_modulation.norm_modulate(x, shift, scale, EPS) is NotImplemented
    assert triton_norm_rope.rms_norm_(x, shift[0], EPS) is NotImplemented
    assert triton_modulation.add_gated_(x, x, shift) is NotImplemented


# Quantised rows.


@pytest.mark.parametrize("dtype", (torch.float32, workshop(torch.float16)))
@pytest.mark.parametrize("width", (workshop(128), 320, workshop(512)))
def test_codes(dtype, width):
    _, shift, scale = modulation(1, width)
    x = tokens("x", 7, width, dtype)
    for how in quantisations(width):
        own = triton_quantise.quantised(x, how)
        assert_same_codes(own, kernels.quantised.eager(x, how))
        again = triton_quantise.quantised(x, how)
        assert torch.equal(own.codes.view(torch.uint8), again.codes.view(torch.uint8))
        assert torch.equal(own.scale, again.scale)
        normed = triton_modulation.norm_modulate(x, shift, scale, EPS, how)
        assert_same_codes(normed, kernels.norm_modulate.eager(x, shift, scale, EPS, how))


@pytest.mark.parametrize("width", (workshop(64), 320, 512))
def test_codes_of_bfloat16_are_the_nearest_to_the_exact_rotation(width):
    """The reference rounds what it has rotated to bfloat16, the kernel does not."""
    x = tokens("x", 7, width, torch.bfloat16)
    for how in quantisations(width):
        own, exact = triton_quantise.quantised(x, how), rotate(x.double(), how.rotation)
        wrong = (own.codes.double() * own.scale - exact).abs()
        if how.kind == "int8":
            assert (wrong <= own.scale / 2 * (1 + 1e-4)).all()
        else:
            assert (wrong <= exact.abs() / 16 * (1 + 1e-4) + own.scale / 1024).all()
        top = KINDS[how.kind][1]
        torch.testing.assert_close(own.scale[..., 0].double(), exact.abs().amax(-1) / top, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(512,), (1, 512), (2, 3, 512), (0, 512)])
def test_rows_of_any_shape(shape):
    x, how = normal("x", shape), Quantisation("int8", 256)
    assert_shape(x, how)
    assert_shape(normal("x", (512, 5)).t(), how)


def assert_shape(x, how):
    own, wanted = triton_quantise.quantised(x, how), kernels.quantised.eager(x, how)
    assert own.scale.shape == wanted.scale.shape
    assert torch.equal(own.codes, wanted.codes) or relative_error(own.unpacked(), wanted.unpacked()) < 1e-3


@pytest.mark.parametrize("how", quantisations(512), ids=str)
def test_rows_that_are_not_finite_say_so_and_spoil_no_other(how):
    x = normal("x", (5, 512))
    clean = triton_quantise.quantised(x, how)
    x[1, 5], x[2, 6], x[3] = math.nan, math.inf, 0
    own = triton_quantise.quantised(x, how)
    unpacked = own.codes.float() * own.scale
    assert not unpacked[1:3].isfinite().any() and not unpacked[3].any()
    for row in (0, 4):
        assert torch.equal(own.codes[row].float(), clean.codes[row].float()) and own.scale[row] == clean.scale[row]


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="256 columns do not divide 320"):
        triton_quantise.quantised(normal("x", (2, 320)), Quantisation("int8", 256))


# RMS norm and rotary positions.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch, length", [workshop(1, 1), (2, 7), workshop(1, 33)])
@pytest.mark.parametrize("heads, dim", HEADS)
def test_norm_and_rotary_positions(dtype, batch, length, heads, dim):
    width = heads * dim
    x, weight = tokens("x", length, width, dtype, batch), normal("weight", (width,)) + 1
    angles = normal("angles", (length, dim // 2)) * 10
    table = torch.stack([angles.cos(), angles.sin()], dim=-1)
    own = x.clone()
    out = triton_norm_rope.rms_norm_rope_(own, weight, table, heads, EPS)
    assert out.data_ptr() == own.data_ptr() and out.shape == (batch, length, heads, dim)
    # In steps, since on a CPU the reference for float32 is another.
    wanted = kernels.rms_norm_.eager(x.clone(), weight, EPS)
    assert_close(triton_norm_rope.rms_norm_(x.clone(), weight, EPS), wanted, roundings=2)
    wanted = kernels.rotate_(wanted.unflatten(-1, (heads, -1)), table[None, :, None])
    # A pair that turns to almost zero keeps the roundings of its larger numbers.
    size = 3 * wanted.float().abs().amax()
    assert ((out.float() - wanted.float()).abs() <= size * torch.finfo(dtype).eps + 1e-5).all()
    assert relative_error(out.float(), wanted.float()) < max(torch.finfo(dtype).eps / 4, 1e-6)
    again = triton_norm_rope.rms_norm_rope_(x.clone(), weight, table, heads, EPS)
    assert torch.equal(again, out)


def test_part_of_a_wider_tensor_is_normed_in_place():
    wide, weight = tokens("x", 7, 384, torch.float32), normal("weight", (128,))
    before, part = wide.clone(), slice(128, 256)
    triton_norm_rope.rms_norm_(wide[..., part], weight, EPS)
    wanted = before.clone()
    kernels.rms_norm_.eager(wanted[..., part], weight, EPS)
    assert_close(wide, wanted)
    assert torch.equal(wide[..., :128], before[..., :128])


def test_a_table_of_another_length_is_refused():
    x, table = tokens("x", 7, 128, torch.float32), torch.zeros(6, 64, 2)
    with pytest.raises(ValueError, match="do not belong"):
        triton_norm_rope.rms_norm_rope_(x, torch.ones(128), table, 1, EPS)


# int8 layers.


def weights(rows: int, columns: int, rotation: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return quantise_rows(rotate(normal("weight", (rows, columns)) / columns**0.5, rotation))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("length", [workshop(1), 7, workshop(33)])
def test_int8_layer(dtype, gelu, length):
    rows, columns = 71, 320
    codes, scale = weights(rows, columns, 64)
    bias, x = normal("bias", (rows,)).to(dtype), tokens("x", length, columns, dtype)
    q = kernels.quantised.eager(x, Quantisation("int8", 64))
    for s, b in ((scale, bias), (scale.mean(), None)):
        own = triton_int8_linear.int8_linear(q, codes, s, b, 64, gelu)
        assert_close(own, kernels.int8_linear.eager(q, codes, s, b, 64, gelu))
        assert torch.equal(own, triton_int8_linear.int8_linear(q, codes, s, b, 64, gelu))
    own = triton_int8_linear.int8_linear(x, codes, scale, bias, 64, gelu)
    assert_close(own, kernels.int8_linear.eager(x, codes, scale, bias, 64, gelu))


@pytest.mark.parametrize("m, n, k", [(1, 7, 100), (33, 8, 64), (70, 130, 96), (200, 33, 40), (16, 1, 1)])
@pytest.mark.parametrize("tile", [(16, 16, 32, 4, 3), triton_int8_linear.TILES[0], triton_int8_linear.TILES[-1]])
def test_every_tile_of_a_product(m, n, k, tile):
    """Sums of int8 are exact and every scale is a power of two, so the results are equal to the last bit."""
    a, b = ((normal(key, shape) * 60).clamp(-127, 127).to(torch.int8) for key, shape in (("a", (m, k)), ("b", (n, k))))
    row_scale, scale = (2.0 ** normal(key, (size,)).round() for key, size in (("row", m), ("column", n)))
    rows, out = QuantisedRows(a, row_scale[:, None], 0, torch.float32), torch.full((m, n), math.nan)
    triton_int8_linear.multiply(rows, b, scale, None, False, out, tile)
    assert torch.equal(out, (a.int() @ b.int().t()).float() * row_scale[:, None] * scale)


def test_long_inputs_are_worked_on_in_pieces(monkeypatch):
    codes, scale = weights(7, 64)
    x = normal("x", (2, 13, 64))
    whole = triton_int8_linear.int8_linear(x, codes, scale)
    monkeypatch.setattr(triton_int8_linear, "CHUNK_ROWS", 5)
    assert torch.equal(triton_int8_linear.int8_linear(x, codes, scale), whole)
    assert triton_int8_linear.int8_linear(x[:0], codes, scale).shape == (0, 13, 7)


def test_not_a_number_stays_in_its_row():
    codes, scale = weights(7, 64, 64)
    x = normal("x", (4, 64))
    clean = triton_int8_linear.int8_linear(x, codes, scale, None, 64)
    x[1, 5], x[2, 6] = math.nan, math.inf
    y = triton_int8_linear.int8_linear(x, codes, scale, None, 64)
    assert not y[1:3].isfinite().any() and torch.equal(y[[0, 3]], clean[[0, 3]])


# All together.


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_backend_passes_its_own_trial(monkeypatch, dtype):
    """The trial that a card gets, in the interpreter: every kernel is taken, none is given up."""
    module = importlib.import_module("pack.kernels.modulation")
    said = []
    monkeypatch.setattr(dispatch.log, "warning", lambda *args: said.append(args))
    operations = [kernels.norm_modulate, kernels.add_gated_, kernels.add_gated_norm_modulate_, kernels.quantised]
    operations += [kernels.rms_norm_, kernels.rms_norm_rope_, kernels.int8_linear, kernels.fp8_linear]
    for operation in operations:
        monkeypatch.setattr(operation, "devices", ("cpu",))
        monkeypatch.setattr(operation, "_tried", {})
    x, y = tokens("x", 4, 256, dtype), tokens("y", 4, 256, dtype)
    gate, shift, scale = modulation(1, 256)
    angles = normal("angles", (4, 64))
    table = torch.stack([angles.cos(), angles.sin()], dim=-1)
    for how in (None, Quantisation("int8", 256), Quantisation("fp8")):
        kernels.norm_modulate(x, shift, scale, EPS, how)
        kernels.add_gated_norm_modulate_(x, y, gate, shift, scale, EPS, quantise=how)
    kernels.add_gated_(x, y, gate)
    kernels.add_gated_(x, y, None)
    kernels.rms_norm_rope_(x, shift[0], table, 2, EPS)
    kernels.rms_norm_(x, shift[0], EPS)
    codes, factors = weights(48, 256, 256)
    kernels.int8_linear(x, codes, factors, normal("bias", (48,)).to(dtype), 256, gelu=True)
    codes, factors = quantise_rows(normal("weight", (48, 256)), "fp8")
    kernels.fp8_linear(x, codes, factors)
    assert not said
    assert module.norm_modulate is kernels.norm_modulate
    for operation in operations:
        assert operation._tried and None not in operation._tried.values(), operation.__name__


@pytest.mark.parametrize("dtype", (torch.float32, workshop(torch.bfloat16)))
def test_a_network_computes_the_same(monkeypatch, dtype):
    from pack.skyreels_v3.model.params import TransformerParams
    from pack.skyreels_v3.model.sequence import extension_segments
    from pack.skyreels_v3.model.transformer import SkyReelsTransformer

    torch.manual_seed(0)
    network = SkyReelsTransformer(TransformerParams(dim=256, ffn_dim=320, num_heads=2, num_layers=2)).eval()
    network = network.to(dtype)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    latents = normal("latents", (1, 16, 3, 4, 6)).to(dtype)
    segments = extension_segments(latents[:, :, 1:], latents[:, :, :1])
    text = normal("text", (1, 16, 4096)).to(dtype)
    with torch.inference_mode():
        wanted = network(segments, torch.tensor([700.0]), text)
        taken = []
        monkeypatch.setattr(dispatch, "MODE", "triton")
        monkeypatch.setattr(dispatch, "INTERPRETED", True)
        run = triton_norm_rope._run
        monkeypatch.setattr(triton_norm_rope, "_run", lambda *given: taken.append(1) or run(*given))
        own = network(segments, torch.tensor([700.0]), text)
    assert len(taken) == 2 * 4
    assert relative_error(own.float(), wanted.float()) < (1e-5 if dtype == torch.float32 else 0.01)
