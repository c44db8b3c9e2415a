"""Where each of the people is in the picture: masks or boxes of the artist, or the left and the right half."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import InputError
from ..images.convert import WHITE
from ..images.resize import cover_crop
from .box import read_box

INSET = 0.05  # of a half's sides that belongs to the background where no mask was drawn, as in MultiTalk
SHARED = 0.25  # of the smaller of two places; where more of it is the other's as well, who is who may go wrong


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
    """Mask [height, width] of a box written as `left, top, right, bottom`, see `read_box`."""
    left, top, right, bottom = read_box(box)
    mask = torch.zeros(height, width)
    mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 1
    return mask


def only_listens(masks: Sequence[torch.Tensor | None], boxes: Sequence[str]) -> int | None:
    """Which of two people, 0 or 1, is silent where one recording is given with places; None without a place.

    The recording belongs to the one whose place is given, and to the first where both are.
    """
    given = [mask is not None or bool(box.strip()) for mask, box in zip(masks, boxes, strict=True)]
    return 1 - given.index(True) if any(given) else None


def speaker_masks(
    masks: Sequence[torch.Tensor | None],
    portrait_size: tuple[int, int],
    width: int,
    height: int,
    boxes: Sequence[str] = ("", ""),
    silent: int | None = None,
    names: Sequence[str] = (),
) -> torch.Tensor:
    """Masks [people + 1, height, width] of the video, the last one the background, from those of the portrait.

    masks: of each person a ComfyUI MASK [B, H, W] or [H, W] of any size (stretched to the portrait's), or None for,
    of two, its half.  portrait_size: (width, height).  boxes: of each person, see `box_mask`; counts where there is no
    mask.  silent: who of two only listens (0 or 1): without a mask or a box everything around the other one, so that
    no one else in the picture speaks.  names: of more than two people.
    All are cropped as the portrait is; where those of two overlap, the model decides.
    Raises InputError for a mask without a person in it, also once it is cropped; of more than two people for one
    without a place, and for places that are much the same.
    """
    wide, high = portrait_size
    pair = len(masks) == 2
    fitted, everyone_else = [], None
    for number, (mask, box) in enumerate(zip(masks, boxes, strict=True), start=1):
        if number - 1 == silent and mask is None and not box.strip():
            everyone_else, mask = silent, torch.zeros(high, wide)
        elif mask is not None:
            mask = _stretched(mask, wide, high)
        elif box.strip():
            mask = box_mask(box, high, wide)
        elif pair:
            mask = halves(high, wide)[number - 1]
        else:
            raise InputError(
                f"{names[number - 1]} has no place in the picture: draw a box around each of the {len(masks)} people "
                "who speak, or connect a mask for each to masks."
            )
        pixels = (mask.clamp(0, 1) * WHITE).round().to(torch.uint8).numpy()
        cropped = cover_crop(np.repeat(pixels[..., None], 3, axis=2), width, height)[..., 0]
        fitted.append(torch.from_numpy(cropped.copy()).float().div(WHITE).round())
        if not fitted[-1].any() and everyone_else != number - 1:
            of = f"{number}" if pair else f"of {names[number - 1]}"
            what, instead = f"Mask {of}", "paint over the person, or disconnect it"
            if masks[number - 1] is None:
                what, instead = f"Box {of} ({box.strip()})", "draw it around the person, or clear it"
            half = " to use that half of the picture" if pair else ""
            raise InputError(f"{what} shows no one in the picture of {width} x {height}: {instead}{half}.")
    if everyone_else is not None:
        fitted[everyone_else] = 1 - fitted[1 - everyone_else]
    shared = [] if pair else shared_places(fitted, names)
    if shared:
        raise InputError(f"{shared[0]}: give each a place of their own.")
    background = 1 - torch.stack(fitted).amax(dim=0)
    return torch.stack([*fitted, background])


def shared_places(masks: Sequence[torch.Tensor], names: Sequence[str]) -> list[str]:
    """Whose places [h, w] are much the same: a sentence without its end for each pair. names: as many as masks."""
    told = []
    for (one, a), (other, b) in combinations(zip(names, masks), 2):
        shared = ((a * b).sum() / torch.minimum(a.sum(), b.sum()).clamp(min=1)).item()
        if shared > SHARED:
            told.append(f"{100 * shared:.0f} % of the smaller one of the places of {one} and {other} is both of theirs")
    return told


def _stretched(mask: torch.Tensor, width: int, height: int) -> torch.Tensor:
    mask = mask.detach().to("cpu", torch.float32)
    mask = mask[0] if mask.ndim == 3 else mask
    if mask.ndim != 2 or 0 in mask.shape or not torch.isfinite(mask).all():
        raise InputError(f"A mask is {' x '.join(map(str, mask.shape))}, but height x width numbers are needed.")
    return F.interpolate(mask[None, None], size=(height, width), mode="nearest")[0, 0]
