"""How many bytes the Wan VAE needs to encode and decode, and how a video is tiled so that they suffice.

All from sizes, as `causal` runs it: every convolution in time keeps the two frames before its own, and the last
(when encoding: the first) stage, where frames have their full size, holds the most at once.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from ..recipes import FRAMES_PER_LATENT, LATENT_CHANNELS, PIXELS_PER_LATENT
from .causal import PAST

PIXEL_CHANNELS = 3
STAGES = (64, 16, 4, 1)  # areas of the stages, in latent pixels, from the full size down
OVERLAP = 8  # latent pixels that neighbouring tiles share: 64 pixels, in which one fades into the other
SMALLEST = 24  # latent pixels of a tile's side
MOST = 12  # tiles along a side
# Copies that a convolution makes where it unfolds its input, in frames of full size and `channels`: for each number of
# its kernel one of the widest input there. Decoding, that is the upsampled frame with twice the channels; encoding, a
# residual's, beside two results.
UNFOLDED = 9 * 2, 9 + 2
# What a convolution takes for itself, and what allocators lose between blocks. Not measured on a card yet.
WORKSPACE, MARGIN = 256 * 2**20, 1.1


class Direction(Enum):
    ENCODE = "encode"
    DECODE = "decode"


@dataclass(frozen=True)
class Tiling:
    """How a video is encoded or decoded: in one tile or several, with more or fewer frames at once."""

    height: int  # of the video, latent pixels
    width: int
    rows: int  # of tiles
    columns: int
    at_once: int  # frames of full size in a layer at a time: 4, 2 or 1
    bytes: int  # needed beside the weights

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of the largest tile, latent pixels."""
        return tile_side(self.height, self.rows), tile_side(self.width, self.columns)

    @property
    def whole(self) -> bool:
        return self.rows == self.columns == 1

    def describe(self) -> str:
        """How many tiles and how large, ` in 1 x 2 tiles of 704 x 720`; empty for one tile."""
        height, width = self.tile
        size = f"{width * PIXELS_PER_LATENT} x {height * PIXELS_PER_LATENT}"
        return "" if self.whole else f" in {self.columns} x {self.rows} tiles of {size}"


def tile_side(length: int, count: int) -> int:
    """The side of `count` tiles of one size that cover a length, all in latent pixels."""
    return math.ceil((length + (count - 1) * OVERLAP) / count)


def vae_bytes(
    direction: Direction,
    height: int,
    width: int,
    channels: int,
    itemsize: int,
    at_once: int = FRAMES_PER_LATENT,
    unfolds: bool = False,
) -> int:
    """Peak of all tensors on the device while a video of any length is encoded or decoded.

    height, width: latent pixels.  channels: of the network's widest pictures (96 in Wan 2.1).  itemsize: bytes of a
    number.  at_once: frames of full size in a layer at a time.  unfolds: see `causal.unfolds`.
    """
    # Channels over all convolutions with a cache, by stage: of the picture itself, then in units of `channels`.
    if direction is Direction.DECODE:
        cached = (0, 7), (0, 12), (0, 26), (LATENT_CHANNELS, 44)
        # Frames of the stage before, half as large, that wait while the last stage works on some of them.
        waiting = {4: 0.0, 2: 2.0, 1: 1.25}[at_once]
    else:
        cached = (PIXEL_CHANNELS, 4), (0, 7), (0, 16), (0, 40)
        waiting = PIXEL_CHANNELS / channels * at_once
    area = height * width
    past = PAST * area * sum(s * (extra + units * channels) for s, (extra, units) in zip(STAGES, cached))
    frame = area * STAGES[0] * channels
    # A residual block: its input, what the convolution reads with its past, and the result.
    working = frame * (3 * at_once + PAST + waiting)
    if unfolds:
        working += frame * UNFOLDED[direction is Direction.ENCODE]
    attention = area**2  # where no kernel does without the whole matrix; full frames wait then
    return int((past + max(working, attention)) * itemsize)


def needed(tensors: int) -> int:
    """`vae_bytes` with what comes on top of the tensors."""
    return int(MARGIN * tensors) + WORKSPACE


def tilings(
    direction: Direction, height: int, width: int, channels: int, itemsize: int, unfolds: bool = False
) -> Iterator[Tiling]:
    """Every tiling of a video, the best first: whole, then as few and as large tiles as possible; more frames at once
    before fewer."""
    grids = [
        (rows, columns)
        for rows in range(1, MOST + 1)
        for columns in range(1, MOST + 1)
        if (rows == 1 or tile_side(height, rows) >= SMALLEST)
        and (columns == 1 or tile_side(width, columns) >= SMALLEST)
    ]

    def work(grid: tuple[int, int]) -> int:
        return grid[0] * tile_side(height, grid[0]) * grid[1] * tile_side(width, grid[1])

    for rows, columns in sorted(grids, key=lambda grid: (work(grid), grid)):
        tile = tile_side(height, rows), tile_side(width, columns)
        for at_once in (4, 2, 1):
            size = needed(vae_bytes(direction, *tile, channels, itemsize, at_once, unfolds))
            yield Tiling(height, width, rows, columns, at_once, size)


def choose(budget: int, tilings: Callable[[], Iterator[Tiling]]) -> Tiling:
    """The first tiling within a budget of bytes; the one that needs least where none is."""
    return next((tiling for tiling in tilings() if tiling.bytes <= budget), None) or min(
        tilings(), key=lambda tiling: tiling.bytes
    )


def smaller(than: Tiling, tilings: Callable[[], Iterator[Tiling]]) -> Tiling | None:
    """The first tiling that needs at most two thirds of another's memory, or the least; None where that one is it."""
    tiling = choose(than.bytes * 2 // 3, tilings)
    return tiling if tiling.bytes < than.bytes else None
