"""One roll of a video extension: what the last frames become, and what the next roll starts from.

Source: single_shot_extension_pipeline.py and shot_switching_extension_pipeline.py of the official code. Where they
lose quality (hand-over in 8 bits) the better way is the default and `Settings.official` is theirs.

Frames are finished and handed on as they come out of the VAE, a few at a time and on the device where they lie: no
roll is ever held whole, only the tail for the next one is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...images.colour import ColourMatch
from ...images.convert import tail_to_signed, to_uint8
from ...recipes import LATENT_CHANNELS, PIXELS_PER_LATENT
from ...vae.frames import Decode, decoded
from .plan import LONGEST_PREFIX, RollPlan
from .script import CUT


@dataclass(frozen=True)
class Tools:
    """The encoder, the decoder and the sampler of a roll; latents are in model space, pixels in [-1, 1].

    encode: pixels [1, 3, 4n + 1, H, W] -> latents [1, 16, n + 1, h, w].
    decode: the way back, in pieces [1, 3, f, H, W] one after another, on any device.
    denoise: (roll, prefix latents [1, 16, P, h, w], noise [1, 16, T, h, w]) -> latents like the noise.
    """

    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Decode
    denoise: Callable[[RollPlan, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """seed: of every roll's noise, officially the same for all.  official: frames cut to 8 bits between rolls.

    colour_anchor: 0 to 1, how far each roll's colours are drawn back to the shot's first frame.
    """

    seed: int = 0
    official: bool = False
    colour_anchor: float = 0.0


@dataclass(frozen=True)
class Tail:
    """What the next roll needs of all that came before, in the form in which it can wait on disk.

    frames: the last frames [1, 3, up to 33, H, W], float16 in [-1, 1], or uint8 where the official way is asked for.
    anchor: the shot's first frame [1, 3, 1, H, W] alike.
    """

    frames: torch.Tensor
    anchor: torch.Tensor

    @classmethod
    def of_source(cls, frames: torch.Tensor) -> "Tail":
        """The start: the last frames of the source, uint8 [n, H, W, 3] at the run's size."""
        pixels = frames.permute(3, 0, 1, 2)[None]
        return cls(pixels, pixels[:, :, -1:])

    def tensors(self) -> dict[str, torch.Tensor]:
        """For the folder of a run; `Tail(**tensors)` is the way back, to the bit."""
        return {"frames": self.frames, "anchor": self.anchor}


def run_roll(
    roll: RollPlan, tail: Tail, tools: Tools, settings: Settings, write: Callable[[torch.Tensor], object]
) -> Tail:
    """Hands the roll's new frames to `write`, uint8 [n, H, W, 3], a few at a time. Returns the tail for the next roll.

    Raises InputError for NaN or infinite frames; some may have been written then.
    """
    prefix = tools.encode(tail_to_signed(tail.frames[:, :, -roll.prefix_frames :]))
    height, width = tail.frames.shape[-2:]
    shape = (1, LATENT_CHANNELS, roll.latent_frames, height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(settings.seed))
    latents = tools.denoise(roll, prefix, noise)
    cut = roll.kind == CUT
    if not cut:  # a continued shot is decoded together with its prefix
        latents = torch.cat([prefix.to(latents), latents], dim=2)
    match = ColourMatch(tail_to_signed(tail.anchor), 0.0 if cut else settings.colour_anchor)
    # A prefix must not reach across a cut: the shot before it is another picture.
    anchors, history = ([], []) if cut else ([tail.anchor], [tail.frames])
    for pixels in decoded(tools.decode, latents, roll.new_start, roll.new_start + roll.new_frames, "roll"):
        pixels = match(pixels)
        # Half precision is 30 times finer than 8 bits, and half the disk of what waits there.
        kept = pixels.half()
        frames = to_uint8(pixels if settings.official else kept.float(), settings.official).cpu()
        write(frames)
        kept = frames.permute(3, 0, 1, 2)[None] if settings.official else kept.cpu()
        anchors = anchors or [kept[:, :, :1].clone()]
        history.append(kept)
        while sum(part.shape[2] for part in history[1:]) >= LONGEST_PREFIX:
            del history[0]
    frames = torch.cat([_like(part, history[-1]) for part in history], dim=2)
    return Tail(frames[:, :, -LONGEST_PREFIX:].clone(), anchors[0].clone())


def _like(pixels: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The source's 8-bit tail in the form of the roll's."""
    return pixels if pixels.dtype == other.dtype else tail_to_signed(pixels).to(other.dtype)
