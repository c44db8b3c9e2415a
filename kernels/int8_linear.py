"""A linear layer in 8-bit integers, weight and activations alike, with outliers spread by a rotation.

x W^T = (x H) (W H)^T for an orthogonal H, and a Hadamard matrix makes every number of a rotated group a sum of all its
numbers: one channel a hundred times as large as the others no longer takes the resolution of the whole row.

Sources: QuaRot (arXiv 2404.00456); ConvRot (arXiv 2512.03673), which rotates in groups by regular Hadamard matrices.
"""

from functools import cache

import torch
import torch.nn.functional as F

# Rows of x that are worked on at a time: bounds their float32 copies and the int32 result.
CHUNK_ROWS = 4096
# Rows of zeros have no scale of their own; this one leaves them zero.
SMALLEST_SCALE = 1e-30


def int8_linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None, rotation: int = 0
) -> torch.Tensor:
    """x W^T + bias, with x quantised per row on the way.

    x: [..., K], any floating dtype.  weight: [N, K] int8, contiguous, rotated in groups of `rotation` columns.
    scale: of the weight, float32 with 1 or N elements.  bias: [N].  Returns [..., N] in x's dtype.
    With K = 5120 and Gaussian x and weight 1.3 % from the exact product, by the rounding of both to int8; their sums
    are exact, everything else is float32.
    """
    flat = x.reshape(-1, x.shape[-1])
    out = x.new_empty(len(flat), len(weight))
    for rows, place in zip(flat.split(CHUNK_ROWS), out.split(CHUNK_ROWS)):
        codes, row_scale = quantise_rows(rotate(rows, rotation))
        product = int8_matmul(codes, weight).float().mul_(row_scale).mul_(scale.reshape(1, -1))
        place.copy_(product if bias is None else product.add_(bias))
    return out.unflatten(0, x.shape[:-1]) if x.dim() > 1 else out[0]


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


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [..., K] -> (codes [..., K] int8, scale [..., 1] float32) with x = codes * scale; computed in float32.

    Symmetric: the largest number of a row has the code 127 or -127.
    """
    x = x.float()
    largest = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True))
    scale = (largest / 127).clamp_(min=SMALLEST_SCALE)
    return (x / scale).round_().to(torch.int8), scale


def int8_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a b^T, exactly.  a: [M, K] int8.  b: [N, K] int8.  Returns [M, N] int32."""
    if a.device.type == "cuda":
        return _aligned_matmul(a, b)
    return torch._int_mm(a, b.t())


@cache
def has_int8_matmul(device: torch.device) -> bool:
    """Whether this device multiplies int8 matrices, tried once; MPS, cards before Turing and some of AMD's do not."""
    a, b = (
        torch.arange(n * 64, device=device).remainder(p).to(torch.int8).view(n, 64) for n, p in ((32, 113), (40, 61))
    )
    try:
        return bool((int8_matmul(a, b) == a.float() @ b.float().t()).all())
    except RuntimeError:
        return False


def _aligned_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """As int8_matmul, in the sizes that cuBLAS and hipBLASLt take: more than 16 rows, otherwise multiples of 8."""
    columns = -a.shape[1] % 8
    more_a, more_b = (0, columns, 0, max(0, 32 - len(a))), (0, columns, 0, -len(b) % 8)
    padded_a = F.pad(a, more_a) if any(more_a) else a
    padded_b = F.pad(b, more_b) if any(more_b) else b
    return torch._int_mm(padded_a, padded_b.t())[: len(a), : len(b)]


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
