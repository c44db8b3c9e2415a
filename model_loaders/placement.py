"""Whether what loading a model makes is kept in RAM or in a file: from what the machine has, before it is made."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import torch

from ..formats.kinds import KINDS, Precision
from ..skyreels_v3.units import GB, gb
from .architecture.params import expected_shapes
from .checkpoints.checkpoint import Checkpoint
from .tensors.file_tensors import DTYPES
from .tensors.precision import encoding_of, stays_float32

WORKING = 6 * GB  # the system, ComfyUI, and the frames that a graph passes on
TEXT_ENCODER = int(6.7 * GB)  # umt5_xxl in fp8, which ComfyUI keeps in RAM beside the models
LEAST = GB  # less is never worth a file
DISK_LEFT = 10 * GB  # room for the videos, and for the system


@dataclass(frozen=True)
class Memory:
    """What there is now, in bytes. disk_free: where the file would be; 0 where there can be none."""

    ram: int
    ram_free: int
    disk_free: int


def copied_bytes(checkpoint: Checkpoint, precision: Precision, dtype: torch.dtype) -> int:
    """Bytes that loading a checkpoint makes, because its files do not have them: packed, unpacked or cast weights.

    dtype: of those that are plain numbers.
    """
    return sum(size for lies_there, size in _sizes(checkpoint, precision, dtype) if not lies_there)


def weight_bytes(checkpoint: Checkpoint, precision: Precision, dtype: torch.dtype) -> int:
    """Bytes of the weights that loading a checkpoint gives, about. precision, dtype: as for copied_bytes."""
    return sum(size for _, size in _sizes(checkpoint, precision, dtype))


def _sizes(checkpoint: Checkpoint, precision: Precision, dtype: torch.dtype) -> Iterator[tuple[bool, int]]:
    """Of each weight whether it lies in the files as it is kept, and its bytes."""
    shapes = expected_shapes(checkpoint.params)
    for name, stored in checkpoint.weights.items():
        wanted = encoding_of(name, stored, precision)
        if wanted is None:
            own = torch.float32 if stays_float32(name, stored) else dtype
            lies_there = stored.encoding is None and DTYPES.get(stored.parts["weight"].dtype) == own
            each: float = own.itemsize
        else:
            lies_there = wanted == stored.encoding
            each = KINDS[wanted.kind].bytes_per_number
        yield lies_there, int(prod(shapes[name]) * each)


def on_disk(copies: int, others: int, memory: Memory) -> tuple[bool, list[str]]:
    """Whether what is made goes into a file, and sentences that say why.

    copies: bytes that this model makes.  others: bytes that the other models of the graph make, before it or later.
    """
    together = copies + others
    is_short = together + TEXT_ENCODER + WORKING > memory.ram or copies + WORKING > memory.ram_free
    if copies < LEAST or not is_short:
        return False, []
    beside = f", and the other models of this graph need {gb(others)}" if others else ""
    why = f"{gb(memory.ram_free)} of {gb(memory.ram)} of RAM are free{beside}"
    if copies + DISK_LEFT <= memory.disk_free:
        return True, [
            f"Its {gb(copies)} of packed weights lie on the disk of ComfyUI's temp folder while it is loaded: {why}."
        ]
    return False, [
        f"RAM may not hold its {gb(copies)} of packed weights: {why}. Make {gb(copies + DISK_LEFT)} of room on the "
        "disk of ComfyUI's temp folder, or load a file that is packed already: GGUF, fp8, or one of Save Model."
    ]
