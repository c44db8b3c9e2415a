"""Linear layers whose weight stays packed."""

from contextlib import contextmanager

import torch
from torch import nn

from ..kernels.quantised_rows import Quantisation
from ..skyreels_v3.model.lora import Branching
from .base import Format, product
from .float8_bits import has_float8, is_float8, portable


class PackedLinear(nn.Module):
    """A linear layer with its weight in a Format; unpacked, at most, for one call or while `prepared` is open.

    exact: whether the input stays as it is, also on devices that multiply the weight by an input in 8 bits.
    takes_gelu: that forward can make GELU (tanh form) of its output, which some formats do in the same pass.
    Parameters are the format's parts under their names in files ("weight", "weight_scale" ...) and `bias`.
    """

    takes_gelu = True
    bias: nn.Parameter | None
    _ready: tuple | None = None  # while `prepared` is open: its dtype and what it made

    def __init__(
        self,
        columns: int,
        rows: int,
        format: Format,
        parts: dict[str, torch.Tensor],
        bias: torch.Tensor | None = None,
        exact: bool = False,
    ):
        super().__init__()
        self.exact = exact
        self.in_features = columns
        self.out_features = rows
        self.format = format
        self.part_names = tuple(parts)
        for name, part in {**parts, "bias": bias}.items():
            self.register_parameter(name, None if part is None else nn.Parameter(part, requires_grad=False))

    def forward(self, x: torch.Tensor, gelu: bool = False) -> torch.Tensor:
        """x [..., columns], or its rows as `quantised_input` says -> [..., rows] in x's dtype, or GELU of them."""
        if self._ready is None or self._ready[0] != x.dtype:
            with self.placed(x) as (parts, bias):
                return self._multiplied(x, parts, bias, gelu)
        _, parts, bias, unpacked = self._ready
        if unpacked is None:
            return self._multiplied(x, parts, bias, gelu)
        return product(x, unpacked, bias, gelu)

    def _multiplied(self, x, parts, bias, gelu: bool) -> torch.Tensor:
        multiply = self.format.exact_linear if self.exact else self.format.linear
        return multiply(x, parts, self.out_features, bias, gelu)

    def unpacks(self, device: torch.device, dtype: torch.dtype | None = None) -> bool:
        """Whether each call unpacks the weight on this device, instead of multiplying it as it is stored."""
        return self.exact or self.format.quantised_input(device, self.part_names) is None

    def copies_floats(self, device: torch.device) -> bool:
        """Whether calls that do not unpack make float32 copies of their output, a part at a time."""
        return self.format.copies_floats(device)

    @contextmanager
    def prepared(self, x: torch.Tensor):
        """While the context is open the weight is placed, and unpacked where it is, for all inputs like x at once."""
        with self.placed(x) as (parts, bias):
            shape = self.out_features, self.in_features
            unpacked = self.format.unpack(parts, *shape, x.dtype) if self.unpacks(x.device) else None
            self._ready = x.dtype, parts, bias, unpacked
            try:
                yield
            finally:
                self._ready = None

    def quantised_input(self, device: torch.device) -> Quantisation | None:
        """How this layer takes an input that is already quantised; None where it does not."""
        return None if self.exact else self.format.quantised_input(device, self.part_names)

    @contextmanager
    def placed(self, x: torch.Tensor):
        """(parts, bias) on x's device, the bias in x's dtype, as long as the context is open."""
        parts = {name: portable(getattr(self, name), x.device).to(x.device) for name in self.part_names}
        yield parts, None if self.bias is None else self.bias.to(x.device, x.dtype)

    def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight [rows, columns], where the parts are."""
        parts = {name: getattr(self, name) for name in self.part_names}
        return self.format.unpack(parts, self.out_features, self.in_features, dtype)

    def _apply(self, fn, recurse=True):
        # `.to(dtype)` is for numbers; what is stored here are codes and their scales.
        def keep_codes(tensor: torch.Tensor) -> torch.Tensor:
            # As bits, because not every device takes 8-bit floats.
            bits = tensor.view(torch.uint8) if is_float8(tensor) else tensor
            moved = fn(bits)
            moved = moved if moved.dtype == bits.dtype else bits.to(moved.device)
            return moved.view(tensor.dtype) if is_float8(tensor) and has_float8(moved.device) else moved

        return super()._apply(keep_codes, recurse)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.format.name}, bias={self.bias is not None}"


# Branching hands on whatever is fused, by keyword; PackedLinear names it.
class BranchedLinear(Branching, PackedLinear):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A PackedLinear beside which LoRAs run."""

    def quantised_input(self, device: torch.device) -> Quantisation | None:
        # A LoRA works on the input itself: 8 bits of it would cost the LoRA a hundredth of its effect.
        return super().quantised_input(device) if self.is_alone else None

    @property
    def takes_gelu(self) -> bool:
        # A LoRA is added to the product, before anything is made of it.
        return self.is_alone
