"""Formats of stored weights, held against the packages that define them, and the linear layers that use them."""

import copy
import importlib
import math

import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comfy_kitchen.backends.eager import quantization as kitchen

from pack.formats import base, float8_bits, linear
from pack.formats import fp8 as fp8_format
from pack.formats import int8 as int8_format
from pack.formats.encoding import Encoding, rotation_for
from pack.formats.fp8 import Float8
from pack.formats.gguf_blocks import DECODERS
from pack.formats.gguf_types import BY_ID, TYPES
from pack.formats.int8 import Int8
from pack.formats.kinds import KINDS
from pack.formats.linear import PackedLinear
from pack.formats.nf4 import Nf4
from pack.formats.registry import format_of
from pack.skyreels_v3.errors import InputError
from pack.tests.support.golden import normal, relative_error

# `pack.kernels` has a function of that name.
kernel = importlib.import_module("pack.kernels.int8_linear")

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
GGUF = tuple(DECODERS)
READABLE = (*(kind.name for kind in KINDS.values() if kind.format), *GGUF)
# Bytes of a block that hold a float16, which random bytes would make infinite.
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2)}
HALVES |= {"Q6_K": (208,)} | {kind: (0,) for kind in ("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "F16")}
# What is written here: encoding -> relative error of a Gaussian weight with 5120 columns.
WRITTEN = {
    Encoding("float8_e4m3fn"): 0.0264,
    Encoding("float8_e5m2"): 0.0528,
    Encoding("int8"): 0.0088,
    Encoding("int8", 256): 0.0088,
    Encoding("nf4"): 0.0924,
}
SHAPES = [(rows, columns) for rows in (1, 7) for columns in (64, 96, 100, 320)]


def written(columns: int) -> list[Encoding]:
    """What can store a weight with so many columns; int8 with the rotation that fits them."""
    rotated = Encoding("int8", rotation_for(columns))
    return [e for e in {*WRITTEN, rotated} if format_of(e).takes(1, columns)]


def unpacked(format, parts, like: torch.Tensor, dtype=torch.float32) -> torch.Tensor:
    return format.unpack(parts, *like.shape, dtype)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.allclose(a.double(), b.double(), 0, 0, equal_nan=True)


# Held against what defines the formats.


def test_the_table_of_ggml_types_is_ggmls():
    # Other versions of the package know more or fewer.
    sizes = {type.name: (type.value, *size) for type, size in gguf.constants.GGML_QUANT_SIZES.items()}
    both = sizes.keys() & TYPES.keys()
    assert {name: (TYPES[name].id, TYPES[name].elements, TYPES[name].bytes) for name in both} == {
        name: sizes[name] for name in both
    }
    assert both >= set(GGUF)
    assert len(BY_ID) == len(TYPES) and all(BY_ID[type.id] is type for type in TYPES.values())


@pytest.mark.parametrize("kind", GGUF)
@pytest.mark.parametrize("rows, blocks", [(1, 1), (7, 5)])
def test_gguf_blocks_are_read_as_ggml_reads_them(kind, rows, blocks):
    type, random = TYPES[kind], np.random.default_rng(len(kind) + rows)
    data = random.integers(0, 256, (rows, blocks, type.bytes), dtype=np.uint8)
    for place in HALVES.get(kind, ()):
        halves = random.uniform(-0.1, 0.1, (rows, blocks, 1)).astype(np.float16)
        data[..., place : place + 2] = halves.view(np.uint8)
    data = data.reshape(rows, -1)
    wanted = torch.from_numpy(gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind]).astype(np.float32))
    assert equal(unpacked(format_of(Encoding(kind)), {"weight": torch.from_numpy(data)}, wanted), wanted)


@pytest.mark.parametrize(
    "kind, error",
    [("F16", 3e-4), ("BF16", 2e-3), ("Q4_0", 0.09), ("Q4_1", 0.08), ("Q5_0", 0.05), ("Q5_1", 0.04), ("Q8_0", 0.006)],
)
def test_what_ggml_wrote_comes_back(kind, error):
    weight = normal("weight", (7, 320))
    data = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType[kind]).view(np.uint8)
    assert (
        relative_error(unpacked(format_of(Encoding(kind)), {"weight": torch.from_numpy(data)}, weight), weight) < error
    )


