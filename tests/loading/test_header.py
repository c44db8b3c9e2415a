"""Which files a model's header is looked for in, and how the others are named."""

import os
import struct

import pytest

from pack.model_loaders.files.header import read_header
from pack.model_loaders.files.stamps import stamp_of
from pack.skyreels_v3.errors import InputError


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_header(path)
    message = str(caught.value)
    assert path.name in message and message.endswith(".") and "\n" not in message
    return message


OTHER_FILES = {
    "empty": (b"", "is empty"),
    "a web page": (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    "a torch zip": (b"PK\x03\x04" + bytes(60), "pickle"),
    "an old pickle": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
    "a file of zeros": (bytes(4096), "nothing but zeros"),
    "a header of 2**60 bytes": (struct.pack("<Q", 2**60) + b"{" + bytes(60), "neither a safetensors nor a GGUF file"),
    "an error message": (b'{"error": "Repository not found"}', "neither a safetensors nor a GGUF file"),
    "noise": (bytes(range(200, 256)), "neither a safetensors nor a GGUF file"),
    "four bytes": (b"\x10\0\0\0", "neither a safetensors nor a GGUF file"),
}


@pytest.mark.parametrize("content, words", OTHER_FILES.values(), ids=OTHER_FILES)
def test_other_files_are_named(tmp_path, content, words):
    for name in ("model.safetensors", "model.gguf"):
        path = tmp_path / name
        path.write_bytes(content)
        assert words in refusal(path)


def test_paths_that_are_no_file(tmp_path):
    assert "no file" in refusal(tmp_path / "missing.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "folder" in refusal(tmp_path / "folder.safetensors")
    with pytest.raises(InputError):
        read_header(tmp_path / "a\0b.safetensors")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"")

    def denied(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", denied)
    assert "Permission denied" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes in folders")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "device" in refusal(tmp_path / "pipe.safetensors")


def test_copies_of_a_file_have_one_key_and_other_weights_another(tmp_path):
    big = bytearray(os.urandom(5 << 20))
    first, copy = tmp_path / "model.safetensors", tmp_path / "copy" / "model.safetensors"
    copy.parent.mkdir()
    for path in (first, copy):
        path.write_bytes(big)
    os.utime(copy, ns=(1, 1))
    assert stamp_of(copy).content_key == stamp_of(first).content_key != stamp_of(first).key
    keys = {stamp_of(first).content_key}
    for place in (0, (2 << 20) + 7, len(big) - 1):
        other = bytearray(big)
        other[place : place + (1 << 17)] = bytes(1 << 17)
        copy.write_bytes(other[: len(big)])
        keys.add(stamp_of(copy).content_key)
    assert len(keys) == 4
    stamp = stamp_of(copy)
    copy.unlink()
    first.replace(copy)
    assert stamp.content_key in keys, "of the file that it was, read before"
    stamp = stamp_of(copy)
    copy.unlink()
    assert stamp.content_key == stamp.key, "of a file that nobody can read any more"
