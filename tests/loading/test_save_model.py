"""Saved files: what they hold, who opens them, and what a save that fails leaves behind: nothing."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pack.dev.samples.tiny_models import TINY, TINY_AVATAR, transformer_weights, write_transformer
from pack.formats.encoding import Encoding
from pack.formats.kinds import Precision
from pack.formats.registry import format_of
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.files.header import read_header
from pack.model_loaders.files.safetensors_header import BITS
from pack.model_loaders.save import SavePlan
from pack.model_loaders.tensors.precision import FLOAT32, MATRICES
from pack.model_loaders.tensors.safetensors_writer import SafetensorsFile
from pack.model_loaders.weights import load_weights
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects
from pack.tests.support.golden import relative_error
from pack.tests.support.out_of_memory import OUT_OF_MEMORY
from pack.tests.support.saved import numbers, same

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"bf16": torch.bfloat16, "fp16": torch.float16}
FP8 = format_of(Encoding("float8_e4m3fn"))


def save(source: Path, path: Path, precision: str, dtype=torch.bfloat16, job: Job | None = None, **options):
    checkpoint = open_checkpoint(source, job)
    SavePlan(checkpoint, Precision(precision), dtype, **options).write(path)
    return open_checkpoint(path)


# What is in the file.


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8", "int8"])
@pytest.mark.parametrize("job", list(Job))
def test_shards_become_one_file_with_the_same_numbers(tmp_path, job, precision):
    names = "diffusers" if job is Job.REFERENCE else "wan"
    folder = write_transformer(tmp_path / "model", job, names, shards=3, dtype=torch.float32)
    dtype = PLAIN.get(precision, torch.bfloat16)
    saved = save(folder, tmp_path / "saved.safetensors", precision, dtype, job)
    assert saved.job is job and saved.dialect == "wan" and saved.paths == (tmp_path / "saved.safetensors",)
    params = TINY_AVATAR if job is Job.AVATAR else TINY
    assert saved.params == params
    found = numbers(saved)
    loaded = load_weights(open_checkpoint(folder, job), Precision(precision), dtype)
    for name, weight in transformer_weights(params).items():
        if FLOAT32.search(name):  # stays so, as the file has it
            assert torch.equal(found[name], weight), name
        elif precision in PLAIN or not MATRICES.match(name):
            assert torch.equal(found[name], weight.to(dtype).float()), name
        elif precision == "fp8":
            assert torch.equal(found[name], FP8.unpack(FP8.pack_tensorwise(weight), *weight.shape, torch.float32)), name
    if precision != "fp8":  # which is stored with one scale for a weight, but kept with one for each row
        assert same(load_weights(saved).tensors, loaded.tensors)


@pytest.mark.parametrize("dialect", [name for name in dialects.SAFETENSORS if name not in dialects.NOT_IN_COMFYUI])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_what_comfyui_reads_is_taken_over_bit_by_bit(tmp_path, dialect, prefix):
    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE, prefix=prefix)
    source = tmp_path / "r2v.safetensors"
    own = open_checkpoint(source)
    saved = save(source, tmp_path / "saved.safetensors", "auto", torch.float16 if dialect == "fp16" else torch.bfloat16)
    assert same(load_weights(saved).tensors, load_weights(own).tensors)
    assert {name: one.encoding for name, one in saved.weights.items()} == {
        name: one.encoding for name, one in own.weights.items()
    }
    again = save(saved.paths[0], tmp_path / "again.safetensors", "auto", torch.float16)
    if own.is_packed:
        assert saved.paths[0].read_bytes() == again.paths[0].read_bytes()


@pytest.mark.parametrize("dialect", ["fp8 blocks", "int8 blocks"])
def test_what_comfyui_has_no_format_for_is_not_copied(tmp_path, dialect):
    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE)
    with pytest.raises(InputError, match=r"ComfyUI has no format.*choose the precision"):
        save(tmp_path / "r2v.safetensors", tmp_path / "saved.safetensors", "auto")


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8", "int8"])
@pytest.mark.parametrize("dialect", ["fp8 old", "nvfp4", "int8 rotated", "Q8_0", "fp8 blocks", "w4a8", "fp64"])
def test_one_precision_into_another(tmp_path, dialect, precision):
    means = dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE)
    (source,) = tmp_path.iterdir()
    found = numbers(save(source, tmp_path / "saved.safetensors", precision, PLAIN.get(precision, torch.bfloat16)))
    bound = {"bf16": 0.003, "fp16": 0.0005, "fp8": 0.04, "int8": 0.015}[precision]
    assert max(relative_error(found[name], means[name]) for name in means) < bound


def test_fp8_with_a_scale_per_row_becomes_one_that_comfyui_reads(tmp_path):
    weights = {name: weight.bfloat16() for name, weight in transformer_weights(TINY).items()}
    for name in filter(MATRICES.match, list(weights)):
        parts = FP8.pack(transformer_weights(TINY)[name])
        weights |= {f"{name.removesuffix('.weight')}.{part}": tensor for part, tensor in parts.items()}
    save_file(weights, tmp_path / "r2v.safetensors")
    save(tmp_path / "r2v.safetensors", tmp_path / "saved.safetensors", "auto")
    saved = load_file(tmp_path / "saved.safetensors")
    scales = [tensor for key, tensor in saved.items() if key.endswith("weight_scale")]
    assert scales and all(scale.shape == () for scale in scales)


@pytest.mark.parametrize("where", ["tensors", "header", "prefixed header"])
def test_what_only_comfyui_uses_is_not_lost(tmp_path, where):
    """Scales of inputs, and layers that are to be multiplied exactly."""
    tensors, _, metadata = dialects.fp8_mixed(transformer_weights(TINY), where)
    layer = "blocks.0.ffn.0"
    config = {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
    if where == "tensors":
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(config).encode()), dtype=torch.uint8)
    else:
        table = json.loads(metadata["_quantization_metadata"])
        table["layers"][("diffusion_model." if "prefixed" in where else "") + layer] = config
        metadata["_quantization_metadata"] = json.dumps(table)
    tensors[f"{layer}.input_scale"] = torch.tensor(0.25)
    save_file(tensors, tmp_path / "r2v.safetensors", metadata or None)
    save(tmp_path / "r2v.safetensors", tmp_path / "saved.safetensors", "auto")
    saved = load_file(tmp_path / "saved.safetensors")
    assert json.loads(saved[f"{layer}.comfy_quant"].numpy().tobytes()) == config
    assert saved[f"{layer}.input_scale"] == 0.25


def test_the_wish_of_an_older_file_stands_in_the_saved_one(tmp_path):
    """Its marker of two numbers is not ComfyUI's any more where layers have a configuration."""
    dialects.write("fp8 old", tmp_path / "r2v", Job.REFERENCE)
    saved = save(tmp_path / "r2v.safetensors", tmp_path / "saved.safetensors", "auto", job=Job.REFERENCE)
    layers = json.loads(saved.metadata["_quantization_metadata"])["layers"]
    assert layers and all(config["full_precision_matrix_mult"] is True for config in layers.values())
    changes = {"blocks.0.ffn.0.weight": lambda weight: weight.mul_(2)}
    again = save(tmp_path / "saved.safetensors", tmp_path / "again.safetensors", "auto", changes=changes)
    assert all(weight.encoding.exact for weight in again.weights.values() if weight.encoding)