@pytest.fixture
def exact_int8(monkeypatch):
    """ComfyUI takes torch's product, which is wrong where oneDNN is told to do without the processor's int8 units."""
    if not kernel._has_int8_units():
        monkeypatch.setattr(torch, "_int_mm", lambda a, b: a.int() @ b.int())


@pytest.mark.usefixtures("exact_int8")
@pytest.mark.parametrize("rows, columns", [(7, 64), (3, 320), (130, 1024)])
def test_int8_is_comfyuis(rows, columns):
    weight, x, width = normal("weight", (rows, columns)), normal("x", (33, columns)), rotation_for(columns)
    bias = normal("bias", (rows,))
    codes, scale = kitchen.quantize_int8_convrot_weight(weight, width)
    format = Int8(width)
    parts = format.pack(weight)
    assert equal(parts["weight"], codes) and equal(parts["weight_scale"], scale)
    theirs = kitchen.dequantize_int8_convrot_weight(codes, scale, width)
    torch.testing.assert_close(unpacked(format, parts, weight), theirs, rtol=0, atol=2e-6)
    theirs = kitchen.int8_linear(x, codes, scale, bias, torch.float32, True, width)
    assert relative_error(format.linear(x, parts, rows, bias), theirs) < 1e-6


@pytest.mark.usefixtures("exact_int8")
@pytest.mark.parametrize("shape", [(), (1,)])
def test_int8_with_one_scale(shape):
    weight, x = normal("weight", (7, 96)), normal("x", (5, 96))
    codes, scale = kitchen.quantize_int8_tensorwise(weight)
    parts = {"weight": codes, "weight_scale": scale.reshape(shape)}
    assert equal(unpacked(Int8(), parts, weight), kitchen.dequantize_int8_simple(codes, scale))
    theirs = kitchen.int8_linear(x, codes, scale, None, torch.float32)
    assert relative_error(Int8().linear(x, parts, 7, None), theirs) < 1e-6


@pytest.mark.parametrize("rows, columns", [(1, 64), (7, 100), (130, 320)])
@pytest.mark.parametrize("as_bits", [False, True])
def test_mxfp8_is_comfyuis(rows, columns, as_bits):
    weight = normal("weight", (rows, columns))
    weight[:, 32:64] = 0
    weight[:, 64:] *= 1e-8
    codes, scale = kitchen.quantize_mxfp8(weight, pad_32x=True)
    wanted = kitchen.dequantize_mxfp8(codes, scale, torch.float32)[:rows, :columns]
    parts = {"weight": codes, "weight_scale": scale}
    if as_bits:
        parts = {name: part.view(torch.uint8) for name, part in parts.items()}
    assert equal(unpacked(format_of(Encoding("mxfp8")), parts, weight), wanted)


@pytest.mark.parametrize("rows, columns", [(1, 64), (7, 100), (130, 320)])
@pytest.mark.parametrize("as_bits", [False, True])
def test_nvfp4_is_comfyuis(rows, columns, as_bits):
    weight = normal("weight", (rows, columns))
    weight[:, 32:64] = 0
    whole = weight.abs().max() / (6 * 448)
    codes, scale = kitchen.quantize_nvfp4(weight, whole, pad_16x=True)
    wanted = kitchen.dequantize_nvfp4(codes, whole, scale, torch.float32)[:rows, :columns]
    parts = {"weight": codes, "weight_scale": scale, "weight_scale_2": whole}
    if as_bits:
        parts |= {"weight_scale": scale.view(torch.uint8), "weight_scale_2": whole.reshape(1)}
    assert equal(unpacked(format_of(Encoding("nvfp4")), parts, weight), wanted)


@pytest.mark.parametrize("rows, columns", [(1, 64), (7, 320)])
def test_nf4_is_bitsandbytes(rows, columns):
    import bitsandbytes.functional as bnb  # here: it takes two seconds

    weight = normal("weight", (rows, columns))
    codes, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    stored = torch.cat([codes.reshape(rows, -1), state.absmax.reshape(rows, -1).view(torch.uint8)], dim=1)
    parts = Nf4().pack(weight)
    assert parts.keys() == {"weight"} and equal(parts["weight"], stored)
    assert equal(unpacked(Nf4(), parts, weight), bnb.dequantize_4bit(codes, state))


