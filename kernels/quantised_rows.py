"""Activations in 8 bits with a scale per row: quantised once, read by every layer that takes the same input."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import overload

import torch

from .gelu import gelu_
from .rotation import rotate

# Rows of zeros have no scale of their own; this one leaves them zero.
SMALLEST_SCALE = 1e-30
# Of half precision numbers, how many have a float32 copy at a time.
CHUNK = 2**24
# kind -> (dtype of the codes, the largest code).
KINDS = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}


def chunk_rows(width: int) -> int:
    """Rows of `width` numbers that are worked on at a time; a round number for products."""
    return max(128, CHUNK // width // 128 * 128)


@dataclass(frozen=True)
class Quantisation:
    """How rows become 8-bit codes.

    kind: "int8" or "fp8" (e4m3).  rotation: width of the groups of columns that are mixed first, a power of 4; 0 for
    none. It must be that of the weight.
    """

    kind: str
    rotation: int = 0


@dataclass(frozen=True)
class QuantisedRows:
    """x = rotate(codes * scale).

    codes: [..., K] int8 or float8_e4m3fn.  scale: [..., 1] float32.  dtype: of x, which products return.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    rotation: int
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        return self.codes.shape

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "QuantisedRows":
        """The same with function(codes) and function(scale)."""
        return replace(self, codes=function(self.codes), scale=function(self.scale))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows) -> "QuantisedRows":
        """A view of some rows: indices of the dimensions before the last."""
        return self.map(lambda tensor: tensor[rows])

    def split(self, size: int, dim: int = 0) -> list["QuantisedRows"]:
        """Views of `size` rows each."""
        parts = zip(self.codes.split(size, dim), self.scale.split(size, dim), strict=True)
        return [replace(self, codes=codes, scale=scale) for codes, scale in parts]

    def copy_(self, other: "QuantisedRows") -> "QuantisedRows":
        self.codes.copy_(other.codes)
        self.scale.copy_(other.scale)
        return self

    def rows(self) -> "QuantisedRows":
        """All rows in one dimension, [M, K]."""
        return self.map(lambda tensor: tensor.reshape(-1, tensor.shape[-1]))

    def unpacked(self) -> torch.Tensor:
        """x [..., K] in its dtype."""
        x = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        size = chunk_rows(x.shape[-1])
        for some, place in zip(self.rows().split(size), x.view(-1, x.shape[-1]).split(size), strict=True):
            place.copy_(rotate(some.codes.float().mul_(some.scale), self.rotation))
        return x


@overload
def rows_like(x: torch.Tensor, how: Quantisation) -> QuantisedRows: ...
@overload
def rows_like(x: torch.Tensor, how: None) -> torch.Tensor: ...
@overload
def rows_like(x: torch.Tensor, how: Quantisation | None) -> torch.Tensor | QuantisedRows: ...
def rows_like(x: torch.Tensor, how: Quantisation | None) -> torch.Tensor | QuantisedRows:
    """Room, not filled, for x [..., K] or, with `how`, for x quantised."""
    if how is None:
        return x.new_empty(x.shape)
    codes = torch.empty(x.shape, dtype=KINDS[how.kind][0], device=x.device)
    scale = torch.empty((*x.shape[:-1], 1), dtype=torch.float32, device=x.device)
    return QuantisedRows(codes, scale, how.rotation, x.dtype)


def quantise_rows(
    x: torch.Tensor, kind: str = "int8", out: QuantisedRows | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """x [..., K] -> (codes [..., K], scale [..., 1] float32) with x = codes * scale; computed in float32.

    Symmetric: the largest number of a row has the largest code or its negative.  out: where the result goes.
    """
    dtype, top = KINDS[kind]
    # On a card passes over memory are the cost: it converts while it computes. A processor does so in steps.
    steps = x.device.type == "cpu"
    own, x = steps and x.dtype != torch.float32, x.float() if steps else x
    largest = torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True)).float()
    scale = (largest / top).clamp_(min=SMALLEST_SCALE)
    if kind == "int8" and not steps:
        codes = _rounded(x, scale)
    else:
        codes = x.div_(scale) if own else x / scale
        codes = codes.round_() if kind == "int8" else codes
    if out is None:
        return codes.to(dtype).contiguous(), scale
    out.codes.copy_(codes)
    out.scale.copy_(scale)
    return out.codes, out.scale


def _rounded(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x / scale to the nearest integer in [-127, 127], even ones first, as int8, in one pass."""
    # Beside 1.5 * 2^23 float32 has no room for fractions, and its lowest byte is the integer's.
    beside = torch.full((), 1.5 * 2**23, device=x.device)
    return torch.addcdiv(beside, x, scale).view(torch.int8)[..., ::4]


def put_scaled(
    out: torch.Tensor,
    sums: torch.Tensor,
    row_scale: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    gelu: bool = False,
) -> None:
    """Writes sums * row_scale * column_scale + bias, or GELU (tanh form) of it: in float32, rounded once.

    out, sums: [M, N].  row_scale: [M, 1], column_scale: [1, N or 1] float32.  bias: [N].
    """
    (_put_in_steps if sums.device.type == "cpu" else _put_in_passes)(out, sums, row_scale, column_scale, bias, gelu)


def _put_in_steps(out, sums, row_scale, column_scale, bias, gelu: bool) -> None:
    total = sums.float().mul_(row_scale).mul_(column_scale)
    total = total if bias is None else total.add_(bias)
    out.copy_(gelu_(total) if gelu else total)


def _put_in_passes(out, sums, row_scale, column_scale, bias, gelu: bool) -> None:
    # As above: as few passes as there can be.
    total = sums * row_scale
    place = total if gelu else out
    if bias is None:
        torch.mul(total, column_scale, out=place)
    else:
        torch.addcmul(bias, total, column_scale, out=place)
    if gelu:
        out.copy_(gelu_(place))
