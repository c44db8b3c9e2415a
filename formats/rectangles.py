"""8-bit codes with a scale for each rectangle of the weight, 128 rows and 128 columns most often.

Sources: DeepSeek-V3 (arXiv 2412.19437), whose files call the scale `weight_scale_inv`; convert_to_quant's "blockwise"
formats, https://github.com/silveroxides/convert_to_quant.
"""

import torch

from .base import Format, Parts
from .encoding import Encoding, rectangle
from .float8_bits import from_float8
from .kinds import KINDS


class Rectangles(Format):
    """Read only.

    weight: [rows, columns] int8, or E4M3 or its bits as uint8.  weight_scale: what the codes are multiplied by, [down,
    across] of the rectangles; where the weight does not end with one, the last is cut off.
    """

    def __init__(self, kind: str):
        self.name = KINDS[kind].word

    @classmethod
    def of(cls, encoding: Encoding) -> "Rectangles":
        return cls(encoding.kind)

    def unpack(self, parts: Parts, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        scale = parts["weight_scale"].float().flatten(1)
        of_rows = torch.arange(rows, device=scale.device) // rectangle(rows, len(scale))
        return super().unpack({"weight": parts["weight"], "weight_scale": scale[of_rows]}, rows, columns, dtype)

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        codes, scale = parts["weight"], parts["weight_scale"]
        numbers = codes.float() if codes.dtype == torch.int8 else from_float8(codes, torch.float8_e4m3fn)
        of_columns = torch.arange(columns, device=scale.device) // rectangle(columns, scale.shape[1])
        return numbers.mul_(scale[:, of_columns])
