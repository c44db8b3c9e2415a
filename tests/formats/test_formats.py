"""Formats of stored weights, held against the packages that define them."""

import importlib
import math

import gguf
import numpy as np
import pytest
import torch
from comfy_kitchen.backends.eager import quantization as kitchen

from pack.formats import base, float8_bits, nf4
from pack.formats.encoding import Encoding, rotation_for
from pack.formats.fp8 import Float8
from pack.formats.gguf_blocks import DECODERS
from pack.formats.gguf_types import BY_ID, TYPES
from pack.formats.int8 import Int8
from pack.formats.kinds import KINDS
from pack.formats.nf4 import Nf4
from pack.formats.registry import format_of
from pack.kernels.dispatch import Operation
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
    return [e for e in {*WRITTEN, rotated} if e.fits(columns)]


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
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        read = nf4.unpacked_by_bitsandbytes(parts["weight"], columns, dtype)
        assert read.dtype == dtype and equal(read, nf4.unpacked_here(parts["weight"], columns, dtype))


def test_nf4_is_read_by_bitsandbytes_where_it_can_be(monkeypatch, caplog):
    """On a device that both are for: taken where it reads the sample right, left without a word where it is missing."""
    weight = normal("weight", (7, 128))
    parts = Nf4().pack(weight)
    x = normal("x", (2, 128))
    wanted = Nf4().linear(x, parts, 7, None)

    def reading(library):
        calls = []
        backend = lambda *given: calls.append(given) or library(*given)  # noqa: E731
        own = Operation(nf4.unpacked_here, backend, nf4._sample, devices=("cpu",), name="bitsandbytes", optional=True)
        monkeypatch.setattr(nf4, "unpacked", own)
        assert relative_error(Nf4().linear(x, parts, 7, None), wanted) < 1e-6
        return len(calls)

    def missing(*given):
        raise ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes")

    assert reading(nf4.unpacked_by_bitsandbytes) == 2  # the sample, then the weight
    assert reading(missing) == 1 and not caplog.records
    assert reading(lambda stored, columns, dtype: torch.ones(len(stored), columns, dtype=dtype)) == 1
    assert "without bitsandbytes: its results are wrong" in caplog.text


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
    assert not Encoding("nf4").fits(96) and Encoding("nf4").fits(320)
    assert not Encoding("int8", 64).fits(96) and Encoding("int8", 16).fits(96) and Encoding("int8").fits(97)
    assert not Encoding("Q4_K").fits(320) and Encoding("Q8_0").fits(320)
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
