"""ComfyUI's model patcher, taught to take the LoRAs of other nodes where weights are packed."""

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.weight_adapter
import torch

from ...formats.linear import PackedLinear
from ...model_loaders.loras.names import INSTEAD
from ...model_loaders.loras.products import MisfitError, pair_of, product_of
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.lora import BranchParams, module_name
from .. import versions
from ..weights.in_files import FileWeights
from ..weights.lora_branches import attach, attached, lora_patcher
from ..weights.streaming import StreamedBlocks
from .foreign import ForeignPatches

# ComfyUI's loaders look names up in a list that ComfyUI makes; a model outside of ComfyUI can add none to it.
NOTHING_FITS = (
    "A node changes nothing in the SkyReels-V3 model: its LoRA is for another model, or in names that ComfyUI's "
    "loaders do not know. SkyReels-V3 LoRA reads the names of all trainers and says what fits."
)

ONE_OF_OURS = "use SkyReels-V3 LoRA for a LoRA"
# What `weights` of ComfyUI's adapters are, in its order; names are those of `names.PARTS`, where they have one.
ADAPTERS = {
    comfy.weight_adapter.LoRAAdapter: ("up", "down", "alpha", "mid", "magnitude", "reshape"),
    comfy.weight_adapter.LoHaAdapter: (
        *("hada_w1_a", "hada_w1_b", "alpha", "hada_w2_a", "hada_w2_b"),
        *("hada_t1", "hada_t2", "magnitude"),
    ),
    comfy.weight_adapter.LoKrAdapter: (
        *("lokr_w1", "lokr_w2", "alpha", "lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"),
        *("lokr_t2", "magnitude"),
    ),
}


def patcher_class(dynamic: bool = True, load_device: torch.device | None = None) -> type:
    """The patcher for a SkyReels-V3 model: versions.patcher_class with PackedPatches, StreamedBlocks,
    FileWeights and ForeignPatches; the same class at every call."""
    if load_device is not None and comfy.model_management.is_device_cpu(load_device):
        dynamic = False  # the dynamic one would make a classic one there, without what is added here
    return _with_packed(versions.patcher_class(dynamic))


@functools.cache
def _with_packed(base: type) -> type:
    return type(base.__name__, (PackedPatches, StreamedBlocks, FileWeights, ForeignPatches, base), {})


if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher as Mixed
else:
    Mixed = object  # the patcher stands behind it in the order of classes


