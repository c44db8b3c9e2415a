"""Where each of two people is in the picture: masks or boxes of the artist, or the left and the right half."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..images.convert import WHITE
from ..images.resize import cover_crop

INSET = 0.05  # of a half's sides that belongs to the background where no mask was drawn, as in MultiTalk


def halves(height: int, width: int) -> list[torch.Tensor]:
    """Masks [height, width] of a person on the left and one on the right."""
    middle = width // 2
    masks = []
    for left, right in ((0, middle), (middle, width)):
        mask = torch.zeros(height, width)
        across, down = round((right - left) * INSET), round(height * INSET)
        mask[down : height - down, left + across : right - across] = 1
        masks.append(mask)
    return masks


def box_mask(box: str, height: int, width: int) -> torch.Tensor:
    """Mask [height, width] of a box written as `left, top, right, bottom`, each from 0 to 1 of the picture.

    Raises InputError for what is no box.
    """
    try:
        left, top, right, bottom = (float(part) for part in box.replace(";", ",").split(","))
    except ValueError:
        left = top = right = bottom = -1.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise InputError(
            f"The box is {box.strip()!r}, but left, top, right, bottom are needed, each from 0 to 1: for example "
            "`0.05, 0.1, 0.45, 0.9`."
        )
    mask = torch.zeros(height, width)
    mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 1
    return mask


def speaker_masks(
    masks: Sequence[torch.Tensor | None],
    portrait_size: tuple[int, int],
    width: int,
    height: int,
    boxes: Sequence[str] = ("", ""),
) -> torch.Tensor:
    """Masks [people + 1, height, width] of the video, the last one the background, from those of the portrait.

    masks: of each person a ComfyUI MASK [B, H, W] or [H, W] of any size (stretched to the portrait's), or None for its
    half.  portrait_size: (width, height).  boxes: of each person, see `box_mask`; counts where there is no mask.
    All are cropped as the portrait is; where they overlap, the model decides.
    Raises InputError for a mask without a person in it, also once it is cropped.
    """
    wide, high = portrait_size
    fitted = []
    for number, (mask, box, half) in enumerate(zip(masks, boxes, halves(high, wide), strict=True), start=1):
        if mask is not None:
            mask = _stretched(mask, wide, high)
        else:
            mask = box_mask(box, high, wide) if box.strip() else half
        pixels = (mask.clamp(0, 1) * WHITE).round().to(torch.uint8).numpy()
        cropped = cover_crop(np.repeat(pixels[..., None], 3, axis=2), width, height)[..., 0]
        fitted.append(torch.from_numpy(cropped.copy()).float().div(WHITE).round())
        if not fitted[-1].any():
            raise InputError(
                f"Mask {number} shows no one in the picture of {width} x {height}: paint over the person, or "
                "disconnect it to use that half of the picture."
            )
    background = 1 - torch.stack(fitted).amax(dim=0)
    return torch.stack([*fitted, background])


def _stretched(mask: torch.Tensor, width: int, height: int) -> torch.Tensor:
    mask = mask.detach().to("cpu", torch.float32)
    mask = mask[0] if mask.ndim == 3 else mask
    if mask.ndim != 2 or 0 in mask.shape or not torch.isfinite(mask).all():
        raise InputError(f"A mask is {' x '.join(map(str, mask.shape))}, but height x width numbers are needed.")
    return F.interpolate(mask[None, None], size=(height, width), mode="nearest")[0, 0]
