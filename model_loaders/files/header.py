"""The header of a model file, whichever of the two formats it has; other files are told by what they are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from ...skyreels_v3.errors import InputError
from .gguf_header import MAGIC, read_gguf
from .safetensors_header import begins_like_safetensors, read_safetensors
from .stamps import stamp_of
from .tensor_info import DESCRIPTION, MAX_DESCRIPTION, Header, TensorInfo, opened, printable

__all__ = ["Header", "Read", "TensorInfo", "header_in", "read_header"]
Read = Callable[[Path], Header]  # as `read_header`
LOOK = 512  # bytes that tell what a file is


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors or GGUF file; its first bytes decide, not its name. Of the tensors,
    those are read that say how a layer is stored, some ten bytes each.

    Raises InputError with one sentence for a path that is no readable file, for files of another format and for
    damaged ones.
    """
    path = Path(path)
    with opened(path) as (file, size):
        stamp = stamp_of(path)
        return replace(header_in(file, size, printable(path.name)), stamp=stamp)


def header_in(file: BinaryIO, size: int, name: str) -> Header:
    """The same of an open file of `size` bytes. name: for sentences."""
    start = file.read(LOOK)
    file.seek(0)
    if start.startswith(MAGIC):  # as a length of safetensors it would be above 1 GB
        header = read_gguf(file, size, name)
    # Asked before other formats, because the length's own bytes may look like the beginning of anything.
    elif begins_like_safetensors(start):
        header = read_safetensors(file, size, name)
    else:
        raise InputError(f"{name} {_what_it_is(start, size)}.")
    return replace(header, descriptions=_descriptions(file, header))


def _descriptions(file: BinaryIO, header: Header) -> dict[str, bytes]:
    found = {}
    for key, info in sorted(header.tensors.items(), key=lambda item: item[1].start):
        if key.rpartition(".")[2] == DESCRIPTION and info.end - info.start <= MAX_DESCRIPTION:
            file.seek(header.data_start + info.start)
            found[key] = file.read(info.end - info.start)
    return found


def _what_it_is(start: bytes, size: int) -> str:
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    is_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if size == 0:
        return "is empty (0 bytes): download it again"
    if not start.strip(b"\0"):
        return "begins with nothing but zeros, as files do whose download was cut off: download it again"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the model: run `git lfs pull`, or download the file itself"
    if text[:1] == b"<":
        return "is a web page, not a model: download the file itself, not the page that shows it"
    if start.startswith(b"PK\x03\x04") or is_pickle:
        return (
            "is a PyTorch pickle (.pt, .ckpt or .bin), which can run code when it is opened: "
            "use the safetensors file of the same model"
        )
    return f"is neither a safetensors nor a GGUF file ({size} bytes that begin otherwise): download it again"