class PackedPatches(Mixed):
    """Patches of packed weights run beside them; all others go ComfyUI's way."""

    def clone(self, *args, **kwargs):
        copy = super().clone(*args, **kwargs)
        if not isinstance(copy, PackedPatches):  # ComfyUI leaves dynamic VRAM by naming its own class
            copy.__class__ = _with_packed(type(copy))
        # Where the model came from, which ComfyUI 0.3.75 does not copy: long jobs ask for it.
        copy.cached_patcher_init = getattr(self, "cached_patcher_init", None)
        return copy

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        """As ComfyUI's. Low-rank pairs and differences for packed weights become a LoRA beside them.

        Raises InputError for any other patch of a packed weight, and for a merge of weights that a LoRA runs beside.
        """
        packed = self._packed_weights(patches)
        if strength_model != 1.0 and attached(self):
            self._check_whole()  # a merge weakens the weights, and a LoRA beside them would stay as strong
        plain = {key: patch for key, patch in patches.items() if key not in packed}
        done = super().add_patches(plain, strength_patch, strength_model) if plain or not packed else []
        if packed:
            layers, weights = {}, {}
            for key, (layer, module) in packed.items():
                if strength_model != 1.0 or not isinstance(key, str):
                    raise _refused(layer, module)
                layers[layer], parts = _branch(patches[key], layer, module)
                weights.update({f"{module_name(layer)}.{name}.weight": part for name, part in parts.items()})
            attach(self, lora_patcher(layers, weights, self.load_device, self.offload_device), strength_patch)
        done = [*done, *packed]
        if not done:
            versions.tell(versions.running_node(), NOTHING_FITS)
        return done

    def add_hook_patches(self, hook, patches, *args, **kwargs):
        """As ComfyUI's. Raises InputError for packed weights, which no hook can switch."""
        for layer, module in self._packed_weights(patches).values():
            raise _refused(layer, module)
        done = super().add_hook_patches(hook, patches, *args, **kwargs)
        if not done:
            versions.tell(versions.running_node(), NOTHING_FITS)
        return done

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False):
        """As ComfyUI's, whose saving nodes force the patches into the weights before they write them."""
        if force_patch_weights:
            self._check_whole()
        return super().partially_load(device_to, extra_memory, force_patch_weights)

    def state_dict_for_saving(self, *args, **kwargs):
        """As ComfyUI's (0.33), for its saving nodes."""
        self._check_whole()
        return super().state_dict_for_saving(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]

    def model_state_dict(self, filter_prefix=None):
        """As ComfyUI's; with a prefix it is asked by the node that saves a LoRA."""
        if filter_prefix is not None:
            self._check_whole()
        return super().model_state_dict(filter_prefix)

    def get_key_patches(self, *args, **kwargs):
        """As ComfyUI's, for the nodes that merge models."""
        self._check_whole()
        return super().get_key_patches(*args, **kwargs)

    def _check_whole(self) -> None:
        """Raises InputError where numbers that ComfyUI's own nodes take for weights are codes, or lack a LoRA."""
        layers = self.model.diffusion_model.modules()
        packed = next((layer.format.name for layer in layers if isinstance(layer, PackedLinear)), None)
        if packed is not None:
            what, else_ = f"its weights are stored as {packed}", ", or load it in bf16"
        elif attached(self):
            what, else_ = "a SkyReels-V3 LoRA runs beside its weights", ", or apply the LoRA by LoraLoaderModelOnly"
        else:
            return
        raise InputError(
            f"ComfyUI's own nodes cannot save or merge this SkyReels-V3 model, because {what}: save it with "
            f"SkyReels-V3 Save Model, which writes all of it{else_}."
        )

    def _packed_weights(self, keys: Iterable) -> dict:
        """Of keys as patches have them, those of packed weights -> (name of the layer in the network, the layer)."""
        modules = self.model.diffusion_model.named_modules()
        layers = {name: module for name, module in modules if isinstance(module, PackedLinear)}
        found = {}
        for key in keys:
            name = key if isinstance(key, str) else key[0]
            layer, _, part = name.removeprefix("diffusion_model.").rpartition(".")
            if layer in layers and part != "bias":
                found[key] = layer, layers[layer]
        return found


def _branch(patch, layer: str, module: PackedLinear) -> tuple[BranchParams, dict[str, torch.Tensor]]:
    """A patch as a LoRA's branch and the branch's weights. Raises InputError where it is something else."""
    parts = ADAPTERS.get(type(patch), ())
    if parts and len(parts) == len(patch.weights):
        given = dict(zip(parts, patch.weights, strict=True))
        alpha, magnitude = given.pop("alpha"), given.pop("magnitude")
        tensors = {part: tensor for part, tensor in given.items() if tensor is not None}
        shapes = {part: tuple(tensor.shape) for part, tensor in tensors.items()}
        try:
            product = pair_of(shapes) or product_of(shapes)
        except MisfitError:
            product = None
        if product is not None:
            scale = 1.0 if alpha is None or not product.alpha_rank else float(alpha) / product.alpha_rank
            weights = product.tensors(tensors.__getitem__)
            if magnitude is None:
                return _fitting(product.params(scale), weights, layer, module)
            if magnitude.shape[0] == magnitude.numel() == product.rows:
                params = replace(product.params(scale), magnitude=True)
                return _fitting(params, weights | {"magnitude": magnitude.reshape(-1, 1)}, layer, module)
    elif isinstance(patch, tuple) and patch[0] == "diff" and len(patch[1]) == 1:
        whole = patch[1][0].flatten(1)
        return _fitting(BranchParams(whole.shape[1], len(whole), 0), {"up": whole}, layer, module)
    is_other = isinstance(patch, comfy.weight_adapter.WeightAdapterBase) and not parts
    raise _refused(layer, module, INSTEAD if is_other else ONE_OF_OURS)


def _fitting(params: BranchParams, parts: dict[str, torch.Tensor], layer: str, module: PackedLinear):
    if (params.rows, params.columns) != (module.out_features, module.in_features):
        raise InputError(
            f"A LoRA is for a weight of {params.rows} x {params.columns} at {layer}, but this model's has "
            f"{module.out_features} x {module.in_features}: choose a LoRA for Wan 2.1 14B or SkyReels-V3."
        )
    return params, parts


def _refused(layer: str, module: PackedLinear, instead: str = ONE_OF_OURS) -> InputError:
    return InputError(
        f"A node changes the weight of {layer} in a way that is not possible while it is stored as "
        f"{module.format.name}: {instead}, or choose the precision bf16 in Load Model."
    )
