"""Who brings the weights of a partly loaded model to the card.

Which weights stay on the card is ComfyUI's choice alone. Of the blocks, those that wait in RAM come

- with dynamic VRAM and prefetch (ComfyUI 0.33 on NVIDIA and AMD): through ComfyUI's prefetch queue, block by block;
- with dynamic VRAM but without prefetch (older, or --disable-async-offload): layer by layer, ComfyUI's own way;
- otherwise (0.3.75, --disable-dynamic-vram, models with hooks): through skyreels_v3.model.block_streaming, block by
  block, from memory that ComfyUI has pinned; on a stream of their own where ComfyUI would use one or could (CUDA,
  ROCm).

The few layers outside of the blocks come ComfyUI's way everywhere. By itself ComfyUI copies a layer's weight at each of
its calls: several times a step for a long sequence, and in line with the computation on AMD before 0.33.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import comfy.model_management
import torch
from torch import nn

from ...skyreels_v3.model.block_streaming import BLOCKS_AHEAD, BlockStream, Weight, streamed
from .. import versions


def block_stream(
    blocks: nn.ModuleList, device: torch.device, options: dict
) -> AbstractContextManager[BlockStream | versions.Prefetch]:
    """Puts the weights of `blocks` on `device` during one forward; what it opens has `wrap`, see BlockStream.

    options: the transformer_options of the forward. To be called with its LoRAs in place: theirs come along.
    """
    parts = [nn.ModuleList([block, *_branches(block)]) for block in blocks]
    prefetch = versions.prefetch(parts, device, options)
    if prefetch is not None:
        return prefetch
    return streamed([waiting_weights(part, device) for part in parts], versions.queues(device))


def waiting_weights(part: nn.Module, device: torch.device) -> list[Weight]:
    """The weights that are elsewhere, without those that dynamic VRAM looks after (`_v`)."""
    return [
        Weight(module, name)
        for module in part.modules()
        if not hasattr(module, "_v")
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.device != device
    ]


def _branches(block: nn.Module) -> list[nn.Module]:
    """The parts of LoRAs beside a block's layers."""
    beside = [branch.func for layer in block.modules() for branch in getattr(layer, "branches", ())]
    return list(dict.fromkeys(beside))


if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher as Mixed
else:
    Mixed = object  # the patcher stands behind it in the order of classes


class StreamedBlocks(Mixed):
    """A patcher that leaves room for the blocks in transit where not all weights fit."""

    def partially_load(self, device_to, extra_memory=0, *args, **kwargs):
        loaded = self.loaded_size()
        dynamic = getattr(self, "is_dynamic", bool)()
        if not dynamic and loaded + extra_memory < self.model_size():
            room = BLOCKS_AHEAD * max(map(comfy.model_management.module_size, self.model.diffusion_model.blocks))
            # At least the trace by which ComfyUI says "nothing": 0 means everything.
            extra_memory = max(extra_memory - room, min(extra_memory, 0.1 - loaded))
        return super().partially_load(device_to, extra_memory, *args, **kwargs)
