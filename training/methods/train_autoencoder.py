"""Trains the autoencoder on the drawn world: on single frames, which is fast, then on short clips, then on longer ones.

Losses: error of the frames, absolute and squared, and of their edges. The latents' noise of training is what makes
near latents decode to near pictures, as a diffusion model needs; they are held at a deviation of one by dividing by
their own.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ...kernels.half_precision import in_hardware
from ..data.clips import COUNTS, read_chunk
from ..models.autoencoder import Autoencoder
from .optimiser import Optimiser
from .resumable import extra_of, run

NOISE = 0.1  # added to latents of deviation one
SIDE = 48  # pixels of a crop


class Stage(NamedTuple):
    """crops: of a batch.  frames: of a crop, 4n + 1, drawn for each batch.  rate: of learning, falling."""

    name: str
    crops: int
    frames: tuple[int, ...]
    rate: float
    steps: int


STAGES = (
    Stage("images", 8, (1,), 0.02, 1500),
    Stage("clips", 2, (5,), 0.01, 3000),
    # What a convolution over time hands on piles up: only long clips show it.
    Stage("long", 1, (9, 17, 33), 0.005, 600),
)
FOLLOW = 0.05  # of the latents' running mean and deviation towards a batch's
CLIPS_KEPT, FROM_THEM = 144, 300  # clips in memory, and batches until others are read


def crops(folder: Path, chunks: int, stage: Stage) -> Iterator[torch.Tensor]:
    """Endless crops [crops, 3, frames, SIDE, SIDE] of clips, in -1..1."""
    rng = random.Random(stage.name)
    while True:
        clips = []
        while len(clips) < CLIPS_KEPT:
            samples = read_chunk(folder, "world", rng.randrange(chunks))
            clips += [np.concatenate([sample.clip.prefix, sample.clip.frames]) for sample in samples]
        for _ in range(FROM_THEM):
            parts, frames = [], rng.choice(stage.frames)
            for clip in rng.sample(clips, stage.crops):
                t, y, x = (rng.randint(0, size - part) for size, part in zip(clip.shape, (frames, SIDE, SIDE)))
                parts.append(clip[t : t + frames, y : y + SIDE, x : x + SIDE])
            yield torch.from_numpy(np.stack(parts)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


class Level:
    """The latents' running mean and deviation per channel."""

    def __init__(self, mean: torch.Tensor | None = None, deviation: torch.Tensor | None = None):
        self.mean, self.deviation = mean, deviation

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """The latents at mean zero and deviation one."""
        mean, deviation = (f(latents.detach(), (0, 2, 3, 4), keepdim=True) for f in (torch.mean, torch.std))
        self.mean = mean if self.mean is None else self.mean.lerp(mean, FOLLOW)
        self.deviation = deviation if self.deviation is None else self.deviation.lerp(deviation, FOLLOW)
        return (latents - self.mean) / self.deviation


def losses_of(made: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    error = made - truth
    edges = sum(error.diff(dim=axis).abs().mean() for axis in (3, 4))
    squared = error.square().mean()
    return {"loss": error.abs().mean() + 2 * squared + edges / 2, "decibel": 10 * torch.log10(4 / squared.detach())}


def train(
    clips: Path, folder: Path, share: float = 1.0, chunks: int = COUNTS["world"], say: Callable[[str], None] = print
) -> Autoencoder:
    """Train, or go on, and return the autoencoder. folder: of the states.  share: of the steps."""
    torch.manual_seed(0)
    model, level = Autoencoder(), Level()
    for stage in STAGES:
        file = folder / f"autoencoder-{stage.name}.pt"
        level = Level(**(extra_of(file) or vars(level)))
        batches = crops(clips, chunks, stage)

        def loss_of(_: int, batches=batches, level=level) -> dict[str, torch.Tensor]:
            frames = next(batches)
            with torch.autocast("cpu", torch.bfloat16, enabled=in_hardware(torch.bfloat16)):
                latents = level(model.encode(frames).float())
                made = model.decode(latents + NOISE * torch.randn_like(latents)).float()
            return losses_of(made, frames)

        optimiser = Optimiser(model, stage.rate)
        steps, kept = int(stage.steps * share), lambda level=level: vars(level)
        run(file, model, optimiser, steps, loss_of, 0.6, kept, say=lambda s, n=stage.name: say(f"autoencoder {n} {s}"))
    model.standardise(level.mean.flatten(), level.deviation.flatten())
    return model.eval()
