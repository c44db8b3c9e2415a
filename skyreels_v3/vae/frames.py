"""Frames as they come out of the VAE: only those that are needed, checked and in range."""

from collections.abc import Callable, Iterable, Iterator

import torch

from ..errors import InputError
from ..recipes import FRAMES_PER_LATENT

Decode = Callable[[torch.Tensor], Iterable[torch.Tensor]]


def decoded(
    decode: Decode, latents: torch.Tensor, start: int = 0, stop: int | None = None, what: str = "window"
) -> Iterator[torch.Tensor]:
    """The frames [start, stop) of latents [1, 16, T, h, w] in pieces [1, 3, f, H, W], float32 in [-1, 1].

    The VAE is causal: what comes after `stop` changes nothing and is not decoded. What comes before `start` is decoded,
    since all later frames depend on it.  decode: see the jobs' Tools.  what: the word for a pass in the error.
    Raises InputError for NaN or infinite frames.
    """
    if stop is not None:
        # After the first frame every latent frame makes four; one of them needs the whole latent frame.
        latents = latents[:, :, : 1 + -(-(stop - 1) // FRAMES_PER_LATENT)]
    done = 0
    for piece in decode(latents):
        frames = piece.shape[2]
        first, last = max(start - done, 0), frames if stop is None else min(stop - done, frames)
        done += frames
        if first < last:
            pixels = piece[:, :, first:last].float().clamp(-1, 1)
            if not torch.isfinite(pixels).all():
                raise InputError(
                    f"The {what} came out as no numbers (NaN or infinity): load the model in another precision, or "
                    f"choose another attention; the {what}s before it are kept."
                )
            yield pixels
