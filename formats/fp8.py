"""8-bit floating point: a plain cast, or one with a scale for the whole weight or for each row.

Source: FP8 Formats for Deep Learning (arXiv 2209.05433); names and shapes as ComfyUI's checkpoints have them.
"""

from collections.abc import Collection

import torch

from ..kernels.fp8_linear import FP8, fp8_linear
from ..kernels.gelu import gelu_
from ..kernels.quantise import quantised
from ..kernels.quantised_rows import Quantisation, QuantisedRows
from ..kernels.scaled_mm import has_fp8_matmul, scales_rows
from .base import Format, Parts
from .encoding import Encoding
from .float8_bits import from_float8, to_float8
from .kinds import KINDS

# Rows of zeros have no scale of their own; this one leaves them zero.
SMALLEST_SCALE = 1e-30


class Float8(Format):
    """dtype: torch.float8_e4m3fn (relative error of Gaussian weights 2.6 %) or torch.float8_e5m2 (5.3 %).

    weight: [rows, columns] of that dtype, or its bits as uint8.  weight_scale: what the codes are multiplied by,
    float32 of shape [], [1], [rows] or [rows, 1]; absent for a plain cast. What is packed here has one per row.
    Cards that multiply e4m3 can be given the input in 8 bits too: 3.7 % of the layer's output instead of 2.6 %.
    """

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.name = KINDS[str(dtype).removeprefix("torch.")].word

    @classmethod
    def of(cls, encoding: Encoding) -> "Float8":
        return cls(getattr(torch, encoding.kind))

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        weight = from_float8(parts["weight"], self.dtype)
        scale = parts.get("weight_scale")
        return weight if scale is None else weight.mul_(scale.float().reshape(-1, 1))

    def encode(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        return self._scaled(weight, weight.abs().amax(dim=1, keepdim=True))

    def quantised_input(self, device: torch.device, names: Collection[str]) -> Quantisation | None:
        fast = device.type in fp8_linear.devices and has_fp8_matmul(device)
        return FP8 if fast and self._multiplies(names) else None

    def copies_floats(self, device: torch.device) -> bool:
        return not (quantised.has_backend(device) and scales_rows(device))

    def linear(
        self,
        x: torch.Tensor | QuantisedRows,
        parts: Parts,
        rows: int,
        bias: torch.Tensor | None,
        gelu: bool = False,
    ) -> torch.Tensor:
        codes = parts["weight"]
        as_is = codes.dtype != torch.float8_e4m3fn or not self._multiplies(parts)
        if as_is and not isinstance(x, QuantisedRows):
            return self.exact_linear(x, parts, rows, bias, gelu)
        y = fp8_linear(x, codes, parts["weight_scale"].float(), bias)
        return gelu_(y) if gelu else y

    def _multiplies(self, names: Collection[str]) -> bool:
        # A plain cast has no scale to multiply by, and no device multiplies e5m2 weights by e4m3 activations well.
        return self.dtype == torch.float8_e4m3fn and "weight_scale" in names

    def pack_tensorwise(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """As `pack`, but with one scale [] for the whole weight, which is how most checkpoints are stored."""
        return self._scaled(weight.float(), weight.abs().amax().float())

    def _scaled(self, weight: torch.Tensor, largest: torch.Tensor) -> dict[str, torch.Tensor]:
        scale = (largest / torch.finfo(self.dtype).max).clamp(min=SMALLEST_SCALE)
        return {"weight": to_float8(weight / scale, self.dtype), "weight_scale": scale}
