"""What ComfyUI's own loaders make for the nodes, tiny: a text encoder, a VAE and an encoder of images."""

import json
from pathlib import Path
from typing import Any

from pack.dev.samples.tiny_models import write_text_encoder, write_vae
from pack.tests.support.golden import normal

CLIP_VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 1280,
    "intermediate_size": 64,
    "projection_dim": 1024,
    "num_attention_heads": 16,
    "num_hidden_layers": 2,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-05,
    "attention_dropout": 0.0,
    "dropout": 0.0,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "torch_dtype": "float32",
}


def loaded(comfyui, folder: Path, name: str) -> dict[str, Any]:
    """clip, vae and clip_vision by ComfyUI's loaders. name: of their files, which ComfyUI's lists then have."""
    import comfy.clip_vision

    from pack.dev.comfyui import small_encoders  # noqa: F401, it needs the real ComfyUI, which is there only now

    write_vae(folder / "vae" / f"{name}_vae.safetensors")
    write_text_encoder(folder / "text_encoders" / f"{name}_umt5.safetensors")
    for kind in ("vae", "text_encoders"):
        comfyui.folder_paths.add_model_folder_path(kind, str(folder / kind))
        comfyui.folder_paths.filename_list_cache.clear()
    config = folder / "clip_vision.json"
    config.write_text(json.dumps(CLIP_VISION))
    vision = comfy.clip_vision.ClipVisionModel(str(config))
    for key, weight in vision.model.named_parameters():
        weight.data = normal(key, tuple(weight.shape)).to(weight.dtype) * 0.02
    return {
        "clip": comfyui.nodes.CLIPLoader().load_clip(f"{name}_umt5.safetensors", "wan")[0],
        "vae": comfyui.nodes.VAELoader().load_vae(f"{name}_vae.safetensors")[0],
        "clip_vision": vision,
    }
