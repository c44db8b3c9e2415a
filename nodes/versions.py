"""The one place for what differs between ComfyUI versions, from 0.3.75 on."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import comfy.cli_args
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy_api.latest import InputImpl, io
from comfy_execution.utils import get_executing_context

from ..kernels import out_of_memory
from ..skyreels_v3.model.block_streaming import OneQueue, TwoQueues
from ..skyreels_v3.vae.causal import convolved

try:
    import comfy.memory_management as memory_management  # 0.12 and later
except ImportError:
    memory_management = None
try:
    import comfy.model_prefetch as model_prefetch  # 0.33
except ImportError:
    model_prefetch = None

log = logging.getLogger(__name__)

CATEGORY = "SkyReels-V3"


def schema(**fields) -> io.Schema:
    """io.Schema with the fields that this ComfyUI knows (search_aliases: 0.11, essentials_category: 0.15)."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{"category": CATEGORY, **{name: value for name, value in fields.items() if name in known}})


def advanced(input: io.Input) -> io.Input:
    """The input, among the advanced ones on pages that fold these away. Newer versions have a field for it."""
    input.extra_dict["advanced"] = True
    return input


def patcher_class(dynamic: bool = True) -> type[comfy.model_patcher.ModelPatcher]:
    """The patcher that manages a model's memory: dynamic VRAM where it is on (0.12 and later), else the classic one.

    Looked up at every call, because ComfyUI rebinds the name at start-up.
    """
    if not dynamic:
        return comfy.model_patcher.ModelPatcher
    return getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)


def file_reader():
    """ComfyUI's own reader where dynamic VRAM streams weights from the file, else None: the pack's reader.

    Returns a callable path -> state dict.
    """
    if getattr(memory_management, "aimdo_enabled", False):
        return lambda path: comfy.utils.load_torch_file(str(path))
    return None


def maps_files() -> bool:
    """Whether the pack may map model files where it reads them itself; not with --disable-mmap."""
    return not getattr(comfy.cli_args.args, "disable_mmap", False)


def model_dtype_flag() -> str | None:
    """The flag by which ComfyUI was started with a dtype for its diffusion models; each version has others."""
    names = [name for name, value in vars(comfy.cli_args.args).items() if value and name.endswith("_unet")]
    return f"--{names[0].removesuffix('_unet')}-unet" if names else None


def keep_dtypes(network: torch.nn.Module) -> None:
    """Notes the dtypes of a network's weights, which dynamic VRAM casts to those of the empty network otherwise."""
    note = getattr(comfy.model_management, "archive_model_dtypes", None)  # with dynamic VRAM
    if note is not None:
        note(network)


def attention_flag() -> str | None:
    """The flag by which ComfyUI was started with an attention of the user's choice; each version has others."""
    for name, value in vars(comfy.cli_args.args).items():
        if value and name.startswith("use_") and name.endswith("_attention"):
            return f"--{name.replace('_', '-')}"
    return None