@pytest.mark.parametrize("dtype", FLOAT8)
@pytest.mark.parametrize("as_bits", [False, True])
def test_fp8_by_every_scale_in_use(dtype, as_bits):
    weight = normal("weight", (7, 100))
    codes = weight.to(dtype)
    stored = codes.view(torch.uint8) if as_bits else codes
    assert equal(unpacked(Float8(dtype), {"weight": stored}, weight), codes.float())
    for shape in ((), (1,), (7,), (7, 1)):
        scale = normal("scale", shape).abs() if shape else torch.tensor(0.25)
        wanted = codes.float() * scale.reshape(-1, 1)
        assert equal(unpacked(Float8(dtype), {"weight": stored, "weight_scale": scale}, weight), wanted)


@pytest.mark.parametrize("dtype", FLOAT8)
def test_fp8_with_one_scale_is_comfyuis(dtype):
    weight = normal("weight", (7, 100))
    parts = Float8(dtype).pack_tensorwise(weight)
    assert parts["weight_scale"].shape == ()
    wanted = kitchen.dequantize_per_tensor_fp8(parts["weight"], parts["weight_scale"], torch.float32)
    assert equal(unpacked(Float8(dtype), parts, weight), wanted)
    assert relative_error(wanted, weight) < (0.028 if dtype == FLOAT8[0] else 0.056)


# What every format that is written keeps to.


@pytest.mark.parametrize("encoding", WRITTEN, ids=str)
def test_errors_are_those_in_the_docstrings(encoding):
    weight = normal("weight", (256, 5120)) * 0.02
    format = format_of(encoding)
    assert relative_error(unpacked(format, format.pack(weight), weight), weight) == pytest.approx(
        WRITTEN[encoding], rel=0.02
    )


