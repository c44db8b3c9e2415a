"""The transformer in a worker: plain torch, from the same files as in ComfyUI's process, with its LoRAs."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
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
from ..skyreels_v3.model.block_streaming import Weight
from ..skyreels_v3.model.lora import Branching, Gain, Lora, applied
from ..skyreels_v3.model.memory import Keeping
from ..skyreels_v3.model.transformer import Runtime, SkyReelsTransformer
from ..skyreels_v3.recipes import Job
from .split_weights import SplitBlocks, Splitting, stand_in

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
    """Puts what loading makes where it will be used, weight by weight: RAM never holds all of it.

    splitting: of the weights of blocks, None for all of them on the device.  parts: name -> this process's.
    """

    device: torch.device
    splitting: Splitting | None = None
    parts: dict[str, torch.Tensor] = field(default_factory=dict)

    def take(self, tensors: dict[str, torch.Tensor], name: str) -> None:
        if self.splitting is not None and self.splitting.takes(name, tensors[name]):
            self.parts[name] = self.splitting.part_of(tensors[name], self.device)
            tensors[name] = stand_in(tensors[name])
        else:
            tensors[name] = tensors[name].to(self.device)

    def finish(self) -> None:
        """Nothing waits."""


class WorkerNetwork:
    """A checkpoint on a device, and the LoRAs that were asked for last.

    path: of the file or folder.  job, precision, products: values of these enums.  dtype: of plain weights, torch's
    name.  maps: whether files may be mapped.  splitting: of weights that
    each process keeps a part of, None for all of them in each.  Raises InputError for whatever is wrong with the file.
    """

    def __init__(
        self,
        path: str,
        job: str,
        precision: str,
        products: str,
        dtype: str,
        maps: bool,
        device: torch.device,
        splitting: Splitting | None = None,
    ):
        checkpoint = open_checkpoint(Path(path), Job(job))
        own: torch.dtype = getattr(torch, dtype)
        self.device = device
        self.model = SkyReelsTransformer(checkpoint.params, Operations, device="meta", dtype=own)
        place = OnDevice(device, splitting)
        kind = Precision(precision), own, device
        weights = load_weights(checkpoint, *kind, maps=maps, copies=place, products=Products(products))
        fill(self.model, weights, device)
        for name, tensor in weights.tensors.items():
            if splitting is not None and name not in place.parts and splitting.takes(name, tensor):  # mapped
                place.parts[name] = splitting.part_of(tensor, device)
        del weights
        self.model.requires_grad_(False).eval()
        self.split = None if splitting is None else SplitBlocks(self._emptied(place.parts), splitting, device)
        for module in self.model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                if not parameter.is_meta:
                    # Of split weights nothing stays on the pages of the file, which would be in RAM beside the parts.
                    there = parameter.to(device, copy=splitting is not None)
                    Weight(module, name).replace(nn.Parameter(there, requires_grad=False))
        self.loras: dict[str, tuple[Lora, dict[str, torch.Tensor]]] = {}
        self.changed: dict[str, torch.Tensor] = {}  # weights as they are without LoRAs
        self.asked: tuple = ()  # of which LoRAs the weights are changed, with their strengths
        self.gains: dict[str, Mapping[str, Gain]] = {}

    def _emptied(self, parts: Mapping[str, torch.Tensor]) -> list[list[tuple[Weight, torch.Tensor]]]:
        """Of each block, the weights that are kept in parts, which are empty from now on, with their parts."""
        blocks: list[list[tuple[Weight, torch.Tensor]]] = [[] for _ in self.model.blocks]
        for key, part in sorted(parts.items()):  # in the same order everywhere
            layer, _, name = key.rpartition(".")
            weight = Weight(self.model.get_submodule(layer), name)
            weight.replace(nn.Parameter(torch.empty_like(weight.tensor, device="meta"), requires_grad=False))
            blocks[int(key.split(".")[1])].append((weight, part))
        return blocks

    @property
    def keeping(self) -> Keeping:
        """Where the weights are."""
        if self.split is None:
            return Keeping.WHOLE
        return Keeping.IN_RAM if self.split.in_ram else Keeping.SPLIT

    @property
    def size(self) -> int:
        """Bytes of the weights that this process keeps on its device."""
        own = sum(one.nbytes for one in self.model.parameters() if not one.is_meta)
        split = self.split.blocks if self.split is not None and not self.split.in_ram else []
        return own + sum(len(part) for block in split for _, part in block)

    def forward(
        self, loras: Sequence[tuple[str, str, float]], segments, timestep, text, runtime: Runtime, **given
    ) -> torch.Tensor:
        """See SkyReelsTransformer. loras: (key, path, strength); a key stands for a file as it is."""
        for key, path, _ in loras:
            self._open(key, path)
        self._change(tuple((key, strength) for key, _, strength in loras))
        with self._brought():
            run = [(self.loras[key][0], strength, self._gains(key, text)) for key, _, strength in loras]
            if self.split is not None:
                runtime = replace(runtime, run_block=self._with_weights(self.split, runtime.run_block))
            with applied(self.model, run):
                return self.model(segments, timestep, text, runtime=runtime, **given)

    @contextmanager
    def _brought(self) -> Generator[None]:
        """While it is open, weights can be brought together."""
        if self.split is None:
            yield
            return
        self.split.open()
        try:
            yield
        finally:
            self.split.close()

    @staticmethod
    def _with_weights(split: SplitBlocks, run: Callable) -> Callable:
        def run_block(index: int, block: Callable, x: torch.Tensor) -> torch.Tensor:
            def whole(x: torch.Tensor) -> torch.Tensor:
                with split.block(index):
                    return block(x)

            return run(index, whole, x)

        return run_block

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
            lora, like = self.loras[key][0], like[:0].to(self.device)
            made: dict[str, Gain | None] = {}
            for name, branch in sorted(lora.branches.items()):
                if branch.magnitude is not None:
                    with self._block_of(name):
                        made[name] = branch.gain(self.model.get_submodule(name), like)
            self.gains[key] = {name: gain for name, gain in made.items() if gain is not None}
        return self.gains[key]

    def _block_of(self, layer: str) -> AbstractContextManager[None]:
        """A context in which a layer has its weights."""
        if self.split is None or not layer.startswith("blocks."):
            return nullcontext()
        return self.split.block(int(layer.split(".")[1]), ahead=False)

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


def check_files(path: str, size: int, machine: str) -> None:
    """Raises InputError where another machine has another file or folder than the one that was chosen, or none.

    size: bytes of all its files; 0 for any.
    """
    place = Path(path)
    there = sum(stamp.size for stamp in open_checkpoint(place).stamps) if place.exists() else 0
    if not there or size not in (0, there):
        raise InputError(
            f"{machine} does not have {place.name} in {place.parent}, or another file of that name: put the same "
            "model files at the same place on every machine."
        )
