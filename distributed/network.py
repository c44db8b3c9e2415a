"""The transformer in a worker: plain torch, from the same files as in ComfyUI's process, with its LoRAs."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..formats.kinds import Precision, Products
from ..formats.linear import PackedLinear
from ..model_loaders.checkpoints.checkpoint import open_checkpoint
from ..model_loaders.loras.lora import open_lora
from ..model_loaders.weights import fill, load_weights
from ..skyreels_v3.errors import InputError
from ..skyreels_v3.model.lora import Branching, Gain, Lora, applied
from ..skyreels_v3.model.transformer import Runtime, SkyReelsTransformer
from ..skyreels_v3.recipes import Job

LORAS_KEPT = 4  # so that a changed strength reads nothing


def _as(input: torch.Tensor, layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A layer's weight and bias in the dtype of its input."""
    return layer.weight.to(input), None if layer.bias is None else layer.bias.to(input)


class _CastLinear(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(input, *_as(input, self))


class Operations:
    """Layers that may keep their weights in another dtype than they compute in, that of their input."""

    class Linear(Branching, _CastLinear):
        """Takes LoRAs beside it."""

    class Conv3d(nn.Conv3d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return self._conv_forward(input, *_as(input, self))

    class LayerNorm(nn.LayerNorm):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return F.layer_norm(input, self.normalized_shape, *_as(input, self), self.eps)

    class RMSNorm(nn.Module):
        """A weight alone: the norm itself runs in kernels/."""

        def __init__(self, dim: int, eps: float, **options):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(dim, **options))


@contextmanager
def placed(module: Any, like: torch.Tensor) -> Generator[torch.Tensor]:
    """See skyreels_v3.model.lora.stored: of a layer that may be packed."""
    if isinstance(module, PackedLinear):
        with module.placed(like) as (parts, _):
            yield module.format.unpack(parts, module.out_features, module.in_features, like.dtype)
    else:
        yield module.weight.to(like)


@dataclass(frozen=True)
class OnDevice:
    """Puts what loading makes where it will be used, weight by weight: RAM never holds all of it."""

    device: torch.device

    def take(self, tensors: dict[str, torch.Tensor], name: str) -> None:
        tensors[name] = tensors[name].to(self.device)

    def finish(self) -> None:
        """Nothing waits."""


class WorkerNetwork:
    """A checkpoint on a device, and the LoRAs that were asked for last.

    path: of the file or folder.  job, precision, products: values of these enums.  dtype: of plain weights, torch's
    name.  maps: whether files may be mapped.  Raises InputError for whatever is wrong with the file.
    """

    def __init__(
        self, path: str, job: str, precision: str, products: str, dtype: str, maps: bool, device: torch.device
    ):
        checkpoint = open_checkpoint(Path(path), Job(job))
        own: torch.dtype = getattr(torch, dtype)
        self.device = device
        self.model = SkyReelsTransformer(checkpoint.params, Operations, device="meta", dtype=own)
        place = OnDevice(device)
        kind = Precision(precision), own, device
        weights = load_weights(checkpoint, *kind, maps=maps, copies=place, products=Products(products))
        fill(self.model, weights, device)
        del weights
        self.model.requires_grad_(False).eval().to(device)
        self.loras: dict[str, tuple[Lora, dict[str, torch.Tensor]]] = {}
        self.changed: dict[str, torch.Tensor] = {}  # weights as they are without LoRAs
        self.asked: tuple = ()  # of which LoRAs the weights are changed, with their strengths
        self.gains: dict[str, Mapping[str, Gain]] = {}

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(one.nbytes for one in self.model.parameters())

    def forward(
        self, loras: Sequence[tuple[str, str, float]], segments, timestep, text, runtime: Runtime, **given
    ) -> torch.Tensor:
        """See SkyReelsTransformer. loras: (key, path, strength); a key stands for a file as it is."""
        for key, path, _ in loras:
            self._open(key, path)
        self._change(tuple((key, strength) for key, _, strength in loras))
        run = [(self.loras[key][0], strength, self._gains(key, text)) for key, _, strength in loras]
        with applied(self.model, run):
            return self.model(segments, timestep, text, runtime=runtime, **given)

    def _open(self, key: str, path: str) -> None:
        if key in self.loras:
            self.loras[key] = self.loras.pop(key)
            return
        file = open_lora(Path(path), self.model.params)
        weights, deltas = file.read()
        lora = Lora(file.layers, Operations, placed)
        lora.load_state_dict(weights, assign=True)
        self.loras[key] = lora.requires_grad_(False).to(self.device), deltas
        for old in list(self.loras)[:-LORAS_KEPT]:
            del self.loras[old]
            self.gains.pop(old, None)

    def _gains(self, key: str, like: torch.Tensor) -> Mapping[str, Gain]:
        """Of a DoRA, made once: they follow from the weights alone."""
        if key not in self.gains:
            self.gains[key] = self.loras[key][0].gains(self.model, like[:0].to(self.device))
        return self.gains[key]

    def _change(self, asked: tuple[tuple[str, float], ...]) -> None:
        """Changes the weights that are no linear layer's."""
        if asked == self.asked:
            return
        for name, weight in self.changed.items():
            self._replace(name, weight)
        self.changed, self.asked = {}, asked
        for key, strength in asked:
            for name, delta in self.loras[key][1].items():
                now = self.model.get_parameter(name).detach()
                self.changed.setdefault(name, now)
                delta = delta.to(now.device, torch.float32).reshape(now.shape)
                self._replace(name, (now.float() + strength * delta).to(now.dtype))

    def _replace(self, name: str, weight: torch.Tensor) -> None:
        parent, _, child = name.rpartition(".")
        setattr(self.model.get_submodule(parent), child, nn.Parameter(weight, requires_grad=False))


def check_file(path: str, size: int, machine: str) -> None:
    """Raises InputError where another machine has another file than the one that was chosen, or none.

    size: bytes of the file, 0 for a folder.
    """
    place = Path(path)
    if not place.exists() or (size and place.stat().st_size != size):
        raise InputError(
            f"{machine} does not have {place.name} in {place.parent}, or another file of that name: put the same "
            "model files at the same place on every machine."
        )
