"""ComfyUI's hooks around the blocks of the network."""

import comfy.model_management
import torch

from ...skyreels_v3.errors import InputError
from .foreign import MISFITS, misfit

# What a Wan network of ComfyUI runs, and what nodes for every network set besides.
PATCHES, REPLACED = {"double_block", "single_block"}, {"dit"}


class BlockHooks:
    """Runs a block with ComfyUI's hooks around it: interrupt, block replace and double_block patches."""

    def __init__(self, transformer_options: dict, blocks: int, latents: torch.Tensor, text: torch.Tensor):
        self.options = transformer_options
        self.replace = transformer_options.get("patches_replace", {}).get("dit", {})
        self.patches = transformer_options.get("patches", {})
        self.latents = latents
        self.text = text
        transformer_options["total_blocks"] = blocks
        transformer_options["block_type"] = "double"
        replaced = transformer_options.get("patches_replace", {})
        ignored = sorted({*self.patches} - PATCHES) + sorted({*replaced} - REPLACED)
        if ignored:
            raise InputError(
                f"A node patched the model with {', '.join(ignored)}, which SkyReels-V3 models do not have: remove "
                "that node, or use one that replaces blocks or attention."
            )

    def __call__(self, index, block, x):
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.options["block_index"] = index
        if ("double_block", index) in self.replace:
            # A hook may keep what it was given, and a block writes into its input.
            original = {"original_block": lambda given: {**given, "img": block(given["img"].clone())}}
            given = {"img": x, "txt": self.text, "vec": None, "pe": None, "transformer_options": self.options}
            replace = self.replace[("double_block", index)]
            try:
                x = replace(given, original)["img"]
            except MISFITS as error:
                raise misfit(replace, f"block {index}", error) from error
        else:
            x = block(x)
        for patch in self.patches.get("double_block", ()):
            given = {"img": x, "x": self.latents, "block_index": index, "transformer_options": self.options}
            x = patch(given)["img"]
        return x