def test_the_header_is_one_that_both_generations_of_comfyui_read(tmp_path):
    source = write_transformer(tmp_path / "v2v_shot.safetensors", Job.SHOT)
    save(source, tmp_path / "saved.safetensors", "int8")
    with safe_open(tmp_path / "saved.safetensors", framework="pt") as file:
        metadata, keys = file.metadata(), set(file.keys())
        config = json.loads(file.get_tensor("blocks.0.ffn.2.comfy_quant").numpy().tobytes())
    assert metadata["format"] == "pt" and metadata["skyreels_v3.job"] == "shot" and "num_heads" not in metadata
    layers = json.loads(metadata["_quantization_metadata"])["layers"]
    assert (
        layers["blocks.0.ffn.2"]
        == config
        == {
            "format": "int8_tensorwise",
            "convrot": True,
            "convrot_groupsize": 256,
        }
    )
    assert {f"{layer}.{part}" for layer in layers for part in ("weight", "weight_scale", "comfy_quant")} <= keys
    assert {f"{layer}.weight" for layer in layers} == set(filter(MATRICES.match, keys))
    header = read_header(tmp_path / "saved.safetensors")
    assert header.data_start % 8 == 0
    for tensor in header.tensors.values():
        assert tensor.start % max(1, BITS[tensor.dtype] // 8) == 0


def test_heads_of_another_width_are_kept(tmp_path):
    params = dataclasses.replace(TINY, num_heads=2)
    source = write_transformer(tmp_path / "model", Job.REFERENCE, params=params)
    assert save(source, tmp_path / "saved.safetensors", "bf16").params.num_heads == 2


def test_int8_is_what_comfy_kitchen_reads(tmp_path):
    from comfy_kitchen.tensor import TensorWiseINT8Layout

    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    found = numbers(save(source, tmp_path / "saved.safetensors", "int8"))
    saved = load_file(tmp_path / "saved.safetensors")
    for name in filter(MATRICES.match, found):
        layer = name.removesuffix(".weight")
        config = json.loads(saved[f"{layer}.comfy_quant"].numpy().tobytes())
        assert config.pop("format") == "int8_tensorwise"
        params = TensorWiseINT8Layout.Params(
            scale=saved[f"{layer}.weight_scale"], orig_dtype=torch.float32, orig_shape=saved[name].shape, **config
        )
        assert relative_error(TensorWiseINT8Layout.dequantize(saved[name], params), found[name]) < 1e-6, name


@pytest.mark.parametrize("dialect", ["Q8_0", "Q4_0"])
def test_gguf_has_no_format_in_comfyui(tmp_path, dialect):
    dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE)
    with pytest.raises(InputError, match=f"no format for {dialect} .*choose the precision bf16, fp8 or int8"):
        save(tmp_path / "r2v.gguf", tmp_path / "saved.safetensors", "auto")


