"""A linear layer whose weight is stored in 8-bit floats; multiplied in them where the device can.

Sources: FP8 Formats for Deep Learning (arXiv 2209.05433); scales per row of both factors as torch._scaled_mm has them.
"""

import torch
import torch.nn.functional as F

from .dispatch import normal, operation
from .quantised_rows import KINDS, Quantisation, QuantisedRows, quantise_rows

# Rows of the weight whose float32 copy exists at a time.
CHUNK_ROWS = 2048


def _sample(x, weight, scale, bias=None):
    # Already quantised: a reference that multiplies what a device rounded to 8 bits must come close to the device.
    columns, rows = x.shape[-1], 48
    codes, scales = quantise_rows(normal(33, columns), "fp8")
    some = QuantisedRows(codes, scales, 0, x.dtype)
    codes, scales = quantise_rows(normal(rows, columns) / columns**0.5, "fp8")
    scales = scales.mean() if scale.numel() == 1 else scales
    return (some, codes, scales, None if bias is None else normal(rows, dtype=bias.dtype)), {}


# The device gives bfloat16, also where x is float16.
@operation("scaled_mm:fp8_linear", _sample, tolerance=torch.finfo(torch.bfloat16).eps)
def fp8_linear(
    x: torch.Tensor | QuantisedRows, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x W^T + bias; the device may quantise x per row on the way.

    x: [..., K], any floating dtype, or already quantised to fp8.  weight: [N, K] float8_e4m3fn, contiguous.
    scale: of the weight, float32 with 1 or N elements.  bias: [N].  Returns [..., N] in x's dtype.
    With Gaussian x and weight 2.6 % from the exact product, 3.7 % where x becomes 8 bits too.
    Raises ValueError where x was quantised otherwise.
    """
    if isinstance(x, QuantisedRows):
        x = checked(x).unpacked()
    unpacked = x.new_empty(weight.shape)
    scales = scale.reshape(-1, 1).expand(len(weight), 1).split(CHUNK_ROWS)
    for place, codes, factor in zip(unpacked.split(CHUNK_ROWS), weight.split(CHUNK_ROWS), scales, strict=True):
        place.copy_(codes.float().mul_(factor))
    return F.linear(x, unpacked, None if bias is None else bias.to(x.dtype))


def checked(x: QuantisedRows) -> QuantisedRows:
    """x. Raises ValueError where it was not quantised to fp8 without rotation."""
    if x.codes.dtype != KINDS["fp8"][0] or x.rotation:
        raise ValueError(f"rows in {x.codes.dtype} rotated by {x.rotation}, but fp8 without rotation is needed")
    return x


FP8 = Quantisation("fp8")
