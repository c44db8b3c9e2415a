"""Checkpoints as Skywork and others publish them: names, sizes, weights, and the job that is taken."""

import dataclasses
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pack.benchmarks.harness.pages import bytes_read, cached_bytes
from pack.dev.samples.sparse_models import LARGE, write_sparse, write_sparse_gguf
from pack.dev.samples.tiny_models import TINY, TINY_AVATAR, transformer_weights, write_transformer
from pack.formats.int8 import Int8
from pack.formats.kinds import Precision
from pack.model_loaders.architecture.key_maps import DIFFUSERS, find_dialect
from pack.model_loaders.architecture.params import expected_shapes, params_from_shapes
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.checkpoints.inspection import inspect
from pack.model_loaders.files.folders import model_entries
from pack.model_loaders.weights import load_weights
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects, golden
from pack.tests.support.mapped import mapped_files
from pack.tests.support.out_of_memory import OUT_OF_MEMORY

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
WIDE = TransformerParams(dim=512, ffn_dim=2048, num_heads=4, num_layers=2)
TOOLS = Path(__file__).resolve().parents[2] / "tools"  # for `pack`
SHARD = "diffusion_pytorch_model-{:05}-of-{:05}.safetensors"


def check_weights(checkpoint, params, dtype=torch.bfloat16):
    """The state dict is exactly the weights that were written."""
    wanted, weights = transformer_weights(params), load_weights(checkpoint).tensors
    assert weights.keys() == wanted.keys()
    for key, weight in weights.items():
        assert weight.dtype == dtype and torch.equal(weight, wanted[key].to(dtype)), key


@pytest.fixture
def single(tmp_path):
    """A Wan-named file and its weights, for changes: single(name, weights, metadata) writes another one."""
    weights = {key: weight.half() for key, weight in transformer_weights(TINY).items()}

    def write(name="model.safetensors", changed=None, metadata=None):
        save_file(weights if changed is None else changed, tmp_path / name, metadata)
        return tmp_path / name

    return write, weights


@pytest.mark.parametrize("name", ["dit_reference", "dit_extension", "dit_shot", "dit_avatar"])
def test_names_and_sizes_are_the_official_ones(name):
    file = golden.read(GOLDENS / f"{name}.safetensors")
    dialect, prefix = find_dialect(file.shapes)
    assert (dialect.name, prefix) == ("diffusers" if name == "dit_reference" else "wan", "")
    shapes = {new: tuple(file.shapes[old]) for old, new in dialect.rename(file.shapes).items()}
    params = params_from_shapes(shapes, file.config)
    assert expected_shapes(params) == shapes
    assert (params.dim, params.num_heads, params.head_dim, params.num_layers) == (96, 3, 32, 2)
    assert (params.ffn_dim, params.text_dim, params.freq_dim, params.out_dim) == (160, 48, 256, 16)
    audio = AudioParams(hidden=4, tokens=6, dim=24) if name == "dit_avatar" else None
    assert (params.in_dim, params.image_dim, params.audio) == ((36, 1280, audio) if audio else (16, None, None))


def test_every_weight_of_the_published_sizes():
    sizes = TransformerParams()
    assert params_from_shapes(expected_shapes(sizes)) == sizes
    assert len(expected_shapes(sizes)) == 1095
    avatar = dataclasses.replace(sizes, in_dim=36, image_dim=1280, audio=AudioParams())
    assert params_from_shapes(expected_shapes(avatar)) == avatar


def test_diffusers_names_of_image_layers_and_back():
    names = expected_shapes(TINY_AVATAR)
    diffusers = DIFFUSERS.inverted().rename(names)
    assert diffusers["blocks.1.cross_attn.norm_k_img.weight"] == "blocks.1.attn2.norm_added_k.weight"
    assert diffusers["img_emb.proj.1.bias"] == "condition_embedder.image_embedder.ff.net.0.proj.bias"
    assert diffusers["img_emb.proj.4.weight"] == "condition_embedder.image_embedder.norm2.weight"
    assert diffusers["blocks.0.norm3.weight"] == "blocks.0.norm2.weight"
    assert DIFFUSERS.rename(diffusers.values()) == {new: old for old, new in diffusers.items()}


