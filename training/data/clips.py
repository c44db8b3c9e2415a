"""Rendering what the four jobs are trained on, once, into files: a run reads them many times.

    world     clips of 49 frames with references, from anywhere in a scene: reference, extension, autoencoder
    reference clips of 25 frames with references, from the beginning of a scene, where what the prompt says happens
    object    the same of an object, close
    shot      a prefix and the shot after the cut
    talk      windows of one or two people who speak

Chunk n of a kind is the same whether or not those before it were drawn; one that is there is not drawn again.
"""

import pickle
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..world.references import Reference, references
from ..world.samples import (
    AvatarSample,
    ExtensionSample,
    ReferenceSample,
    ShotSample,
    avatar_sample,
    extension_sample,
    object_sample,
    reference_sample,
    shot_sample,
)
from .files import whole

PER_CHUNK = 24  # samples, all of one size and length
# width, height and how often. Most are of the size that is measured; the others keep a model from knowing only it.
SIZES = {(96, 64): 8, (64, 96): 1, (80, 80): 1, (128, 80): 2}
REFERENCE_FRAMES = 25
TALK_FRAMES = {33: 6, 49: 1, 81: 1}  # and how often
CUT_FRAMES, CUT_PREFIXES = 49, (9, 9, 17, 25)  # 2 s, the shortest cut, and what of the past is given
PAIRS = 4  # of so many chunks one is of two people
COUNTS = {"world": 90, "reference": 96, "object": 32, "shot": 54, "talk": 64}  # chunks


@dataclass(frozen=True)
class WorldSample:
    """A clip that goes on (25 and 24 frames) and references to its scene."""

    clip: ExtensionSample
    references: tuple[Reference, ...]


def _drawn(rng: random.Random, chances: dict):
    return rng.choices(list(chances), list(chances.values()))[0]


def chunk_samples(
    kind: str, number: int
) -> list[WorldSample] | list[ReferenceSample] | list[ShotSample] | list[AvatarSample]:
    """The samples of a chunk: kind of COUNTS."""
    rng = random.Random(f"{kind} {number}")
    size = _drawn(rng, SIZES)
    if kind == "world":
        clips = [extension_sample(rng, size=size) for _ in range(PER_CHUNK)]
        return [WorldSample(clip, tuple(references(clip.scene, rng, size))) for clip in clips]
    if kind == "reference":
        return [reference_sample(rng, REFERENCE_FRAMES, size) for _ in range(PER_CHUNK)]
    if kind == "object":
        return [object_sample(rng, REFERENCE_FRAMES, size) for _ in range(PER_CHUNK)]
    if kind == "shot":
        prefix = rng.choice(CUT_PREFIXES)
        return [shot_sample(rng, CUT_FRAMES, prefix, size) for _ in range(PER_CHUNK)]
    people = 2 if number % PAIRS == PAIRS - 1 else 1
    frames = _drawn(rng, TALK_FRAMES)
    return [avatar_sample(rng, frames, people, size) for _ in range(PER_CHUNK * 33 // frames)]


def chunk_file(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}-{number:03}.pickle"


def write_chunk(folder: Path, task: tuple[str, int]) -> Path:
    path = chunk_file(folder, *task)
    if not path.exists():
        with whole(path) as unfinished:
            unfinished.write_bytes(pickle.dumps(chunk_samples(*task)))
    return path


def write_chunks(folder: Path, kinds: tuple[str, ...] = tuple(COUNTS), workers: int = 2) -> Iterator[Path]:
    """Draw every chunk of `kinds` into `folder`, in parallel, and say which one is there."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(kind, number) for kind in kinds for number in range(COUNTS[kind])]
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(partial(write_chunk, folder), tasks)


def read_chunk(folder: Path, kind: str, number: int) -> list:
    return pickle.loads(chunk_file(folder, kind, number).read_bytes())
