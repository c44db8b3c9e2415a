"""Cache of the projections that are the same in every step of a sampling: of the prompt, the image and the speech."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

T = TypeVar("T", bound="torch.Tensor | tuple[torch.Tensor, ...]")
Cached = Callable[[Hashable, Callable[[], T]], T]  # (key, make) -> the value under the key, or that of make()
ENTRIES = 6  # conditionings of one step: with, without, and without image, for a batch in one or in turns


def uncached(key: Hashable, make: Callable[[], T]) -> T:
    """Makes every value anew."""
    return make()


@dataclass
class Entry:
    """The inputs of a forward, and what was made of them."""

    inputs: tuple[torch.Tensor | None, ...]
    values: dict = field(default_factory=dict)
    size: int = 0  # bytes of the values
    names: set[Hashable] = field(default_factory=set)


class StepCache:
    """Values made of a forward's inputs, for later forwards with equal inputs.

    limit: bytes that all values together may take; what does not fit is made anew each time. Inputs are compared by
    value, so a node that changes the prompt between steps gets what belongs to its prompt.
    doubt: a bool on the device, whether the inputs of the last forward are those that its name stood for before; None
    where that is known. To be looked at when the forward is done: the CPU need not wait for it before.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.entries: list[Entry] = []
        self.doubt: torch.Tensor | None = None
        self._changing: set[Hashable] = set()  # names that stood for several inputs

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(entry.size for entry in self.entries)

    def for_inputs(self, *inputs: torch.Tensor | None, name: Hashable = None) -> Cached:
        """cached(key, make) for a forward with these inputs: the value under the key, made by make() the first time.

        A value is a tensor or a tuple of tensors, and must not be written into. Within torch.compile all are made anew.
        name: of the inputs, from their second forward on `doubt` says whether they are still the same; where they are
        not, what the forward made is wrong, `mark_changing` is to be called, and it is to be made again.
        """
        self.doubt = None
        entry = None
        if name is not None and name not in self._changing:
            entry = next((one for one in self.entries if name in one.names and _alike(one.inputs, inputs)), None)
            self.doubt = None if entry is None else _compared(entry.inputs, inputs)
        if entry is None:
            entry = next((one for one in self.entries if _equal(one.inputs, inputs)), None)
        if entry is None:
            entry = Entry(inputs)
            self.entries = [*self.entries[1 - ENTRIES :], entry]
        entry.names.add(name)

        def cached(key: Hashable, make: Callable[[], T]) -> T:
            if torch.compiler.is_compiling():  # a graph is for every step: what it holds must not differ between them
                return make()
            if key in entry.values:
                return entry.values[key]
            value = make()
            size = sum(tensor.nbytes for tensor in (value if isinstance(value, tuple) else (value,)))
            if self.size + size <= self.limit:
                entry.values[key] = value
                entry.size += size
            return value

        return cached

    def mark_changing(self, name: Hashable) -> None:
        """From now on inputs of this name are looked at before they are taken for those of an earlier forward."""
        self._changing.add(name)


def _equal(first: tuple, second: tuple) -> bool:
    if not _alike(first, second):
        return False
    same = _compared(first, second)
    return same is None or bool(same)


def _compared(first: tuple, second: tuple) -> torch.Tensor | None:
    """A bool on the device, whether all are equal: one look, however many there are. None where there is nothing."""
    same = [torch.eq(a, b).all() for a, b in zip(first, second, strict=True) if a is not None]
    return torch.stack(same).all() if same else None


def _alike(first: tuple, second: tuple) -> bool:
    return [*map(_kind, first)] == [*map(_kind, second)]


def _kind(tensor: torch.Tensor | None) -> tuple | None:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.device)
