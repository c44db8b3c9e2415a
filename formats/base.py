"""What a format is."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping

import torch
import torch.nn.functional as F

from ..kernels.gelu import gelu_
from ..kernels.quantised_rows import Quantisation
from .encoding import Encoding

# The tensors of one stored weight: "weight" holds the numbers' codes; others, such as "weight_scale", lie beside it.
Parts = Mapping[str, torch.Tensor]
# Numbers of a weight whose float32 copy exists at a time: bounds what packing and unpacking need.
CHUNK = 2**23


class Format(ABC):
    """A way to store the weight [rows, columns] of a linear layer in fewer bits.

    name: what artists call it ("int8", "fp8", "Q4_K").

    A format says how rows are decoded and, unless it is only read, encoded. "weight" has the weight's rows, or more of
    them for padding; of the parts beside it those with as many rows are per row, all others for the whole.
    """

    name: str

    @classmethod
    def of(cls, encoding: Encoding) -> "Format":
        """The format of weights that are stored so. Raises InputError where an encoding makes no sense."""
        return cls()

    @abstractmethod
    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        """The parts of some rows -> those rows [rows, columns] in float32; the columns of a padding may follow."""

    def encode(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Some rows of a weight, [rows, columns] float32 -> their parts. Raises NotImplementedError for formats that
        are only read."""
        raise NotImplementedError(f"{self.name} is only read")

    def unpack(self, parts: Parts, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """The weight [rows, columns] in a floating dtype, on the parts' device. Computed in float32, rounded once."""
        weight = torch.empty(rows, columns, dtype=dtype, device=parts["weight"].device)
        for some in _chunks(rows, columns):
            place = weight[some]
            place.copy_(self.decode(_rows_of(parts, some, len(place)), columns)[:, :columns])
        return weight

    def pack(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """Store a weight [rows, columns] of any floating dtype, on its device. Raises NotImplementedError for formats
        that are only read."""
        pieces = [self.encode(weight[some].float()) for some in _chunks(*weight.shape)]
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def pack_tensorwise(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """As `pack`, but with one scale [] for the whole weight. Raises NotImplementedError for formats without."""
        raise NotImplementedError(f"{self.name} has no scale for a whole weight")

    def quantised_input(self, device: torch.device, names: Collection[str]) -> Quantisation | None:
        """How `linear` takes an input that is already quantised, on a device, for a weight with the parts `names`;
        None where it does not."""
        return None

    def copies_floats(self, device: torch.device) -> bool:
        """Whether `linear` makes float32 copies of its output on a device, a part at a time, where it takes a quantised
        input."""
        return False

    def linear(
        self, x: torch.Tensor, parts: Parts, rows: int, bias: torch.Tensor | None, gelu: bool = False
    ) -> torch.Tensor:
        """x [..., columns] times the weight, plus bias [rows] -> [..., rows] in x's dtype; with `gelu` GELU of it."""
        return self.exact_linear(x, parts, rows, bias, gelu)

    def exact_linear(
        self, x: torch.Tensor, parts: Parts, rows: int, bias: torch.Tensor | None, gelu: bool = False
    ) -> torch.Tensor:
        """As `linear`, with x as it is on every device."""
        return product(x, self.unpack(parts, rows, x.shape[-1], x.dtype), bias, gelu)


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, gelu: bool) -> torch.Tensor:
    """x [..., columns] times a weight [rows, columns] of its dtype, plus bias [rows]; with `gelu` GELU of it."""
    y = F.linear(x, weight, bias)
    return gelu_(y) if gelu else y


def _chunks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, CHUNK // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def _rows_of(parts: Parts, some: slice, count: int) -> dict[str, torch.Tensor]:
    stored = len(parts["weight"])
    end = some.start + count
    return {name: p[some.start : end] if p.dim() and len(p) == stored else p for name, p in parts.items()}
