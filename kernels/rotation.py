"""Spreads the numbers of a row over groups of columns by a regular Hadamard matrix.

Sources: QuaRot (arXiv 2404.00456); ConvRot (arXiv 2512.03673), which rotates in groups by regular Hadamard matrices.
"""

from functools import cache

import torch


def rotate(x: torch.Tensor, width: int) -> torch.Tensor:
    """x H in groups of `width` columns, for the normalised regular Hadamard matrix; it undoes itself.

    x: [..., K], K a multiple of width.  width: a power of 4, or 0, which returns x.
    Returns x's dtype, but float32 for float16: a rotated group can be sqrt(width) times as large as its numbers.
    """
    if not width:
        return x
    if x.dtype == torch.float16:
        x = x.float()
    return (x.unflatten(-1, (-1, width)) @ _hadamard(width, x.dtype, x.device)).flatten(-2)


def is_power_of_4(width: int) -> bool:
    return width > 0 and not width & (width - 1) and width.bit_length() % 2 == 1


@cache
def _hadamard(width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[width, width]: regular, so that no column is constant and a row's mean is spread like any other pattern.

    Symmetric. Its numbers, +-1 / sqrt(width), are powers of two and so exact in every dtype.
    """
    if not is_power_of_4(width):
        raise ValueError(f"groups of {width} columns, but a power of 4 is needed")
    factor = (torch.ones(4, 4) - 2 * torch.eye(4).flip(0)) / 2
    matrix = torch.ones(1, 1)
    while len(matrix) < width:
        matrix = torch.kron(matrix, factor)
    return matrix.to(device, dtype)
