"""fp8_linear by PyTorch's own 8-bit product (NVIDIA cards from compute capability 8.9 on, AMD's MI300)."""

import torch

from .fp8_linear import FP8, checked
from .probes import probe
from .quantise import quantised
from .quantised_rows import QuantisedRows

# Rows of x that are quantised at a time: fills a large card, and bounds the codes.
CHUNK_ROWS = 32768
# Row-wise scales come with bfloat16 results only.
OUT = torch.bfloat16


def fp8_linear(x: torch.Tensor | QuantisedRows, weight, scale, bias=None):
    """As the reference; leaves float32, sizes that are no multiple of 16, and devices that cannot to it."""
    if (
        not has_fp8_matmul(x.device)
        or x.dtype == torch.float32
        or weight.dtype != torch.float8_e4m3fn
        or any(size % 16 for size in weight.shape)
    ):
        return NotImplemented
    flat = checked(x).rows() if isinstance(x, QuantisedRows) else x.reshape(-1, x.shape[-1])
    out = torch.empty(len(flat), len(weight), dtype=x.dtype, device=x.device)
    scales = scale.reshape(1, -1).expand(1, len(weight)).contiguous()
    bias = None if bias is None else bias.to(OUT)
    for chunk, place in zip(flat.split(CHUNK_ROWS), out.split(CHUNK_ROWS)):
        rows = chunk if isinstance(chunk, QuantisedRows) else quantised(chunk, FP8)
        product = torch._scaled_mm(  # pyright: ignore[reportPrivateUsage]: torch has no public one
            rows.codes, weight.t(), rows.scale, scales, bias=bias, out_dtype=OUT, use_fast_accum=True
        )
        place.copy_(product)
    return out.reshape(*x.shape[:-1], len(weight))


@probe
def has_fp8_matmul(device: torch.device) -> bool:
    """Whether this device multiplies fp8 matrices with a scale per row, tried once; cards before Ada do not."""
    ones = torch.ones(32, 32, device=device).to(torch.float8_e4m3fn)
    scale = torch.ones(32, 1, device=device)
    try:
        product = torch._scaled_mm(  # pyright: ignore[reportPrivateUsage]: torch has no public one
            ones, ones.t(), scale, scale.t(), out_dtype=OUT, use_fast_accum=True
        )
        return bool((product == 32).all())
    except (RuntimeError, ValueError):
        return False