@pytest.mark.parametrize("rows, columns", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_shape_and_dtype(rows, columns, dtype):
    weight = normal("weight", (rows, columns)).to(dtype)
    for encoding in written(columns):
        format = format_of(encoding)
        parts = format.pack(weight)
        again = unpacked(format, parts, weight)
        # Few numbers: their own error is up to a tenth beside that of many.
        assert relative_error(again, weight.float()) < 1.1 * WRITTEN.get(encoding, 0.0088)
        for out in DTYPES:
            assert equal(unpacked(format, parts, weight, out), again.to(out))


@pytest.mark.parametrize("columns", [64, 320])
def test_rows_of_any_size(columns):
    ordinary = normal("weight", (1, columns))
    factors = torch.tensor([1, 0, 1e-8, 1e4, 1e-20])[:, None]
    for encoding in written(columns):
        format = format_of(encoding)
        again = unpacked(format, format.pack(ordinary * factors), ordinary.expand(5, -1))
        assert not again[1].any()
        for row in (2, 3, 4):
            assert relative_error(again[row] / factors[row], ordinary[0]) == pytest.approx(
                relative_error(again[0], ordinary[0]), rel=0.02
            )


@pytest.mark.parametrize("encoding", WRITTEN, ids=str)
def test_no_number_is_off_by_more_than_half_a_step(encoding):
    weight = normal("weight", (64, 768))
    weight[::2, 5] = 1e4
    format = format_of(encoding)
    wrong = (unpacked(format, format.pack(weight), weight) - weight).abs()
    if encoding.kind == "int8":
        scale = format.pack(weight)["weight_scale"]
        # A rotated number is a sum of as many errors as the rotation is wide.
        assert (wrong <= scale / 2 * math.sqrt(encoding.rotation or 1) * 1.0001).all()
    elif encoding.kind == "nf4":
        largest = weight.unflatten(1, (-1, 64)).abs().amax(2).repeat_interleave(64, 1)
        assert (wrong <= largest * (1 - 0.6961928) / 2 * 1.0001).all()
    else:
        info = torch.finfo(format.dtype)
        scale = weight.abs().amax(1, keepdim=True) / info.max
        assert (
            wrong <= (weight.abs() * info.eps / 2).maximum(scale * info.smallest_normal * info.eps / 2) * 1.0001
        ).all()


def test_shapes_that_do_not_fit_are_told():
    assert not Nf4().takes(7, 96) and Nf4().takes(7, 320)
    assert not Int8(64).takes(7, 96) and Int8(16).takes(7, 96) and Int8().takes(7, 97)
    assert not format_of(Encoding("Q4_K")).takes(1, 320) and format_of(Encoding("Q8_0")).takes(1, 320)
    assert [rotation_for(c) for c in (7, 100, 96, 320, 5120, 13824)] == [0, 4, 16, 64, 256, 256]


def test_a_large_weight_is_worked_on_in_pieces(monkeypatch):
    weight = normal("weight", (7, 320))
    for encoding in written(320):
        format = format_of(encoding)
        parts = format.pack(weight)
        whole = unpacked(format, parts, weight)
        monkeypatch.setattr(base, "CHUNK", 1000)
        assert all(equal(part, parts[name]) for name, part in format.pack(weight).items())
        assert equal(unpacked(format, parts, weight), whole)
        monkeypatch.undo()


# Linear layers.


@pytest.mark.parametrize("columns", [64, 96, 100, 320])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_input(columns, dtype):
    weight, bias = normal("weight", (71, columns)), normal("bias", (71,))
    inputs = [
        normal("x", (33, columns)),
        normal("x", (2, 3, columns)),
        normal("x", (1, 1, columns)).expand(2, 3, -1),
        normal("x", (columns, 5)).t(),
        normal("x", (5, 2 * columns))[:, ::2],
        normal("x", (columns,)),
        normal("x", (0, columns)),
    ]
    for encoding in written(columns):
        format = format_of(encoding)
        parts = format.pack(weight)
        for x in (x.to(dtype) for x in inputs):
            for b in (None, bias.to(dtype)):
                y = format.linear(x, parts, 71, b)
                wanted = F.linear(x.float(), unpacked(format, parts, weight), None if b is None else b.float())
                assert y.dtype == dtype and y.shape == wanted.shape and y.is_contiguous()
                assert not x.numel() or relative_error(y.float(), wanted) < 0.012


def test_int8_rounds_the_products_error():
    weight, x = normal("weight", (256, 5120)) * 0.02, normal("x", (64, 5120))
    for rotation in (0, 256):
        format = Int8(rotation)
        y = format.linear(x, format.pack(weight), 256, None)
        assert relative_error(y, x @ weight.t()) == pytest.approx(0.0125, rel=0.03)


def test_rotation_keeps_outlier_channels_from_taking_the_resolution():
    weight, x = normal("weight", (64, 1024)), normal("x", (64, 1024))
    x[:, ::100] *= 50
    weight[:, ::100] /= 50
    plain, rotated = (
        relative_error(Int8(width).linear(x, Int8(width).pack(weight), 64, None), x @ weight.t()) for width in (0, 256)
    )
    assert rotated < plain / 3


def test_rows_with_an_offset_are_no_outliers_after_the_rotation():
    # Where a Hadamard matrix has a column of ones, such a row becomes one large number.
    x = normal("x", (64, 256)) * 0.1 + 1
    codes, scale = kernel.quantise_rows(kernel.rotate(x, 256))
    assert relative_error(codes * scale, kernel.rotate(x, 256)) < 0.01


@pytest.mark.parametrize("width", [4, 16, 64, 256])
def test_the_rotation_undoes_itself(width):
    x = normal("x", (3, 2 * width))
    torch.testing.assert_close(kernel.rotate(kernel.rotate(x, width), width), x, rtol=0, atol=3e-6)
    assert relative_error(kernel.rotate(x, width).norm(), x.norm()) < 1e-6
    assert kernel.rotate(x.bfloat16(), width).dtype == torch.bfloat16


def test_large_numbers_in_float16_stay_finite():
    format, weight = Int8(256), normal("weight", (7, 256)) * 1e-3
    x = torch.full((2, 256), 3e4, dtype=torch.float16)
    x[1] *= kernel.rotate(torch.eye(256), 256)[3].half() * 16
    y = format.linear(x, format.pack(weight), 7, None)
    assert relative_error(y.float(), x.float() @ weight.t()) < 0.02


def test_a_row_that_is_not_finite_says_so_and_spoils_no_other():
    format, weight, x = Int8(64), normal("weight", (7, 64)), normal("x", (4, 64))
    parts = format.pack(weight)
    clean = format.linear(x, parts, 7, None)
    x[1, 5], x[2, 6], x[3] = math.nan, math.inf, 0
    y = format.linear(x, parts, 7, None)
    assert not y[1:3].isfinite().any() and not y[3].any() and equal(y[0], clean[0])


def test_long_inputs_are_worked_on_in_pieces(monkeypatch):
    # Not rotated, since sums of floats depend on how many rows are summed at a time.
    format, weight, x = Int8(), normal("weight", (7, 64)), normal("x", (2, 33, 64))
    parts = format.pack(weight)
    whole = format.linear(x, parts, 7, None)
    monkeypatch.setattr(kernel, "CHUNK_ROWS", 5)
    assert equal(format.linear(x, parts, 7, None), whole)


@pytest.mark.parametrize("m, n, k", [(1, 7, 100), (33, 8, 64), (17, 64, 96), (16, 1, 1)])
def test_products_of_int8_are_exact(m, n, k):
    a, b = ((normal(key, shape) * 60).clamp(-127, 127).to(torch.int8) for key, shape in (("a", (m, k)), ("b", (n, k))))
    wanted = a.int() @ b.int().t()
    assert equal(kernel.int8_matmul(a, b), wanted)
    assert equal(kernel._aligned_matmul(a, b), wanted)
    assert equal(kernel._matmul_by_floats(a, b), wanted)


@pytest.mark.parametrize("units", [True, False])
def test_products_of_the_largest_int8_are_exact(units, monkeypatch):
    """oneDNN without int8 units sums two products in 16 bits; float32 is exact up to 2^24 alone."""
    if not units:
        monkeypatch.setattr(kernel, "_has_int8_units", lambda: False)
    rows = torch.tensor([127, -127, -128, 1], dtype=torch.int8)[:, None].expand(4, 5120).contiguous()
    rows[:, ::7] = -127
    assert equal(kernel.int8_matmul(rows, rows), rows.int() @ rows.int().t())


def test_where_int8_is_not_multiplied_only_the_weight_is_int8(monkeypatch):
    weight, x, bias = normal("weight", (7, 320)), normal("x", (5, 320)).bfloat16(), normal("bias", (7,)).bfloat16()
    format = Int8(64)
    parts = format.pack(weight)
    assert kernel.has_int8_matmul(torch.device("cpu"))
    monkeypatch.setattr(int8_format, "has_int8_matmul", lambda device: False)
    assert equal(format.linear(x, parts, 7, bias), F.linear(x, unpacked(format, parts, weight, x.dtype), bias))


# Devices without 8-bit floats.


@pytest.mark.parametrize("dtype", FLOAT8)
def test_fp8_without_the_dtype(dtype, monkeypatch):
    weight, codes = normal("weight", (7, 100)), torch.arange(256).to(torch.uint8).reshape(4, 64)
    parts, tensorwise = Float8(dtype).pack(weight), Float8(dtype).pack_tensorwise(weight)
    every = unpacked(Float8(dtype), {"weight": codes}, codes)
    monkeypatch.setattr(float8_bits, "has_float8", lambda device: False)
    assert equal(unpacked(Float8(dtype), {"weight": codes}, codes), every)
    for mine, wanted in ((Float8(dtype).pack(weight), parts), (Float8(dtype).pack_tensorwise(weight), tensorwise)):
        assert equal(mine["weight"], wanted["weight"].view(torch.uint8))
        assert equal(mine["weight_scale"], wanted["weight_scale"])


# PackedLinear.


def packed(encoding: Encoding, bias: bool = True) -> PackedLinear:
    format = format_of(encoding)
    return PackedLinear(320, 7, format, format.pack(normal("weight", (7, 320))), normal("bias", (7,)) if bias else None)


LAYERS = [Encoding("float8_e4m3fn"), Encoding("float8_e5m2"), Encoding("int8", 64), Encoding("nf4")]


@pytest.mark.parametrize("encoding", LAYERS, ids=str)
@pytest.mark.parametrize("change", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.to("cpu").float()])
def test_a_change_of_dtype_leaves_codes_and_scales(encoding, change):
    layer = packed(encoding)
    before = {name: part.clone() for name, part in layer.state_dict().items()}
    change(layer)
    after = layer.state_dict()
    assert after.keys() == before.keys() and all(equal(after[name], part) for name, part in before.items())
    y = layer(normal("x", (5, 320)).half())
    assert y.dtype == torch.float16 and y.isfinite().all()


