"""The weights of blocks, of which each process of a group keeps an equal part of the bytes.

A block's weights come whole into one of two buffers while the block before computes, so that a card holds a part of the
model and two blocks. Parts are of bytes, whatever the format, and all of them together are the model once.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..skyreels_v3.model.block_streaming import ALIGNMENT, Weight
from ..skyreels_v3.model.memory import BLOCKS_AHEAD
from .ranks import Ranks

# Equal parts of all processes into one tensor; newer torch has another name for it.
gather = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor")  # noqa: B009
LEAST = 2**20  # bytes of a weight that is worth it; with less, every process has all of it


@dataclass(frozen=True)
class Splitting:
    """How weights are split.

    ranks: each of which keeps a part.  group: of torch.distributed, by which they come together; for nothing else, so
    that they do not wait for what blocks exchange.  least: bytes of a weight that is split.
    """

    ranks: Ranks
    group: Any
    least: int = LEAST

    def takes(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether a weight of a network is kept in parts."""
        return name.startswith("blocks.") and tensor.nbytes >= self.least

    def part_of(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """This process's part of a tensor's bytes, uint8 on `device`; the last ones are filled up: all are equal."""
        size = -(-tensor.nbytes // (self.ranks.size * ALIGNMENT)) * ALIGNMENT
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        own = content[self.ranks.rank * size : (self.ranks.rank + 1) * size]
        part = torch.zeros(size, dtype=torch.uint8, device=device)
        part[: len(own)] = own
        return part


def stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """One number in the shape of a tensor: what a network is filled with in its place."""
    return torch.zeros(tensor.element_size(), dtype=torch.uint8).view(tensor.dtype).expand(tensor.shape)


class SplitBlocks:
    """Brings the split weights of each block together, in the order of the blocks; all processes at the same time.

    blocks: of each block, its split weights and this process's part of each.
    """

    def __init__(
        self, blocks: Sequence[Sequence[tuple[Weight, torch.Tensor]]], splitting: Splitting, device: torch.device
    ):
        self.blocks, self.size, self.group, self.device = blocks, splitting.ranks.size, splitting.group, device
        self.buffers: list[torch.Tensor] = []
        self.coming: dict[int, list[Any]] = {}

    def open(self) -> None:
        """Takes the buffers; to be called before the first block of a forward."""
        largest = max(sum(len(part) for _, part in block) for block in self.blocks) * self.size
        self.buffers = [torch.empty(largest, dtype=torch.uint8, device=self.device) for _ in range(BLOCKS_AHEAD)]

    def close(self) -> None:
        """Gives the buffers back, once nothing comes any more."""
        for works in self.coming.values():
            for work in works:
                work.wait()
        self.buffers, self.coming = [], {}

    @contextmanager
    def block(self, index: int, ahead: bool = True) -> Generator[None]:
        """A context in which the weights of a block are there. ahead: whether the next block comes meanwhile."""
        self._begin(index)
        for work in self.coming.pop(index):
            work.wait()
        if ahead and index + 1 < len(self.blocks):
            self._begin(index + 1)
        away = [(weight, weight.tensor) for weight, _ in self.blocks[index]]
        try:
            for (weight, empty), place in zip(away, self._places(index)):
                whole = place[: empty.numel() * empty.element_size()].view(empty.dtype).view(empty.shape)
                weight.replace(nn.Parameter(whole, requires_grad=False))
            yield
        finally:
            for weight, empty in away:
                weight.replace(empty)

    def _begin(self, index: int) -> None:
        if index not in self.coming:
            parts = [part for _, part in self.blocks[index]]
            self.coming[index] = [
                gather(place, part, group=self.group, async_op=True) for place, part in zip(self._places(index), parts)
            ]

    def _places(self, index: int) -> list[torch.Tensor]:
        sizes = [len(part) * self.size for _, part in self.blocks[index]]
        return list(self.buffers[index % BLOCKS_AHEAD][: sum(sizes)].split(sizes))
