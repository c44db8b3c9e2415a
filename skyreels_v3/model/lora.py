"""LoRAs beside a network's linear layers: W x + b + strength * (scale * change(x) + bias), W as it is.

Never merged, so that packed weights are not stored again, a changed strength reads nothing, and several add up. The
change of a weight is a product of small factors, which stays one. With * for the product number by number:

- LoRA (arXiv 2106.09685): up @ down, scale = alpha / rank as in its section 4.1; or a whole matrix.
- LoHa (arXiv 2108.06098): (up @ down) * (other_up @ other_down).
- LoKr (arXiv 2309.14859): kron(mix, up @ down), or kron(mix, up).
- DoRA (arXiv 2402.09353), of each of these: W + change with every row as long as `magnitude` says, see Gain.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    Mixed = nn.Linear
else:
    Mixed = object  # the layer stands behind it in the order of classes

Placed = Callable[[nn.Module, torch.Tensor], AbstractContextManager[torch.Tensor]]
MIXED = 2**23  # numbers of an input or output that a LoKr or a DoRA takes at once: bounds what it needs


@contextmanager
def stored(module: Any, like: torch.Tensor):
    """The weight of a module on the device and in the dtype of `like`, as long as the context is open."""
    yield module.weight.to(like)


class Branching(Mixed):
    """A layer beside which LoRAs run. branches: called as (x, y), each returns y with its own part added."""

    branches: tuple = ()

    @property
    def is_alone(self) -> bool:
        """Whether nothing but the layer sees its input and output: no LoRA here, and no other node's (ComfyUI's bypass
        LoRA puts its own forward in place) or hook."""
        hooks = len(self._forward_hooks) + len(self._forward_pre_hooks)
        return len(self.branches) + hooks == 0 and "forward" not in vars(self)

    def forward(self, input: torch.Tensor, **fused) -> torch.Tensor:
        y = super().forward(input, **fused)
        for branch in self.branches:
            y = branch(input, y)
        return y


@dataclass(frozen=True)
class BranchParams:
    """The sizes of a LoRA for one linear layer."""

    columns: int  # of the layer's weight
    rows: int
    rank: int | None = None  # of the product; 0 for a whole matrix, None for no change of the weight
    scale: float = 1.0  # of the product
    bias: bool = False  # whether the layer's bias changes too
    groups: tuple[int, int] | None = None  # of a LoKr: the shape of `mix`
    other_rank: int = 0  # of a LoHa: the rank of its second product
    magnitude: bool = False  # whether it is a DoRA


@dataclass(frozen=True)
class Gain:
    """What a DoRA multiplies the rows of one layer's changed weight by, [rows] in float32, and that layer's bias."""

    rows: torch.Tensor
    bias: torch.Tensor | None


class LoraBranch(nn.Module):
    """What a LoRA adds to one linear layer's output.

    Weights, as far as there are any, with [a, b] for the groups, [1, 1] where there are none: mix [a, b],
    down [rank, columns / b], up [rows / a, rank or columns / b], other_down [other_rank, columns],
    other_up [rows, other_rank], bias [rows, 1], magnitude [rows, 1].
    """

    def __init__(self, params: BranchParams, operations, placed: Placed, **options):
        super().__init__()
        linear = partial(operations.Linear, bias=False, **options)
        self.scale = params.scale
        self.placed = placed
        above, beside = params.groups or (1, 1)
        rows, columns = params.rows // above, params.columns // beside
        self.mix = linear(beside, above) if params.groups else None
        self.down = linear(columns, params.rank) if params.rank else None
        self.up = None if params.rank is None else linear(params.rank or columns, rows)
        self.other_down = linear(columns, params.other_rank) if params.other_rank else None
        self.other_up = linear(params.other_rank, rows) if params.other_rank else None
        self.bias = linear(1, params.rows) if params.bias else None
        self.magnitude = linear(1, params.rows) if params.magnitude else None

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, strength: float, gain: Gain | None = None, of_bias: bool = False
    ) -> torch.Tensor:
        """x [..., columns] and the layer's output y [..., rows], which is written into -> [..., rows].

        gain: of a DoRA, on y's device.  of_bias: adds the change of the bias instead of that of the weight. After those
        of all weights: a DoRA multiplies what it finds in y beside the layer's own bias.
        """
        if of_bias:
            if self.bias is not None:
                with self.placed(self.bias, y) as bias:
                    y.add_(bias[:, 0], alpha=strength)
            return y
        out, rows = y.reshape(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
        if self.up is not None and gain is not None:
            self._decompose(rows, out, self.up, strength, gain)
        elif self.up is not None:
            self._add_product(rows, out, self.up, strength * self.scale)
        return out.view(y.shape)

    def gain(self, layer: Any, like: torch.Tensor) -> Gain | None:
        """Of a layer as it is now, on the device of `like`, whose dtype bounds the memory; None for no DoRA.

        Of the weight alone, as in training, whatever other LoRAs there are.
        """
        if self.magnitude is None:
            return None
        with self.placed(layer, like) as weight, self.placed(self.magnitude, like.float()) as magnitude:
            rows = self._gain(weight, magnitude)
        return Gain(rows, None if layer.bias is None else layer.bias.detach().to(like.device, torch.float32))

    def merged(self, weight: torch.Tensor, strength: float, own: torch.Tensor | None = None) -> torch.Tensor:
        """A weight [rows, columns] with the change, written into it.

        own: the weight before other LoRAs were merged into it, where there were any; a DoRA's gain is of that.
        """
        change = self._change(weight)
        if change is None:
            return weight
        if self.magnitude is None:
            return weight.add_(change, alpha=strength * self.scale)
        own = weight if own is None else own
        gain = self._gain(own, self.magnitude.weight.detach().to(weight.device, torch.float32))
        return weight.lerp_(((weight + self.scale * change) * gain[:, None]).to(weight.dtype), strength)

    def _change(self, like: torch.Tensor) -> torch.Tensor | None:
        """The change of the weight before its scale, [rows, columns] on the device and in the dtype of `like`."""
        weights = {name.removesuffix(".weight"): weight.to(like) for name, weight in self.named_parameters()}
        for name in ("bias", "magnitude"):
            weights.pop(name, None)
        return product(**weights) if weights else None

    def _gain(self, weight: torch.Tensor, magnitude: torch.Tensor) -> torch.Tensor:
        change = self._change(weight)
        changed = weight if change is None else weight + self.scale * change
        norms = torch.linalg.vector_norm(changed, dim=1, dtype=torch.float32)
        return magnitude[:, 0] / norms.clamp_min(torch.finfo(torch.float32).tiny)

    def _decompose(self, x: torch.Tensor, out: torch.Tensor, upper: nn.Module, strength: float, gain: Gain) -> None:
        """Turn out [tokens, rows], W x + bias, into what the DoRA's weight makes. upper: self.up."""
        count = max(1, MIXED // out.shape[-1])
        for some, place in zip(x.split(count), out.split(count), strict=True):
            change = torch.zeros_like(place)
            self._add_product(some, change, upper, self.scale)
            # In float32 and added as a difference: all of the output passes through here, not only what is new.
            own = place.float() if gain.bias is None else place.float() - gain.bias
            place.add_((own + change) * gain.rows - own, alpha=strength)

    def _add_product(self, x: torch.Tensor, out: torch.Tensor, upper: nn.Module, scale: float) -> None:
        """Add scale * change(x) to out [tokens, rows] by the product itself: the output of a long video is the largest
        tensor of a forward. upper: self.up."""
        if self.mix is not None:
            with self.placed(self.mix, out) as mix, self.placed(upper, out) as up:
                count = max(1, MIXED // x.shape[-1])
                for some, place in zip(x.split(count), out.split(count), strict=True):
                    inner = some.unflatten(-1, (mix.shape[1], -1))
                    # The groups last, where `down` has made them narrow.
                    inner = mix @ (inner if self.down is None else self.down(inner))
                    place.view(-1, up.shape[0]).addmm_(inner.flatten(0, 1), up.T, alpha=scale)
        elif self.down is not None and self.other_up is not None and self.other_down is not None:
            with self.placed(upper, out) as up, self.placed(self.down, out) as down:
                with self.placed(self.other_up, out) as other_up, self.placed(self.other_down, out) as other_down:
                    up, down = hadamard_pair(up, down, other_up, other_down)
            out.addmm_(x if down is None else F.linear(x, down), up.T, alpha=scale)
        else:
            inner = x if self.down is None else self.down(x)
            with self.placed(upper, out) as up:
                out.addmm_(inner, up.T, alpha=scale)


def hadamard_pair(up: torch.Tensor, down: torch.Tensor, other_up: torch.Tensor, other_down: torch.Tensor):
    """(up @ down) * (other_up @ other_down) as the (up, down) of one product, or (the whole matrix, None).

    The rank of that product is both ranks multiplied, so it is larger than the four factors, at rank 32 by 16, and from
    rank 51 on larger than a matrix of 5120 x 5120. It is made anew at each use: one layer's at a time.
    """
    rank, rows, columns = len(down) * len(other_down), len(up), down.shape[1]
    if rank * (rows + columns) >= rows * columns:
        return product(up, down, other_up=other_up, other_down=other_down), None
    return (up[:, :, None] * other_up[:, None]).flatten(1), (down[:, None] * other_down).flatten(0, 1)


def product(
    up: torch.Tensor,
    down: torch.Tensor | None = None,
    mix: torch.Tensor | None = None,
    other_up: torch.Tensor | None = None,
    other_down: torch.Tensor | None = None,
) -> torch.Tensor:
    """The change of a weight, [rows, columns], of a LoraBranch's weights."""
    whole = up if down is None else up @ down
    if other_up is not None and other_down is not None:
        whole = whole * (other_up @ other_down)
    return whole if mix is None else torch.kron(mix, whole)


class Lora(nn.Module):
    """The branches of one LoRA: `branches` is layer name -> LoraBranch.

    operations: namespace with Linear.  placed: opens a layer's weight, see `stored`.  Built on the meta device: load
    the weights with assign=True.
    """

    def __init__(self, layers: Mapping[str, BranchParams], operations: Any = nn, placed: Placed = stored, dtype=None):
        super().__init__()
        options = {"device": "meta", "dtype": dtype}
        self.branches = {name: LoraBranch(params, operations, placed, **options) for name, params in layers.items()}
        for name, branch in self.branches.items():
            self.add_module(module_name(name), branch)
        self.requires_grad_(False)

    def gains(self, network: nn.Module, like: torch.Tensor) -> dict[str, Gain]:
        """Layer name -> gain, of a DoRA; empty for others. like: see LoraBranch.gain."""
        made = {name: branch.gain(network.get_submodule(name), like) for name, branch in self.branches.items()}
        return {name: gain for name, gain in made.items() if gain is not None}


def module_name(layer: str) -> str:
    """The name of a layer's branch in the state dict of a Lora: names of modules have no dots."""
    return layer.replace(".", "/")


@contextmanager
def applied(network: nn.Module, loras: Iterable[tuple[Lora, float, Mapping[str, Gain]]]):
    """LoRAs (each with its strength and gains) run beside the layers of `network` as long as the context is open.

    The network's linear layers are Branching. Gains that are not given are made.
    """
    branches: dict[str, list] = {}
    biases: dict[str, list] = {}
    layers: dict[str, Any] = {}  # with `branches`
    for lora, strength, gains in loras:
        for name, branch in lora.branches.items() if strength else ():
            layer = layers[name] = network.get_submodule(name)
            gain = gains.get(name)
            if gain is None and branch.magnitude is not None:
                gain = branch.gain(layer, branch.magnitude.weight)
            branches.setdefault(name, []).append(partial(branch, strength=strength, gain=gain))
            if branch.bias is not None:
                biases.setdefault(name, []).append(partial(branch, strength=strength, of_bias=True))
    try:
        for name, layer in layers.items():
            layer.branches = *branches[name], *biases.get(name, ())
        yield
    finally:
        for layer in layers.values():
            layer.branches = ()
