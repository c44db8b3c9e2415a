"""The passes of a dub: each window is made between frames of the footage, and put back into it as it is decoded."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import InputError
from ...images.convert import WHITE, to_uint8
from ...recipes import FRAMES_PER_LATENT, LATENT_CHANNELS
from ...speech.features import SpeechFeatures
from ...vae.frames import Decode, decoded
from ..avatar.condition import clip_pixels, masked_latents
from ..avatar.passes import Start, Write
from ..avatar.pinned import Pin
from .crops import back
from .footage import Footage
from .paste import matched, put_back
from .plan import Copied, DubPlan, DubWindow


@dataclass(frozen=True)
class DubPass:
    """What a pass is given besides its noise; as an avatar's `Pass`.

    latents: of the footage [1, 16, T, h, w], which are under the noise where the plan's level is below 1; zeros where
    nothing of them is used.
    """

    condition: torch.Tensor
    tokens: torch.Tensor
    speech: torch.Tensor
    pin: "Surroundings"
    latents: torch.Tensor


@dataclass(frozen=True)
class DubTools:
    """As an avatar's `Tools`. denoise: (pass, noise [1, 16, T, h, w]) -> latents like the noise."""

    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Decode
    image_tokens: Callable[[torch.Tensor], torch.Tensor]
    denoise: Callable[[DubPass, torch.Tensor], torch.Tensor]


class Surroundings:
    """Holds what is around the head to the footage while the head is sampled, and the motion frames as a Pin does."""

    def __init__(self, latents: torch.Tensor, noise: torch.Tensor, held: torch.Tensor, pin: Pin | None):
        """latents, noise: [1, 16, T, h, w].  held: bool [1, 1, T, h, w]."""
        self.latents, self.noise, self.held, self.pin = latents, noise, held, pin

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        """x [1, 16, T, h, w] at noise level `sigma`; written into x."""
        footage = (1 - sigma) * self.latents.to(x) + sigma * self.noise.to(x)
        x.copy_(torch.where(self.held.to(x.device), footage, x))
        return x if self.pin is None else self.pin(x, sigma)


@dataclass(frozen=True)
class DubPasses:
    """All that the passes of one run have in common.  features: of plan.speech frames.  seed: of all noise."""

    plan: DubPlan
    footage: Footage
    features: SpeechFeatures
    tools: DubTools
    seed: int = 0

    def first(self) -> Start:
        """What the first window starts from: no frames, and the noise of the seed."""
        generator = torch.Generator().manual_seed(self.seed)
        return Start(torch.zeros(1, 3, 0, self.plan.height, self.plan.width), generator.get_state())

    def copied(self, part: Copied) -> Iterator[torch.Tensor]:
        """uint8 [1, H, W, 3] of each of its frames; where a file ends too early, its last frame again."""
        pixels = None
        count = 0
        for pixels in islice(self.footage.frames(part.first), part.new_frames):
            yield torch.from_numpy(pixels.copy())[None]
            count += 1
        for _ in range(count, part.new_frames):
            yield torch.from_numpy(self._last() if pixels is None else pixels.copy())[None]

    def window(self, window: DubWindow, start: Start, write: Write) -> Start:
        """Hands a window's frames of the footage to `write`, uint8 [1, H, W, 3] one by one; what the next starts from.

        start: from the window before. Raises InputError for NaN or infinite frames; some may have been written then.
        """
        generator = torch.Generator()
        generator.set_state(start.generator)
        made = range(window.start, window.start + self.plan.timing.window)
        crops = self.footage.crops(window.shot, made)
        taken = torch.stack([self.footage.taken_in_crop(window.shot, one) for one in made])
        motion = _signed(crops[: window.motion]) if window.fresh else start.motion
        condition = masked_latents(*_given(window, crops, motion), self.tools.encode)
        noise = torch.randn(self.plan.latent_shape, generator=generator)
        held = ~_touched(taken, noise.shape)
        used = self.plan.level < 1 or held.any()
        latents = self.tools.encode(_signed(crops)) if used else torch.zeros_like(noise)
        pin = None
        if window.motion > 1:
            pin = Pin(condition[:, -LATENT_CHANNELS:, : window.motion_latents], generator)
        hold = Surroundings(latents, noise, held, pin)
        tokens = self.tools.image_tokens(clip_pixels(motion[:, :, :1]))
        speech = self.features.windows(self.plan.speech_indices(window))
        sampled = self.tools.denoise(DubPass(condition, tokens, speech, hold, latents), noise)
        motion = self._written(window, sampled, crops, taken, write)
        return Start(motion, generator.get_state())

    def _written(
        self, window: DubWindow, latents: torch.Tensor, crops: torch.Tensor, taken: torch.Tensor, write: Write
    ) -> torch.Tensor:
        """Writes a window's frames; the last frames of its crop as they are in the video, [1, 3, n, H, W]."""
        length = self.plan.timing.motion
        done = first = max(min(window.new_start, window.new_stop - length), 0)
        last: list[torch.Tensor] = []
        shown, frames = window.first, self.footage.frames(window.first)
        pixels = None
        for piece in decoded(self.tools.decode, latents, first, window.new_stop):
            for made in piece[0].cpu().movedim(1, 0):
                footage = _signed(crops[done : done + 1])[0, :, 0]
                made = matched(made, footage, taken[done])
                last.append(footage + taken[done] * (made - footage))
                del last[:-length]
                picture = to_uint8(made[None, :, None])[0].numpy()
                number = window.start + done
                while shown < window.stop and self.plan.made_of(window, shown) == number:
                    pixels = next(frames, pixels)
                    pixels = self._last() if pixels is None else pixels
                    part, alpha = self.footage.taken(window.shot, shown)
                    placed = back(picture, self.footage.crop(window.shot, shown), part)
                    write(torch.from_numpy(put_back(pixels, placed, alpha, part))[None])
                    shown += 1
                done += 1
        return torch.stack(last, dim=1)[None].clone()

    def _last(self) -> np.ndarray:
        """The last frame of the footage that can be read."""
        for first in (max(0, self.plan.frames - 2 * round(self.plan.clock.rate)), 0):
            for pixels in deque(self.footage.frames(first), maxlen=1):
                return pixels.copy()
        raise InputError("The footage cannot be read any more: load it again.")


def _signed(crops: torch.Tensor) -> torch.Tensor:
    """uint8 [n, H, W, 3] as [1, 3, n, H, W] float32 in [-1, 1]."""
    return (crops.movedim(-1, 0)[None].float() / WHITE - 0.5) / 0.5


def _given(window: DubWindow, crops: torch.Tensor, motion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a window is shown, [1, 3, n, H, W] and grey elsewhere, and which of its frames these are: float32 [n]."""
    clip, given = torch.zeros(1, 3, *crops.shape[:3]), torch.zeros(len(crops))
    clip[:, :, window.given :] = _signed(crops[window.given :])
    clip[:, :, : window.motion] = motion
    given[window.given :] = given[: window.motion] = 1
    return clip, given


def _touched(taken: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Where latents [1, 16, T, h, w] have anything of the head or stand beside it: bool [1, 1, T, h, w].

    taken: of the video's frames, [F, H, W].
    """
    cells = F.adaptive_max_pool2d((taken > 0).float()[:, None], tuple(shape[-2:]))[:, 0]
    cells = torch.cat([cells[:1].expand(FRAMES_PER_LATENT - 1, -1, -1), cells])
    cells = cells.unflatten(0, (shape[2], FRAMES_PER_LATENT)).amax(dim=1)
    return F.max_pool2d(cells[:, None], 3, stride=1, padding=1)[:, 0][None, None] > 0
