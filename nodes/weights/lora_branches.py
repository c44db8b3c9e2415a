"""LoRAs on a MODEL: held by a patcher of their own, run beside the layers in the network's forward."""

from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import comfy.ops
import torch

from ...model_loaders.files.stamps import FileStamp
from ...skyreels_v3.model.lora import BranchParams, Gain, Lora
from .. import versions
from .layers import Packed

KEY = "skyreels_loras"  # of the attachment that lists them, and of the additional models


@dataclass(frozen=True)
class AppliedLora:
    """A LoRA on a model. files: its own, then what else it follows from, as they were read; none if it came from
    another node.

    gains: of a DoRA, within a sampling: between two, other nodes may change the weights that they follow from.
    """

    lora: Lora
    strength: float
    files: tuple[FileStamp, ...] = ()
    gains: Mapping[str, Gain] = field(default_factory=dict, compare=False)


@contextmanager
def placed(module: torch.nn.Module, like: torch.Tensor):
    """See skyreels_v3.model.lora.stored: from wherever ComfyUI keeps the weight, however it is stored."""
    if isinstance(module, Packed):
        with module.placed(like) as (parts, _):
            yield module.format.unpack(parts, module.out_features, module.in_features, like.dtype)
        return
    with versions.weight_on(module, like.device, like.dtype) as (weight, _):
        yield weight.to(like.dtype)


def lora_patcher(layers: Mapping[str, BranchParams], weights: Mapping[str, torch.Tensor], load_device, offload_device):
    """The patcher that keeps, offloads and streams a LoRA's weights as ComfyUI does with any model's."""
    lora = Lora(layers, comfy.ops.manual_cast, placed)
    lora.load_state_dict(weights, assign=True)
    lora.requires_grad_(False)
    patcher = versions.patcher_class()(lora, load_device=load_device, offload_device=offload_device)
    # By these ComfyUI (0.33) makes the copy of it that goes to another device with a copy of the model.
    patcher.set_attachments(KEY, lora)
    patcher.cached_patcher_init = (_copied, (layers, lora, load_device, offload_device))
    return patcher


def _copied(layers: Mapping[str, BranchParams], lora: Lora, *devices: torch.device, **_):
    return lora_patcher(layers, lora.state_dict(), *devices)


def attach(model, patcher, strength: float, files: tuple[FileStamp, ...] = ()) -> None:
    """Put a LoRA on a MODEL (a clone that may be changed), after those that it has."""
    # Not in transformer_options: a guider of two models gives those of the first to both.
    model.set_attachments(KEY, (*_listed(model), AppliedLora(patcher.model, strength, files)))
    held = model.get_additional_models_with_key(KEY)
    if not any(patcher.is_clone(other) for other in held):
        model.set_additional_models(KEY, [*held, patcher])


def attached(model) -> tuple[AppliedLora, ...]:
    """The LoRAs on a MODEL, in order, each in the copy that is on the model's device."""
    copies = {patcher.get_attachment(KEY): patcher.model for patcher in model.get_additional_models_with_key(KEY)}
    return tuple(replace(one, lora=copies.get(one.lora, one.lora)) for one in _listed(model))


def _listed(model) -> tuple[AppliedLora, ...]:
    return model.get_attachment(KEY) or ()
