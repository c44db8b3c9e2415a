"""Test-only ComfyUI pack: lets the stock CLIPVisionLoader open the tiny ViT-H file of `tools/tiny_models.py`.

ComfyUI builds ViT-H at one size, which it keeps in a JSON file (1.3 GB in fp16). For a file that is marked as tiny this
pack gives the same class the `config.json` beside it, which has two layers instead of 32 and a narrow feed-forward.
Every other file meets the same code as before.
"""

import functools
from pathlib import Path

import comfy.clip_vision

NODE_CLASS_MAPPINGS = {}

CONFIG = Path(__file__).parent / "config.json"
MARK = "tiny_clip_vision"  # a tensor that no real file has


def install(module) -> None:
    """Wrap the function of ComfyUI's module `comfy.clip_vision` that every way of loading goes through, once."""
    load = module.load_clipvision_from_sd
    if hasattr(load, MARK):
        return

    @functools.wraps(load)
    def load_any(sd, *args, **kwargs):
        if MARK not in sd:
            return load(sd, *args, **kwargs)
        model = module.ClipVisionModel(str(CONFIG))
        missing, _ = model.load_sd(sd)
        if missing:
            raise RuntimeError(f"The tiny CLIP vision file lacks {missing}.")
        return model

    setattr(load_any, MARK, True)
    module.load_clipvision_from_sd = load_any


install(comfy.clip_vision)
