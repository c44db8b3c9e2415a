"""The four jobs as a transformer learns them: batches of clean latents and all that is given beside them.

What a model is told is varied as it will be when it is used: prompts in several phrasings, often without names, so that
who it is comes from the pictures; empty reference slots, silence and an empty prompt now and then, so that guidance has
something to lean on; images and clips of several lengths; prefixes of several lengths.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ...skyreels_v3.model.sequence import (
    Segment,
    avatar_segments,
    extension_segments,
    reference_segments,
    shot_segments,
)
from ...skyreels_v3.recipes import Job
from ...skyreels_v3.speech.features import AROUND, around_frames
from ..models.network import Speech, Text, text_of
from ..models.text_encoder import encode
from ..world.prompts import PHRASINGS, write

TOKENS = 4800  # of a batch, about
UNNAMED = 0.7  # of the reference job's prompts
EMPTY = 0.1  # of the prompts, and of the references, and of the speech
LOOK_AGAIN = 200  # batches until the folder is looked at again
IMAGES = 0.15  # of the reference job's batches: who is who is learnt from many more of them in the same time
# Kinds of clips that the reference job's batches are of: how often, and latent frames.
REFERENCE_KINDS = {"reference": (0.5, (7,)), "object": (0.3, (7,)), "world": (0.2, (7, 13))}
CHUNKS_OF = {
    Job.REFERENCE: tuple(REFERENCE_KINDS),
    Job.EXTENSION: ("world",),
    Job.SHOT: ("shot",),
    Job.AVATAR: ("talk",),
}  # kinds of data/clips.py


@dataclass(frozen=True)
class Batch:
    """clean: latents [B, 16, T, h, w] that are to be made.  segments: noisy latents like them -> the sequence.

    unseen: the same without references, None where there are none.  past: of an extension, [B, 16, P, h, w].
    """

    clean: Tensor
    segments: Callable[[Tensor], list[Segment]]
    text: Text
    image: Tensor | None = None
    speech: Speech | None = None
    unseen: Callable[[Tensor], list[Segment]] | None = None
    past: Tensor | None = None

    def untold(self) -> "Batch":
        """The same without prompt and references and in silence: what guidance leads away from."""
        text = text_of(encode([""]) * len(self.clean))
        speech = self.speech and replace(self.speech, windows=torch.zeros_like(self.speech.windows))
        return replace(self, text=text, speech=speech, segments=self.unseen or self.segments)


class Library:
    """Chunks of latents in memory. folder: of their files, those that come later included.  kinds: of CHUNKS_OF."""

    def __init__(self, folder: Path, kinds: Collection[str]):
        self.folder, self.draws = folder, 0
        self.chunks: dict[str, dict[Path, dict]] = {kind: {} for kind in kinds}

    def draw(self, kind: str, rng: random.Random, tokens: Callable[[dict], int]) -> tuple[dict, list[int]]:
        """A chunk and which of its samples, as many as a batch holds. tokens: of one sample of a chunk."""
        if self.draws % LOOK_AGAIN == 0:
            self._look()
        self.draws += 1
        chunk = rng.choice(list(self.chunks[kind].values()))
        count = max(1, min(len(chunk["told"]), TOKENS // tokens(chunk)))
        return chunk, rng.sample(range(len(chunk["told"])), count)

    def _look(self) -> None:
        for kind, chunks in self.chunks.items():
            for file in sorted(self.folder.glob(f"{kind}-*.pt")):
                if file not in chunks:
                    chunks[file] = torch.load(file, weights_only=False)


def _plane(chunk: dict) -> int:
    """Tokens of a latent frame."""
    return chunk["video"].shape[3] * chunk["video"].shape[4] // 4


def _texts(prompts: list[str], rng: random.Random) -> Text:
    return text_of(encode(["" if rng.random() < EMPTY else prompt for prompt in prompts]))


def _picked(tensor: Tensor, chosen: list[int]) -> Tensor:
    return tensor[chosen].float()


def reference_batch(library: Library, rng: random.Random) -> Batch:
    kind = rng.choices(list(REFERENCE_KINDS), [share for share, _ in REFERENCE_KINDS.values()])[0]
    lengths = REFERENCE_KINDS[kind][1]
    frames = 1 if rng.random() < IMAGES else rng.choice(lengths)
    chunk, chosen = library.draw(kind, rng, lambda chunk: (frames + 4) * _plane(chunk))
    references = _picked(chunk["references"], chosen)
    prompts = []
    for row, i in enumerate(chosen):
        scene, shown = chunk["told"][i]
        unnamed = {name for _, name in shown} if rng.random() < UNNAMED else set()
        if rng.random() < 2 * EMPTY:
            references[row] = 0
            unnamed = set()
        is_told = references[row].any() or rng.random() < 0.5
        prompts.append(write(scene, rng.randrange(PHRASINGS), unnamed=unnamed) if is_told else "")
    # Reference slots stand in the time axis: [B, 16, 4, h, w].
    slots = references.transpose(1, 2)
    return Batch(
        _picked(chunk["video"], chosen)[:, :, :frames],
        lambda noisy: reference_segments(noisy, slots),
        _texts(prompts, rng),
        unseen=lambda noisy: reference_segments(noisy, torch.zeros_like(slots)),
    )


def extension_batch(library: Library, rng: random.Random) -> Batch:
    before = rng.choice((7, 7, 7, 7, 5, 3, 1))
    new = rng.choice((6, 13 - before))
    chunk, chosen = library.draw("world", rng, lambda chunk: (before + new) * _plane(chunk))
    video = _picked(chunk["video"], chosen)
    prompts = [write(chunk["told"][i][0], rng.randrange(PHRASINGS)) for i in chosen]
    return going_on(video[:, :, before : before + new], video[:, :, :before], _texts(prompts, rng))


def going_on(clean: Tensor, past: Tensor, text: Text) -> Batch:
    """An extension of `past` [B, 16, P, h, w]."""
    return Batch(clean, lambda noisy: extension_segments(noisy, past), text, past=past)


def shot_batch(library: Library, rng: random.Random) -> Batch:
    frames = rng.choice((13, 13, 7))
    chunk, chosen = library.draw("shot", rng, lambda chunk: (frames + chunk["prefix"].shape[2]) * _plane(chunk))
    prefix = _picked(chunk["prefix"], chosen)
    told = [chunk["told"][i] for i in chosen]
    prompts = [write(scene, rng.randrange(PHRASINGS), cut) for scene, cut in told]
    return Batch(
        _picked(chunk["video"], chosen)[:, :, :frames],
        lambda noisy: shot_segments(noisy, prefix),
        _texts(prompts, rng),
    )


def avatar_batch(library: Library, rng: random.Random) -> Batch:
    chunk, chosen = library.draw("talk", rng, lambda chunk: chunk["video"].shape[2] * _plane(chunk))
    video, condition = _picked(chunk["video"], chosen), _picked(chunk["condition"], chosen)
    features = _picked(chunk["speech"], chosen)  # [B, people, F, layers, width]
    people, frames = features.shape[1:3]
    around = around_frames(0, frames, frames, AROUND)
    windows = features.flatten(0, 1)[:, around]
    silent = torch.rand(len(chosen), generator=torch.Generator().manual_seed(rng.randrange(1 << 30))) < EMPTY
    windows[silent.repeat_interleave(people)] = 0
    prompts = [write(chunk["told"][i][0], rng.randrange(PHRASINGS)) for i in chosen]
    return Batch(
        video,
        lambda noisy: avatar_segments(noisy, condition),
        _texts(prompts, rng),
        _picked(chunk["image"], chosen),
        Speech(windows, people, _picked(chunk["masks"], chosen) if people > 1 else None),
    )


BATCHES: dict[Job, Callable[[Library, random.Random], Batch]] = {
    Job.REFERENCE: reference_batch,
    Job.EXTENSION: extension_batch,
    Job.SHOT: shot_batch,
    Job.AVATAR: avatar_batch,
}
