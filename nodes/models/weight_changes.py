"""What LoRAs and other nodes change in a MODEL's weights, as functions that do it to one weight at a time."""

from collections.abc import Mapping
from functools import partial, reduce

import comfy.lora
import torch

from ...model_loaders.save import Change
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.lora import LoraBranch
from ..weights.lora_branches import attached

PREFIX = "diffusion_model."
INSTEAD = "put the LoRA on with SkyReels-V3 LoRA or LoraLoaderModelOnly"


def weight_changes(model) -> dict[str, Change]:
    """Wan name -> what is done to that weight, in the order in which a forward does it.

    Raises InputError for changes that are made only while the model runs.
    """
    _refuse_passing(model)
    changes: dict[str, list[Change]] = {}
    for key, value in model.object_patches.items():
        if key.startswith(PREFIX) and isinstance(value, torch.Tensor):
            changes.setdefault(key.removeprefix(PREFIX), []).append(partial(_replaced, value=value))
    for key, patches in model.patches.items():
        changes.setdefault(key.removeprefix(PREFIX), []).append(partial(_patched, patches=patches, key=key))
    branches: dict[str, list[tuple[LoraBranch, float]]] = {}
    for one in attached(model):
        for layer, branch in one.lora.branches.items() if one.strength else ():
            if branch.up is not None:
                branches.setdefault(f"{layer}.weight", []).append((branch, one.strength))
            if branch.bias is not None:
                add = partial(_added_to_bias, branch=branch, strength=one.strength)
                changes.setdefault(f"{layer}.bias", []).append(add)
    for name, merged in branches.items():
        changes.setdefault(name, []).append(partial(_merged, branches=merged))
    return {name: partial(_all, steps=steps) for name, steps in changes.items()}


def changes_in_words(model, changes: Mapping[str, Change]) -> str:
    """One sentence: what is merged into how many weights; empty for none."""
    if not changes:
        return ""
    loras = attached(model)
    merged = [f"{one.files[0].path.name} at strength {one.strength:g}" for one in loras if one.files]
    if len(merged) < len(loras) or model.patches or not loras:
        merged.append("the patches on the model")
    return f"Merged into {len(changes)} weights: {', '.join(merged)}."


def _refuse_passing(model) -> None:
    # ComfyUI's bypass LoRA (0.10 and later) wraps forwards; its training nodes wrap weights.
    if "bypass_lora" in model.injections or model.weight_wrapper_patches:
        raise InputError(
            f"A node changes weights only while the model runs, such as a LoRA in bypass mode: {INSTEAD}, and save "
            "again."
        )


def _all(weight: torch.Tensor, steps: list[Change]) -> torch.Tensor:
    return reduce(lambda changed, step: step(changed), steps, weight)


def _replaced(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return value.detach().to(weight)


def _patched(weight: torch.Tensor, patches: list, key: str) -> torch.Tensor:
    return comfy.lora.calculate_weight(patches, weight, key)


def _merged(weight: torch.Tensor, branches: list[tuple[LoraBranch, float]]) -> torch.Tensor:
    own = weight.clone() if len(branches) > 1 else None
    return reduce(lambda changed, one: one[0].merged(changed, one[1], own), branches, weight)


def _added_to_bias(weight: torch.Tensor, branch: LoraBranch, strength: float) -> torch.Tensor:
    if branch.bias is None:
        return weight
    return weight.add_(branch.bias.weight.detach().to(weight)[:, 0], alpha=strength)
