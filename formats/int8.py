"""8-bit integers with a scale per row, the columns mixed by a rotation first: ComfyUI's "int8_tensorwise" (convrot).

Sources: ConvRot (arXiv 2512.03673); the layout is comfy-kitchen's, https://github.com/Comfy-Org/comfy-kitchen.
"""

from collections.abc import Collection

import torch

from ..kernels.int8_linear import has_int8_matmul, int8_linear, is_power_of_4, quantise_rows, rotate
from ..kernels.quantised_rows import Quantisation, QuantisedRows
from ..skyreels_v3.errors import InputError
from .base import Format, Parts
from .encoding import Encoding
from .kinds import KINDS


class Int8(Format):
    """rotation: width of the groups of columns that are mixed, a power of 4; 0 for none.

    weight: [rows, columns] int8, the weight times the Hadamard matrix of each group.  weight_scale: what the codes are
    multiplied by, float32 of shape [], [1], [rows] or [rows, 1]. What is packed here has one per row.
    Relative error of Gaussian weights with 5120 columns 0.9 %, and 1.3 % of the layer's output, since activations
    become int8 as well.
    """

    name = KINDS["int8"].word

    def __init__(self, rotation: int = 0):
        if rotation and not is_power_of_4(rotation):
            raise InputError(
                f"A weight is stored as int8 with columns mixed in groups of {rotation}, but a power of 4 is needed: "
                "the file is damaged or not made by ComfyUI, use another one."
            )
        self.rotation = rotation

    @classmethod
    def of(cls, encoding: Encoding) -> "Int8":
        return cls(encoding.rotation)

    def takes(self, rows: int, columns: int) -> bool:
        return not self.rotation or columns % self.rotation == 0

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        weight = parts["weight"].float().mul_(parts["weight_scale"].float().reshape(-1, 1))
        return rotate(weight, self.rotation)

    def encode(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        codes, scale = quantise_rows(rotate(weight, self.rotation))
        return {"weight": codes, "weight_scale": scale}

    def quantised_input(self, device: torch.device, names: Collection[str]) -> Quantisation | None:
        return Quantisation("int8", self.rotation) if has_int8_matmul(device) else None

    def linear(
        self, x: torch.Tensor | QuantisedRows, parts: Parts, rows: int, bias: torch.Tensor | None, gelu: bool = False
    ) -> torch.Tensor:
        if not isinstance(x, QuantisedRows) and not has_int8_matmul(x.device):
            return super().linear(x, parts, rows, bias, gelu)
        return int8_linear(x, parts["weight"], parts["weight_scale"].float(), bias, self.rotation, gelu)
