"""Weights that lie on pages of files stay there: what comes back from the card is no new copy in RAM."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import comfy.utils
import torch
from torch import nn

from ...model_loaders.tensors.file_tensors import is_mapped

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher as Mixed
else:
    Mixed = object  # the patcher stands behind it in the order of classes


IN_FILE = "skyreels_in_file"  # an attribute of a weight that hooks change: the one over the file's pages


class InFiles(nn.Module):
    """A layer whose parameters, when they come back to the CPU, are again those on the pages of their file.

    The system drops such pages where RAM is short and reads them again; a copy would stay, one of every model that
    was ever on the card.
    """

    file_weights: Mapping[str, torch.Tensor] = {}  # parameter -> where it lies in its file
    away: Mapping[str, nn.Parameter] = {}  # those of them that are on another device, unchanged

    def _apply(self, fn, recurse=True):
        # A patched weight is another parameter, and was never in the file.
        away = {name: one for name, one in self.away.items() if one is self.get_parameter(name)}
        for name, parameter in away.items():
            there, to = self.file_weights[name], fn(parameter.new_empty(0))
            if (to.device, to.dtype) == (there.device, there.dtype):
                self.register_parameter(name, nn.Parameter(there, requires_grad=False))
        unchanged = {*away, *(name for name in self.file_weights if self.lies_in_file(name))}
        super()._apply(fn, recurse)
        after = {name: self.get_parameter(name) for name in unchanged if not self.lies_in_file(name)}
        self.away = {name: one for name, one in after.items() if one.dtype == self.file_weights[name].dtype}
        return self

    def lies_in_file(self, name: str) -> bool:
        """Whether a parameter is on the pages of its file now."""
        return is_mapped(self.get_parameter(name))


def remember_files(network: nn.Module) -> None:
    """Tell the layers of a network which of their parameters lie in files."""
    for module in network.modules():
        if isinstance(module, InFiles):
            own = module.named_parameters(recurse=False)
            module.file_weights = {name: one.data for name, one in own if is_mapped(one)}


class FileWeights(Mixed):
    """A patcher that leaves weights which lie in files where they are.

    Such pages cannot be written to, and none is pinned: that makes a copy which stays, and costs a model's size in RAM.
    The copy to the card runs while the block before computes, so that it is not waited for.
    """

    def pin_weight_to_device(self, key):
        """As ComfyUI's."""
        if not is_mapped(comfy.utils.get_attr(self.model, key)):
            super().pin_weight_to_device(key)

    def patch_hook_weight_to_device(self, hooks, combined_patches, key, *args, **kwargs):
        """As ComfyUI's, which writes into the weight."""
        self._to_memory(key)
        return super().patch_hook_weight_to_device(hooks, combined_patches, key, *args, **kwargs)

    def patch_cached_hook_weights(self, cached_weights, key, *args, **kwargs):
        """As ComfyUI's, which writes into the weight."""
        self._to_memory(key)
        return super().patch_cached_hook_weights(cached_weights, key, *args, **kwargs)

    def unpatch_hooks(self, whitelist_keys_set=None):
        """As ComfyUI's; what was in a file is again."""
        hooked = set(self.hook_backup)
        super().unpatch_hooks(whitelist_keys_set)
        for key in hooked - self.hook_backup.keys() - self.backup.keys():  # what is patched besides is none of a file's
            path, _, name = key.rpartition(".")
            module, weight = comfy.utils.get_attr(self.model, path), comfy.utils.get_attr(self.model, key)
            # By the layer too: a weight that has moved meanwhile is another one.
            there = getattr(weight, IN_FILE, getattr(module, "file_weights", {}).get(name))
            if there is not None and there.dtype == weight.dtype:
                if there.device == weight.device:
                    comfy.utils.set_attr_param(self.model, key, there.data)
                elif isinstance(module, InFiles):
                    module.away = {**module.away, name: weight}

    def _to_memory(self, key: str) -> None:
        """Gives a weight that lies in a file memory that can be written to."""
        there = comfy.utils.get_attr(self.model, key)
        if is_mapped(there):
            comfy.utils.set_attr_param(self.model, key, there.detach().clone())
            setattr(comfy.utils.get_attr(self.model, key), IN_FILE, there)
