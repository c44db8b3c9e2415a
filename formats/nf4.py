"""4-bit NormalFloat: sixteen values as far apart as Gaussian numbers need them, with a scale for every 64 columns.

Source: QLoRA (arXiv 2305.14314), appendix E. The codes and their order are those of bitsandbytes.
"""

from functools import cache

import torch

from ..kernels.dispatch import Operation, normal
from .base import Format, Parts
from .kinds import KINDS
from .lookup import lookup

KIND = KINDS["nf4"]
VALUES = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
# Blocks of zeros are divided by this and stay zero.
SMALLEST = 1e-30


class Nf4(Format):
    """4.5 bits a number; relative error of Gaussian weights 9.2 %.

    weight: [rows, columns / 2 + columns / 16] uint8: two codes a byte, the first in the high half, then the largest
    magnitudes of the blocks, [columns / 64] float32, as bytes. One tensor, so that a weight is moved at once.
    """

    name = KIND.word

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        codes, bytes = parts["weight"].split((columns // 2, columns // 16), dim=1)
        largest = bytes.contiguous().view(torch.float32)
        numbers = lookup(_pairs(codes.device), codes).reshape(len(codes), -1, KIND.block)
        return numbers.mul_(largest.unsqueeze(-1)).flatten(1)

    def unpack(self, parts: Parts, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        return unpacked(parts["weight"], columns, dtype)

    def encode(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        blocks = weight.unflatten(1, (-1, KIND.block))
        largest = blocks.abs().amax(dim=2, keepdim=True)
        codes = torch.bucketize(blocks / largest.clamp(min=SMALLEST), _borders(weight.device), out_int32=True)
        high, low = codes.to(torch.uint8).flatten(1).unflatten(1, (-1, 2)).unbind(2)
        return {"weight": torch.cat([high << 4 | low, largest.flatten(1).view(torch.uint8)], dim=1)}


def unpacked_here(stored: torch.Tensor, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """A stored weight, as `Nf4` has it -> its numbers [rows, columns] in a floating dtype."""
    return Format.unpack(Nf4(), {"weight": stored}, len(stored), columns, dtype)


def unpacked_by_bitsandbytes(stored: torch.Tensor, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """The same in one pass over the weight, where the package is installed. Bit for bit `unpacked_here` on the CPU.

    It only reads: its packing on cards puts a number at a border of two codes elsewhere than on the CPU, and the same
    file is to give the same weights on every machine.
    """
    import bitsandbytes.functional as library

    codes, bytes = stored.split((columns // 2, columns // 16), dim=1)
    state = library.QuantState(
        absmax=bytes.contiguous().view(torch.float32).flatten(),
        shape=torch.Size((len(stored), columns)),
        code=torch.tensor(VALUES, device=stored.device),
        blocksize=KIND.block,
        quant_type="nf4",
        dtype=dtype,
    )
    return library.dequantize_4bit(codes.reshape(-1, 1), state)


def _sample(stored: torch.Tensor, columns: int, dtype: torch.dtype):
    return (Nf4().encode(normal(3, columns))["weight"], columns, dtype), {}


unpacked = Operation(unpacked_here, unpacked_by_bitsandbytes, _sample, name="bitsandbytes", optional=True)


@cache
def _pairs(device: torch.device) -> torch.Tensor:
    """The two numbers that a byte stands for, [256, 2] float32."""
    values = torch.tensor(VALUES)
    return torch.cartesian_prod(values, values).to(device)


@cache
def _borders(device: torch.device) -> torch.Tensor:
    """Half-way between neighbouring values, [15] float32."""
    values = torch.tensor(VALUES)
    return ((values[1:] + values[:-1]) / 2).to(device)
