"""The linear layers of the network inside ComfyUI: its own, which cast and stream their weights, and packed ones."""

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import comfy.ops
import torch
import torch.nn.functional as F

from ...formats.linear import BranchedLinear
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.lora import Branching
from .. import versions
from .in_files import InFiles

if TYPE_CHECKING:
    from comfy.ops import CastWeightBiasOp as Mixed
else:
    Mixed = object  # the layer stands behind it in the order of classes


class Packed(InFiles, BranchedLinear, comfy.ops.CastWeightBiasOp):
    """A PackedLinear whose parts ComfyUI keeps, offloads and streams as it does with any weight."""

    @contextmanager
    def placed(self, x: torch.Tensor):
        with versions.weight_on(self, x.device, bias_dtype=x.dtype) as (weight, bias):
            beside = {name: getattr(self, name) for name in self.part_names if name != "weight"}
            parts = {name: part.to(x.device, non_blocking=True) for name, part in beside.items()}
            yield {"weight": weight, **parts}, bias

    def set_weight(self, weight: torch.Tensor, return_weight: bool = False, **_):
        """What ComfyUI calls with a weight that it has moved or patched.

        Raises InputError for a patched one: packing the sum again would lose most of the patch.
        """
        if weight.dtype != self.weight.dtype:
            raise InputError(
                f"A node patches weights that are stored as {self.format.name}: apply LoRAs with SkyReels-V3 LoRA, or "
                "choose the precision bf16 in Load Model."
            )
        if return_weight:
            return weight
        self.weight = torch.nn.Parameter(weight, requires_grad=False)


class Prepared(Mixed):
    """A linear layer of ComfyUI's whose weight, where it waits elsewhere or is patched at each call, can be cast once
    for several.
    """

    _ready: Any = None  # while `prepared` is open: (weight, bias)

    def unpacks(self, device: torch.device, dtype: torch.dtype) -> bool:
        """Whether each call makes a copy of the weight on this device, for inputs in `dtype`."""
        layer: Any = self
        return layer.weight.dtype != dtype or bool(layer.weight_function)

    @contextmanager
    def prepared(self, x: torch.Tensor):
        """While it is open, the weight lies beside x, in its dtype."""
        layer: Any = self
        here = layer.weight.device == x.device and layer.weight.dtype == x.dtype
        if here and not (layer.weight_function or layer.bias_function):
            yield
            return
        with versions.cast(self, x) as self._ready:
            try:
                yield
            finally:
                self._ready = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self._ready is None or self._ready[0].dtype != input.dtype:
            return super().forward(input)
        return F.linear(input, *self._ready)


@functools.cache
def branching(operations: Any) -> type:
    """ComfyUI's `operations` with LoRA branches on their linear layers."""

    class Linear(Branching, Prepared, InFiles, operations.Linear):
        pass

    return type(f"Branching{operations.__name__}", (operations,), {"Linear": Linear})
