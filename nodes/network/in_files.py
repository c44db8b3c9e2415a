"""Weights that lie on pages of files stay there: what comes back from the card is no new copy in RAM."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher as Mixed
else:
    Mixed = object  # the patcher stands behind it in the order of classes


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
        there, parameter = self.file_weights.get(name), self.get_parameter(name)
        return there is not None and parameter.device == there.device and parameter.data_ptr() == there.data_ptr()


def remember_files(network: nn.Module, names: set[str]) -> None:
    """Tell the layers of a network which parameters lie in files, by their names in it."""
    for name in names:
        layer, _, parameter = name.rpartition(".")
        module = network.get_submodule(layer)
        if isinstance(module, InFiles):
            there = module.get_parameter(parameter).data
            module.file_weights = {**module.file_weights, parameter: there}


class UnpinnedFiles(Mixed):
    """A patcher that pins no weight which lies in a file.

    Pinning makes a copy of its pages that stays, and costs a model's size in RAM. The copy to the card runs while the
    block before computes, so that it is not waited for.
    """

    def pin_weight_to_device(self, key):
        layer, _, name = key.rpartition(".")
        module = self.model.get_submodule(layer)
        if not (isinstance(module, InFiles) and module.lies_in_file(name)):
            super().pin_weight_to_device(key)
