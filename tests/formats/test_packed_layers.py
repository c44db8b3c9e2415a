"""Linear layers of stored weights: the products of every format, and the layer that holds its parts."""

import copy
import importlib
import math

import pytest
import torch
import torch.nn.functional as F

from pack.formats import float8_bits, linear
from pack.formats import fp8 as fp8_format
from pack.formats import int8 as int8_format
from pack.formats.encoding import Encoding
from pack.formats.int8 import Int8
from pack.formats.linear import PackedLinear
from pack.formats.registry import format_of
from pack.tests.formats.test_formats import DTYPES, equal, unpacked, written
from pack.tests.support.golden import normal, relative_error

# `pack.kernels` has a function of that name.
kernel = importlib.import_module("pack.kernels.int8_linear")


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
    monkeypatch.setattr(kernel, "chunk_rows", lambda width: 5)
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
