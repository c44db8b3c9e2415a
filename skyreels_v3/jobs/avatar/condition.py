"""What a window is conditioned on: mask and image channels, the CLIP image, silence.

Source: talking_avatar_pipeline.py of the official code.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...recipes import FRAMES_PER_LATENT
from .plan import KEY_COPIES, WindowPlan

CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def window_condition(
    window: WindowPlan,
    frames: int,
    motion: torch.Tensor,
    key_frame: torch.Tensor | None,
    encode: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Mask and image channels [1, 4 + 16, T, h, w] of a window of `frames` frames.

    The image is the motion frames [1, 3, n, H, W], grey, and the key frame [1, 3, 1, H, W] five times (none in the
    key-frame pass), encoded as one clip; the mask is 1 where frames were given.
    """
    copies = 0 if key_frame is None else KEY_COPIES
    clip = motion.new_zeros(*motion.shape[:2], frames, *motion.shape[3:])
    clip[:, :, : window.motion] = motion
    if key_frame is not None:
        clip[:, :, -copies:] = key_frame
    given = torch.zeros(frames)
    given[: window.motion] = 1
    given[frames - copies :] = 1
    return masked_latents(clip, given, encode)


def masked_latents(
    clip: torch.Tensor, given: torch.Tensor, encode: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Mask and image channels [1, 4 + 16, T, h, w] of a clip [1, 3, F, H, W]. given: [F], 1 where a frame is given."""
    latents = encode(clip)
    # The first latent frame is one video frame: its mask stands four times.
    given = torch.cat([given[:1].expand(FRAMES_PER_LATENT - 1), given]).unflatten(0, (-1, FRAMES_PER_LATENT)).T
    mask = given.to(latents)[None, :, :, None, None].expand(-1, -1, -1, *latents.shape[-2:])
    return torch.cat([mask, latents], dim=1)


def clip_pixels(frame: torch.Tensor) -> torch.Tensor:
    """What CLIP's vision model sees of a frame [1, 3, 1, H, W] in [-1, 1]: [1, 3, 224, 224], float32.

    The whole frame, stretched; bicubic without antialiasing, as the model was trained. ComfyUI's own CLIP node crops
    and smooths.
    """
    size = (CLIP_SIZE, CLIP_SIZE)
    pixels = F.interpolate(frame[:, :, 0].float(), size=size, mode="bicubic", align_corners=False) * 0.5 + 0.5
    mean, std = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def silent(speech: torch.Tensor) -> torch.Tensor:
    """The speech of a forward without speech: zeros, for one person, as officially. speech: windows [people, ...]."""
    return torch.zeros_like(speech[-1:])
