"""The weights of blocks, of which each process of a group keeps an equal part of the bytes.

A block's weights come whole into one of two buffers while the block before computes, so that a card holds a part of the
model and two blocks, or two blocks alone where the parts are in RAM. Parts are of bytes, whatever the format, and all
of them together are the model once.
"""

import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..skyreels_v3.model.block_streaming import ALIGNMENT, OneQueue, TwoQueues, Weight
from ..skyreels_v3.model.memory import BLOCKS_AHEAD
from .ranks import Ranks

# Equal parts of all processes into one tensor; newer torch has another name for it.
gather = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor")  # noqa: B009
PAGE = 4096  # bytes that are pinned together
LEAST = 2**20  # bytes of a weight that is worth it; with less, every process has all of it


@dataclass(frozen=True)
class Splitting:
    """How weights are split.

    ranks: each of which keeps a part.  group: of torch.distributed, by which they come together; for nothing else, so
    that they do not wait for what blocks exchange.  in_ram: whether parts stay in RAM until a block runs.
    least: bytes of a weight that is split.
    """

    ranks: Ranks
    group: Any
    in_ram: bool = False
    least: int = LEAST

    def takes(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether a weight of a network is kept in parts."""
        return name.startswith("blocks.") and tensor.nbytes >= self.least

    def part_of(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """This process's part of a tensor's bytes, uint8, on `device` or in RAM; filled up, so that all are equal."""
        size = -(-tensor.nbytes // (self.ranks.size * ALIGNMENT)) * ALIGNMENT
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        own = content[self.ranks.rank * size : (self.ranks.rank + 1) * size]
        if self.in_ram:
            room = torch.zeros(size + PAGE, dtype=torch.uint8)
            part = room[-room.data_ptr() % PAGE :][:size]  # of pages of its own, which can be pinned
        else:
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
        self.blocks, self.group, self.device = blocks, splitting.group, device
        self.rank, self.size, self.in_ram = splitting.ranks.rank, splitting.ranks.size, splitting.in_ram
        self.queues = OneQueue(device)
        if self.in_ram and device.type == "cuda":
            self.queues = TwoQueues(device)
            parts = [part for block in blocks for _, part in block]
            weakref.finalize(self, _unpin, [part for part in parts if _pin(part, device)])
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
        if index in self.coming:
            return
        self.coming[index] = []
        if self.in_ram:
            self.queues.copy_after(self.queues.computed())  # until now the buffer had another block
        for place, (_, part) in zip(self._places(index), self.blocks[index]):
            own = part
            if self.in_ram:
                own = place[self.rank * len(part) : (self.rank + 1) * len(part)]
                self.queues.copy(own, part)
            with self.queues.copying():
                self.coming[index].append(gather(place, own, group=self.group, async_op=True))

    def _places(self, index: int) -> list[torch.Tensor]:
        sizes = [len(part) * self.size for _, part in self.blocks[index]]
        return list(self.buffers[index % BLOCKS_AHEAD][: sum(sizes)].split(sizes))


def _pin(part: torch.Tensor, device: torch.device) -> bool:
    """Lets a card read a tensor in RAM by itself; False where it may not, and the processor reads it out.

    torch's own pinned memory takes up to twice as much: it is given out in powers of two.
    """
    cudart: Any = torch.cuda.cudart()
    if int(cudart.cudaHostRegister(part.data_ptr(), part.nbytes, 1)) == 0:
        return True
    with suppress(RuntimeError):  # which the next call would be told of
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
    return False


def _unpin(parts: Sequence[torch.Tensor]) -> None:
    cudart: Any = torch.cuda.cudart()
    for part in parts:
        cudart.cudaHostUnregister(part.data_ptr())
