"""Headers of GGUF files: those that the gguf package writes, and damaged ones."""

import io
import json
import struct
import time

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES

from pack.formats.gguf_types import BY_ID, TYPES
from pack.model_loaders.files.gguf_header import MAX_ALIGNMENT, read_gguf
from pack.model_loaders.files.header import TensorInfo, read_header
from pack.skyreels_v3.errors import InputError

Q4_K, Q8_0, BF16 = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q8_0, GGMLQuantizationType.BF16
# Kinds of metadata values.
U32, F32, BOOL, TEXT, LIST, U64 = 4, 6, 7, 8, 9, 10


def written(path, tensors=(), fill=None, arch="wan", alignment=None):
    """A file of the gguf package. tensors: (name, array, type or None); fill(writer) adds metadata."""
    writer = GGUFWriter(path, arch)
    if alignment:
        writer.add_custom_alignment(alignment)
    if fill:
        fill(writer)
    for name, array, kind in tensors:
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def wan(blocks=1):
    """Tensors as in a quantised Wan file: the big ones in blocks, the rest in full."""
    yield "patch_embedding.weight", np.zeros((8, 16, 1, 2, 2), np.float16), None
    yield "patch_embedding.bias", np.arange(8, dtype=np.float32), None
    for block in range(blocks):
        yield f"blocks.{block}.self_attn.q.weight", np.zeros((2, 144), np.uint8), Q4_K
        yield f"blocks.{block}.self_attn.q.bias", np.zeros(2, np.float32), None
        yield f"blocks.{block}.modulation", np.zeros((1, 6, 2 * 8), np.uint8), BF16
        yield f"blocks.{block}.ffn.0.weight", np.zeros((3, 34), np.uint8), Q8_0


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def tensor(name="a", sizes=(8,), kind=0, start=0):
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, start)


def built(path, entries=(), tensors=(), data=b"", version=3, counts=None):
    """A file from its parts, with its data at the default alignment. counts: of tensors, of entries."""
    tensor_count, entry_count = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, entry_count) + b"".join([*entries, *tensors])
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_header(path)
    message = str(caught.value)
    assert path.name in message and message.endswith(".") and message.isprintable() and len(message) < 400
    return message


@pytest.mark.parametrize("alignment", [None, 8, 64, 4096])
def test_reads_what_the_gguf_package_wrote(tmp_path, alignment):
    path = written(tmp_path / "x.gguf", wan(2), alignment=alignment)
    header = read_header(path)
    assert header.file_format == "gguf" and header.architecture == "wan"
    content, reference = path.read_bytes(), {each.name: each for each in GGUFReader(path).tensors}
    assert list(header.tensors) == list(reference)
    for name, info in header.tensors.items():
        assert info.dtype == reference[name].tensor_type.name
        assert info.shape == tuple(reversed(reference[name].shape.tolist()))
        assert header.data_start + info.start == reference[name].data_offset
        assert info.end - info.start == reference[name].n_bytes
    shapes = {name: info.shape for name, info in header.tensors.items()}
    assert shapes["patch_embedding.weight"] == (8, 16, 1, 2, 2)
    assert shapes["blocks.1.self_attn.q.weight"] == (2, 256)
    assert shapes["blocks.1.ffn.0.weight"] == (3, 32)
    assert shapes["blocks.1.modulation"] == (1, 6, 8)
    bias = header.tensors["patch_embedding.bias"]
    data = content[header.data_start + bias.start : header.data_start + bias.end]
    assert np.array_equal(np.frombuffer(data, np.float32), np.arange(8))


def test_metadata(tmp_path):
    def fill(writer):
        writer.add_name("SkyReels-V3 R2V «14B»")
        writer.add_uint32("general.file_type", 15)
        writer.add_int64("least", -(2**63))
        writer.add_uint64("most", 2**64 - 1)
        writer.add_float32("half", 0.5)
        writer.add_bool("yes", True)
        writer.add_array("sizes", [1, 2, 3])
        writer.add_array("empty of texts", ["", "a"])
        writer.add_array("long", list(range(1000)))
        writer.add_string("long text", "x" * 2_000_000)

    metadata = read_header(written(tmp_path / "x.gguf", fill=fill)).metadata
    assert metadata["general.name"] == "SkyReels-V3 R2V «14B»"
    numbers = {"general.file_type": 15, "least": -(2**63), "most": 2**64 - 1, "half": 0.5, "yes": True}
    assert {key: json.loads(metadata[key]) for key in numbers} == numbers
    assert json.loads(metadata["sizes"]) == [1, 2, 3]
    assert not {"long", "long text", "empty of texts"} & metadata.keys()


def test_version_2_is_the_same(tmp_path):
    path = written(tmp_path / "x.gguf", wan())
    three = read_header(path)
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", 2)
    path.write_bytes(content)
    assert read_header(path) == three


def test_a_reshaped_tensor_has_its_models_shape(tmp_path):
    def fill(writer):
        writer.add_array("comfy.gguf.orig_shape.patch_embedding.weight", [8, 16, 1, 2, 2])

    weight = np.zeros((2, 256), np.float16)
    header = read_header(written(tmp_path / "x.gguf", [("patch_embedding.weight", weight, None)], fill))
    assert header.tensors["patch_embedding.weight"].shape == (8, 16, 1, 2, 2)