@pytest.mark.parametrize("encoding", LAYERS, ids=str)
def test_a_packed_layer_is_copied_and_loaded(encoding):
    layer, x = packed(encoding), normal("x", (5, 320))
    y, again = layer(x), copy.deepcopy(layer)
    assert equal(again(x), y) and again.weight is not layer.weight
    for part in again.parameters():
        part.data.view(torch.uint8).zero_()
    assert equal(layer(x), y) and not again(x).any()
    again.load_state_dict(layer.state_dict())
    assert equal(again(x), y)
    assert not any(part.requires_grad for part in layer.parameters())


@pytest.mark.parametrize("encoding", LAYERS, ids=str)
def test_a_packed_layer_computes_what_its_format_does(encoding):
    layer, x = packed(encoding, bias=False), normal("x", (2, 5, 320)).bfloat16()
    parts = {name: getattr(layer, name) for name in layer.part_names}
    assert equal(layer(x), layer.format.linear(x, parts, 7, None))
    assert equal(layer.unpacked(torch.float16), layer.format.unpack(parts, 7, 320, torch.float16))
    assert layer.format.name in repr(layer)


def test_a_packed_layer_on_a_device_without_8_bit_floats(monkeypatch):
    layer, x = packed(Encoding("float8_e4m3fn")), normal("x", (5, 320))
    y = layer(x)
    for module in (float8_bits, linear):
        monkeypatch.setattr(module, "has_float8", lambda device: False)
    assert equal(layer(x), y)
    layer.to("cpu")
    assert layer.weight.dtype == torch.uint8 and equal(layer(x), y)