def resident_affine(norm: torch.nn.Module, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A norm's float32 weight and bias on `device`, with the LoRAs that a partly loaded model applies on the fly."""
    # offloadable: without it, dynamic VRAM holds the weight's place for ever, and before 0.20.1 gives three values too.
    made: Any = comfy.ops.cast_bias_weight(
        norm, dtype=torch.float32, device=device, bias_dtype=torch.float32, offloadable=True
    )
    weight, bias, place = made
    if _is_shared(place) or _is_dynamic(place):
        weight, bias = weight.clone(), None if bias is None else bias.clone()
    comfy.ops.uncast_bias_weight(norm, weight, bias, place)
    return weight, bias


@contextmanager
def weight_on(module: torch.nn.Module, device: torch.device, bias_dtype: torch.dtype):
    """(weight, bias) of a module on `device` as long as the context is open; the weight keeps its own dtype."""
    with _uncast(
        module,
        comfy.ops.cast_bias_weight(
            module, dtype=module.weight.dtype, device=device, bias_dtype=bias_dtype, offloadable=True
        ),
    ) as tensors:
        yield tensors


@contextmanager
def cast(layer: Any, x: torch.Tensor):
    """(weight, bias) of a layer that ComfyUI manages, as x is, as long as the context is open."""
    with _uncast(layer, comfy.ops.cast_bias_weight(layer, x, offloadable=True)) as tensors:
        yield tensors


@contextmanager
def _uncast(layer: Any, made: Any) -> Generator[tuple[torch.Tensor, Any]]:
    """(weight, bias) of what ComfyUI's cast has made; given back at the end."""
    weight, bias, place = made
    try:
        if _is_shared(place):
            yield weight.clone(), None if bias is None else bias.clone()
        else:
            yield weight, bias
    finally:
        comfy.ops.uncast_bias_weight(layer, weight, bias, place)


def _is_shared(place: Any) -> bool:
    """Whether what was cast lies in a buffer that the cast after the next one is written into (0.12 and later).

    place: (the stream that copies, or None; the device where dynamic VRAM leaves the weight in a place of its own, or
    something else; ...), in 0.3.75 the stream alone.
    """
    return isinstance(place, tuple) and place[0] is not None and not _is_dynamic(place)


def _is_dynamic(place: Any) -> bool:
    """Whether dynamic VRAM holds the weight in a place that others may get once it is given back. place: as above."""
    return isinstance(place, tuple) and isinstance(place[1], torch.device)


def convolve(layer: Any, x: torch.Tensor, padding: tuple[int, ...]) -> torch.Tensor:
    """`vae.causal.convolve` for a layer that ComfyUI manages: its weights come to x for this call."""
    with cast(layer, x) as (weight, bias):
        return convolved(x, weight, bias, layer.stride, padding, convolves_by_cudnn())


def convolves_by_cudnn() -> bool:
    """See `vae.causal.convolved`."""
    return bool(comfy.ops.NVIDIA_MEMORY_CONV_BUG_WORKAROUND)


def free_memory(patcher: comfy.model_patcher.ModelPatcher, device: torch.device) -> int:
    """Bytes that are free on a device, or that dynamic VRAM would give back (0.33)."""
    free = getattr(patcher, "get_free_memory", comfy.model_management.get_free_memory)
    return int(free(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory. ComfyUI 0.33 is asked first: it clears what a card would report again."""
    known = getattr(comfy.model_management, "is_oom", None)
    return (known is not None and known(error)) or out_of_memory.is_out_of_memory(error)


def on_device(device: torch.device) -> AbstractContextManager:
    """Makes a device the current one where there are several (0.33)."""
    return getattr(comfy.model_management, "cuda_device_context", nullcontext)(device)


def server():
    """ComfyUI's running server, or None where nodes run without one."""
    # Looked up, not imported: importing it elsewhere would start half a server.
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)


def trim_of(video: Any) -> tuple[float, float]:
    """(start, seconds) of a VIDEO that is part of a file (0.14 and later); 0 where it is not cut there."""
    start, seconds = (getattr(video, f"_VideoFromFile__{name}", 0) for name in ("start_time", "duration"))
    return start, seconds


def turns_frames() -> bool:
    """Whether frames of a VIDEO's file come as they are shown (0.20 and later), not as they are stored."""
    read = getattr(InputImpl.VideoFromFile, "get_components_internal", None)
    return read is None or "rotation" in read.__code__.co_names


def queues(device: torch.device) -> OneQueue:
    """How this ComfyUI lets a device copy: beside the computation, or in line with it where that is not wanted."""
    non_blocking = comfy.model_management.device_supports_non_blocking(device)
    # A graphics card of AMD is "cuda" to torch. For both, newer versions copy so by default.
    if non_blocking and device.type == "cuda" and not comfy.cli_args.args.disable_async_offload:
        return TwoQueues(device)
    return OneQueue(device, non_blocking)


class Prefetch:
    """ComfyUI's prefetch queue of one forward, in the shape of a BlockStream."""

    def __init__(self, queue: list, blocks: Sequence[torch.nn.Module], device: torch.device):
        self.queue = queue
        self.blocks = blocks
        self.device = device
        self.host: Any = model_prefetch

    def wrap(self, run: Callable) -> Callable:
        def run_block(index: int, *args):
            self.host.prefetch_queue_pop(self.queue, self.device, self.blocks[index])
            return run(index, *args)

        return run_block

    def close(self) -> None:
        """Gives the last block's memory back; in the middle of a forward, the one that has come."""
        del self.queue[1:]
        # What has not come yet is not begun.
        self.queue[0] = self.queue[0] if isinstance(self.queue[0], tuple) else None
        self.queue.append(None)
        self.host.prefetch_queue_pop(self.queue, self.device, None)


def prefetch(
    blocks: Sequence[torch.nn.Module], device: torch.device, options: dict
) -> AbstractContextManager[Prefetch] | None:
    """A Prefetch for one forward where dynamic VRAM prefetches on this device, else None. options: of the forward."""
    make = getattr(model_prefetch, "make_prefetch_queue", None)
    queue = None if make is None else make(list(blocks), device, options)
    return None if queue is None else _prefetched(queue, blocks, device)


@contextmanager
def _prefetched(queue: list, blocks: Sequence[torch.nn.Module], device: torch.device) -> Generator[Prefetch]:
    opened = Prefetch(queue, blocks, device)
    try:
        yield opened
    finally:
        opened.close()


def running_node() -> str | None:
    """The id of the node that is executed, of whatever pack; None outside of one."""
    context = get_executing_context()
    return None if context is None else context.node_id


def tell(node_id: str | None, *sentences: str) -> None:
    """Writes sentences to the log and, where a page is watching, onto the node."""
    text = "\n".join(sentences)
    log.info("SkyReels-V3: %s", " ".join(sentences))
    instance = server()
    if node_id is not None and instance is not None and hasattr(instance, "send_progress_text"):
        instance.send_progress_text(text, node_id)
