"""A video in tiles that overlap and fade into each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .memory import Tiling, tile_side

Edges = tuple[int, int]


@dataclass(frozen=True)
class Tile:
    """A rectangle of the video, and how much it counts in each of its pixels."""

    rows: Edges  # [start, stop) in latent pixels
    columns: Edges
    share: torch.Tensor  # 0 to 1, [H, W] in pixels of the result
    scale: int  # pixels of the result to a latent one

    def cut(self, video: torch.Tensor, scale: int = 1) -> torch.Tensor:
        """The tile of a video [..., H, W] with `scale` pixels to a latent one; a view."""
        (top, bottom), (left, right) = self.rows, self.columns
        return video[..., top * scale : bottom * scale, left * scale : right * scale]

    def add(self, made: torch.Tensor, video: torch.Tensor) -> None:
        """Adds what was made of the tile to a video that began as zeros; both [..., H, W]."""
        self.cut(video, self.scale).add_(made * self.share)


def tiles(tiling: Tiling, scale: int = 1) -> Iterator[Tile]:
    """The tiles of a tiling, row after row; their shares add up to one everywhere.

    scale: pixels of what is made to a latent one, 8 when decoding.
    """
    rows, columns = edges(tiling.height, tiling.rows), edges(tiling.width, tiling.columns)
    for row, high in zip(rows, shares(rows, scale)):
        for column, wide in zip(columns, shares(columns, scale)):
            yield Tile(row, column, high[:, None] * wide, scale)


def edges(length: int, count: int) -> list[Edges]:
    """`count` tiles of one size over a length, evenly spaced."""
    size = tile_side(length, count)
    starts = [round(index * (length - size) / max(1, count - 1)) for index in range(count)]
    return [(start, start + size) for start in starts]


def shares(edges: Sequence[Edges], scale: int = 1) -> list[torch.Tensor]:
    """The share of each tile in its pixels, along one side: one, but falling to zero over overlaps."""
    edges = [(start * scale, stop * scale) for start, stop in edges]
    total = torch.zeros(edges[-1][1])
    raw = []
    for index, (start, stop) in enumerate(edges):
        place = torch.arange(start, stop) + 0.5
        share = torch.ones(stop - start)
        if index:
            share = share.minimum((place - start) / (edges[index - 1][1] - start))
        if index + 1 < len(edges):
            share = share.minimum((stop - place) / (stop - edges[index + 1][0]))
        raw.append(share)
        total[start:stop] += share
    return [share / total[start:stop] for share, (start, stop) in zip(raw, edges)]