@pytest.mark.parametrize("encoding", [Encoding("float8_e4m3fn"), Encoding("int8", 64), Encoding("nf4")], ids=str)
def test_an_exact_layer_leaves_its_input_as_it_is(monkeypatch, encoding):
    """On a card that multiplies fp8 and int8 as well: neither it nor the layer before it rounds the input."""
    card, x = torch.device("cuda"), normal("x", (2, 5, 320))
    for module in (fp8_format, int8_format):
        for name in ("has_fp8_matmul", "has_int8_matmul"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda device: True)
    rounding, exact = packed(encoding), packed(encoding)
    exact.exact = True
    assert (rounding.quantised_input(card) is not None) == (encoding.kind != "nf4")
    assert exact.quantised_input(card) is None
    assert exact.unpacks(card) and rounding.unpacks(card) == (encoding.kind == "nf4")
    wanted = F.linear(x, exact.unpacked(torch.float32), exact.bias)
    with exact.prepared(x):
        assert equal(exact(x), wanted)
    assert equal(exact(x), wanted)
    assert equal(exact(x, gelu=True), F.gelu(wanted, approximate="tanh"))
    if encoding.kind == "int8":  # whose products are the same on a processor
        assert 0.001 < relative_error(rounding(x), wanted) < 0.02


# The registry.


def test_every_kind_has_one_format():
    for kind in READABLE:
        assert format_of(Encoding(kind)) is format_of(Encoding(kind))
    classes = {kind.format for kind in KINDS.values()}
    assert len({type(format_of(Encoding(kind))) for kind in READABLE}) == len(classes) >= 6
    assert format_of(Encoding("int8", 64)).rotation == 64


@pytest.mark.parametrize("encoding", WRITTEN, ids=str)
def test_the_table_tells_what_a_format_stores(encoding):
    kind, weight = KINDS[encoding.kind], normal("weight", (7, 5120))
    format = format_of(encoding)
    parts = format.pack(weight)
    assert format.name == kind.word
    assert set(kind.needed) <= parts.keys() - {"weight"} <= {*kind.needed, *kind.optional}
    size = sum(part.nbytes for part in parts.values())
    assert size / weight.numel() == pytest.approx(kind.bytes_per_number, rel=0.001)


@pytest.mark.parametrize("kind", [kind for kind in READABLE if kind not in {encoding.kind for encoding in WRITTEN}])
def test_formats_that_are_only_read_say_so(kind):
    with pytest.raises(NotImplementedError, match=KINDS[kind].word if kind in KINDS else kind):
        format_of(Encoding(kind)).pack(normal("weight", (7, 256)))


@pytest.mark.parametrize("encoding", [Encoding("IQ1_S"), Encoding("svdquant"), Encoding("int8", 100)], ids=str)
def test_unknown_formats_are_told(encoding):
    with pytest.raises(InputError, match=f"stored as {encoding.kind}.*use a"):
        format_of(encoding)
