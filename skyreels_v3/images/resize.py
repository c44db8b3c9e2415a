"""Pictures and frames brought to the size of the video: letterboxed, cropped, or stretched.

`letterbox` and `cover_crop` go through Pillow on 8-bit pixels and repeat the official numbers exactly; `fit_frame` is
for the frames of a source.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..errors import InputError
from .convert import WHITE

FITS = ("crop", "letterbox", "stretch")
DEFAULT_FIT = "crop"
MAX_CROPPED = 16  # times the target's pixels that cover_crop may make before it cuts away what is lost anyway


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; its sides may be fractions where it is read from."""

    left: float
    top: float
    width: float
    height: float


def fit_frame(pixels: np.ndarray, width: int, height: int, how: str = DEFAULT_FIT) -> np.ndarray:
    """8-bit RGB [height, width, 3] of a frame's 8-bit RGB [H, W, 3].

    crop: the middle of the frame fills the video; what is too wide or too high is cut away.
    letterbox: the whole frame between black bars; `picture_box` is where, to cut the bars off again.
    stretch: the whole frame, out of shape, by nearest neighbour: what the official pipelines do.
    Crop and letterbox are Lanczos. Only what is kept is ever resized, so panoramas of any shape take no memory.
    Raises InputError for another `how` and for pixels of another shape or type.
    """
    if how not in FITS:
        raise InputError(f"The fit is {how!r}, but it must be one of {', '.join(FITS)}.")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape) < 1:
        shape = " x ".join(map(str, pixels.shape))
        raise InputError(f"The frame is {shape} {pixels.dtype}, but height x width x 3 of 8 bits is needed.")
    high, wide = pixels.shape[:2]
    if (wide, high) == (width, height):
        return pixels
    if how == "stretch":
        rows, columns = _nearest(high, height), _nearest(wide, width)
        return pixels[rows[:, None], columns[None]]
    image = Image.fromarray(pixels)
    if how == "crop":
        kept = crop_box(wide, high, width, height)
        edges = (kept.left, kept.top, kept.left + kept.width, kept.top + kept.height)
        return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box=edges))
    box = picture_box(wide, high, width, height, how)
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    inner = image.resize((int(box.width), int(box.height)), Image.Resampling.LANCZOS)
    canvas[box.top : box.top + box.height, box.left : box.left + box.width] = np.asarray(inner)
    return canvas


def crop_box(wide: int, high: int, width: int, height: int) -> Box:
    """What a crop keeps of a frame of wide x high pixels: its largest middle part with the shape width : height."""
    kept_wide = min(wide, high * width / height)
    kept_high = min(high, wide * height / width)
    return Box((wide - kept_wide) / 2, (high - kept_high) / 2, kept_wide, kept_high)


def picture_box(wide: int, high: int, width: int, height: int, how: str = "letterbox") -> Box:
    """Where in a video of width x height the picture of a frame of wide x high pixels lies; whole pixels.

    All of it but for letterbox. There, sides and margins are even, so that the picture alone can be encoded as
    4:2:0 video once the bars are cut off. width and height must be even.
    """
    if how != "letterbox":
        return Box(0, 0, width, height)
    inner_width = min(width, _even(wide * height / high))
    inner_height = min(height, _even(high * width / wide))
    return Box((width - inner_width) // 4 * 2, (height - inner_height) // 4 * 2, inner_width, inner_height)


def _even(side: float) -> int:
    """The nearest even number, at least 2."""
    return max(2, round(side / 2) * 2)


def _nearest(source: int, target: int) -> np.ndarray:
    """Indices [target] that torch's nearest neighbour reads of `source`: left to torch, whose rounding is its own."""
    ramp = torch.arange(source, dtype=torch.float32)[None, None]
    return F.interpolate(ramp, size=target)[0, 0].long().numpy()


def letterbox(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """8-bit RGB [height, width, 3] with all of `pixels` [H, W, 3] in its middle and white around it; Lanczos.

    Source: resize_ref_images of the official reference pipeline; sides are cut down to whole pixels, at least 1.
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

    Source: resize_and_centercrop of the official avatar pipeline, whose sides are rounded up, and torchvision's
    center_crop, whose margins are rounded half to even.
    """
    pixels = _without_far_ends(pixels, width, height)
    scale = max(height / pixels.shape[0], width / pixels.shape[1])
    size = math.ceil(scale * pixels.shape[1]), math.ceil(scale * pixels.shape[0])
    covering = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    top, left = round((size[1] - height) / 2), round((size[0] - width) / 2)
    return covering[top : top + height, left : left + width]


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
