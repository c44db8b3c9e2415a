"""The header of a GGUF file, read and checked without loading anything.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Magic, version and two counts, then the metadata,
then a description of every tensor, then the tensors, each at a multiple of the alignment. Where the description
leaves room, what llama.cpp's gguf.cpp accepts is accepted.
"""

import json
from math import prod
from struct import Struct
from typing import BinaryIO

from ...formats.gguf_types import BY_ID
from ...skyreels_v3.errors import InputError
from .tensor_info import AGAIN, INCOMPLETE, MAX_HEADER, Header, TensorInfo, short

MAGIC = b"GGUF"
VERSIONS = (2, 3)  # 3 only adds big-endian files
# Kind of a metadata value -> its code in struct; texts and lists have other layouts.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9
U32, U64 = Struct("<I"), Struct("<Q")
COUNTS, PLACE, LENGTH = Struct("<IQQ"), Struct("<IQ"), Struct("<IQ")
SIZES = tuple(Struct(f"<{count}Q") for count in range(9))  # of tensors; llama.cpp has up to 4, Wan's patches 5
SCALARS = {kind: Struct(f"<{code}") for kind, code in NUMBERS.items()}
SMALLEST_ENTRY, SMALLEST_TENSOR = 8 + 4 + 1, 8 + 4 + 4 + 8  # bytes
LONGEST_NAME = 2**16 - 1  # bytes; of metadata keys in the description
LONGEST_TEXT = 2**20  # bytes that are kept; nothing that is asked for here is as long
MOST_TEXTS = 2**21  # in lists; a large tokenizer has 800,000
BLOCK = 2**16  # bytes read at once where texts are skipped
LONGEST_LIST = 64  # numbers that are kept; longer lists are a tokenizer's
DEFAULT_ALIGNMENT, MAX_ALIGNMENT = 32, 2**20  # bytes
# Written by ComfyUI-GGUF's converter where it stores a tensor in another shape: the one that the model has.
SHAPE = "comfy.gguf.orig_shape."


def read_gguf(file: BinaryIO, size: int, name: str) -> Header:
    """Read and check the header of a GGUF file, version 2 or 3, little endian, open at its start; size: its bytes.

    The dtypes are ggml's names ("Q4_K", "F16"). The shapes are the model's own: GGUF's sizes from the last to the
    first, or what `comfy.gguf.orig_shape.NAME` says. Lists of texts, long lists of numbers and texts of more than a
    megabyte are left out of the metadata. Everything the file claims is held against its size before memory is taken
    for it. Raises InputError with one sentence, in which the file is called `name`, for damaged files.
    """
    reader = _Reader(file, size, name)
    tensor_count, entry_count = _counts(reader)
    metadata = _metadata(reader, entry_count)
    alignment = _alignment(metadata, name)
    tensors = _tensors(reader, tensor_count, metadata)
    data_start = _padded(reader.at, alignment)
    _check_places(tensors, alignment, data_start, size, name)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    return Header(tensors, texts, data_start, "gguf")


class _Reader:
    """Takes one value after the other from the file, and never more than it has left."""

    def __init__(self, file: BinaryIO, size: int, name: str):
        self.file, self.size, self.name, self.at, self.skipped = file, size, name, 0, 0

    def room(self, count: int) -> None:
        """Raise InputError unless so many bytes are left."""
        if self.at + count > self.size:
            raise InputError(f"{self.name} ends within its header, after {self.size} bytes: {INCOMPLETE}.")
        if self.at + count > MAX_HEADER:
            raise InputError(f"The header of {self.name} has more than {MAX_HEADER} bytes: {AGAIN}.")

    def take(self, count: int) -> bytes:
        self.room(count)
        data = self._read(count, count)
        self.at += count
        return data

    def skip(self, count: int) -> None:
        self.room(count)
        self.at += count
        self.file.seek(self.at)

    def skip_texts(self, count: int) -> None:
        """Skip so many texts, a block of the file at a time: a tokenizer has hundreds of thousands."""
        self.room(count * U64.size)
        self.skipped += count
        if self.skipped > MOST_TEXTS:
            raise InputError(f"{self.name} has lists of {self.skipped} texts, more than any tokenizer: {AGAIN}.")
        while count:
            self.room(U64.size)
            block, place = self._read(BLOCK, U64.size), 0
            while count and place + U64.size <= len(block):
                place += U64.size + U64.unpack_from(block, place)[0]
                count -= 1
            self.skip(place)

    def _read(self, most: int, least: int) -> bytes:
        data = self.file.read(most)
        if len(data) < least:
            raise InputError(f"{self.name} became shorter while it was read: load it again when it is complete.")
        return data

    def values(self, layout: Struct) -> tuple:
        return layout.unpack(self.take(layout.size))

    def name_of(self, what: str) -> str:
        """The name of a tensor or of an entry of metadata."""
        name = self.text(LONGEST_NAME)
        if name is None:
            raise InputError(f"{self.name} has a {what} with a name of more than {LONGEST_NAME} bytes: {AGAIN}.")
        return name

    def text(self, longest: int) -> str | None:
        """A text, or None if it is longer and was skipped."""
        (length,) = self.values(U64)
        if length > longest:
            self.skip(length)
            return None
        data = self.take(length)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"A name or text in the header of {self.name} is no UTF-8: {AGAIN}.") from error


