"""The patcher of a model whose weights are in other processes: ComfyUI makes room for them as for its own."""

import logging
from collections.abc import Iterable
from typing import Any

import comfy.model_patcher

from ....distributed.group import Group
from ....model_loaders.files.stamps import FileStamp
from ....skyreels_v3.errors import InputError
from ....skyreels_v3.model.lora import Lora
from ...weights.lora_branches import KEY, AppliedLora
from .network import REMEDY, SharedNetwork

log = logging.getLogger(__name__)

LORA = "put LoRAs on with SkyReels-V3 LoRA"


class SharedPatcher(comfy.model_patcher.ModelPatcher):
    """Brings the weights to the cards when ComfyUI loads the model, and takes them away when it needs the room.

    Always all of them: where they do not fit on each card, the cards keep a part each.
    """

    @property
    def network(self) -> SharedNetwork:
        return self.model.diffusion_model

    def model_size(self):
        """As ComfyUI's: bytes on its card."""
        return self.network.held

    def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False, **_):
        """As ComfyUI's."""
        super().load(device_to, full_load=True)
        self.network.open()

    def partially_unload(self, device_to, memory_to_free=0, force_patch_weights=False, **_):
        """As ComfyUI's: nothing is given back in part, so that it detaches the model."""
        return 0

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        """As ComfyUI's."""
        if unpatch_weights and self.model.model_loaded_weight_memory:
            self.network.close()
        return super().unpatch_model(device_to, unpatch_weights)

    def clone(self, *args: Any, **kwargs: Any):
        copy = super().clone(*args, **kwargs)
        # Where the model came from, which ComfyUI 0.3.75 does not copy: long jobs ask for it.
        copy.cached_patcher_init = self.cached_patcher_init
        return copy

    def add_patches(self, patches, strength_patch=1.0, strength_model=1.0):
        """Raises InputError: the weights are elsewhere."""
        raise _refused("changes the weights of a model", LORA)

    def add_hook_patches(self, hook, patches, *args, **kwargs):
        """Raises InputError, as add_patches does."""
        raise _refused("switches the weights of a model between steps", LORA)

    def add_object_patch(self, name, obj):
        """As ComfyUI's. Raises InputError for parts of the network."""
        if name.startswith("diffusion_model."):
            raise _refused(f"replaces {name.removeprefix('diffusion_model.')} of a model")
        super().add_object_patch(name, obj)

    def add_weight_wrapper(self, name, function):
        """Raises InputError, as add_patches does."""
        raise _refused("changes the weights of a model while it runs", LORA)

    def model_state_dict(self, filter_prefix=None):
        """As ComfyUI's, of which nodes that save, merge and train ask for weights with a prefix. Raises InputError."""
        if filter_prefix is not None:
            raise _refused("reads the weights of a model")
        return super().model_state_dict(filter_prefix)

    def deepclone_multigpu(self, *args: Any, **kwargs: Any):
        """Raises InputError: ComfyUI (0.33) would put copies of the model on cards that share this one."""
        raise InputError(
            "A node wants a copy of the model on another card, as MultiGPU CFG Split and Select Model Device do, but "
            f"several cards share this model already: {REMEDY}."
        )


def _refused(what: str, instead: str = "") -> InputError:
    before = f"{instead}, " if instead else ""
    return InputError(f"A node {what} that several cards share, which works on one card only: {before}{REMEDY}.")


def attach_file(model, files: tuple[FileStamp, ...], strength: float) -> None:
    """Put a LoRA on a shared MODEL (a clone that may be changed): workers read its file."""
    listed = model.get_attachment(KEY) or ()
    model.set_attachments(KEY, (*listed, AppliedLora(Lora({}), strength, files)))


def group_sharing(models: Iterable) -> Group | None:
    """The group whose cards share the first of the MODELs that is shared."""
    return next((model.model.diffusion_model.group for model in models if is_shared(model)), None)


def is_shared(model) -> bool:
    """Whether a MODEL's weights are in other processes."""
    return isinstance(model.model.diffusion_model, SharedNetwork)
