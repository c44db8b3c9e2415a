"""What Load Model lists of ComfyUI's model folders, and the path behind an entry."""

import os
import re

import pytest

from pack.dev.samples.tiny_models import TINY, write_transformer
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.files.folders import MAX_FOLDERS, entry_path, gguf_files, model_entries
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.recipes import Job

LISTED = [
    "SkyReels-V3-R2V-14B/image_encoder/model.safetensors",
    "SkyReels-V3-R2V-14B/text_encoder/model-00001-of-00002.safetensors",
    "SkyReels-V3-R2V-14B/text_encoder/model-00002-of-00002.safetensors",
    "SkyReels-V3-R2V-14B/transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "SkyReels-V3-R2V-14B/transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
    "SkyReels-V3-R2V-14B/vae/diffusion_pytorch_model.safetensors",
    "SkyReels-V3-V2V-14B/Wan2.1_VAE.pth",
    "SkyReels-V3-V2V-14B/models_t5_umt5-xxl-enc-bf16.pth",
    "SkyReels-V3-V2V-14B/shot_transformer/diffusion_pytorch_model-00001-of-00001.safetensors",
    "SkyReels-V3-V2V-14B/transformer/diffusion_pytorch_model-00001-of-00001.safetensors",
    "SkyReels-V3-A2V-19B/chinese-wav2vec2-base/model.safetensors",
    "SkyReels-V3-A2V-19B/diffusion_pytorch_model-00001-of-00008.safetensors",
    "SkyReels-V3-A2V-19B/models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    "SkyReels-V3-A2V-19B/my_own_fp16.safetensors",
    "single/transformer/diffusion_pytorch_model.safetensors",
    "single/vae/diffusion_pytorch_model.safetensors",
    "vae/an artist's own folder.safetensors",
    "two/a-00001-of-00002.safetensors",
    "two/a-00002-of-00002.safetensors",
    "two/b-00001-of-00002.safetensors",
    "loose-00002-of-00002.safetensors",
    "Wan21_SkyReelsV3-R2V_fp16.safetensors",
    "flux.sft",
    "gguf/SkyReels-V3-R2V-Q4_K_M.gguf",
    "SkyReels-V3-R2V-14B/text_encoder/umt5-xxl-Q8_0.gguf",
    "old.ckpt",
]
SHOWN = [
    "flux.sft",
    "gguf/SkyReels-V3-R2V-Q4_K_M.gguf",
    "loose-00001-of-00002.safetensors",
    "single/transformer/diffusion_pytorch_model.safetensors",
    "SkyReels-V3-A2V-19B/",
    "SkyReels-V3-A2V-19B/my_own_fp16.safetensors",
    "SkyReels-V3-R2V-14B/transformer/",
    "SkyReels-V3-V2V-14B/shot_transformer/",
    "SkyReels-V3-V2V-14B/transformer/",
    "two/a-00001-of-00002.safetensors",
    "two/b-00001-of-00002.safetensors",
    "vae/an artist's own folder.safetensors",
    "Wan21_SkyReelsV3-R2V_fp16.safetensors",
]


def test_what_the_list_shows():
    assert model_entries(LISTED) == SHOWN
    assert model_entries([name.replace("/", "\\") for name in reversed(LISTED)]) == SHOWN
    assert model_entries(f"Skywork/{name}" for name in LISTED if "V3" in name) == [
        f"Skywork/{name}" for name in SHOWN if "V3" in name
    ]
    assert model_entries([]) == []


def test_entries_open(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    write_transformer(second / "V2V" / "transformer", Job.EXTENSION, shards=2)
    write_transformer(second / "x.safetensors", Job.SHOT)
    entries = model_entries(str(path.relative_to(second)) for path in second.rglob("*.safetensors"))
    assert entries == ["V2V/transformer/", "x.safetensors"]
    for entry in entries:
        assert open_checkpoint(entry_path(entry, [first, second])).params == TINY
    assert entry_path("V2V\\transformer\\", [first, str(second)]) == second / "V2V" / "transformer"


@pytest.mark.parametrize("entry", ["../x", "a/../../x", "/etc/x", "\\\\host\\x", "C:\\x", "C:x", "", "/", "a\0b"])
def test_entries_that_leave_the_folders(tmp_path, entry):
    with pytest.raises(InputError, match="no place in the diffusion_models folders"):
        entry_path(entry, [tmp_path])


def test_an_entry_that_is_gone(tmp_path):
    (tmp_path / "folder").mkdir()
    for entry in ("x.safetensors", "folder", "x.safetensors/"):
        with pytest.raises(InputError, match=re.escape(entry)):
            entry_path(entry, [tmp_path])


@pytest.fixture
def gguf_roots(tmp_path):
    """Two roots with .gguf files at several depths and things that are none."""
    names = ("b.gguf", "sub/A.GGUF", "sub/deeper/c.gguf", ".git/d.gguf", "sub/._c.gguf", "sub/e.safetensors")
    for name in (*(f"first/{name}" for name in names), "second/b.gguf", "second/z.gguf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path / "first", tmp_path / "second"


def test_gguf_files_are_found_below_every_root(gguf_roots):
    first, second = gguf_roots
    found = gguf_files([first, str(second) + os.sep, first / "missing"])
    assert found == ["b.gguf", "sub/A.GGUF", "sub/deeper/c.gguf", "z.gguf"]
    assert model_entries(found) == found
    for entry in found:
        assert entry_path(entry, gguf_roots).is_file()
    assert gguf_files([first / "b.gguf", first / "sub" / "deeper"]) == ["c.gguf"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_but_not_in_circles(gguf_roots):
    first, second = gguf_roots
    (first / "other").symlink_to(second, target_is_directory=True)
    (first / "again").symlink_to(first / "sub", target_is_directory=True)
    (first / "sub" / "loop").symlink_to(first, target_is_directory=True)
    (second / "back").symlink_to(first, target_is_directory=True)
    (first / "dead.gguf").symlink_to(first / "gone.gguf")
    expected = ["again/A.GGUF", "again/deeper/c.gguf", "b.gguf", "dead.gguf", "other/b.gguf", "other/z.gguf"]
    assert gguf_files([first]) == [*expected, "sub/A.GGUF", "sub/deeper/c.gguf"]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_counts_as_empty(gguf_roots):
    first, _ = gguf_roots
    (first / "sub").chmod(0)
    assert gguf_files([first]) == ["b.gguf"]
    (first / "sub").chmod(0o700)


def test_the_search_for_gguf_files_ends(gguf_roots, monkeypatch):
    assert MAX_FOLDERS >= 1000
    monkeypatch.setattr("pack.model_loaders.files.folders.MAX_FOLDERS", 2)
    assert gguf_files([gguf_roots[0]]) == ["b.gguf", "sub/A.GGUF"]
