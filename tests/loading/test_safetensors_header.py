"""Headers of safetensors files: good ones, damaged ones, and files that are something else."""

import json
import random
import struct
import time

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pack.model_loaders.files.header import TensorInfo, read_header
from pack.model_loaders.files.safetensors_header import BITS
from pack.skyreels_v3.errors import InputError


def write(path, header, data=b"", length=None):
    """A file with this header (a table, or bytes) and data, and its length or another one in front."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_header(path)
    message = str(caught.value)
    assert path.name in message and message.endswith(".") and "\n" not in message
    return message


def test_reads_what_the_library_wrote(tmp_path):
    weights = {"a": torch.zeros(2, 3, dtype=torch.bfloat16), "b": torch.ones(()), "empty": torch.zeros(0, 4)}
    save_file(weights, tmp_path / "x.safetensors", {"job": "r2v"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"job": "r2v"}
    assert {key: (info.dtype, info.shape) for key, info in header.tensors.items()} == {
        "a": ("BF16", (2, 3)),
        "b": ("F32", ()),
        "empty": ("F32", (0, 4)),
    }
    assert header.data_start + max(info.end for info in header.tensors.values()) == (
        (tmp_path / "x.safetensors").stat().st_size
    )


def test_a_file_without_tensors_and_half_byte_numbers(tmp_path):
    assert read_header(write(tmp_path / "none.safetensors", {})).tensors == {}
    path = write(tmp_path / "fp4.safetensors", {"a": tensor("F4", (4,), (0, 2))}, bytes(2))
    assert read_header(path).tensors == {"a": TensorInfo("F4", (4,), 0, 2)}


@pytest.mark.parametrize("sign", b"< {\x80PG\n\xef")
def test_a_length_that_looks_like_another_format(tmp_path, sign):
    text = json.dumps({"a": tensor()}).encode()
    path = write(tmp_path / "x.safetensors", text + b" " * ((sign - len(text)) % 256), bytes(8))
    assert path.read_bytes()[0] == sign and list(read_header(path).tensors) == ["a"]


DAMAGED = {
    "truncated": ({"a": tensor()}, 7, "incomplete"),
    "too long": ({"a": tensor()}, 9, "describes only"),
    "overlap": ({"a": tensor(), "b": tensor(offsets=(4, 12))}, 12, "begins at byte 4"),
    "gap": ({"a": tensor(), "b": tensor(offsets=(12, 20))}, 20, "begins at byte 12"),
    "not from 0": ({"a": tensor(offsets=(4, 12))}, 12, "begins at byte 4"),
    "backwards": ({"a": tensor(offsets=(8, 0))}, 8, "needs 8 bytes"),
    "wrong size": ({"a": tensor(shape=(3,))}, 8, "needs 12 bytes"),
    "huge shape": ({"a": tensor(shape=[2**62] * 64)}, 8, "bytes"),
    "too many dimensions": ({"a": tensor(shape=[1] * 65)}, 8, "list of sizes"),
    "unknown dtype": ({"a": tensor("F128")}, 8, "F128"),
    "dtype is a list": ({"a": tensor(["F32"])}, 8, "not known"),
    "negative size": ({"a": tensor(shape=(-2,))}, 8, "list of sizes"),
    "size too large": ({"a": tensor(shape=(2**64,))}, 8, "list of sizes"),
    "size is a fraction": ({"a": tensor(shape=(2.0,))}, 8, "list of sizes"),
    "size is true": ({"a": tensor(shape=(True, 2))}, 8, "list of sizes"),
    "three offsets": ({"a": tensor(offsets=(0, 8, 8))}, 8, "list of sizes"),
    "no entry": ({"a": None}, 8, "not described"),
    "a list": ([], 0, "neither a safetensors"),
    "metadata is a list": ({"__metadata__": [1], "a": tensor()}, 8, "metadata"),
    "metadata has numbers": ({"__metadata__": {"n": 1}, "a": tensor()}, 8, "metadata"),
    "a name twice": (b'{"a": {}, "a": {}}', 0, "twice"),
    "no JSON": (b'{"a": ', 0, "JSON"),
    "no text": (b"{\xff\xfe}", 0, "JSON"),
    "deep": (b'{"a":' + b"[" * 100_000, 0, "JSON"),
    "a number of 9,999 digits": (b'{"a": ' + b"9" * 9_999 + b"}", 0, "JSON"),
}


@pytest.mark.parametrize("header, data, words", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_told(tmp_path, header, data, words):
    assert words in refusal(write(tmp_path / "x.safetensors", header, bytes(data)))


def test_names_of_any_kind_stay_short_in_the_message(tmp_path):
    path = write(tmp_path / "x.safetensors", {"\n\x1b" + "a" * 5000: tensor("F128")}, bytes(8))
    assert len(refusal(path)) < 400


def test_a_header_that_is_cut_off(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 500) + b'{"a": {"dtype": "F3')
    assert "incomplete" in refusal(path)


def test_the_header_is_not_read_when_the_file_cannot_hold_it(tmp_path):
    path = write(tmp_path / "x.safetensors", b"{", length=99_000_000)
    start = time.perf_counter()
    assert "incomplete" in refusal(path)
    assert time.perf_counter() - start < 1


def mutated(good: bytes, random: random.Random) -> bytes:
    """One to three random changes, most of them in the header."""
    content = bytearray(good)
    header = 8 + int.from_bytes(good[:8], "little")
    for _ in range(random.randint(1, 3)):
        place = random.randrange(min(header, len(content)) if random.random() < 0.9 else len(content) or 1)
        kind = random.randrange(6)
        if kind == 0:
            content[place] = random.randrange(256)
        elif kind == 1:
            del content[place : place + random.randint(1, 20)]
        elif kind == 2:
            content[place:place] = bytes(
                random.choice(b'0123456789-.,:[]{}"eE \\u') for _ in range(random.randint(1, 9))
            )
        elif kind == 3:
            del content[place:]
        elif kind == 4:
            content[place : place + 8] = content[random.randrange(len(content)) :][:8]
        else:  # a digit changes: the likeliest way to offsets and sizes that contradict each other
            digits = [at for at in range(8, min(header, len(content))) if chr(content[at]).isdigit()]
            if digits:
                content[random.choice(digits)] = ord(random.choice("0123456789"))
        content = content or bytearray(1)
    if random.random() < 0.5 and len(content) > 8:  # a right length lets the JSON be reached
        content[:8] = struct.pack("<Q", max(0, min(header, len(content)) - 8))
    return bytes(content)


def test_fuzz_only_input_errors_and_nothing_the_library_would_refuse(tmp_path):
    weights = {"blocks.0.a": torch.ones(2, 3), "b": torch.zeros(5, dtype=torch.bfloat16), "c": torch.zeros(0)}
    save_file(weights, tmp_path / "good.safetensors", {"job": "shot", "n": "1"})
    good = (tmp_path / "good.safetensors").read_bytes()
    generator = random.Random(20)
    path = tmp_path / "bad.safetensors"
    passed = 0
    for number in range(600):
        path.write_bytes(mutated(good, generator))
        try:
            header = read_header(path)
        except InputError as error:
            assert len(str(error)) < 700
            continue
        passed += 1
        try:
            with safe_open(path, framework="pt") as file:
                assert set(file.keys()) == set(header.tensors), number
        except SafetensorError as error:
            pytest.fail(f"mutation {number} passed, but the library says: {error}")
    assert 5 < passed < 400


def test_every_dtype_of_the_library_is_known():
    names = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64"}
    names |= {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "complex64": "C64"}
    names |= {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
    for torch_name, name in names.items():
        assert BITS[name] == 8 * getattr(torch, torch_name).itemsize
