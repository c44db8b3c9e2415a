"""4-bit floating point with a scale in E4M3 for every 16 columns: NVIDIA's NVFP4, as ComfyUI's checkpoints have it.

Source: Pretraining LLMs with NVFP4 (arXiv 2509.25149); the layout is comfy-kitchen's,
https://github.com/Comfy-Org/comfy-kitchen.
"""

from functools import cache

import torch

from .base import Format, Parts
from .float8_bits import from_float8
from .kinds import KINDS
from .lookup import lookup, pairs
from .tiled_scales import untiled

KIND = KINDS["nvfp4"]
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of E2M1; the fourth bit is the sign


class Nvfp4(Format):
    """Read only.

    weight: [rows, columns / 2] uint8, both padded to multiples of 16: two codes a byte, the first in the high half.
    weight_scale: E4M3 or its bits as uint8, one for every 16 columns of a row, in tiles.  weight_scale_2: float32 [] or
    [1], for the whole weight.  pre_quant_scale: [columns], what the layer's input is multiplied by, or as
    well the weight's columns.
    """

    name = KIND.word

    def unpack(self, parts: Parts, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        weight = parts["weight"].view(torch.uint8)
        bits = untiled(parts["weight_scale"].view(torch.uint8), len(weight), 2 * weight.shape[1] // KIND.block)
        scale = from_float8(bits.contiguous(), torch.float8_e4m3fn).mul_(parts["weight_scale_2"].float())
        codes = {"weight": weight, "weight_scale": scale}
        if "pre_quant_scale" not in parts:
            return super().unpack(codes, rows, columns, dtype)
        numbers = super().unpack(codes, rows, columns, torch.float32)
        return numbers.mul_(parts["pre_quant_scale"].float().flatten()[:columns]).to(dtype)

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        numbers = lookup(_pairs(parts["weight"].device), parts["weight"]).reshape(len(parts["weight"]), -1, KIND.block)
        return numbers.mul_(parts["weight_scale"].unsqueeze(2)).flatten(1)


@cache
def _pairs(device: torch.device) -> torch.Tensor:
    """The two numbers that a byte stands for, [256, 2] float32."""
    return pairs(torch.tensor([*VALUES, *(-value for value in VALUES)])).to(device)
