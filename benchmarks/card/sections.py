"""What `make card` measures, in the order of what it decides."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# Of the machine: what two results must share to be put together.
IDENTITY = ("card", "driver", "torch", "triton", "commit")


@dataclass(frozen=True)
class Section:
    """name: of the module and, behind a colon, of its function.  title: on the page.  seconds: its time."""

    name: str
    title: str
    seconds: float
    where: str

    def load(self) -> Callable[[Any], Iterator[dict[str, object]]]:
        module, function = self.where.split(":")
        return getattr(importlib.import_module(f"pack.benchmarks.card.{module}"), function)


@dataclass(frozen=True)
class Comparison:
    """A benchmark of benchmarks/run.py. least, most: seconds that it wants, and after which it is ended.  room: GiB of
    the card that it needs.
    """

    name: str
    least: float
    most: float
    room: float


MACHINE = Section("machine", "Machine", 60, "machine:machine")
SECTIONS = (
    Section("operations", "Kernels beside their eager references", 110, "operations:operations"),
    Section("fp8_products", "fp8 products", 20, "products:fp8_products"),
    Section("int8_tiles", "int8 products by tile", 50, "products:int8_tiles"),
    Section("attentions", "Attention of 10 heads", 50, "attentions:attentions"),
    Section("blocks", "One block", 75, "blocks:blocks"),
    Section("transfers", "Copies to the card", 12, "transfers:transfers"),
    Section("pictures", "VAE, 13 frames", 45, "pictures:pictures"),
)
# What time is left goes to these, beside the code of others.
COMPARISONS = (
    Comparison("kernels", 20, 60, 10),
    Comparison("block", 60, 150, 30),
    Comparison("attention", 45, 120, 14),
    Comparison("forward", 120, 330, 45),
)
