"""A network without weights: it hands every forward to a group of processes that have them."""

import itertools
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_management
import torch

from ....distributed.group import Group
from ....distributed.worker import SDPA
from ....kernels.attention_backends import BACKENDS, FLASH_2, SAGE, Backend
from ....model_loaders.files.stamps import FileStamp
from ....skyreels_v3.errors import InputError
from ....skyreels_v3.model.chunking import Chunking
from ....skyreels_v3.model.memory import Keeping, cache_limit, chunking_for, keeping_for, needed_bytes
from ....skyreels_v3.model.params import TransformerParams
from ....skyreels_v3.recipes import Job
from ...weights.lora_branches import attached
from ..attention import COMFYUI_FUNCTIONS, OVERRIDE, Chosen
from ..foreign import rope_of
from ..network import Called, Inputs
from .groups import interrupted

# Of ComfyUI's attentions those that workers have too, which run without ComfyUI; all others of PyTorch are SDPA.
SAME: dict[str, Backend] = {"attention_flash": FLASH_2, "attention_sage": SAGE}
REMEDY = "remove it, or set gpus to 1 in Load Model"
_samplings, _numbers = itertools.count(1), itertools.count(1)


class SharedNetwork(Called):
    """Called as Network is."""

    group: Group  # whose processes make the forwards
    key: str  # of the model there
    spec: Mapping[str, Any]  # see Group.load, as is file_size
    file_size: int

    def __init__(self, params: TransformerParams, job: Job, dtype: torch.dtype | None):
        super().__init__()
        self._called(params, job, dtype)
        self.weights = 0  # bytes of all
        self.keeping = Keeping.WHOLE  # where they are
        self.precision = ""  # how the weights are kept, for people; "" where it is their dtype
        self.sampling = 0  # what the workers' step caches are kept for

    def hand_to(self, group: Group, key: str, spec: Mapping[str, Any], files: Sequence[FileStamp]) -> None:
        """Say which group has the model, and from which files."""
        self.group, self.spec = group, spec
        self.key = f"{next(_numbers)} {key}"  # its own, so that it is gone when this network is
        group.users.add(self.key)
        weakref.finalize(self, group.forget, self.key).atexit = False
        self.file_size = sum(file.size for file in files)

    def open(self) -> None:
        """Lets the workers have the model. Raises InputError where they cannot."""
        self.group.load(self.key, self.spec, self.file_size, interrupted, self.keeping.value)

    def close(self) -> None:
        """Gives the memory of the cards back."""
        self.group.drop(self.key)

    def begin(self, patcher) -> None:
        self.loras = attached(patcher)
        self.sampling = next(_samplings)

    def end(self) -> None:
        self.group.rest()  # what comes next may want the room, such as the VAE

    def needed_bytes(self, tokens: int, dtype: torch.dtype) -> int:
        """Bytes that a forward needs on a card beside the weights. tokens: of the batch.  dtype: of the stream."""
        itemsize = dtype.itemsize
        self._keep_for(tokens, itemsize)  # ComfyUI asks before it loads the model
        memory, cards = self._memory(), self.group.size
        sizes = self.params, tokens, itemsize, memory, self._chunking(tokens, itemsize), cards
        return needed_bytes(*sizes, float32_time=self.float32_time)

    def _compute(self, inputs: Inputs, chosen: Chosen) -> torch.Tensor:
        if torch.compiler.is_compiling():
            raise InputError(f"A node compiles a model that several cards share, which works on one only: {REMEDY}.")
        _refuse_patches(inputs.options, self.rope_embedder)
        rope, sizes = rope_of(inputs.options, None), (self.tokens_of(inputs.segments), inputs.latents.itemsize)
        self._keep_for(*sizes)
        chunking = self._chunking(*sizes)
        message = {
            "segments": [(one.latents.cpu(), one.position, one.clean, one.predicted) for one in inputs.segments],
            "timestep": inputs.timestep.cpu(),
            "text": inputs.context.cpu(),
            "given": {name: _plain(one) for name, one in inputs.given.items()},
            "attention": _attention(chosen),
            "float32_time": [step.value for step in self.float32_time],
            "chunking": (chunking.long, chunking.tokens, chunking.head_groups),
            "rope": (rope.scale, rope.shift),
            "loras": [(_key(one), str(one.files[0].path), one.strength) for one in self.loras],
            "sampling": str(self.sampling),
            "cache": cache_limit(self._memory()),
        }
        self.open()
        velocity = self.group.forward(self.key, message, interrupted)
        return velocity.to(inputs.latents.device)

    def _chunking(self, tokens: int, itemsize: int) -> Chunking:
        """The same for all cards, by the smallest one. tokens: of the whole batch."""
        room = self._room() - self.held
        sizes = self.params, tokens, itemsize, self._memory(), room, self.group.size
        return chunking_for(*sizes, float32_time=self.float32_time)

    @property
    def held(self) -> int:
        """Bytes of the weights on each card."""
        return self.keeping.bytes(self.weights, self.params.num_layers, self.group.size)

    def _keep_for(self, tokens: int, itemsize: int) -> None:
        """Decides where the weights are from now on, so that a forward fits beside what a card has of them.

        They never come back to the cards: a smaller video between two large ones would move all of them twice.
        """
        sizes = self.params, self.weights, tokens, itemsize, self._memory(), self._room(), self.group.size
        self.keeping = max(self.keeping, keeping_for(*sizes, self.float32_time), key=list(Keeping).index)

    def _room(self) -> int:
        """Bytes of a card that the model may take."""
        return self._memory() - int(comfy.model_management.extra_reserved_memory())

    def _memory(self) -> int:
        """Bytes of a card in all."""
        return self.group.smallest or int(comfy.model_management.get_total_memory(torch.device("cpu")))


def _key(lora) -> str:
    """The same as long as a LoRA's files are."""
    return repr([(str(file.path), file.key) for file in lora.files])


def _plain(value: Any) -> Any:
    """What workers take: tensors of the processor and plain values; names of enums are others there."""
    return value.cpu() if torch.is_tensor(value) else getattr(value, "value", value)


def _attention(chosen: Chosen) -> str:
    """The name by which workers know an attention. Raises InputError for one that they do not have."""
    backend = chosen.backend
    if isinstance(backend, Backend):
        return backend.key
    name = getattr(backend, "__name__", "")
    if backend is None or COMFYUI_FUNCTIONS.get(name, ("", False, False))[2]:
        return SDPA
    if name in SAME:
        return SAME[name].key
    raise InputError(
        f"Attention by {chosen.name} runs on one card only: choose another attention in Load Model "
        f"({', '.join(['sdpa', *sorted({key.rstrip('23') for key in BACKENDS})])}), or set gpus to 1."
    )


def _refuse_patches(options: Mapping[str, Any], embedder: Any) -> None:
    """Raises InputError where a node changes what happens inside of the network, which is in other processes."""
    patched = sorted({*options.get("patches", {}), *options.get("patches_replace", {})})
    what = f"blocks ({', '.join(patched)})" if patched else ""
    if OVERRIDE in options:
        what = "attention"
    if embedder is not None:
        what = "rotary positions (RIFLEx does)"
    if what:
        raise InputError(
            f"A node changes the model's {what}, which works on one card only, but several share this model: {REMEDY}."
        )