@pytest.mark.parametrize("heads", [0, -1, 3, 128, "many", [1], float("inf")])
@pytest.mark.parametrize("key", ["num_heads", "num_attention_heads"])
def test_a_number_of_heads_that_does_not_fit(heads, key):
    with pytest.raises(InputError, match="heads"):
        params_from_shapes(expected_shapes(TINY), {key: heads})


def test_without_config_a_head_is_128_wide():
    assert params_from_shapes(expected_shapes(dataclasses.replace(TINY, dim=256, num_heads=2))).num_heads == 2
    with pytest.raises(InputError, match=r"96 wide.*config\.json"):
        params_from_shapes(expected_shapes(dataclasses.replace(TINY, dim=96, num_heads=3)))


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model.", "model."])
@pytest.mark.parametrize("dialect", ["wan", "diffusers"])
def test_single_files(tmp_path, dialect, prefix):
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, dialect, prefix=prefix)
    checkpoint = open_checkpoint(path)
    assert (checkpoint.params, checkpoint.job, checkpoint.dialect) == (TINY, Job.REFERENCE, dialect)
    assert checkpoint.paths == (path,) and checkpoint.plain_dtype == "BF16"
    check_weights(checkpoint, TINY)


@pytest.mark.parametrize("dtype, name", [(torch.float16, "fp16"), (torch.float32, "fp32")])
def test_other_precisions(tmp_path, dtype, name):
    checkpoint = open_checkpoint(write_transformer(tmp_path / "x.safetensors", Job.SHOT, dtype=dtype), Job.SHOT)
    assert checkpoint.precision == name and checkpoint.job is Job.SHOT
    check_weights(checkpoint, TINY, dtype)


def test_the_dtype_is_that_of_most_weights(single):
    write, weights = single
    changed = {key: weight.float() if "modulation" in key else weight for key, weight in weights.items()}
    checkpoint = open_checkpoint(write("x.safetensors", changed))
    assert checkpoint.plain_dtype == "F16"
    assert load_weights(checkpoint).tensors["head.modulation"].dtype == torch.float32


HIGH = ("modulation", "norm3", "norm_q", "norm_k", "time_embedding")


