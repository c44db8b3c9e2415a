"""Pixels from one form to another: ComfyUI's IMAGE, 8 bits, [-1, 1]."""

import numpy as np
import torch
from einops import rearrange

from ..errors import InputError

WHITE = 255


def to_rgb8(image: torch.Tensor | np.ndarray) -> np.ndarray:
    """8-bit RGB pixels [H, W, 3] of a ComfyUI IMAGE.

    image: [B, H, W, C] (the first image counts) or [H, W, C], floating point 0 to 1 (what lies outside is clipped) or
    uint8. C is 1 (grey), 2 (grey and alpha), 3 or 4; alpha is laid over white, as the letterbox is. Rounds to the
    nearest step, so that 8-bit images come back as they were.
    Raises InputError for an empty image, another number of channels, and NaN or infinite pixels.
    """
    pixels = torch.as_tensor(image).detach()
    if pixels.ndim == 4 and pixels.shape[0] > 0:
        pixels = pixels[0]
    shape = " x ".join(str(side) for side in image.shape)
    if pixels.ndim != 3 or min(pixels.shape) < 1:
        raise InputError(f"The image is {shape}, but batch x height x width x colours is needed.")
    channels = pixels.shape[-1]
    if channels > 4:
        raise InputError(f"The image has {channels} channels, but grey, RGB or RGBA is needed.")
    if pixels.dtype == torch.uint8 and channels == 3:
        return pixels.cpu().numpy()
    scale = WHITE if pixels.dtype == torch.uint8 else 1
    pixels = pixels.to("cpu", torch.float32) / scale
    if not torch.isfinite(pixels).all():
        raise InputError(
            "The image holds pixels that are no numbers (NaN or infinity): look at the node that made it, "
            "often a VAE decode in half precision."
        )
    pixels = pixels.clamp(0, 1)
    if channels in (2, 4):
        pixels, alpha = pixels[..., :-1], pixels[..., -1:]
        pixels = pixels * alpha + (1 - alpha)
    return (pixels.expand(-1, -1, 3) * WHITE).round().to(torch.uint8).numpy()


def picture_to_signed(pixels: np.ndarray) -> torch.Tensor:
    """8-bit RGB [H, W, 3] -> [1, 3, 1, H, W] float32 in [-1, 1], as a VAE encodes it."""
    unit = torch.from_numpy(np.ascontiguousarray(pixels)).float() / WHITE
    return rearrange((unit - 0.5) / 0.5, "h w c -> 1 c 1 h w")


def tail_to_signed(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels of a tail, uint8 or float16 in [-1, 1], as float32 in [-1, 1]."""
    return pixels.float() / (255.0 / 2.0) - 1.0 if pixels.dtype == torch.uint8 else pixels.float()


def to_uint8(pixels: torch.Tensor, official: bool = False) -> torch.Tensor:
    """[1, 3, F, H, W] in [-1, 1] -> [F, H, W, 3] uint8, rounded; official: cut down, which darkens by half a step."""
    scaled = (rearrange(pixels, "1 c f h w -> f h w c") / 2 + 0.5).clamp(0, 1) * 255
    return (scaled if official else scaled.round()).to(torch.uint8)


def to_image(pixels: torch.Tensor) -> torch.Tensor:
    """[1, 3, F, H, W] in [-1, 1] -> ComfyUI's IMAGE, [F, H, W, 3] in 0 to 1."""
    return rearrange(pixels.add(1).div(2), "1 c f h w -> f h w c").contiguous()
