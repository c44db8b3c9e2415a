"""8-bit integers with a scale per row, the columns mixed by a rotation first: ComfyUI's "int8_tensorwise" (convrot).

Sources: ConvRot (arXiv 2512.03673); the layout is comfy-kitchen's, https://github.com/Comfy-Org/comfy-kitchen.
"""

from collections.abc import Collection

import torch

from ..kernels.int8_linear import has_int8_matmul, int8_linear, quantise_rows, rotate
from ..kernels.quantised_rows import Quantisation, QuantisedRows
from .base import Parts
from .kinds import KINDS
from .rotated import Rotated


class Int8(Rotated):
    """weight: [rows, columns] int8, the weight times the Hadamard matrix of each group.  weight_scale: what the codes
    are multiplied by, float32 of shape [], [1], [rows] or [rows, 1]. What is packed here has one per row.
    Relative error of Gaussian weights with 5120 columns 0.9 %, and 1.3 % of the layer's output, since activations
    become int8 as well.
    """

    name = KINDS["int8"].word

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        weight = parts["weight"].float().mul_(parts["weight_scale"].float().reshape(-1, 1))
        return rotate(weight, self.rotation)

    def encode(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        codes, scale = quantise_rows(rotate(weight, self.rotation))
        return {"weight": codes, "weight_scale": scale}

    def quantised_input(self, device: torch.device, names: Collection[str]) -> Quantisation | None:
        return Quantisation("int8", self.rotation) if has_int8_matmul(device) else None

    def copies_floats(self, device: torch.device) -> bool:
        return not int8_linear.has_backend(device)

    def linear(
        self, x: torch.Tensor | QuantisedRows, parts: Parts, rows: int, bias: torch.Tensor | None, gelu: bool = False
    ) -> torch.Tensor:
        if not isinstance(x, QuantisedRows) and not has_int8_matmul(x.device):
            return self.exact_linear(x, parts, rows, bias, gelu)
        return int8_linear(x, parts["weight"], parts["weight_scale"].float(), bias, self.rotation, gelu)
