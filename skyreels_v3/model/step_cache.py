"""What follows from the prompt, the image and the speech alone, and so is the same in every step of a sampling."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import torch

T = TypeVar("T", bound="torch.Tensor | tuple[torch.Tensor, ...]")
Keep = Callable[[Hashable, Callable[[], T]], T]
ENTRIES = 6  # conditionings of one step: with, without, and without image, for a batch in one or in turns


def compute(key: Hashable, make: Callable[[], T]) -> T:
    """Keeps nothing."""
    return make()


@dataclass
class Entry:
    """The inputs of a forward, and what was made of them."""

    inputs: tuple[torch.Tensor | None, ...]
    values: dict = field(default_factory=dict)
    size: int = 0


class Kept:
    """Values made of a forward's inputs, handed out again to forwards with equal inputs.

    limit: bytes that all values together may take; what does not fit is made anew each time. The inputs are compared
    by their numbers, so a node that changes the prompt between steps gets what belongs to its prompt.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.entries: list[Entry] = []

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(entry.size for entry in self.entries)

    def of(self, *inputs: torch.Tensor | None) -> Keep:
        """keep(key, make) for a forward with these inputs: what is kept under a key, or make() for the first time.

        A value is a tensor or a tuple of them. Nobody may write into it.
        """
        entry = next((entry for entry in self.entries if _equal(entry.inputs, inputs)), None)
        if entry is None:
            entry = Entry(inputs)
            self.entries = [*self.entries[1 - ENTRIES :], entry]

        def keep(key: Hashable, make: Callable[[], T]) -> T:
            if key in entry.values:
                return entry.values[key]
            value = make()
            size = sum(tensor.nbytes for tensor in (value if isinstance(value, tuple) else (value,)))
            if self.size + size <= self.limit:
                entry.values[key] = value
                entry.size += size
            return value

        return keep


def _equal(first: tuple, second: tuple) -> bool:
    return len(first) == len(second) and all(_same(a, b) for a, b in zip(first, second, strict=True))


def _same(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
