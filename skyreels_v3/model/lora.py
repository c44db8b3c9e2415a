"""LoRAs beside a network's linear layers: W x + b + strength * (scale * up(down(x)) + bias), W as it is.

Never merged, so that packed weights are not stored again, a changed strength reads nothing, and several add up.
Source: LoRA (arXiv 2106.09685), scale = alpha / rank as in its section 4.1.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

Placed = Callable[[nn.Module, torch.Tensor], AbstractContextManager[torch.Tensor]]


@contextmanager
def stored(module: Any, like: torch.Tensor):
    """The weight of a module on the device and in the dtype of `like`, as long as the context is open."""
    yield module.weight.to(like)


@dataclass(frozen=True)
class BranchParams:
    """The sizes of a LoRA for one linear layer."""

    columns: int  # of the layer's weight
    rows: int
    rank: int | None = None  # of the product; 0 for a whole matrix, None for no change of the weight
    scale: float = 1.0  # of the product
    bias: bool = False  # whether the layer's bias changes too


class Branch(nn.Module):
    """What a LoRA adds to one linear layer's output.

    Weights, as far as there are any: down [rank, columns], up [rows, rank or columns], bias [rows, 1].
    """

    def __init__(self, params: BranchParams, operations, placed: Placed, **options):
        super().__init__()
        linear = partial(operations.Linear, bias=False, **options)
        self.scale = params.scale
        self.placed = placed
        self.down = linear(params.columns, params.rank) if params.rank else None
        self.up = None if params.rank is None else linear(params.rank or params.columns, params.rows)
        self.bias = linear(1, params.rows) if params.bias else None

    def forward(self, x: torch.Tensor, y: torch.Tensor, strength: float) -> torch.Tensor:
        """x [..., columns] and the layer's output y [..., rows], which is written into -> [..., rows]."""
        out = y.reshape(-1, y.shape[-1])
        if self.up is not None:
            inner = x if self.down is None else self.down(x)
            with self.placed(self.up, y) as up:
                # Added by the product itself: the output of a long video is the largest tensor of a forward.
                out.addmm_(inner.reshape(-1, inner.shape[-1]), up.T, alpha=strength * self.scale)
        if self.bias is not None:
            with self.placed(self.bias, y) as bias:
                out.add_(bias[:, 0], alpha=strength)
        return out.view(y.shape)


class Lora(nn.Module):
    """The branches of one LoRA: `branches` is layer name -> Branch.

    operations: namespace with Linear.  placed: opens a layer's weight, see `stored`.  Built on the meta device: load
    the weights with assign=True.
    """

    def __init__(self, layers: Mapping[str, BranchParams], operations=nn, placed: Placed = stored, dtype=None):
        super().__init__()
        options = {"device": "meta", "dtype": dtype}
        self.branches = {name: Branch(params, operations, placed, **options) for name, params in layers.items()}
        for name, branch in self.branches.items():
            self.add_module(module_name(name), branch)
        self.requires_grad_(False)


def module_name(layer: str) -> str:
    """The name of a layer's branch in the state dict of a Lora: names of modules have no dots."""
    return layer.replace(".", "/")


@contextmanager
def applied(network: nn.Module, loras: Iterable[tuple[Lora, float]]):
    """LoRAs (each with its strength) run beside the layers of `network` as long as the context is open.

    The network's linear layers must call what is in their `branches` with (x, y).
    """
    branches: dict[str, list] = {}
    for lora, strength in loras:
        for name, branch in lora.branches.items() if strength else ():
            branches.setdefault(name, []).append(partial(branch, strength=strength))
    layers: dict[str, Any] = {name: network.get_submodule(name) for name in branches}  # with `branches`
    try:
        for name, layer in layers.items():
            layer.branches = tuple(branches[name])
        yield
    finally:
        for layer in layers.values():
            layer.branches = ()
