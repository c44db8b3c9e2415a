"""Triton: a row to 8-bit codes, its columns mixed by butterflies in registers.

The regular Hadamard matrix of 4 is F = P G with the reversal P and G = J / 2 - 1 (J all ones), and both commute. So a
rotation by 4^n is n butterflies v -> sum(v) / 2 - v over the digits of a column, and one reversal of every group.
"""

import triton
import triton.language as tl

from .quantised_rows import Quantisation, QuantisedRows, rows_like

# Adding and subtracting 1.5 * 2^23 rounds a float32 to the nearest integer, ties to even.
ROUNDER: tl.constexpr = tl.constexpr(12582912.0)
SMALLEST_SCALE: tl.constexpr = tl.constexpr(1e-30)


@triton.jit
def butterfly(v, STEP: tl.constexpr, BLOCK: tl.constexpr):
    """v [BLOCK] -> v G over groups of four numbers that lie STEP apart."""
    v = tl.reshape(v, (BLOCK // (4 * STEP), 4, STEP))
    v = tl.expand_dims(tl.sum(v, 1), 1) * 0.5 - v
    return tl.reshape(v, (BLOCK,))


@triton.jit
def store_codes(v, codes, scale, width, FP8: tl.constexpr, DIGITS: tl.constexpr, BLOCK: tl.constexpr):
    """Writes the row v [BLOCK] float32, zero from `width` on, as codes and one scale; mixed by 4^DIGITS columns."""
    # Not a number where a number of the row is not finite, which a maximum would lose.
    poison = tl.sum(v * 0.0)
    for digit in tl.static_range(DIGITS):
        v = butterfly(v, 1 << (2 * digit), BLOCK)
    factor = tl.maximum(tl.max(tl.abs(v)) / (448.0 if FP8 else 127.0), SMALLEST_SCALE) + poison
    v = v / factor
    v = v if FP8 else (v + ROUNDER) - ROUNDER
    columns = tl.arange(0, BLOCK)
    reversed_columns = columns ^ ((1 << (2 * DIGITS)) - 1)
    tl.store(codes + reversed_columns, v.to(codes.dtype.element_ty), mask=columns < width)
    tl.store(scale, factor)


@triton.jit
def quantise_kernel(
    x, codes, scale, width, x_row, codes_row, FP8: tl.constexpr, DIGITS: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    v = tl.load(x + row * x_row + columns, mask=columns < width, other=0.0).to(tl.float32)
    store_codes(v, codes + row * codes_row, scale + row, width, FP8, DIGITS, BLOCK)


def whole_row(width: int) -> dict:
    """Options of a kernel whose programs hold a row in registers: at most 32 float32 numbers a thread up to 16384."""
    block = triton.next_power_of_2(width)
    return {"BLOCK": block, "num_warps": min(16, max(1, block // 1024))}


def digits(rotation: int, width: int) -> int:
    """Butterflies of a rotation. Raises ValueError where groups do not fit."""
    if rotation and width % rotation:
        raise ValueError(f"groups of {rotation} columns do not divide {width}")
    return (rotation.bit_length() - 1) // 2 if rotation else 0


def quantised(x, how: Quantisation):
    """As the reference."""
    width = x.shape[-1]
    flat = x.reshape(-1, width)
    if flat.stride(-1) != 1:
        flat = flat.contiguous()
    out = rows_like(flat, how)
    if len(flat):
        options = {"FP8": how.kind == "fp8", "DIGITS": digits(how.rotation, width), **whole_row(width)}
        quantise_kernel[(len(flat),)](flat, out.codes, out.scale, width, flat.stride(0), width, **options)
    shape = x.shape[:-1]
    return QuantisedRows(out.codes.reshape(*shape, width), out.scale.reshape(*shape, 1), how.rotation, x.dtype)
