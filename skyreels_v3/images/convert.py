"""Images on their way into the model: from ComfyUI's IMAGE to 8-bit pixels, to the video's size, to [-1, 1].

Resizing goes through Pillow on 8-bit pixels, as in the official pipelines, whose numbers it repeats exactly.
"""

import math

import numpy as np
import torch
from PIL import Image

from ..errors import InputError

WHITE = 255
MAX_CROPPED = 16  # times the target's pixels that cover_crop may make before it cuts away what is lost anyway


def to_rgb8(image: torch.Tensor | np.ndarray) -> np.ndarray:
    """8-bit RGB pixels [H, W, 3] of a ComfyUI IMAGE.

    image: [B, H, W, C] (the first image counts) or [H, W, C], floating point 0 to 1 (what lies outside is
    clipped) or uint8. C is 1 (grey), 2 (grey and alpha), 3 or 4; alpha is laid over white, as the letterbox
    is. Rounds to the nearest step, so that 8-bit images come back as they were.
    Raises InputError for an empty image, another number of channels, or pixels that are no numbers.
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


def letterbox(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """8-bit RGB [height, width, 3] with all of `pixels` [H, W, 3] in its middle and white around it; Lanczos.

    Source: resize_ref_images of the official reference pipeline; sides are cut down to whole pixels, at least
    1.
    """
    ratio = pixels.shape[1] / pixels.shape[0]
    if ratio > width / height:
        inner_width, inner_height = width, max(1, int(width / ratio))
    else:
        inner_width, inner_height = max(1, int(height * ratio)), height
    inner = Image.fromarray(pixels).resize((inner_width, inner_height), Image.Resampling.LANCZOS)
    canvas = np.full((height, width, 3), WHITE, dtype=np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    canvas[top : top + inner_height, left : left + inner_width] = np.asarray(inner)
    return canvas


def cover_crop(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """8-bit RGB [height, width, 3], filled with the middle of `pixels` [H, W, 3]; bilinear.

    Source: resize_and_centercrop of the official avatar pipeline, whose sides are rounded up, and
    torchvision's center_crop, whose margins are rounded half to even.
    """
    pixels = _without_far_ends(pixels, width, height)
    scale = max(height / pixels.shape[0], width / pixels.shape[1])
    size = math.ceil(scale * pixels.shape[1]), math.ceil(scale * pixels.shape[0])
    covering = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    top, left = round((size[1] - height) / 2), round((size[0] - width) / 2)
    return covering[top : top + height, left : left + width]


def to_signed(pixels: np.ndarray) -> torch.Tensor:
    """What a VAE encodes, [1, 3, 1, H, W] float32 in [-1, 1], of 8-bit RGB [H, W, 3]."""
    unit = torch.from_numpy(np.ascontiguousarray(pixels)).float() / WHITE
    return ((unit - 0.5) / 0.5).permute(2, 0, 1)[None, :, None]


def _without_far_ends(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """The middle of an extreme panorama: made to cover the target whole, 1 x 5000 pixels fill the memory."""
    high, wide = pixels.shape[:2]
    excess = (high * width) / (wide * height)
    if max(excess, 1 / excess) <= MAX_CROPPED:
        return pixels
    keep_high = min(high, math.ceil(high * MAX_CROPPED / excess))
    keep_wide = min(wide, math.ceil(wide * MAX_CROPPED * excess))
    top, left = (high - keep_high) // 2, (wide - keep_wide) // 2
    return pixels[top : top + keep_high, left : left + keep_wide]
