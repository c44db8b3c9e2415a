"""How like a video is to its references, by a CLIP or DINO whose weights lie on the disk.

A frame and a picture are compared as wholes, by the cosine of what the network makes of them: CLIP-I and DINO-I of the
literature. Nobody is cut out first, so a reference that fills little of the frame counts little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.images.resize import cover_crop
from .python import PACK, WEIGHTS

CLIP, DINO = "CLIP", "DINO"
FRAMES = 16  # that are compared, at most
TOGETHER = 8  # in one forward
CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
DINO_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DINO_SIDE = 224
HEADS = {768: 12, 1024: 16, 1280: 16, 1664: 16}  # of CLIP's vision transformers by their width
NONE = (
    "Likeness to references: no CLIP or DINO weights; give them by --weights, such as clip_vision_h.safetensors, or "
    f"put them into {WEIGHTS}."
)


@dataclass(frozen=True)
class Network:
    """kind: CLIP or DINO.  side: of its pictures, in pixels.  embed: float32 [n, 3, side, side] -> [n, width]."""

    kind: str
    side: int
    colours: tuple[tuple[float, ...], tuple[float, ...]]
    embed: Callable[[torch.Tensor], torch.Tensor]

    def looks(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """[n, width], each of length 1."""
        mean, spread = (torch.tensor(part).view(3, 1, 1) for part in self.colours)
        found = []
        for start in range(0, len(pictures), TOGETHER):
            pixels = [
                torch.from_numpy(cover_crop(np.asarray(one.convert("RGB")), self.side, self.side).copy())
                for one in pictures[start : start + TOGETHER]
            ]
            batch = (torch.stack(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / spread
            with torch.inference_mode():
                found.append(self.embed(batch).float())
        return torch.nn.functional.normalize(torch.cat(found), dim=1)


def weights_at_hand() -> list[Path]:
    """Those in ComfyUI's folder clip_vision, where the pack lies in ComfyUI, and those in the venv's folder."""
    folder = PACK.parent.parent / "models" / "clip_vision"
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    own = sorted(WEIGHTS.glob("*.safetensors")) if WEIGHTS.is_dir() else []
    own += [path for path in sorted(WEIGHTS.glob("*")) if (path / "config.json").is_file()]
    return [*files, *own]


def open_networks(paths: Sequence[Path], asked: bool) -> list[Network]:
    """One of each kind, the first that can be opened. asked: by name, so that one that cannot be opened is told.

    Raises InputError.
    """
    networks: dict[str, Network] = {}
    for path in paths:
        try:
            network = open_network(path)
        except InputError:
            if asked:
                raise
            continue
        networks.setdefault(network.kind, network)
    return list(networks.values())


def open_network(path: Path) -> Network:
    """A file of ComfyUI's clip_vision, or a folder of Hugging Face with its config.json. Raises InputError."""
    try:
        import transformers
    except ImportError as error:
        raise InputError("Likeness needs the package transformers, which ComfyUI's Python has.") from error
    transformers.utils.logging.set_verbosity_error()
    try:
        if path.is_dir():
            config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True)
            if config.model_type.startswith("clip"):
                model = transformers.CLIPVisionModelWithProjection.from_pretrained(str(path), local_files_only=True)
                return _clip(model)
            if config.model_type.startswith("dino"):
                model = transformers.AutoModel.from_pretrained(str(path), local_files_only=True).eval()
                return Network(DINO, DINO_SIDE, DINO_COLOURS, lambda pixels: model(pixels).pooler_output)
            raise InputError(f"{path.name} is a {config.model_type}, but a CLIP or DINO is needed.")
        return _clip(_of_file(path, transformers))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        words = " ".join(str(error).split())[:150]
        raise InputError(
            f"{path.name} is no CLIP vision file and no folder of a CLIP or DINO that can be opened ({words})."
        ) from error


def likeness(network: Network, frames: Sequence[Image.Image], references: Sequence[Image.Image]) -> list[float]:
    """Of each reference the mean cosine to the frames, up to 1."""
    return (network.looks(references) @ network.looks(frames).T).mean(dim=1).tolist()


def spread(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """At most FRAMES of them, evenly."""
    places = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    return [frames[place] for place in places]


def _clip(model: Any) -> Network:
    model = model.float().eval()
    return Network(CLIP, model.config.image_size, CLIP_COLOURS, lambda pixels: model(pixels).image_embeds)


def _of_file(path: Path, transformers: Any) -> Any:
    """A CLIP by the shapes of its weights, as ComfyUI keeps them in one file."""
    from safetensors.torch import load_file

    weights = load_file(str(path))
    if "visual_projection.weight" not in weights:
        raise InputError(f"{path.name} is no CLIP vision model: it has no visual_projection.")
    patches = weights["vision_model.embeddings.patch_embedding.weight"]
    width, patch = patches.shape[0], patches.shape[-1]
    tokens = weights["vision_model.embeddings.position_embedding.weight"].shape[0]
    layers = {key.split(".")[3] for key in weights if key.startswith("vision_model.encoder.layers.")}
    config = transformers.CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=weights["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        num_hidden_layers=len(layers),
        num_attention_heads=HEADS.get(width, max(1, width // 64)),
        image_size=round((tokens - 1) ** 0.5) * patch,
        patch_size=patch,
        projection_dim=weights["visual_projection.weight"].shape[0],
        hidden_act="quick_gelu" if width in (768, 1024) else "gelu",  # OpenAI's, else OpenCLIP's
    )
    model = transformers.CLIPVisionModelWithProjection(config)
    held = {key: value.float() for key, value in weights.items()}
    held.pop("vision_model.embeddings.position_ids", None)
    absent, _ = model.load_state_dict(held, strict=False)
    if [key for key in absent if "position_ids" not in key]:
        raise InputError(f"{path.name} lacks weights of a CLIP vision model: {', '.join(absent[:3])}.")
    return model
