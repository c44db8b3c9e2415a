"""What a format is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F

# The tensors of one stored weight: "weight" holds the numbers' codes; others, such as "weight_scale", lie beside it.
Parts = Mapping[str, torch.Tensor]


class Format(ABC):
    """A way to store the weight [rows, columns] of a linear layer in fewer bits.

    name: what artists call it ("int8", "fp8", "Q4_K").
    """

    name: str

    @abstractmethod
    def unpack(self, parts: Parts, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight [rows, columns] in a floating dtype, on the parts' device."""

    def pack(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Store a weight [rows, columns] of any floating dtype, on its device. Raises NotImplementedError for formats
        that are only read."""
        raise NotImplementedError(f"{self.name} is only read")

    def takes(self, rows: int, columns: int) -> bool:
        """Whether a weight of this shape can be stored so."""
        return True

    def linear(self, x: torch.Tensor, parts: Parts, rows: int, bias: torch.Tensor | None) -> torch.Tensor:
        """x [..., columns] times the weight, plus bias [rows] -> [..., rows] in x's dtype."""
        return F.linear(x, self.unpack(parts, rows, x.shape[-1], x.dtype), bias)
