"""4-bit integers, the columns mixed by a rotation first: ComfyUI's "convrot_w4a4" and "asym_w4a8_int8".

Their names tell how ComfyUI multiplies them, with inputs of 4 and 8 bits; here the input stays as it is.
Source: the layouts of comfy-kitchen, https://github.com/Comfy-Org/comfy-kitchen.
"""

import torch

from ..kernels.int8_linear import rotate
from .base import Parts
from .float8_bits import from_float8
from .kinds import KINDS
from .lookup import lookup, pairs
from .rotated import Rotated

SIGNED = (*range(8), *range(-8, 0))  # what the codes of RowInt4 stand for
UNIFORM = tuple(range(-8, 8))  # what those of GroupInt4 stand for where there is no codebook
LARGEST = 127


class RowInt4(Rotated):
    """Read only.

    weight: [rows, columns / 2] int8: two codes a byte, the first in the low half.  weight_scale: what they are
    multiplied by, one for each row.
    """

    name = KINDS["convrot_w4a4"].word

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        codes = parts["weight"]
        numbers = _numbers(codes, torch.tensor(SIGNED, dtype=torch.float32, device=codes.device))
        return rotate(numbers.mul_(parts["weight_scale"].float().reshape(-1, 1)), self.rotation)


class GroupInt4(Rotated):
    """Read only.

    weight: as in RowInt4.  weight_codebook: [16] numbers that the codes stand for; -8 to 7 where it is absent.
    weight_s_rel: E4M3 (or its bits as uint8) or float32 [rows, groups], one for each group of columns; codes times
    these are rounded to 8-bit integers.  weight_s_channel: [rows], what those are multiplied by.
    """

    name = KINDS["asym_w4a8_int8"].word

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        codes, scale = parts["weight"], parts["weight_s_rel"]
        values = parts.get("weight_codebook")
        values = torch.tensor(UNIFORM, device=codes.device) if values is None else values.flatten()
        if scale.itemsize == 1:
            scale = from_float8(scale, torch.float8_e4m3fn)
        groups = _numbers(codes, values.float()).unflatten(1, (scale.shape[1], -1))
        integers = groups.mul_(scale.float().unsqueeze(2)).round_().clamp_(-LARGEST, LARGEST).flatten(1)
        return rotate(integers.mul_(parts["weight_s_channel"].float().reshape(-1, 1)), self.rotation)


def _numbers(codes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """codes [rows, columns / 2], values [16] -> a new tensor [rows, columns]."""
    return lookup(pairs(values).flip(1), codes.view(torch.uint8)).flatten(1)
