"""8-bit floating point with a power of two for every 32 columns: OCP's MXFP8, as ComfyUI's checkpoints have it.

Source: OCP Microscaling Formats (MX) 1.0; the layout is comfy-kitchen's, https://github.com/Comfy-Org/comfy-kitchen.
"""

import torch

from .base import Format, Parts
from .float8_bits import from_float8
from .kinds import KINDS
from .tiled_scales import untiled

KIND = KINDS["mxfp8"]


class Mxfp8(Format):
    """Read only.

    weight: E4M3 or its bits as uint8, [rows, columns], both padded to multiples of 32.  weight_scale: E8M0, exponents
    with a bias of 127, one for every 32 columns of a row, in tiles; also as uint8.
    """

    name = KIND.word

    def unpack(self, parts: Parts, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        weight = parts["weight"]
        exponents = untiled(parts["weight_scale"].view(torch.uint8), len(weight), weight.shape[1] // KIND.block)
        return super().unpack({"weight": weight, "weight_scale": exponents}, rows, columns, dtype)

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        # A float32 without sign and mantissa; unlike exp2 exact on every device.
        scale = (parts["weight_scale"].int() << 23).view(torch.float32)
        blocks = from_float8(parts["weight"], torch.float8_e4m3fn).unflatten(1, (-1, KIND.block))
        return blocks.mul_(scale.unsqueeze(2)).flatten(1)
