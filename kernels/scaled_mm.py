"""fp8_linear by PyTorch's own 8-bit product: NVIDIA cards from compute capability 8.9 on.

With a scale per row on Linux (compute capability 8.9 from torch 2.7 on). Wheels for Windows have it with one scale for
all alone: there the scales are applied to the sums, in one more pass. AMD's MI300 has another kind of fp8.
"""

from typing import Any

import torch

from .fp8_linear import FP8, checked
from .probes import probe
from .quantise import quantised
from .quantised_rows import QuantisedRows, chunk_rows, put_scaled

# Rows of x that are quantised at a time: fills a large card, and bounds the codes. Fewer, see `chunk_rows`, where the
# sums are scaled afterwards, in float32.
CHUNK_ROWS = 32768
# Row-wise scales come with bfloat16 results only.
OUT = torch.bfloat16


def fp8_linear(x: torch.Tensor | QuantisedRows, weight, scale, bias=None):
    """As the reference; NotImplemented for float32, sides no multiple of 16, and devices without an fp8 product."""
    if (
        not has_fp8_matmul(x.device)
        or x.dtype == torch.float32
        or weight.dtype != torch.float8_e4m3fn
        or any(size % 16 for size in weight.shape)
    ):
        return NotImplemented
    flat = checked(x).rows() if isinstance(x, QuantisedRows) else x.reshape(-1, x.shape[-1])
    scales = scale.reshape(1, -1).expand(1, len(weight)).contiguous()
    bias = None if bias is None else bias.to(OUT)
    by_row = scales_rows(x.device)
    if len(flat) <= CHUNK_ROWS and x.dtype == OUT and by_row:
        return _by_rows(_rows(flat), weight, scales, bias).reshape(*x.shape[:-1], len(weight))
    out = torch.empty(len(flat), len(weight), dtype=x.dtype, device=x.device)
    size = CHUNK_ROWS if by_row else chunk_rows(max(weight.shape))
    for chunk, place in zip(flat.split(size), out.split(size)):
        rows = _rows(chunk)
        if by_row:
            place.copy_(_by_rows(rows, weight, scales, bias))
        else:
            put_scaled(place, _unscaled(rows, weight), rows.scale, scales, bias)
    return out.reshape(*x.shape[:-1], len(weight))


def _rows(x: torch.Tensor | QuantisedRows) -> QuantisedRows:
    return x if isinstance(x, QuantisedRows) else quantised(x, FP8)


def _by_rows(rows: QuantisedRows, weight, scales, bias) -> torch.Tensor:
    return _product(rows.codes, weight, rows.scale, scales, bias)


def _unscaled(rows: QuantisedRows, weight) -> torch.Tensor:
    one = torch.ones((), device=weight.device)
    return _product(rows.codes, weight, one, one)


def _product(codes, weight, row_scale, column_scale, bias=None) -> torch.Tensor:
    # Fast accumulation keeps some 13 bits of a sum: up to 1.9 % of a long one, always towards zero.
    multiply: Any = torch._scaled_mm  # pyright: ignore[reportPrivateUsage]: torch has no public one
    return multiply(codes, weight.t(), row_scale, column_scale, bias=bias, out_dtype=OUT, use_fast_accum=False)


@probe
def has_fp8_matmul(device: torch.device) -> bool:
    """Whether this device multiplies fp8 matrices, tried once; cards before Ada do not."""
    return scales_rows(device) or _works(device, torch.ones((), device=device), torch.ones((), device=device))


@probe
def scales_rows(device: torch.device) -> bool:
    """Whether it does so with a scale for each row of both."""
    scale = torch.ones(32, 1, device=device)
    return _works(device, scale, scale.t())


def _works(device: torch.device, row_scale: torch.Tensor, column_scale: torch.Tensor) -> bool:
    ones = torch.ones(32, 32, device=device).to(torch.float8_e4m3fn)
    try:
        return bool((_product(ones, ones, row_scale, column_scale) == 32).all())
    except (RuntimeError, ValueError):
        return False
