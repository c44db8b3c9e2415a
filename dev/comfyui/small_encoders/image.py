"""ViT of any size for the stock CLIPVisionLoader, in CLIP's layout."""

import json
import tempfile
from pathlib import Path

from .sizes import heads
from .wrapping import wrap

BLOCK = "vision_model.encoder.layers"
KNOWN = f"{BLOCK}.22.layer_norm1.weight"  # ComfyUI knows encoders of so many layers and more


def config(state_dict) -> dict | None:
    """ComfyUI's config of a ViT that it does not know, None for every other state dict."""
    patches = state_dict.get("vision_model.embeddings.patch_embedding.weight")
    if patches is None or KNOWN in state_dict or "vision_model.embeddings.class_embedding" not in state_dict:
        return None
    width, channels, patch, _ = patches.shape
    side = round((state_dict["vision_model.embeddings.position_embedding.weight"].shape[0] - 1) ** 0.5)
    found = {
        "hidden_act": "gelu",
        "hidden_size": width,
        "image_size": side * patch,
        "intermediate_size": state_dict[f"{BLOCK}.0.mlp.fc1.weight"].shape[0],
        "model_type": "clip_vision_model",
        "num_attention_heads": heads(width),
        "num_channels": channels,
        "num_hidden_layers": sum(key.startswith(BLOCK) and key.endswith(".layer_norm1.weight") for key in state_dict),
        "patch_size": patch,
    }
    if "visual_projection.weight" in state_dict:
        found["projection_dim"] = state_dict["visual_projection.weight"].shape[0]
    return found


def install() -> None:
    import comfy.clip_vision

    def loading(load):
        def load_any(sd, *args, **kwargs):
            found = config(sd)
            if found is None:
                return load(sd, *args, **kwargs)
            with tempfile.TemporaryDirectory() as folder:  # older releases take a file, not a dict
                path = Path(folder) / "config.json"
                path.write_text(json.dumps(found), encoding="utf-8")
                model = comfy.clip_vision.ClipVisionModel(str(path))
            missing, _ = model.load_sd(sd)
            if missing:
                raise RuntimeError(f"The CLIP vision file lacks {', '.join(missing)}.")
            return model

        return load_any

    wrap(comfy.clip_vision, "load_clipvision_from_sd", loading)