# Changed weights.


def test_changes_are_made_before_the_weight_is_packed(tmp_path):
    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE, dtype=torch.float32)
    name, weights = "blocks.1.ffn.0.weight", transformer_weights(TINY)
    changes = {name: lambda weight: weight.mul_(3), "head.head.bias": lambda weight: weight + 1}
    found = numbers(save(source, tmp_path / "saved.safetensors", "int8", changes=changes))
    int8 = format_of(open_checkpoint(tmp_path / "saved.safetensors").weights[name].encoding)
    assert torch.equal(found[name], int8.unpack(int8.pack(3 * weights[name]), *weights[name].shape, torch.float32))
    assert torch.equal(found["head.head.bias"], (weights["head.head.bias"] + 1).bfloat16().float())


@pytest.mark.parametrize("how", OUT_OF_MEMORY)
def test_a_card_that_runs_out_of_memory_leaves_it_to_the_processor(tmp_path, how):
    checkpoint = open_checkpoint(write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE))

    def full(weight):
        if weight.is_meta:  # stands for a card: tensors can be moved there, and nothing can be read back
            raise OUT_OF_MEMORY[how]
        return weight

    changes, saved = dict.fromkeys(checkpoint.weights, full), []
    for device in ("cpu", "meta"):
        saved.append(tmp_path / f"{device}.safetensors")
        SavePlan(checkpoint, Precision.INT8, torch.bfloat16, changes).write(saved[-1], device)
    assert saved[0].read_bytes() == saved[1].read_bytes()


def test_changes_of_weights_that_cannot_be_packed_again(tmp_path):
    dialects.write("nvfp4", tmp_path / "r2v", Job.REFERENCE)
    changes = {"blocks.0.ffn.0.weight": lambda weight: weight}
    with pytest.raises(InputError, match="merged into weights that are stored as nvfp4: choose the precision bf16"):
        save(tmp_path / "r2v.safetensors", tmp_path / "saved.safetensors", "auto", changes=changes)


def test_numbers_that_are_not_finite_are_not_saved(tmp_path):
    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    changes = {"blocks.0.ffn.0.weight": lambda weight: weight * 1e7}
    with pytest.raises(InputError, match=r"^blocks.0.ffn.0.weight holds numbers that are not finite"):
        save(source, tmp_path / "saved.safetensors", "fp16", torch.float16, changes=changes)
    assert list(tmp_path.iterdir()) == [source]


# What a save that fails leaves.


class Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 40])
def test_an_interrupt_leaves_nothing(tmp_path, after):
    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    plan = SavePlan(open_checkpoint(source), Precision.FP8, torch.bfloat16)
    seen = []

    def before_each():
        assert not (tmp_path / "saved.safetensors").exists()
        if len(seen) == after:
            raise Stop
        seen.append(1)

    with pytest.raises(Stop):
        plan.write(tmp_path / "saved.safetensors", before_each=before_each)
    assert list(tmp_path.iterdir()) == [source]
    plan.write(tmp_path / "saved.safetensors")
    assert (tmp_path / "saved.safetensors").stat().st_size == plan.size


def test_a_disk_without_room_is_told_before_the_first_byte(tmp_path, monkeypatch):
    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    plan = SavePlan(open_checkpoint(source), Precision.BF16, torch.bfloat16)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, plan.size - 1))
    with pytest.raises(InputError, match=r"^Saving needs 0\.0 GB, but .* has 0\.0 GB free: make room there") as caught:
        plan.write(tmp_path / "saved.safetensors")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    """The limit on the size of a process's files is the only full disk that a test can have."""
    source = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    script = """
import resource, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:2]
import torch
import pack
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.formats.kinds import Precision
from pack.model_loaders.save import SavePlan
from pack.skyreels_v3.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    SavePlan(open_checkpoint(Path(sys.argv[2])), Precision.BF16, torch.bfloat16).write(Path(sys.argv[3]))
except InputError as error:
    print(error)
"""
    arguments = [str(ROOT / "tools"), str(source), str(tmp_path / "saved.safetensors")]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert "saved.safetensors could not be written (File too large): choose another folder" in done.stdout
    assert list(tmp_path.iterdir()) == [source]


def test_a_file_that_shrank_since_it_was_loaded(tmp_path):
    dialects.write("fp8 mixed", tmp_path / "r2v", Job.REFERENCE)
    source = tmp_path / "r2v.safetensors"
    plan = SavePlan(open_checkpoint(source), Precision.AUTO, torch.bfloat16)
    source.write_bytes(source.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"has become shorter.*load the model again"):
        plan.write(tmp_path / "saved.safetensors")
    assert list(tmp_path.iterdir()) == [source]


def test_the_writer_wants_what_its_header_says(tmp_path):
    path = tmp_path / "file.safetensors"
    file = SafetensorsFile({"a": ("F32", (2,)), "b": ("U8", (3,))}, {})
    with pytest.raises(RuntimeError, match="1 tensors were not written: b"), file.writing(path) as write:
        write("a", torch.ones(2))
    with pytest.raises(RuntimeError, match="a has 4 bytes, but its header says 8"), file.writing(path) as write:
        write("a", torch.ones(1))
    with file.writing(path) as write:
        with pytest.raises(FileExistsError), file.writing(path):
            pass
        write("b", torch.arange(3, dtype=torch.uint8))
        write("a", torch.tensor([1.0, 2.0]))
    assert [tensor.tolist() for tensor in load_file(path).values()] == [[1.0, 2.0], [0, 1, 2]]
    assert list(tmp_path.iterdir()) == [path] and path.stat().st_size == file.size


def test_memory_holds_one_weight_at_a_time(tmp_path):
    params = TransformerParams(dim=768, ffn_dim=3072, num_heads=6, num_layers=15)
    source, shapes = tmp_path / "r2v.safetensors", expected_shapes(params)
    with SafetensorsFile({name: ("BF16", shape) for name, shape in shapes.items()}, {}).writing(source) as write:
        some = torch.randn(max(map(prod, shapes.values()))).bfloat16()
        for name, shape in shapes.items():
            write(name, some[: prod(shape)].reshape(shape))
    size = source.stat().st_size
    assert size > 250_000_000
    script = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:2]
import torch
import pack
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.formats.kinds import Precision
from pack.model_loaders.save import SavePlan
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
torch.ones(256, 256) @ torch.ones(256, 256)
before = peak()
SavePlan(open_checkpoint(Path(sys.argv[2])), Precision(sys.argv[4]), torch.bfloat16).write(Path(sys.argv[3]))
print(peak() - before)
"""
    for precision in ("bf16", "int8"):
        arguments = [str(ROOT / "tools"), str(source), str(tmp_path / f"{precision}.safetensors"), precision]
        done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
        grown = int(done.stdout)
        print(f"saving {size / 1e6:.0f} MB as {precision} took {grown / 1e6:.0f} MB of memory")
        # The largest weight has 13 MB in float32, of which packing holds several.
        assert grown < 0.4 * size
