"""The machine as ComfyUI sees it, and how a sequence is chunked to fit it."""

from collections.abc import Callable

import comfy.model_management
import torch

from ...skyreels_v3.container import memory_limit
from ...skyreels_v3.jobs.estimates.budget import Machine
from ...skyreels_v3.model.chunking import Chunking
from ...skyreels_v3.model.memory import LayerCopies, chunking_for
from ...skyreels_v3.model.params import TransformerParams
from ...skyreels_v3.recipes import RECIPES, Job


def main_memory() -> tuple[int, int]:
    """Bytes of RAM that this process could have in all, and that are free; a container's limit counts."""
    cpu = torch.device("cpu")
    total = int(comfy.model_management.get_total_memory(cpu))
    free = int(comfy.model_management.get_free_memory(cpu))
    limit = memory_limit()
    return (total, free) if limit is None else (min(total, limit.total), max(0, min(free, limit.total - limit.held)))


def machine_of(device: torch.device) -> Machine:
    """The machine as it is now; what ComfyUI holds for its models counts as free, because it gives that back."""
    manager = comfy.model_management
    ram, ram_free = main_memory()
    total = manager.get_total_memory(device)
    loaded = [one for one in manager.current_loaded_models if one.device == device and one.model is not None]
    free = manager.get_free_memory(device) + sum(one.model_loaded_memory() for one in loaded)
    return Machine(
        device=device.type,
        vram=int(total),
        vram_free=int(min(free, total)),
        ram=ram,
        ram_free=ram_free,
        reserve=int(manager.extra_reserved_memory()),
    )


def chunking_here(
    params: TransformerParams, job: Job, weights: int, device: torch.device, copies: LayerCopies
) -> Callable[[int, int], Chunking]:
    """How sequences are chunked on a device as it is now: tokens and their bytes -> chunking.

    weights: bytes of the model's. What comes of it is arithmetic alone, which torch.compile can follow.
    """
    machine = machine_of(device)
    room = machine.room(weights, params.num_layers) - (machine.vram - machine.vram_free)
    time = RECIPES[job].float32_time
    return lambda tokens, itemsize: chunking_for(
        params, tokens, itemsize, machine.vram, room, copies=copies, float32_time=time
    )
