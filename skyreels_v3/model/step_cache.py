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


class StepCache:
    """Values made of a forward's inputs, for later forwards with equal inputs.

    limit: bytes that all values together may take; what does not fit is made anew each time. Inputs are compared by
    value, so a node that changes the prompt between steps gets what belongs to its prompt.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.entries: list[Entry] = []

    @property
    def size(self) -> int:
        """Bytes of all values."""
        return sum(entry.size for entry in self.entries)

    def for_inputs(self, *inputs: torch.Tensor | None) -> Cached:
        """cached(key, make) for a forward with these inputs: the value under the key, made by make() the first time.

        A value is a tensor or a tuple of tensors, and must not be written into. Within torch.compile all are made anew.
        """
        entry = next((entry for entry in self.entries if _equal(entry.inputs, inputs)), None)
        if entry is None:
            entry = Entry(inputs)
            self.entries = [*self.entries[1 - ENTRIES :], entry]

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


def _equal(first: tuple, second: tuple) -> bool:
    if [*map(_kind, first)] != [*map(_kind, second)]:
        return False
    # One look at the device, however many there are.
    same = [torch.eq(a, b).all() for a, b in zip(first, second, strict=True) if a is not None]
    return not same or bool(torch.stack(same).all())


def _kind(tensor: torch.Tensor | None) -> tuple | None:
    return None if tensor is None else (tensor.shape, tensor.dtype, tensor.device)
