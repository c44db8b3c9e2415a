"""What a card says no to, although torch's fake tensors do not."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from .profiles import Card

aten: Any = torch.ops.aten
BYTES_TOGETHER = 16  # that matrix units read at once
FEWEST_ROWS = 16  # of an int8 product are too few


def refused(card: Card, func: Any, args: tuple, kwargs: dict) -> str | None:
    """The error of an operation with these arguments on the card, None where it computes."""
    if card.kind == "apple" and func is aten._int_mm.default and args[0].fake_device.type == card.device:
        return "aten::_int_mm is not implemented for the MPS device"
    if func is aten._int_mm.default and args[0].fake_device.type == card.device:
        return _int_product(card, *args[:2])
    if func is aten._scaled_mm.default:
        names = [argument.name for argument in func._schema.arguments]
        return _fp8_product(card, **dict(zip(names, args)) | kwargs)
    if func is aten.index_select.default and args[2].dtype not in (torch.int32, torch.int64):
        return "index_select(): Expected dtype int32 or int64 for index"
    return None


def _int_product(card: Card, a: FakeTensor, b: FakeTensor) -> str | None:
    if not card.rates.int8 or (card.kind == "amd" and card.arch.startswith(("gfx10", "gfx12"))):
        return "_int_mm is not implemented for this device"
    if a.shape[0] <= FEWEST_ROWS:
        return f"self.size(0) needs to be greater than 16, but got {a.shape[0]}"
    if a.shape[1] % 8 or b.shape[1] % 8:
        return f"sizes {tuple(a.shape)} x {tuple(b.shape)} need multiples of 8"
    return None if a.stride(1) == 1 and b.stride(0) == 1 else "_int_mm needs rows of a and columns of b side by side"


def _fp8_product(card: Card, **given: Any) -> str | None:
    a, b, row, column = (given[name] for name in ("self", "mat2", "scale_a", "scale_b"))
    if not card.rates.fp8:
        return "torch._scaled_mm is only supported on devices with compute capability >= 9.0 or 8.9, or ROCm MI300+"
    by_row = row.numel() > 1 or column.numel() > 1
    if by_row and not card.scales_fp8_by_row:
        return "Rowwise scaling is not currently supported on your device"
    if a.shape[1] % 16 or b.shape[1] % 16:
        return "mat2 shape must be divisible by 16"
    lie = row.shape == (a.shape[0], 1) and column.shape == (1, b.shape[1])
    if by_row and not (lie and row.stride(0) == column.stride(1) == 1):
        return f"scales of {tuple(row.shape)} and {tuple(column.shape)}"
    if any(part.storage_offset() * part.element_size() % BYTES_TOGETHER for part in (a, b)):
        return "_scaled_mm needs operands at multiples of 16 bytes"
    bias, out = given.get("bias"), given.get("out_dtype")
    if by_row and out != torch.bfloat16:
        return "Only bf16 high precision output types are supported for row-wise scaling."
    return None if bias is None or bias.dtype == out else f"a bias in {bias.dtype} with a result in {out}"
