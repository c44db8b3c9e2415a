"""Tensors out of model files: over the file's own pages, or read into memory of their own.

Files are mapped read-only. torch.from_file and safetensors' safe_open map them writable for this process alone, and for
that the system sets the file's whole length aside: Linux of RAM and swap, Windows of its commit limit. A file larger
than these could not be loaded, whatever little of it is needed. In return nothing may write to such a tensor, which
would end the process; `is_mapped` tells them.
"""

import mmap
import warnings
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

import torch

from .stored import Part

# Maps a whole safetensors file: path -> {key: tensor}.
Reader = Callable[[Path], dict[str, torch.Tensor]]
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
}  # all others are bytes to their format
MAPPED = "skyreels_mapped"  # an attribute of a storage


def map_file(path: Path) -> torch.Tensor:
    """A file's bytes, uint8, not to be written to: memory is used for what is read, and can be given back.

    Raises OSError or ValueError where that is not possible.
    """
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given buffer is not writable")
        content = torch.frombuffer(pages, dtype=torch.uint8)
    return marked(content)


def marked(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, which lies over the pages of a file: what shares them is known by it, too."""
    setattr(tensor.untyped_storage(), MAPPED, True)
    return tensor


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies over the pages of a file."""
    return getattr(tensor.untyped_storage(), MAPPED, False)


def mapped(content: torch.Tensor, part: Part) -> torch.Tensor:
    """A tensor over the pages of its file, which `map_file` gave. Raises RuntimeError if that has become shorter."""
    return shaped(content[part.offset : part.offset + part.size], part)


def read(part: Part) -> torch.Tensor:
    """A tensor of a file in memory of its own. Raises OSError where it cannot be read."""
    with part.path.open("rb") as file:
        return read_from(file, part)


def read_from(file: BufferedReader, part: Part) -> torch.Tensor:
    """`read`, out of the opened file."""
    return shaped(read_bytes(file, part.offset, part.size), part)


def read_bytes(file: BufferedReader, offset: int, size: int) -> torch.Tensor:
    """Bytes of an opened file as a new uint8 tensor. Raises OSError where it has fewer."""
    content = torch.empty(size, dtype=torch.uint8)
    file.seek(offset)
    if file.readinto(content.numpy().data) != size:
        raise OSError("it has become shorter")
    return content


def shaped(tensor: torch.Tensor, part: Part) -> torch.Tensor:
    """A part's bytes as its dtype and shape; types without one in torch stay rows of bytes."""
    if part.dtype in DTYPES:
        dtype = DTYPES[part.dtype]
        # A tensor at an odd place in the file: kernels may fail on it. The official files are aligned.
        if tensor.dtype == torch.uint8 and tensor.data_ptr() % dtype.itemsize:
            tensor = tensor.clone()
        return tensor.view(dtype).reshape(part.shape) if tensor.dtype != dtype else tensor.reshape(part.shape)
    tensor = tensor if tensor.dtype == torch.uint8 else tensor.view(torch.uint8)
    return tensor.reshape(*part.shape[:-1], -1) if part.shape else tensor.reshape(-1)
