"""ComfyUI's CLIP vision model as the callable that the avatar takes."""

from collections.abc import Callable

import comfy.model_management
import torch

from ...skyreels_v3.errors import InputError

WIDTH, TOKENS = 1280, 257  # of the published avatar
ENCODER = "clip_vision_h.safetensors (CLIPVisionLoader)"


def check_tokens(shape: torch.Size, width: int) -> None:
    """Raises InputError for tokens of an image that an avatar of this image width was not trained on."""
    if tuple(shape) != (1, TOKENS, width):
        given = " x ".join(map(str, shape))
        raise InputError(
            f"The CLIP vision model makes {given} numbers of an image, but 1 x {TOKENS} x {width} are needed: "
            f"load {ENCODER}."
        )


def image_tokens(clip_vision, width: int | None = None) -> Callable[[torch.Tensor], torch.Tensor]:
    """pixels [1, 3, 224, 224] -> hidden state before the last block [1, 257, width].

    The pixels are those of `jobs.avatar.condition.clip_pixels`.
    The model is asked itself: ComfyUI's own preparation crops and smooths the picture, the avatar's does not.
    width: what the avatar was trained on; None where it is not known yet and any will do.
    Raises InputError for another vision model.
    """

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        comfy.model_management.load_model_gpu(clip_vision.patcher)
        tokens = clip_vision.model(pixel_values=pixels.to(clip_vision.load_device), intermediate_output=-2)[1]
        if width is not None or tokens.shape[1] != TOKENS:
            check_tokens(tokens.shape, width or WIDTH)
        return tokens.float().cpu()

    return encode
