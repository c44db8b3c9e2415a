"""The passes of a talking avatar: the key-frame pass, and one window after another that ends on its key frame.

Source: talking_avatar_pipeline.py of the official code. `Settings.official` cuts the video to 8 bits as it does.

Frames are finished and handed on as they come out of the VAE, a few at a time and on the device where they lie. What
of a window is dropped at its end is not decoded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...images.colour import ColourMatch
from ...images.convert import picture_to_signed, to_rgb8, to_uint8
from ...images.resize import cover_crop
from ...speech.company import Company, heard
from ...speech.features import SpeechFeatures
from ...vae.frames import Decode, decoded
from .condition import clip_pixels, window_condition
from .pinned import Pin
from .plan import AvatarPlan, WindowPlan

Write = Callable[[torch.Tensor], object]  # takes finished frames, uint8 [n, H, W, 3]


@dataclass(frozen=True)
class Pass:
    """What a pass is given besides its noise.

    condition: mask and image channels [1, 20, T, h, w].  tokens: of the CLIP image.  speech: [people, window frames,
    around, layers, width].  pin: to be applied before the first step and after every step, see `pinned_euler`; None
    where nothing is held.  speaker_ranges: of more than two people, see `SpeakerMap.of`; speech is then the ranges'.
    """

    plan: WindowPlan
    condition: torch.Tensor
    tokens: torch.Tensor
    speech: torch.Tensor
    pin: Pin | None
    speaker_ranges: torch.Tensor | None = None


@dataclass(frozen=True)
class Tools:
    """The encoders, the decoder and the sampler of a run; latents are in model space, pixels in [-1, 1].

    encode: pixels [1, 3, 4n + 1, H, W] -> latents [1, 16, n + 1, h, w].
    decode: the way back, in pieces [1, 3, f, H, W] one after another, on any device.
    image_tokens: [1, 3, 224, 224] from `clip_pixels` -> CLIP's hidden state before the last block [1, 257, 1280].
    denoise: (pass, noise [1, 16, T, h, w]) -> latents like the noise.
    """

    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Decode
    image_tokens: Callable[[torch.Tensor], torch.Tensor]
    denoise: Callable[[Pass, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """seed: of all noise.  colour_match: 0 to 1, how far every frame's colours are moved to the portrait's.

    official: the video is cut to 8 bits instead of rounded, which darkens it by half a step.
    """

    seed: int = 0
    colour_match: float = 1.0
    official: bool = False


@dataclass(frozen=True)
class Portrait:
    """pixels: [1, 3, 1, H, W] float32 in [-1, 1] at the run's size.  tokens: of its CLIP image."""

    pixels: torch.Tensor
    tokens: torch.Tensor

    @classmethod
    def of(cls, image: torch.Tensor | np.ndarray, plan: AvatarPlan, tools: Tools) -> "Portrait":
        """From a ComfyUI IMAGE. Both the key-frame pass and the first window see it: it is encoded once."""
        pixels = picture_to_signed(cover_crop(to_rgb8(image), plan.width, plan.height).copy())  # Pillow's is read-only
        return cls(pixels, tools.image_tokens(clip_pixels(pixels)))


@dataclass(frozen=True)
class Start:
    """What a window needs of all that came before, in the form in which it can wait on disk.

    motion: the last frames [1, 3, n, H, W] float32 in [-1, 1]; the portrait before the first window.
    generator: state of the noise, uint8 [n], so that a run can go on here and draw what it would have drawn.
    """

    motion: torch.Tensor
    generator: torch.Tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        """For the folder of a run; `Start(**tensors)` is the way back, to the bit."""
        return {"motion": self.motion, "generator": self.generator}


