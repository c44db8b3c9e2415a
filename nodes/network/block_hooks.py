"""ComfyUI's hooks around the blocks of the network."""

import comfy.model_management
import torch

from ...skyreels_v3.errors import InputError

UNSUPPORTED_PATCHES = {"attn1_patch", "attn2_patch", "attn1_output_patch", "attn2_output_patch", "noise_refiner"}


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
        ignored = sorted(UNSUPPORTED_PATCHES.intersection(self.patches))
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
            x = self.replace[("double_block", index)](given, original)["img"]
        else:
            x = block(x)
        for patch in self.patches.get("double_block", ()):
            given = {"img": x, "x": self.latents, "block_index": index, "transformer_options": self.options}
            x = patch(given)["img"]
        return x