def _counts(reader: _Reader) -> tuple[int, int]:
    """How many tensors and how many entries of metadata the file has."""
    name = reader.name
    if reader.take(4) != MAGIC:
        raise InputError(f"{name} is not a GGUF file: download it again.")
    version, tensors, entries = reader.values(COUNTS)
    if version and not version & 0xFFFF:
        raise InputError(f"{name} is a big-endian GGUF file, made for other processors: use the little-endian one.")
    if version not in VERSIONS:
        raise InputError(f"{name} is a GGUF file of version {version}, but 2 or 3 is needed: use a newer file of it.")
    for count, smallest, what in ((tensors, SMALLEST_TENSOR, "tensors"), (entries, SMALLEST_ENTRY, "metadata entries")):
        if count * smallest > reader.size:
            raise InputError(f"{name} claims {count} {what}, more than its {reader.size} bytes can hold: {AGAIN}.")
    return tensors, entries


def _metadata(reader: _Reader, count: int) -> dict[str, object]:
    """Key -> text, number or short list of numbers."""
    metadata, seen = {}, set()
    for _ in range(count):
        key = reader.name_of("metadata entry")
        if key in seen:
            raise InputError(f"{reader.name} has the metadata {short(key)} twice: {AGAIN}.")
        seen.add(key)
        (kind,) = reader.values(U32)
        value = _list(reader, key) if kind == LIST else _scalar(reader, kind, key)
        if value is not None:
            metadata[key] = value
    # llama.cpp's gguf-split writes it
    if isinstance(parts := metadata.get("split.count"), int) and parts > 1:
        raise InputError(
            f"{reader.name} is one of {parts} parts of a GGUF file: join them with `llama-gguf-split --merge` and "
            "use the file that this makes."
        )
    return metadata


def _scalar(reader: _Reader, kind: int, key: str) -> object:
    if kind == TEXT:
        return reader.text(LONGEST_TEXT)
    if kind not in SCALARS:
        raise InputError(f"In {reader.name}, the metadata {short(key)} is of the unknown kind {kind}: {AGAIN}.")
    return reader.values(SCALARS[kind])[0]


def _list(reader: _Reader, key: str) -> list | None:
    """The list, or None if it was skipped."""
    kind, count = reader.values(LENGTH)
    if kind == TEXT:
        reader.skip_texts(count)
        return None
    if kind not in NUMBERS:  # lists of lists are in the description, but neither written nor read by llama.cpp
        raise InputError(f"In {reader.name}, the list {short(key)} is of the unknown kind {kind}: {AGAIN}.")
    if count > LONGEST_LIST:
        reader.skip(count * SCALARS[kind].size)
        return None
    return list(reader.values(Struct(f"<{count}{NUMBERS[kind]}")))


def _alignment(metadata: dict[str, object], name: str) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise InputError(
            f"In {name}, the alignment is {short(alignment)}, but a power of two up to {MAX_ALIGNMENT} is needed: "
            f"{AGAIN}."
        )
    return alignment


def _tensors(reader: _Reader, count: int, metadata: dict[str, object]) -> dict[str, TensorInfo]:
    tensors = {}
    for _ in range(count):
        key = reader.name_of("tensor")
        if key in tensors:
            raise InputError(f"{reader.name} has the tensor {short(key)} twice: {AGAIN}.")
        (dimensions,) = reader.values(U32)
        if dimensions >= len(SIZES):
            raise InputError(
                f"In {reader.name}, {short(key)} has {dimensions} dimensions, but {len(SIZES) - 1} is the most: "
                f"{AGAIN}."
            )
        sizes = reader.values(SIZES[dimensions])
        type_id, start = reader.values(PLACE)
        tensors[key] = _tensor(key, sizes, type_id, start, metadata.get(SHAPE + key), reader.name)
    return tensors


def _tensor(key: str, sizes: tuple[int, ...], type_id: int, start: int, shape: object, name: str) -> TensorInfo:
    """sizes: GGUF's, the innermost first.  shape: the one in the metadata, None if there is none."""
    ggml = BY_ID.get(type_id)
    if ggml is None:
        raise InputError(
            f"In {name}, {short(key)} has the ggml type {type_id}, which is not known: use another file of the model, "
            "such as Q8_0 or Q4_K_M."
        )
    numbers = prod(sizes)
    if numbers >= 2**63:
        raise InputError(f"In {name}, {short(key)} has the sizes {short(sizes)}, more than any file holds: {AGAIN}.")
    row = sizes[0] if sizes else 1
    if row % ggml.elements:
        raise InputError(
            f"In {name}, {short(key)} has rows of {row} numbers in {ggml.name}, but a multiple of {ggml.elements} is "
            f"needed: {AGAIN}."
        )
    if shape is None:
        shape = sizes[::-1]
    elif not isinstance(shape, list) or any(type(s) is not int or s < 0 for s in shape) or prod(shape) != numbers:
        raise InputError(
            f"In {name}, the shape {short(shape)} that the metadata gives {short(key)} does not fit its {numbers} "
            f"numbers: {AGAIN}."
        )
    return TensorInfo(ggml.name, tuple(shape), start, start + numbers // ggml.elements * ggml.bytes)


def _check_places(tensors: dict[str, TensorInfo], alignment: int, data_start: int, size: int, name: str) -> None:
    end = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != _padded(end, alignment):
            raise InputError(
                f"In {name}, {short(key)} begins at byte {tensor.start} of the data, but the tensor before it ends at "
                f"{end}: {AGAIN}."
            )
        end = tensor.end
    # Bytes behind the last tensor, and the lack of its padding, are no matter to llama.cpp either.
    if tensors and size < data_start + end:
        raise InputError(f"{name} has {size} bytes, but its header describes {data_start + end}: {INCOMPLETE}.")


def _padded(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment
