"""The header of a safetensors file, read and checked without loading anything.

Format: https://github.com/huggingface/safetensors#format. Eight bytes hold the length of the header (little
endian), then comes JSON (name -> dtype, shape, data_offsets), then the tensors, without gaps and up to the last byte.
"""

import json
from math import prod
from typing import BinaryIO, TypeGuard

from ...skyreels_v3.errors import InputError
from .tensor_info import AGAIN, INCOMPLETE, MAX_HEADER, Header, TensorInfo, short

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
MAX_DIMENSIONS = 64  # of a torch tensor


def begins_like_safetensors(start: bytes) -> bool:
    """Whether a file's first bytes are a length that a header may have, and the header's first sign."""
    return len(start) >= 8 and int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:9] in (b"{", b"")


def read_safetensors(file: BinaryIO, size: int, name: str) -> Header:
    """Read and check the header of a safetensors file, open at its start; size: its bytes.

    Everything the file claims is held against its size before memory is taken for it. Raises InputError with one
    sentence, in which it is called `name`, for damaged files.
    """
    start = file.read(9)
    if not begins_like_safetensors(start):
        raise InputError(f"{name} is not a safetensors file: download it again.")
    length = int.from_bytes(start[:8], "little")
    if 8 + length > size:
        raise InputError(f"{name} has {size} bytes, but its header alone needs {8 + length}: {INCOMPLETE}.")
    file.seek(8)
    text = file.read(length)
    return _checked(_parsed(text, name), 8 + length, size, name)


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
                f"In {name}, {short(key)} begins at byte {tensor.start} of the data, but the tensor before it ends at "
                f"{end}: {AGAIN}."
            )
        end = tensor.end
    if size < data_start + end:
        raise InputError(f"{name} has {size} bytes, but its header describes {data_start + end}: {INCOMPLETE}.")
    if size > data_start + end:
        raise InputError(f"{name} has {size} bytes, but its header describes only {data_start + end}: {AGAIN}.")
    return Header(tensors, metadata, data_start)


def _tensor(key: str, entry: object, name: str) -> TensorInfo:
    if not isinstance(entry, dict):
        raise InputError(f"In {name}, {short(key)} is not described: {AGAIN}.")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise InputError(
            f"In {name}, {short(key)} has the number format {short(dtype)}, which is not known: "
            "use the bf16, fp16 or fp32 file."
        )
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS or not _sizes(offsets) or len(offsets) != 2:
        raise InputError(f"In {name}, the shape or the place of {short(key)} is not a list of sizes: {AGAIN}.")
    start, end = offsets
    bits = prod(shape) * BITS[dtype]
    if bits != 8 * (end - start):
        raise InputError(
            f"In {name}, {short(key)} of shape {short(shape)} in {dtype} needs {-(-bits // 8)} bytes, "
            f"but {end - start} are given: {AGAIN}."
        )
    return TensorInfo(dtype, tuple(shape), start, end)


def _sizes(value: object) -> TypeGuard[list[int]]:
    # bool is an int to Python; sizes from 2**63 on are none to torch
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)