@dataclass(frozen=True)
class AvatarPasses:
    """All that the passes of one run have in common; each method makes one of them."""

    plan: AvatarPlan
    portrait: Portrait
    features: SpeechFeatures  # of plan.frames frames of speech
    tools: Tools
    settings: Settings
    company: Company | None = None  # of more than two people, see `heard`

    def first(self) -> Start:
        """What the key-frame pass starts from: the portrait, and the noise of the seed."""
        return Start(self.portrait.pixels, torch.Generator().manual_seed(self.settings.seed).get_state())

    def key_pass(self) -> tuple[dict[int, torch.Tensor], Start]:
        """The key-frame pass of a plan with windows: (their key frames, what the first window starts from).

        Each key frame [1, 3, 1, H, W], colours matched, by its number (WindowPlan.key_frame).
        """
        generator = torch.Generator().manual_seed(self.settings.seed)
        latents = self._sampled(self.plan.key_pass, self.portrait.pixels, self.portrait.tokens, None, generator)
        match = ColourMatch(self.portrait.pixels, self.settings.colour_match)
        wanted = {window.ends_on for window in self.plan.windows}
        frames, done = {}, 0
        for pixels in decoded(self.tools.decode, latents, stop=max(wanted) + 1):
            for number in sorted(wanted.intersection(range(done, done + pixels.shape[2]))):
                frames[number] = match(pixels[:, :, number - done : number - done + 1]).cpu()
            done += pixels.shape[2]
        return frames, Start(self.portrait.pixels, generator.get_state())

    def single(self, write: Write) -> Start:
        """The key-frame pass of a plan without windows, which is the whole video; see `window`."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        latents = self._sampled(self.plan.key_pass, self.portrait.pixels, self.portrait.tokens, None, generator)
        motion = self._written(self.plan.key_pass, latents, write)
        return Start(motion, generator.get_state())

    def window(self, window: WindowPlan, start: Start, key_frame: torch.Tensor, write: Write) -> Start:
        """Hands a window's new frames to `write`, uint8 [n, H, W, 3], a few at a time; what the next one starts from.

        start: from the window before, or from the key-frame pass.  key_frame: [1, 3, 1, H, W], see `key_pass`.
        After the last window, `motion` of what is returned are the video's last frames.
        Raises InputError for NaN or infinite frames; some may have been written then.
        """
        generator = torch.Generator()
        generator.set_state(start.generator)
        tokens = self.portrait.tokens
        if window.motion > 1:
            tokens = self.tools.image_tokens(clip_pixels(start.motion[:, :, :1]))
        latents = self._sampled(window, start.motion, tokens, key_frame, generator)
        motion = self._written(window, latents, write)
        return Start(motion, generator.get_state())

    def _sampled(
        self,
        window: WindowPlan,
        motion: torch.Tensor,
        tokens: torch.Tensor,
        key_frame: torch.Tensor | None,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Latents of a pass, [1, 16, T, h, w]."""
        noise = torch.randn(self.plan.latent_shape, generator=generator)
        condition = window_condition(window, self.plan.timing.window, motion, key_frame, self.tools.encode)
        pin = None
        if window.motion > 1:
            pin = Pin(condition[:, -noise.shape[1] :, : window.motion_latents], generator)
        speech, ranges = heard(self.features, self.company, self.plan.speech_indices(window))
        return self.tools.denoise(Pass(window, condition, tokens, speech, pin, ranges), noise)

    def _written(self, window: WindowPlan, latents: torch.Tensor, write: Write) -> torch.Tensor:
        """Writes the new frames of a window; its last frames, [1, 3, n, H, W] on the CPU."""
        match = ColourMatch(self.portrait.pixels, self.settings.colour_match)
        motion = self.plan.timing.motion
        # The frames before the new ones were shown by the window before; the motion may reach back into them.
        held = min(window.new_start, window.new_stop - motion)
        last: list[torch.Tensor] = []  # one, from the first frames on
        done = max(held, 0)
        for pixels in decoded(self.tools.decode, latents, done, window.new_stop):
            made = match(pixels)
            new = made[:, :, max(0, window.new_start - done) :]
            done += made.shape[2]
            if new.shape[2]:
                write(finish(new, self.settings).cpu())
            shown = torch.cat([*last, made], dim=2) if last else made
            last = [shown[:, :, -motion:]]
        return last[0].cpu().clone()


def finish(frames: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Frames of the video, uint8 [F, H, W, 3], of [1, 3, F, H, W] in [-1, 1]."""
    return to_uint8(frames, settings.official)
