"""Batches of one shape each, drawn from images and clips of several sizes and lengths together.

A batch of short, small clips holds more of them, so that every batch has about the same number of tokens.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ..skyreels_v3.recipes import PATCH_PIXELS, latent_frames

SIZES = ((96, 64), (64, 96), (80, 80), (128, 80), (160, 96))  # width, height: multiples of 16
LENGTHS = (1, 9, 17, 25, 33, 49)  # 4n + 1; 1 is an image
IMAGES = 0.2  # of the batches
TOKENS = 2048  # of a batch

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class Shape:
    """width, height: pixels.  frames: 4n + 1.  count: samples of the batch."""

    width: int
    height: int
    frames: int
    count: int

    @property
    def tokens(self) -> int:
        """Of one sample's video in the transformer."""
        return tokens_of(self.width, self.height, self.frames)


def tokens_of(width: int, height: int, frames: int) -> int:
    return latent_frames(frames) * (width // PATCH_PIXELS) * (height // PATCH_PIXELS)


def drawn_shape(rng: random.Random, images: float = IMAGES, budget: int = TOKENS) -> Shape:
    """The shape of a batch. images: the share of batches that are images.  budget: tokens of a batch."""
    width, height = rng.choice(SIZES)
    frames = 1 if rng.random() < images else rng.choice(LENGTHS[1:])
    return Shape(width, height, frames, max(1, budget // tokens_of(width, height, frames)))


def batches(
    make: Callable[[random.Random, int, tuple[int, int]], Sample], seed: int = 0, images: float = IMAGES, start: int = 0
) -> Iterator[tuple[Shape, list[Sample]]]:
    """Endless batches. make: rng, frames and (width, height) -> a sample, such as `reference_sample`.

    start: the number of the first batch; batch n is the same whether or not those before it were drawn, so that
    training goes on where it stopped.
    """
    number = start
    while True:
        rng = random.Random(f"{seed} {number}")
        shape = drawn_shape(rng, images)
        yield shape, [make(rng, shape.frames, (shape.width, shape.height)) for _ in range(shape.count)]
        number += 1
