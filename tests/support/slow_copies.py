"""A device for streaming.BlockStream that does everything as late, or as early, as its waits allow."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

POISON = 0xFF  # not a number in every float, and no code's usual value


class Trap(TorchDispatchMode):
    """To be entered around what computes. What is read without a wait for its copy is POISON, and so is what is copied
    over something that may still be read.

    late: whether a copy is only made when the computation waits for it, else at once.  pinned: of which tensors a copy
    leaves the host free.  log: ("copy", source) and whatever else is put in.  faults: copies over what was in use.
    """

    def __init__(self, late: bool = True, pinned=lambda source: True):
        super().__init__()
        self.late = late
        self.pinned = pinned
        self.log: list[tuple] = []
        self.faults = 0
        self.pending: list[tuple[int, torch.Tensor, torch.Tensor]] = []
        self.issued = 0  # copies
        self.operations = 0  # of the computation
        self.known = -1  # how many of these the copies have waited for
        self.read: dict[int, int] = {}  # address of a buffer -> the last operation that touched it
        self.taken = 0  # bytes of all buffers
        self.busy = False  # with what is not the computation
        self.waits = 0  # of the CPU

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if not self.busy and not _is_view(function):
            self.operations += 1
            for tensor in tree_leaves((args, kwargs or {})):
                if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" and _address(tensor) in self.read:
                    self.read[_address(tensor)] = self.operations
        return function(*args, **(kwargs or {}))

    @property
    def copies(self) -> list[torch.Tensor]:
        return [what for kind, what in self.log if kind == "copy"]

    def buffer(self, size: int) -> torch.Tensor:
        buffer = torch.full((size,), POISON, dtype=torch.uint8)
        self.taken += size
        self.read[_address(buffer)] = self.operations  # the computation used this memory for something else before
        return buffer

    def returns_at_once(self, source: torch.Tensor) -> bool:
        return self.pinned(source)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.log.append(("copy", source))
        self.issued += 1
        spoilt = self.known < self.read[_address(target)]
        self.faults += spoilt
        self._fill(target, POISON)
        if not spoilt:
            self.pending.append((self.issued, target, source))
        if not self.late:
            self._catch_up(self.issued)

    def copied(self) -> int:
        return self.issued

    def computed(self) -> int:
        return self.operations

    def compute_after(self, event: int) -> None:
        self._catch_up(event)

    def copy_after(self, event: int) -> None:
        self.known = max(self.known, event)

    def finish_copies(self) -> None:
        self.waits += 1
        self._catch_up(self.issued)

    def _catch_up(self, event: int) -> None:
        self.busy = True
        for _, target, source in (copy for copy in self.pending if copy[0] <= event):
            target.copy_(source)
        self.busy = False
        self.pending = [copy for copy in self.pending if copy[0] > event]

    def _fill(self, target: torch.Tensor, value: int) -> None:
        self.busy = True
        target.flatten().view(torch.uint8).fill_(value)
        self.busy = False


class HastyComputation(Trap):
    """Does not wait for copies."""

    def compute_after(self, event: int) -> None:
        pass


class HastyCopies(Trap):
    """Do not wait for the computation."""

    def copy_after(self, event: int) -> None:
        pass


def _is_view(function) -> bool:
    returned = function._schema.returns
    return bool(returned) and returned[0].alias_info is not None and not returned[0].alias_info.is_write


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
