"""A linear layer in 8-bit integers, weight and activations alike, with outliers spread by a rotation.

x W^T = (x H) (W H)^T for an orthogonal H, and a Hadamard matrix makes every number of a rotated group a sum of all its
numbers: one channel a hundred times as large as the others no longer takes the resolution of the whole row.
"""

import os

import torch
import torch.nn.functional as F

from .dispatch import normal, operation
from .probes import probe
from .quantise import quantised
from .quantised_rows import Quantisation, QuantisedRows, chunk_rows, put_scaled, quantise_rows
from .rotation import is_power_of_4, rotate

__all__ = ["has_int8_matmul", "int8_linear", "int8_matmul", "is_power_of_4", "quantise_rows", "rotate"]

EXACT_COLUMNS = 1024  # products of int8 that float32 sums without rounding: 1024 x 128 x 128 = 2^24


def _sample(x, weight, scale, bias=None, rotation=0, gelu=False):
    columns, rows = x.shape[-1], 40
    some = normal(33, columns, dtype=x.dtype)
    if isinstance(x, QuantisedRows):
        some = quantised(some, Quantisation("int8", rotation))
    codes, scales = quantise_rows(rotate(normal(rows, columns) / columns**0.5, rotation))
    scales = scales.mean() if scale.numel() == 1 else scales
    return (some, codes, scales, None if bias is None else normal(rows, dtype=bias.dtype), rotation, gelu), {}


@operation("triton_int8_linear:int8_linear", _sample)
def int8_linear(
    x: torch.Tensor | QuantisedRows,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    rotation: int = 0,
    gelu: bool = False,
) -> torch.Tensor:
    """x W^T + bias, with x quantised per row on the way or before.

    x: [..., K], any floating dtype, or already quantised with the weight's rotation.  weight: [N, K] int8, contiguous,
    rotated in groups of `rotation` columns.  scale: of the weight, float32 with 1 or N elements.  bias: [N].
    gelu: applies GELU (tanh form) to the result.  Returns [..., N] in x's dtype.
    With K = 5120 and Gaussian x and weight 1.3 % from the exact product, by the rounding of both to int8; their sums
    are exact, everything else is float32.
    Raises ValueError where x was quantised otherwise.
    """
    flat = flat_rows(x, rotation)
    out = torch.empty(len(flat), len(weight), dtype=x.dtype, device=x.device)
    size = chunk_rows(max(weight.shape))
    for chunk, place in zip(flat.split(size), out.split(size)):
        rows = chunk if isinstance(chunk, QuantisedRows) else quantised(chunk, Quantisation("int8", rotation))
        # No name for what is made: it would live on beside the next chunk's.
        put_scaled(place, int8_matmul(rows.codes, weight), rows.scale, scale.reshape(1, -1), bias, gelu)
    return out.reshape(*x.shape[:-1], len(weight))


def flat_rows(x: torch.Tensor | QuantisedRows, rotation: int) -> torch.Tensor | QuantisedRows:
    """x as [M, K]. Raises ValueError where it was quantised, but not to int8 with this rotation."""
    if not isinstance(x, QuantisedRows):
        return x.reshape(-1, x.shape[-1])
    if x.codes.dtype != torch.int8 or x.rotation != rotation:
        raise ValueError(f"rows in {x.codes.dtype} rotated by {x.rotation}, but int8 rotated by {rotation} are needed")
    return x.rows()


def int8_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a b^T, exactly.  a: [M, K] int8.  b: [N, K] int8.  Returns [M, N] int32."""
    if a.device.type == "cuda":
        return _aligned_matmul(a, b)
    return _matmul(a, b)


def _matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if a.device.type == "cpu" and not _has_int8_units():
        return _matmul_by_floats(a, b)
    return torch._int_mm(a, b.t())  # pyright: ignore[reportPrivateUsage]: torch has no public one


@probe
def has_int8_matmul(device: torch.device) -> bool:
    """Whether this device multiplies int8 matrices, tried once; MPS, cards before Turing and some of AMD's do not."""
    if device.type == "cuda" and torch.version.hip is not None and _breaks(torch.cuda.get_device_properties(device)):
        return False
    a, b = (
        torch.arange(n * 64, device=device).remainder(p).to(torch.int8).view(n, 64) for n, p in ((32, 113), (40, 61))
    )
    try:
        return bool((int8_matmul(a, b) == a.float() @ b.float().t()).all())
    except RuntimeError:
        return False


def _breaks(card) -> bool:
    """Whether trying is not safe: on Windows hipBLASLt's int8 takes the process with it, RDNA4's fails in silence."""
    return os.name == "nt" or str(getattr(card, "gcnArchName", "")).startswith("gfx12")


@probe
def _has_int8_units() -> bool:
    """Whether this processor multiplies int8 (AVX-512 VNNI), and oneDNN makes use of it.

    Without, torch takes a plain loop, 100 times slower than float32. Where oneDNN alone has to do without
    (ONEDNN_MAX_CPU_ISA), its sums of two products stick at 16 bits, so large numbers are tried.
    """
    names = ("_is_vnni_supported", "_is_avx512_vnni_supported", "_is_cpu_support_vnni")  # older torch has the last ones
    if not any(getattr(torch.cpu, name, bool)() for name in names):
        return False
    large = torch.full((32, 64), 127, dtype=torch.int8)
    product = torch._int_mm(large, -large.t())  # pyright: ignore[reportPrivateUsage]: torch has no public one
    return bool((product == -64 * 127 * 127).all())


def _matmul_by_floats(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """As int8_matmul, in float32, as many columns at a time as are summed exactly."""
    columns = zip(a.split(EXACT_COLUMNS, dim=1), b.split(EXACT_COLUMNS, dim=1))
    products = ((some_a.float() @ some_b.float().t()).int() for some_a, some_b in columns)
    total = next(products)
    for product in products:
        total.add_(product)
    return total


def _aligned_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """As int8_matmul, in the sizes that cuBLAS and hipBLASLt take: more than 16 rows, otherwise multiples of 8."""
    columns = -a.shape[1] % 8
    more_a, more_b = (0, columns, 0, max(0, 32 - len(a))), (0, columns, 0, -len(b) % 8)
    padded_a = F.pad(a, more_a) if any(more_a) else a
    padded_b = F.pad(b, more_b) if any(more_b) else b
    return _matmul(padded_a, padded_b)[: len(a), : len(b)]
