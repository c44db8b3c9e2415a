"""A safetensors file that is written tensor by tensor, and is there only when it is whole.

The writers of the safetensors package take all tensors at once. Here the header is made of dtypes and shapes, which are
known before any number is read, so that memory never holds more than what is being written.
Format: https://github.com/huggingface/safetensors#format.
"""

import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch

from ..files.safetensors_header import BITS

Spec = tuple[str, tuple[int, ...]]  # dtype as headers name it, and shape
Write = Callable[[str, torch.Tensor], None]
PARTIAL = ".part"  # ends the name of a file that is being written; no list of models shows it
ALIGNMENT = 8  # bytes


class SafetensorsFile:
    """What a file will be. tensors: key -> Spec.  metadata: the file's own strings.  size: bytes of the whole file."""

    def __init__(self, tensors: Mapping[str, Spec], metadata: Mapping[str, str]):
        header: dict = {"__metadata__": dict(metadata)}
        self.places: dict[str, tuple[int, int]] = {}
        end = 0
        # Wide numbers first, as safetensors does it: then every tensor begins at a multiple of its numbers' size. Those
        # of one dtype lie together: a reader on the web finds what describes the layers in one piece.
        for key, (dtype, shape) in sorted(tensors.items(), key=_order):
            start, end = end, end + prod(shape) * BITS[dtype] // 8
            header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
            self.places[key] = start, end
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        self.header = len(text).to_bytes(8, "little") + text
        self.size = len(self.header) + end

    @contextmanager
    def writing(self, path: Path) -> Generator[Write]:
        """A function (key, tensor) that writes one tensor, to be called for each, in any order.

        The tensor's bytes are taken as they are. The file gets its name when the context ends; where it ends by an
        exception nothing is left of it. Raises OSError, and FileExistsError where another save writes this file.
        """
        partial = path.with_name(path.name + PARTIAL)
        left = set(self.places)
        file = partial.open("xb")

        def write(key: str, tensor: torch.Tensor) -> None:
            start, end = self.places[key]
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            if len(content) != end - start:
                raise RuntimeError(f"{key} has {len(content)} bytes, but its header says {end - start}")
            left.remove(key)
            file.seek(len(self.header) + start)
            file.write(content.numpy().data)

        try:
            with file:
                file.write(self.header)
                yield write
                if left:
                    raise RuntimeError(f"{len(left)} tensors were not written: {', '.join(sorted(left)[:3])}")
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _order(item: tuple[str, Spec]) -> tuple[int, str, str]:
    key, (dtype, _) = item
    return -BITS[dtype], dtype, key