def test_the_table_of_types_is_ggmls():
    reference = {kind.name: (int(kind), *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {name: (ggml.id, ggml.elements, ggml.bytes) for name, ggml in TYPES.items()} == reference
    assert all(BY_ID[ggml.id] is ggml and name == ggml.name for name, ggml in TYPES.items())


def test_every_type_has_its_size(tmp_path):
    for ggml in TYPES.values():
        start = tensor(sizes=(ggml.elements * 2, 3), kind=ggml.id)
        info = read_header(built(tmp_path / "x.gguf", [], [start], bytes(6 * ggml.bytes))).tensors["a"]
        assert info == TensorInfo(ggml.name, (3, ggml.elements * 2), 0, 6 * ggml.bytes)


def test_scalars_empty_tensors_and_any_order(tmp_path):
    tensors = [tensor("last", (3,), start=32), tensor("scalar", (), start=0), tensor("none", (0, 4), start=32)]
    header = read_header(built(tmp_path / "x.gguf", [], tensors, bytes(44)))
    places = {name: (info.shape, info.start, info.end) for name, info in header.tensors.items()}
    assert places == {"last": ((3,), 32, 44), "scalar": ((), 0, 4), "none": ((4, 0), 32, 32)}


def test_a_file_of_metadata_alone_and_bytes_behind_the_tensors(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    assert read_header(path).tensors == {} and read_header(path).architecture == ""
    assert list(read_header(built(path, [], [tensor()], bytes(32 + 1000))).tensors) == ["a"]


GOOD = [entry("general.architecture", TEXT, text("wan"))]
ALIGNMENT = "general.alignment"
SHAPE = "comfy.gguf.orig_shape.a"
DAMAGED = {
    "truncated": (dict(tensors=[tensor()], data=bytes(31)), "incomplete"),
    "tensor behind the end": (dict(tensors=[tensor(sizes=(2**50,))], data=bytes(32)), "incomplete"),
    "overlap": (dict(tensors=[tensor(), tensor("b", start=16)], data=bytes(64)), "begins at byte 16"),
    "same place": (dict(tensors=[tensor(), tensor("b", start=0)], data=bytes(64)), "begins at byte 0"),
    "gap": (dict(tensors=[tensor(), tensor("b", start=64)], data=bytes(96)), "begins at byte 64"),
    "not from 0": (dict(tensors=[tensor(start=32)], data=bytes(64)), "begins at byte 32"),
    "offset of 2**64": (dict(tensors=[tensor(start=2**64 - 1)], data=bytes(64)), "begins at byte 18446744073709551615"),
    "2**60 tensors": (dict(counts=(2**60, 0)), "claims 1152921504606846976 tensors"),
    "2**60 entries": (dict(counts=(0, 2**60)), "claims 1152921504606846976 metadata entries"),
    "more tensors than there are": (dict(tensors=[tensor()], counts=(2, 0)), "ends within its header"),
    "unknown type": (dict(tensors=[tensor(kind=36)], data=bytes(99)), "ggml type 36, which is not known"),
    "a tensor twice": (dict(tensors=[tensor(), tensor(start=32)], data=bytes(64)), "the tensor a twice"),
    "metadata twice": (dict(entries=GOOD * 2), "general.architecture twice"),
    "nine dimensions": (dict(tensors=[tensor(sizes=[1] * 9)], data=bytes(32)), "9 dimensions"),
    "2**32 - 1 dimensions": (dict(tensors=[text("a") + b"\xff" * 200]), "4294967295 dimensions"),
    "huge sizes": (dict(tensors=[tensor(sizes=[2**63] * 8)], data=bytes(32)), "more than any file holds"),
    "odd rows": (dict(tensors=[tensor(sizes=(128, 2), kind=12)], data=bytes(144)), "rows of 128 numbers in Q4_K"),
    "a number in Q4_K": (dict(tensors=[tensor(sizes=(), kind=12)], data=bytes(144)), "multiple of 256"),
    "alignment 0": (dict(entries=[entry(ALIGNMENT, U32, struct.pack("<I", 0))]), "alignment is 0"),
    "alignment 48": (dict(entries=[entry(ALIGNMENT, U32, struct.pack("<I", 48))]), "alignment is 48"),
    "huge alignment": (dict(entries=[entry(ALIGNMENT, U32, struct.pack("<I", 2 * MAX_ALIGNMENT))]), "up to 1048576"),
    "alignment true": (dict(entries=[entry(ALIGNMENT, BOOL, b"\1")]), "alignment is True"),
    "alignment 32.0": (dict(entries=[entry(ALIGNMENT, F32, struct.pack("<f", 32))]), "alignment is 32.0"),
    "alignment is a text": (dict(entries=[entry(ALIGNMENT, TEXT, text("32"))]), "alignment is 32"),
    "unknown kind": (dict(entries=[entry("k", 13, bytes(8))]), "k is of the unknown kind 13"),
    "list of an unknown kind": (dict(entries=[entry("k", LIST, struct.pack("<IQ", 99, 1))]), "unknown kind 99"),
    "list of lists": (dict(entries=[entry("k", LIST, struct.pack("<IQ", LIST, 1) + bytes(99))]), "unknown kind 9"),
    "name of 2**60": (dict(entries=[struct.pack("<Q", 2**60) + bytes(99)]), "ends within its header"),
    "a long name": (dict(tensors=[tensor("x" * 2**16)], data=bytes(32)), "a tensor with a name of more than 65535"),
    "a long key": (dict(entries=[entry("x" * 2**16, U32, bytes(4))]), "a metadata entry with a name of more than"),
    "text of 2**64": (dict(entries=[entry("k", TEXT, struct.pack("<Q", 2**64 - 1))]), "ends within its header"),
    "2**60 numbers": (dict(entries=[entry("k", LIST, struct.pack("<IQ", U64, 2**60))]), "ends within its header"),
    "2**60 texts": (dict(entries=[entry("k", LIST, struct.pack("<IQ", TEXT, 2**60))]), "ends within its header"),
    "millions of texts": (
        dict(entries=[entry("k", LIST, struct.pack("<IQ", TEXT, 2**21 + 1))], data=bytes(2**24 + 32)),
        "lists of 2097153 texts",
    ),
    "a long text in a list": (
        dict(entries=[entry("k", LIST, struct.pack("<IQQ", TEXT, 1, 2**60))]),
        "ends within its header",
    ),
    "no UTF-8 in a name": (dict(tensors=[tensor(b"\xff\xfe")], data=bytes(32)), "no UTF-8"),
    "no UTF-8 in a text": (dict(entries=[entry("k", TEXT, text(b"\xc3"))]), "no UTF-8"),
    "shape of other numbers": (
        dict(entries=[entry(SHAPE, LIST, struct.pack("<IQII", U32, 2, 2, 5))], tensors=[tensor()], data=bytes(32)),
        "[2, 5]",
    ),
    "shape below zero": (
        dict(entries=[entry(SHAPE, LIST, struct.pack("<IQii", 5, 2, -2, -4))], tensors=[tensor()], data=bytes(32)),
        "[-2, -4]",
    ),
    "shape is a number": (
        dict(entries=[entry(SHAPE, U32, struct.pack("<I", 8))], tensors=[tensor()], data=bytes(32)),
        "the shape 8",
    ),
    "big endian": (dict(version=3 << 24), "big-endian"),
    "version 0": (dict(version=0), "version 0"),
    "version 1": (dict(version=1), "version 1"),
    "version 4": (dict(version=4), "version 4"),
    "a part": (dict(entries=[entry("split.count", 2, struct.pack("<H", 3))]), "one of 3 parts"),
}


@pytest.mark.parametrize("parts, words", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_told(tmp_path, parts, words):
    assert words in refusal(built(tmp_path / "x.gguf", **parts))


def test_every_cut_is_told(tmp_path):
    whole = written(tmp_path / "whole.gguf", wan()).read_bytes()
    path = tmp_path / "x.gguf"
    header = read_header(tmp_path / "whole.gguf")
    end = header.data_start + max(info.end for info in header.tensors.values())
    assert end < len(whole)  # padding behind the last tensor, which llama.cpp does not miss either
    for length in (*range(0, 600, 7), *range(600, end, 97), end - 1):
        path.write_bytes(whole[:length])
        assert "download" in refusal(path)
    path.write_bytes(whole[:end])
    read_header(path)


def test_names_of_any_kind_stay_short_in_the_message(tmp_path):
    refusal(built(tmp_path / "x.gguf", [], [tensor("\n\x1bü" * 5000, kind=99)], bytes(32)))
    refusal(built(tmp_path / "x.gguf", [entry("\n" * 5000, 99, b"")], [], bytes(99)))


def test_a_file_of_another_format():
    with pytest.raises(InputError, match="x is not a GGUF file"):
        read_gguf(io.BytesIO(b"PK\x03\x04" + bytes(60)), 64, "x")


def test_a_header_as_large_as_a_14b_model_reads_at_once(tmp_path):
    path = written(tmp_path / "x.gguf", wan(274))
    best = min(_seconds(path) for _ in range(5))
    assert len(read_header(path).tensors) == 1098
    assert best < 0.1  # some 5 ms; a loaded machine may take longer


def _seconds(path):
    start = time.perf_counter()
    read_header(path)
    return time.perf_counter() - start


def test_a_tokenizer_takes_no_memory(tmp_path):
    import tracemalloc

    def fill(writer):
        writer.add_array("tokenizer.ggml.tokens", [f"token {number}" for number in range(50_000)])
        writer.add_key_value("tokenizer.ggml.scores", [0.5] * 50_000, GGUFValueType.ARRAY, GGUFValueType.FLOAT32)

    path = written(tmp_path / "x.gguf", wan(), fill, arch="t5")
    tracemalloc.start()
    header = read_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert header.architecture == "t5" and "tokenizer.ggml.tokens" not in header.metadata
    assert peak < 1_000_000
