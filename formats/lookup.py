"""Codes to numbers by a table."""

import torch


def lookup(table: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """table [n, ...], codes of any integer dtype and shape -> the entries, [*codes.shape, ...] in the table's dtype.

    By index_select, the one indexing that takes int32 on every device: int64 indices would need twice the memory.
    """
    return table.index_select(0, codes.flatten().int()).unflatten(0, codes.shape)


def pairs(values: torch.Tensor) -> torch.Tensor:
    """values [16], of 4-bit codes -> [256, 2]: what the high and the low half of a byte stand for."""
    return torch.cartesian_prod(values, values)
