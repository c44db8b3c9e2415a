"""Triton: gated residual, layer norm, modulation and quantisation of a row, or some of them, in one pass."""

import triton
import triton.language as tl

from .quantised_rows import QuantisedRows, rows_like
from .triton_quantise import digits, store_codes, whole_row

# Tokens of a program, for which it reads the modulation once.
ROWS = 4


@triton.jit
def modulation_kernel(
    x, y, gate, shift, scale, out, out_scale, length, width, eps,
    x_batch, x_row, y_batch, y_row, gate_batch, shift_batch, scale_batch,
    out_batch, out_row, out_scale_batch, out_scale_row,
    ADD: tl.constexpr, GATED: tl.constexpr, NORM: tl.constexpr, QUANTISE: tl.constexpr, FP8: tl.constexpr,
    DIGITS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(length, ROWS)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks).to(tl.int64) * ROWS
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    if GATED:
        gates = tl.load(gate + batch * gate_batch + columns, mask=inside, other=0.0)
    if NORM:
        shifts = tl.load(shift + batch * shift_batch + columns, mask=inside, other=0.0)
        factors = 1 + tl.load(scale + batch * scale_batch + columns, mask=inside, other=0.0)
    for index in range(ROWS):
        row = first + index
        if row < length:
            place = x + batch * x_batch + row * x_row + columns
            v = tl.load(place, mask=inside, other=0.0).to(tl.float32)
            if ADD:
                addend = tl.load(y + batch * y_batch + row * y_row + columns, mask=inside, other=0.0).to(tl.float32)
                if GATED:
                    addend *= gates  # pyright: ignore[reportPossiblyUnboundVariable]: bound under the same constexpr
                rounded = (v + addend).to(x.dtype.element_ty)
                tl.store(place, rounded, mask=inside)
                v = rounded.to(tl.float32)
            if NORM:
                centred = tl.where(inside, v - tl.sum(v) / width, 0.0)
                v = centred * tl.rsqrt(tl.sum(centred * centred) / width + eps)
                v = v * factors + shifts  # pyright: ignore[reportPossiblyUnboundVariable]: bound under the same constexpr
                target = out + batch * out_batch + row * out_row
                if QUANTISE:
                    # Rounded as if it had been stored between.
                    v = v.to(x.dtype.element_ty).to(tl.float32)
                    place_scale = out_scale + batch * out_scale_batch + row * out_scale_row
                    store_codes(v, target, place_scale, width, FP8, DIGITS, BLOCK)
                else:
                    tl.store(target + columns, v.to(out.dtype.element_ty), mask=inside)


def norm_modulate(x, shift, scale, eps, quantise=None, out=None):
    """As the reference; leaves numbers that do not lie side by side to it."""
    return _run(x, None, None, shift, scale, eps, quantise, out)


def add_gated_(x, y, gate):
    """As the reference; leaves numbers that do not lie side by side to it."""
    return NotImplemented if _run(x, y, gate) is NotImplemented else x


def add_gated_norm_modulate_(x, y, gate, shift, scale, eps, quantise=None, out=None):
    """As the reference; leaves numbers that do not lie side by side to it."""
    return _run(x, y, gate, shift, scale, eps, quantise, out)


def _run(x, y, gate, shift=None, scale=None, eps=0.0, quantise=None, out=None):
    batch, length, width = x.shape
    if any(part is not None and part.stride(-1) != 1 for part in (x, y, gate, shift, scale)):
        return NotImplemented
    if y is not None and y.shape != x.shape:
        raise ValueError(f"{tuple(y.shape)} is added to {tuple(x.shape)}")
    if shift is not None and out is None:
        out = rows_like(x, quantise)
    codes, scales = (out.codes, out.scale) if isinstance(out, QuantisedRows) else (out, None)
    # What a variant does not touch is x, so that every pointer is one.
    parts = [x if part is None else part for part in (y, gate, shift, scale, codes, scales)]
    own_y, _, _, _, own_codes, own_scales = parts
    strides = [part.stride(dim) for part in (x, own_y) for dim in (0, 1)]
    strides += [0 if part is None or len(part) == 1 else part.stride(0) for part in (gate, shift, scale)]
    strides += [part.stride(dim) for part in (own_codes, own_scales) for dim in (0, 1)]
    options = {"ADD": y is not None, "GATED": gate is not None, "NORM": shift is not None}
    options |= {"QUANTISE": quantise is not None, "FP8": quantise is not None and quantise.kind == "fp8"}
    options |= {"DIGITS": digits(quantise.rotation if quantise else 0, width), "ROWS": ROWS, **whole_row(width)}
    grid = (batch * triton.cdiv(length, ROWS),)
    if x.numel():
        modulation_kernel[grid](x, *parts, length, width, eps, *strides, **options)
    return out