@pytest.mark.parametrize("names", ["wan", "diffusers", "gguf"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_officially_float32_stays_so(tmp_path, names, dtype):
    """Where the file has it in float32; the rest becomes what was asked for. GGUF files have all vectors so."""
    if names == "gguf":
        dialects.write("Q8_0", tmp_path / "r2v", Job.REFERENCE)
        path = tmp_path / "r2v.gguf"
    else:
        path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, names, dtype=torch.float32)
    checkpoint = open_checkpoint(path, Job.REFERENCE)
    loaded = load_weights(checkpoint, Precision.AUTO, dtype)
    plain = {key: tensor for key, tensor in loaded.tensors.items() if key.rpartition(".")[0] not in loaded.formats}
    assert len(plain) > 20
    for key, tensor in plain.items():
        wide = checkpoint.weights[key].parts["weight"].dtype == "F32" and any(part in HIGH for part in key.split("."))
        assert tensor.dtype == (torch.float32 if wide else dtype), key
    assert plain["blocks.1.modulation"].dtype == torch.float32
    half = write_transformer(tmp_path / "half.safetensors", Job.REFERENCE, dtype=torch.float16)
    assert {one.dtype for one in load_weights(open_checkpoint(half), dtype=dtype).tensors.values()} == {dtype}


def test_a_whole_checkpoint_gives_its_transformer(single):
    write, weights = single
    whole = {f"model.diffusion_model.{key}": weight for key, weight in weights.items()}
    path = write("whole.safetensors", {**whole, "first_stage_model.decoder.conv1.weight": torch.ones(1)})
    assert load_weights(open_checkpoint(path)).tensors.keys() == weights.keys()


@pytest.mark.parametrize("index", [True, False])
def test_audio_layers_in_a_file_beside_the_shards(tmp_path, index):
    folder = write_transformer(tmp_path / "A2V", Job.AVATAR, shards=3, index=False)
    audio, keys = {}, {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        audio |= {key: tensors.pop(key) for key in list(tensors) if "audio_" in key or ".norm_x." in key}
        save_file(tensors, path)
        keys |= dict.fromkeys(tensors, path.name)
    save_file(audio, folder / "talking.safetensors")
    save_file({"decoder.conv1.weight": torch.ones(1)}, folder / "wan_vae.safetensors")
    (folder / "broken.safetensors").write_bytes(b"")
    if index:
        text = json.dumps({"weight_map": keys})
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.job is Job.AVATAR and [path.name for path in checkpoint.paths][3:] == ["talking.safetensors"]
    check_weights(checkpoint, TINY_AVATAR)
    save_file(audio, folder / "again.safetensors")  # which of them is meant, nobody can tell
    with pytest.raises(InputError, match=r"audio layers in again\.safetensors and talking\."):
        open_checkpoint(folder)


def test_audio_layers_in_two_files_beside_the_shards(tmp_path):
    folder = write_transformer(tmp_path / "A2V", Job.AVATAR, shards=2, index=False)
    audio = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        audio |= {key: tensors.pop(key) for key in list(tensors) if "audio_" in key or ".norm_x." in key}
        save_file(tensors, path)
    for number in range(2):
        half = {key: audio[key] for key in audio if (key < "blocks.1") is bool(number)}
        save_file({**half, "global_step": torch.tensor(7)}, folder / f"audio_{number}.safetensors")
    check_weights(open_checkpoint(folder), TINY_AVATAR)


def test_a_lora_beside_a_model_is_none_of_its_files(tmp_path):
    pair = {f"diffusion_model.blocks.0.ffn.0.lora_{part}.weight": torch.ones(4, 4) for part in "AB"}
    write_transformer(tmp_path / "mine" / "v2v.safetensors", Job.EXTENSION)
    save_file(pair, tmp_path / "mine" / "style.safetensors")
    checkpoint = open_checkpoint(tmp_path / "mine")
    assert checkpoint.job is Job.EXTENSION and [path.name for path in checkpoint.paths] == ["v2v.safetensors"]
    weights = load_file(tmp_path / "mine" / "v2v.safetensors")
    (tmp_path / "parts").mkdir()
    for number in range(2):
        save_file({key: weights[key] for key in list(weights)[number::2]}, tmp_path / "parts" / f"{number}.safetensors")
    save_file(pair, tmp_path / "parts" / "style.safetensors")
    check_weights(open_checkpoint(tmp_path / "parts"), TINY)
    told = {Path(one.file).name: bool(one.problems) for one in inspect(str(tmp_path / "parts"))}
    assert told == {"parts": False, "style.safetensors": True}
    write_transformer(tmp_path / "mine" / "r2v.safetensors", Job.REFERENCE)
    with pytest.raises(InputError, match=r"mine holds r2v\.safetensors, v2v\.safetensors, each a model: choose one"):
        open_checkpoint(tmp_path / "mine")


def test_files_that_tools_leave_beside_the_shards(tmp_path):
    """Markers in each shard and in the audio layers' file, and what macOS writes on other systems' disks."""
    folder = write_transformer(tmp_path / "A2V", Job.AVATAR, shards=2, index=False)
    audio, markers = {}, {"model_type.A2V": torch.zeros(1), "scaled_fp8": torch.zeros(2)}
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        audio |= {key: tensors.pop(key) for key in list(tensors) if "audio_" in key or ".norm_x." in key}
        save_file(tensors | markers, path)
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    save_file(audio | markers, folder / "talking.safetensors")
    checkpoint = open_checkpoint(folder)
    assert len(checkpoint.paths) == 3 and checkpoint.left_out == ("model_type.A2V",)
    check_weights(checkpoint, TINY_AVATAR)
    assert model_entries(f"A2V/{file.name}" for file in folder.iterdir()) == ["A2V/", "A2V/talking.safetensors"]


def hub_cache(root: Path) -> Path:
    """A cache of Hugging Face's hub with the shot model: a snapshot whose file is a link to one without a name."""
    repository = root / "hub" / "models--Skywork--SkyReels-V3-V2V-14B"
    snapshot = repository / "snapshots" / "1f2e3d" / "shot_transformer" / "model.safetensors"
    blob = repository / "blobs" / "0a1b2c"
    write_transformer(blob.with_suffix(".safetensors"), Job.SHOT).rename(blob)
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(Path("../../..") / "blobs" / "0a1b2c")
    assert snapshot.samefile(blob)
    return snapshot


@pytest.mark.skipif(sys.platform == "win32", reason="Windows asks for rights to make links")
def test_a_link_into_a_hubs_cache_tells_the_job(tmp_path):
    snapshot = hub_cache(tmp_path)
    models = tmp_path / "models" / "diffusion_models"
    models.mkdir(parents=True)
    (models / "mine.safetensors").symlink_to(snapshot)  # a file
    (models / "folder").symlink_to(snapshot.parent)  # its folder
    (models / "other").symlink_to(os.path.relpath(models / "folder", models))  # a link to a link
    (models / "whole").symlink_to(snapshot.parents[1])  # a folder above it
    (models / "twice.safetensors").symlink_to("mine.safetensors")
    for name in ("mine.safetensors", "folder", "other", "twice.safetensors", "whole", "folder/model.safetensors"):
        checkpoint = open_checkpoint(models / name)
        assert checkpoint.job is Job.SHOT and "shot_transformer says shot" in checkpoint.why, name
    (models / "r2v.safetensors").symlink_to(snapshot)  # the artist's own name says more
    assert open_checkpoint(models / "r2v.safetensors").job is Job.REFERENCE
    (models / "blob.safetensors").symlink_to(snapshot.resolve())  # the repository's name is left
    assert open_checkpoint(models / "blob.safetensors").job is Job.EXTENSION
    (models / "round").symlink_to(models / "round")
    with pytest.raises(InputError, match="round"):
        open_checkpoint(models / "round")


FOLDERS = {
    "R2V": ("SkyReels-V3-R2V-14B/transformer", Job.REFERENCE, "diffusers", TINY),
    "V2V": ("SkyReels-V3-V2V-14B/transformer", Job.EXTENSION, "wan", TINY),
    "V2V shot": ("SkyReels-V3-V2V-14B/shot_transformer", Job.SHOT, "wan", TINY),
    "A2V": ("SkyReels-V3-A2V-19B", Job.AVATAR, "wan", TINY_AVATAR),
}


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("folder, job, dialect, params", FOLDERS.values(), ids=FOLDERS)
def test_the_folders_that_skywork_publishes(tmp_path, folder, job, dialect, params, index):
    path = write_transformer(tmp_path / folder, job, dialect, shards=3, index=index)
    checkpoint = open_checkpoint(path)
    assert (checkpoint.job, checkpoint.params, checkpoint.dialect) == (job, params, dialect)
    assert [file.name for file in checkpoint.paths] == [SHARD.format(n, 3) for n in (1, 2, 3)]
    check_weights(checkpoint, params)
    any_shard = open_checkpoint(path / SHARD.format(2, 3))
    assert any_shard.job is job and any_shard.paths == checkpoint.paths
    for file in path.glob("*.index.json"):
        listed = open_checkpoint(file)
        assert listed.job is job and listed.paths == checkpoint.paths and listed.params == params


def test_the_config_beside_a_folder_tells_the_heads(tmp_path):
    params = dataclasses.replace(TINY, num_heads=4)
    for dialect in ("wan", "diffusers"):
        path = write_transformer(tmp_path / dialect, Job.REFERENCE, dialect, params=params, shards=2)
        assert open_checkpoint(path).params.num_heads == 4
    path = write_transformer(tmp_path / "x.safetensors", Job.SHOT, params=params, metadata={"num_heads": "4"})
    assert open_checkpoint(path).params.num_heads == 4
    (tmp_path / "config.json").write_text('{"num_heads": 2}')  # of something else: x.safetensors is a single file
    assert open_checkpoint(path).params.num_heads == 4


def test_shards_with_any_names_and_no_index(tmp_path):
    weights = {key: weight.bfloat16() for key, weight in transformer_weights(TINY_AVATAR).items()}
    keys = sorted(weights)
    (tmp_path / "model").mkdir()
    save_file({key: weights[key] for key in keys[::2]}, tmp_path / "model" / "first.safetensors")
    save_file({key: weights[key] for key in keys[1::2]}, tmp_path / "model" / "second.safetensors")
    check_weights(open_checkpoint(tmp_path / "model"), TINY_AVATAR)


def test_a_repository_with_one_transformer_needs_no_more(tmp_path):
    write_transformer(tmp_path / "SkyReels-V3-R2V-14B" / "transformer", Job.REFERENCE, "diffusers", shards=2)
    assert open_checkpoint(tmp_path / "SkyReels-V3-R2V-14B").job is Job.REFERENCE
    write_transformer(tmp_path / "SkyReels-V3-R2V-14B" / "shot_transformer", Job.SHOT, shards=2)
    with pytest.raises(InputError, match="choose one of these two folders"):
        open_checkpoint(tmp_path / "SkyReels-V3-R2V-14B")


def test_weights_are_mapped_not_copied(tmp_path):
    path = write_transformer(tmp_path / "x.safetensors", Job.SHOT)
    weights = load_weights(open_checkpoint(path)).tensors
    maps = mapped_files()
    if not maps:
        pytest.skip("the system does not tell what is mapped")
    for key, weight in weights.items():
        assert any(start <= weight.data_ptr() < end for start, end in maps[str(path)]), key


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.weights import load_weights

# Counts all that is writable: private mappings of files too, whatever of them is read.
resource.setrlimit(resource.RLIMIT_DATA, (4 * 2**30, 4 * 2**30))
for path in map(Path, sys.argv[2:]):
    assert path.stat().st_size > 6 * 10**9
    tensors = load_weights(open_checkpoint(path)).tensors
    assert next(iter(tensors.values())).flatten()[0] == 1
    assert not tensors["head.head.weight"].any() and len(tensors) > 50
del tensors
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))
load_weights(open_checkpoint(Path(sys.argv[2])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_files_larger_than_memory_load(tmp_path):
    params = dataclasses.replace(LARGE, num_layers=2, ffn_dim=2**17)
    paths = [write_sparse(tmp_path / "r2v.safetensors", params), write_sparse_gguf(tmp_path / "r2v.gguf", params)]
    command = [sys.executable, "-c", LIMITED, str(TOOLS), *map(str, paths)]
    result = subprocess.run(command, capture_output=True, text=True)
    # The last one, in less address space than the file has bytes, is refused.
    assert "InputError: Memory ran out while r2v.safetensors was loaded: close other programs" in result.stderr
    assert result.stderr.count("Error: ") == 2 and "OSError: [Errno 12]" in result.stderr, result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what was read")
def test_loading_reads_what_it_needs_once(tmp_path):
    params = dataclasses.replace(LARGE, num_layers=4)
    for path in (write_sparse(tmp_path / "r2v.safetensors", params), write_sparse_gguf(tmp_path / "r2v.gguf", params)):
        assert cached_bytes(path) < 0.001 * path.stat().st_size
        load_weights(open_checkpoint(path))
        assert cached_bytes(path) < 0.01 * path.stat().st_size  # nothing is kept, rows are looked at
    path = write_transformer(tmp_path / "v2v.safetensors", Job.EXTENSION, params=WIDE)
    # Packed, unpacked to another dtype, and as they are in memory: every byte once.
    for precision, dtype, maps in (("int8", None, True), ("auto", torch.float32, True), ("auto", None, False)):
        before = bytes_read()
        load_weights(open_checkpoint(path), Precision(precision), dtype, maps=maps)
        assert bytes_read() - before < 1.02 * path.stat().st_size


@pytest.mark.parametrize("shift", range(8))
def test_misaligned_weights_are_right(tmp_path, shift):
    path = write_transformer(tmp_path / "x.safetensors", Job.SHOT, dtype=torch.float32)
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(struct.pack("<Q", end - 8 + shift) + content[8:end] + b" " * shift + content[end:])
    checkpoint = open_checkpoint(path)
    check_weights(checkpoint, TINY, torch.float32)
    assert all(weight.data_ptr() % 4 == 0 for weight in load_weights(checkpoint).tensors.values())


def test_a_file_that_changed_after_it_was_opened(tmp_path):
    checkpoint = open_checkpoint(write_transformer(tmp_path / "x.safetensors", Job.SHOT))
    checkpoint.paths[0].unlink()
    with pytest.raises(InputError, match="load the model again"):
        load_weights(checkpoint)


def test_a_full_card_leaves_packing_to_the_processor(tmp_path, monkeypatch):
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    wanted = load_weights(open_checkpoint(path), Precision.INT8).tensors
    pack = Int8.pack

    def full(self, weight):
        if weight.is_meta:  # stands for a card: tensors can be moved there, and nothing can be read back
            raise OUT_OF_MEMORY["cublas"]
        return pack(self, weight)

    monkeypatch.setattr(Int8, "pack", full)
    loaded = load_weights(open_checkpoint(path), Precision.INT8, device="meta").tensors
    assert loaded.keys() == wanted.keys() and all(torch.equal(loaded[name], wanted[name]) for name in wanted)
