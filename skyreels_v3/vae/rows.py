"""Rows of a picture, of which every process of a group holds some and sees one of each neighbour's."""

import torch
import torch.nn.functional as F

from ...distributed.ranks import ALONE, Ranks, split


class Rows:
    """The rows that this process holds of pictures that are `height` rows high, or a multiple of it.

    All processes hold one at least, so `height` is no less than their number.  Alone it holds all of them.
    """

    def __init__(self, ranks: Ranks = ALONE, height: int = 1):
        self.ranks = ranks
        ranges = split(slice(0, height), ranks.size)
        self.held = ranges[ranks.rank]
        self.counts = [held.stop - held.start for held in ranges]
        self.edge = int(ranks.size > 1)  # rows of each neighbour that a convolution of 3 x 3 needs

    def fill(self, x: torch.Tensor) -> None:
        """Writes the neighbours' nearest rows into the first and the last of x [..., H, W], which lie around the own.

        Beyond the picture's edges they become zeros.
        """
        if not self.edge:
            return
        sides = [
            (self.ranks.rank - 1, x[..., :1, :], x[..., 1:2, :]),
            (self.ranks.rank + 1, x[..., -1:, :], x[..., -2:-1, :]),
        ]
        numbers, given = [0] * self.ranks.size, []
        for neighbour, beyond, own in sides:
            if 0 <= neighbour < self.ranks.size:
                numbers[neighbour] = own.numel()
                given.append(own.reshape(-1))
            else:
                beyond.zero_()
        taken = self.ranks.exchanged(torch.cat(given), numbers, numbers).split([len(one) for one in given])
        there = [beyond for neighbour, beyond, _ in sides if 0 <= neighbour < self.ranks.size]
        for beyond, row in zip(there, taken, strict=True):
            beyond.copy_(row.view(beyond.shape))

    def around(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., H, W] between its neighbours' rows, [..., H + 2, W]; itself where there are none."""
        if not self.edge:
            return x
        wide = F.pad(x, (0, 0, 1, 1))
        self.fill(wide)
        return wide

    def own(self, x: torch.Tensor, edge: int) -> torch.Tensor:
        """x without `edge` rows at both ends, a view."""
        return x[..., edge : x.shape[-2] - edge, :]

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """All rows of pictures [..., h, w] that are `height` rows high."""
        return self.ranks.gathered(x, self.counts, dim=-2)
