"""Weights that wait in RAM, copied to the device a block at a time while the block before computes.

Two buffers on the device take turns, each as large as the largest block's share of such weights. A device has a queue
that computes and a queue that copies; n counts the blocks that wait:

    copying     copy n     | copy n + 1, into the other buffer | copy n + 2, once block n has computed
    computing              | block n, once copy n is done      | block n + 1, once copy n + 1 is done

One queue waits for the other through events on the device, the CPU for none, unless a pass ends early. Weights
never change, so nothing is copied back: a block's parameters lie in the buffer while it runs, and are the waiting ones
again afterwards.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from .memory import BLOCKS_AHEAD

T = TypeVar("T")
ALIGNMENT = 256  # bytes; what kernels may expect of an address


class Weight(NamedTuple):
    """A parameter by its module and name, where it is replaced while a block runs."""

    module: nn.Module
    name: str

    @property
    def tensor(self) -> nn.Parameter:
        return self.module.get_parameter(self.name)

    def replace(self, tensor: nn.Parameter) -> None:
        # setattr would look through all that a module has.
        self.module._parameters[self.name] = tensor  # pyright: ignore[reportPrivateUsage]

    @property
    def size(self) -> int:
        """Bytes that it takes in a buffer."""
        return -(-self.tensor.numel() * self.tensor.element_size() // ALIGNMENT) * ALIGNMENT


class OneQueue:
    """A device that copies and computes in the order of the calls: whatever is waited for is done already.

    non_blocking: whether the CPU goes on while the device copies.
    """

    def __init__(self, device: torch.device, non_blocking: bool = False):
        self.device = device
        self.non_blocking = non_blocking

    def buffer(self, size: int) -> torch.Tensor:
        """`size` bytes on the device, taken and given back in the order of what computes."""
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def returns_at_once(self, source: torch.Tensor) -> bool:
        """Whether a copy of this tensor leaves the CPU free while it waits and runs."""
        return True

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        """Copies, behind all that the copying queue has to do."""
        target.copy_(source, non_blocking=self.non_blocking)

    def copying(self) -> AbstractContextManager[object]:
        """What others do with a device while it is open is behind all copies up to now, and copies are behind it."""
        return nullcontext()

    def copied(self) -> object:
        """An event: all copies up to now."""

    def computed(self) -> object:
        """An event: all computation up to now."""

    def compute_after(self, event: object) -> None:
        """What is computed from now on waits for an event."""

    def copy_after(self, event: object) -> None:
        """What is copied from now on waits for an event."""

    def finish_copies(self) -> None:
        """The CPU waits until all copies are done."""


class TwoQueues(OneQueue):
    """A device of CUDA, ROCm or oneAPI: copies run on a stream of their own."""

    def __init__(self, device: torch.device):
        super().__init__(device, non_blocking=True)
        self.backend = getattr(torch, device.type)
        self.stream = _copying_stream(device)

    def returns_at_once(self, source: torch.Tensor) -> bool:
        return source.is_pinned()  # else the driver holds the CPU until the copy is through

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        with self.copying():
            super().copy(target, source)

    def copying(self) -> AbstractContextManager[object]:
        return self.backend.stream(self.stream)

    def copied(self) -> object:
        return self.stream.record_event()

    def computed(self) -> object:
        return self.backend.current_stream(self.device).record_event()

    def compute_after(self, event) -> None:
        self.backend.current_stream(self.device).wait_event(event)

    def copy_after(self, event) -> None:
        self.stream.wait_event(event)

    def finish_copies(self) -> None:
        self.stream.synchronize()


@cache
def _copying_stream(device: torch.device):
    return getattr(torch, device.type).Stream(device=device)


class BlockStream:
    """Brings the waiting weights of each block to the device, in the order of the blocks; see `streamed`."""

    def __init__(self, blocks: Sequence[Sequence[Weight]], queues: OneQueue):
        self.queues = queues
        self.positions = {index: n for n, index in enumerate(index for index, waiting in enumerate(blocks) if waiting)}
        self.waiting = [blocks[index] for index in self.positions]
        self.buffers: list[torch.Tensor] = []
        self.free: list[object] = []  # of each buffer: when its last block has computed
        self.ready: list[object] = [None] * len(self.waiting)
        self.rest: list[tuple[torch.Tensor, torch.Tensor]] = []  # copies that have yet to be begun
        self.passed = False  # all blocks: then what computes has waited for every copy

    def open(self) -> None:
        """Takes the buffers and starts with the first block that waits."""
        size = max(sum(weight.size for weight in weights) for weights in self.waiting)
        self.buffers = [self.queues.buffer(size) for _ in self.waiting[:BLOCKS_AHEAD]]
        # The memory may have been computed in until now.
        self.free = [self.queues.computed()] * len(self.buffers)
        self._begin(0)
        self._complete(0)

    def close(self) -> None:
        """Gives the buffers back once nothing is copied any more, also in the middle of a block."""
        if self.buffers and not self.passed:
            self.queues.finish_copies()
        self.buffers, self.rest = [], []

    @contextmanager
    def block(self, index: int) -> Generator[None]:
        """A context in which the parameters of block `index` are on the device; entered in the order of the blocks."""
        if index not in self.positions:
            yield
            return
        n = self.positions[index]
        self._begin(n + 1)
        self.queues.compute_after(self.ready[n])
        with self._placed(n):
            yield
        self.free[n % BLOCKS_AHEAD] = self.queues.computed()
        self._complete(n + 1)
        self.passed = n + 1 == len(self.waiting)

    def wrap(self, run: Callable[..., T]) -> Callable[..., T]:
        """`run`, a Runtime's run_block, within `block`."""

        def run_block(index: int, *args) -> T:
            with self.block(index):
                return run(index, *args)

        return run_block

    def _begin(self, n: int) -> None:
        """Copies what does not hold up the CPU: before the block ahead of it computes, to lose no time."""
        if n == len(self.waiting):
            return
        self.queues.copy_after(self.free[n % BLOCKS_AHEAD])
        for weight, place in self._places(n):
            if self.queues.returns_at_once(weight.tensor):
                self.queues.copy(place, weight.tensor)
            else:
                self.rest.append((place, weight.tensor))

    def _complete(self, n: int) -> None:
        """Copies the rest: after the block ahead has been handed to the device, which is busy with it meanwhile."""
        if n == len(self.waiting):
            return
        for place, tensor in self.rest:
            self.queues.copy(place, tensor)
        self.rest = []
        self.ready[n] = self.queues.copied()

    def _places(self, n: int) -> Iterator[tuple[Weight, torch.Tensor]]:
        """The weights of the n-th waiting block, each with its place in the buffer."""
        buffer, start = self.buffers[n % BLOCKS_AHEAD], 0
        for weight in self.waiting[n]:
            tensor = weight.tensor
            place = buffer[start : start + tensor.numel() * tensor.element_size()]
            yield weight, place.view(tensor.dtype).view(tensor.shape)
            start += weight.size

    @contextmanager
    def _placed(self, n: int) -> Generator[None]:
        places = [(weight, weight.tensor, place) for weight, place in self._places(n)]
        try:
            for weight, _, place in places:
                weight.replace(nn.Parameter(place, requires_grad=False))
            yield
        finally:
            for weight, waiting, _ in places:
                weight.replace(waiting)


@contextmanager
def streamed(blocks: Sequence[Sequence[Weight]], queues: OneQueue) -> Generator[BlockStream]:
    """A BlockStream for one pass through all blocks; its buffers are given back at the end, whatever happens.

    blocks: of each block, the weights that wait in RAM; none for one that is on the device as a whole.
    """
    stream = BlockStream(blocks, queues)
    try:
        if stream.waiting:
            stream.open()
        yield stream
    finally:
        stream.close()
