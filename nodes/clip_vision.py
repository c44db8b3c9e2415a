"""ComfyUI's CLIP vision model as the callable that the avatar takes."""

from collections.abc import Callable

import comfy.model_management
import torch

from ..skyreels_v3.errors import InputError

WIDTH, TOKENS = 1280, 257
ENCODER = "clip_vision_h.safetensors (CLIPVisionLoader)"


def image_tokens(clip_vision) -> Callable[[torch.Tensor], torch.Tensor]:
    """pixels [1, 3, 224, 224] from avatar_job.clip_pixels -> hidden state before the last block [1, 257, 1280].

    The model is asked itself: ComfyUI's own preparation crops and smooths the picture, the avatar's does not.
    Raises InputError for another vision model.
    """

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        comfy.model_management.load_model_gpu(clip_vision.patcher)
        tokens = clip_vision.model(pixel_values=pixels.to(clip_vision.load_device), intermediate_output=-2)[1]
        if tuple(tokens.shape) != (1, TOKENS, WIDTH):
            shape = " x ".join(map(str, tokens.shape))
            raise InputError(
                f"The CLIP vision model makes {shape} numbers of an image, but 1 x {TOKENS} x {WIDTH} are needed: "
                f"load {ENCODER}."
            )
        return tokens.float().cpu()

    return encode
