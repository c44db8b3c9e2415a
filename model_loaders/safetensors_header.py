"""The header of a safetensors file, read and checked without loading anything.

Format: https://github.com/huggingface/safetensors#format. Eight bytes hold the length of the header (little
endian), then comes JSON (name -> dtype, shape, data_offsets), then the tensors, without gaps and up to the
last byte.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ..skyreels_v3.errors import InputError

BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "U16": 16,
    "I16": 16,
    "U32": 32,
    "I32": 32,
    "U64": 64,
    "I64": 64,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "F64": 64,
    "C64": 64,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
MAX_DIMENSIONS = 64  # of a torch tensor
AGAIN = "it is damaged, download it again"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor. dtype: the format's name ("BF16").  start, end: its bytes, counted from the first "
    "tensor's."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """tensors: name -> TensorInfo.  metadata: the file's own strings.  data_start: where the tensors "
    "begin, bytes."""

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Everything the file claims is held against its size before memory is taken for it. Raises InputError with
    one sentence for a path that is no readable file, for files of another format and for damaged ones.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"There is no file {path}: choose one from the list, or refresh the list.")
        if not path.is_file():
            raise InputError(f"{path} is a folder or a device, but a .safetensors file is needed.")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            start = file.read(512)
            _refuse_other_formats(start, size, path.name)
            length = int.from_bytes(start[:8], "little")
            file.seek(8)
            text = file.read(length)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): check that ComfyUI may read it.") from error
    return _checked(_parsed(text, path.name), 8 + length, size, path.name)


def _refuse_other_formats(start: bytes, size: int, name: str) -> None:
    length = int.from_bytes(start[:8], "little")
    # Asked first, because the length's own bytes may look like the beginning of anything.
    if size >= 8 and length <= MAX_HEADER and start[8:9] in (b"{", b""):
        if 8 + length > size:
            raise InputError(
                f"{name} has {size} bytes, but its header alone needs {8 + length}: the download is incomplete, "
                "download it again."
            )
        return
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    is_pickle = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if size == 0:
        problem = "is empty (0 bytes): download it again"
    elif text.startswith(b"version https://git-lfs"):
        problem = "is a Git LFS pointer, not the model: run `git lfs pull`, or download the file itself"
    elif text[:1] == b"<":
        problem = "is a web page, not a model: download the file itself, not the page that shows it"
    elif start.startswith(b"GGUF"):
        problem = "is a GGUF file, which is not supported yet: use the bf16 or fp16 safetensors file"
    elif start.startswith(b"PK\x03\x04") or is_pickle:
        problem = (
            "is a PyTorch pickle (.pt, .ckpt or .bin), which can run code when it is opened: "
            "use the safetensors file of the same model"
        )
    else:
        problem = f"is not a safetensors file ({size} bytes that begin otherwise): download it again"
    raise InputError(f"{name} {problem}.")


def _parsed(text: bytes, name: str) -> dict:
    def unique(pairs):
        keys = dict(pairs)
        if len(keys) < len(pairs):
            raise InputError(f"{name} lists a name twice in its header: {AGAIN}.")
        return keys

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"The header of {name} is not readable as JSON: {AGAIN}.") from error
    if not isinstance(header, dict):
        raise InputError(f"The header of {name} is no table of tensors: {AGAIN}.")
    return header


def _checked(header: dict, data_start: int, size: int, name: str) -> Header:
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InputError(f"The metadata of {name} is no table of texts: {AGAIN}.")
    tensors = {key: _tensor(key, value, name) for key, value in header.items()}
    end = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            raise InputError(
                f"In {name}, {_short(key)} begins at byte {tensor.start} of the data, but the tensor before "
                "it ends at "
                f"{end}: {AGAIN}."
            )
        end = tensor.end
    if size < data_start + end:
        raise InputError(
            f"{name} has {size} bytes, but its header describes {data_start + end}: the download is "
            "incomplete, "
            "download it again."
        )
    if size > data_start + end:
        raise InputError(f"{name} has {size} bytes, but its header describes only {data_start + end}: {AGAIN}.")
    return Header(tensors, metadata, data_start)


def _tensor(key: str, entry: object, name: str) -> TensorInfo:
    if not isinstance(entry, dict):
        raise InputError(f"In {name}, {_short(key)} is not described: {AGAIN}.")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise InputError(
            f"In {name}, {_short(key)} has the number format {_short(dtype)}, which is not known: "
            "use the bf16, fp16 or fp32 file."
        )
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise InputError(f"In {name}, the shape or the place of {_short(key)} is not a list of sizes: {AGAIN}.")
    start, end = offsets
    bits = prod(shape) * BITS[dtype]
    if bits != 8 * (end - start):
        raise InputError(
            f"In {name}, {_short(key)} of shape {_short(shape)} in {dtype} needs {-(-bits // 8)} bytes, "
            f"but {end - start} are given: {AGAIN}."
        )
    return TensorInfo(dtype, tuple(shape), start, end)


def _sizes(value: object) -> bool:
    # bool is an int to Python; sizes from 2**63 on are none to torch
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _short(value: object) -> str:
    """A part of the file for a sentence: damaged files hold names of any length and with any character."""
    text = ascii(value)[1:-1] if isinstance(value, str) else ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
