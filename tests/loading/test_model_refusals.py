"""What is said about checkpoints that are incomplete, damaged, quantised or of another model."""

import dataclasses
import json
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pack.dev.samples.tiny_models import TINY, TINY_AVATAR, transformer_weights, write_transformer
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.weights import load_weights
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects

INDEX = "diffusion_pytorch_model.safetensors.index.json"
SHARD = "diffusion_pytorch_model-{:05}-of-{:05}.safetensors"


def refusal(path, job=None):
    with pytest.raises(InputError) as caught:
        open_checkpoint(path, job)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 500
    return message


def parts_of(checkpoint):
    return [part for weight in checkpoint.weights.values() for part in weight.parts.values()]


@pytest.fixture
def single(tmp_path):
    """A Wan-named file and its weights, for changes: single(name, weights, metadata) writes another one."""
    weights = {key: weight.half() for key, weight in transformer_weights(TINY).items()}

    def write(name="model.safetensors", changed=None, metadata=None):
        save_file(weights if changed is None else changed, tmp_path / name, metadata)
        return tmp_path / name

    return write, weights


def test_missing_unexpected_and_misshapen_weights(single):
    write, weights = single
    kept = {key: weight for key, weight in weights.items() if not key.startswith("blocks.0.ffn.2")}
    message = refusal(write("x.safetensors", kept))
    assert f"lacks 2 of the {len(weights)}" in message and "blocks.0.ffn.2.weight" in message
    message = refusal(write("x.safetensors", {**weights, "blocks.0.new.weight": torch.ones(1), "other": torch.ones(1)}))
    assert "2 weights" in message and "blocks.0.new.weight" in message
    message = refusal(write("x.safetensors", {**weights, "blocks.0.ffn.2.bias": torch.ones(7).half()}))
    assert "[7]" in message and "[128]" in message
    without = {key: weight for key, weight in weights.items() if not key.startswith("blocks.1.")}
    without["blocks.999999999.modulation"] = torch.ones(1, 6, 128)
    assert "incomplete" in refusal(write("x.safetensors", without))
    ids = {**weights, "position_ids": torch.arange(77)}
    assert "position_ids holds whole numbers (I64), as no weight does" in refusal(write("x.safetensors", ids))
    both = {**weights, "blocks.0.attn1.to_q.weight": torch.ones(1)}
    assert "blocks.0.attn1.to_q.weight" in refusal(write("x.safetensors", both))
    two = {**weights, "diffusion_model.x": torch.ones(1)}
    assert "diffusion_model.x" in refusal(write("x.safetensors", two))
    mixed = {f"diffusion_model.{key}": weight for key, weight in weights.items()}
    assert "do not begin with" in refusal(write("x.safetensors", {**mixed, "stray": torch.ones(1)}))


def test_bits_that_are_not_read(tmp_path):
    """comfy-kitchen writes asym_w4a8_int8 with 4 bits or 6 under one name."""
    dialects.write("w4a8", tmp_path / "x", Job.REFERENCE)
    path = tmp_path / "x.safetensors"
    tensors = load_file(path)
    codes = tensors["blocks.0.ffn.0.weight"]
    tensors["blocks.0.ffn.0.weight"] = torch.zeros(len(codes), codes.shape[1] * 3 // 2, dtype=codes.dtype)
    with safe_open(path, "pt") as file:
        save_file(tensors, path, file.metadata())
    assert "is w4a8 with 6 bits for each number, which is read with 4 alone" in refusal(path)


@pytest.fixture
def shards(tmp_path):
    """An R2V folder in three shards, and a function that changes its index."""
    folder = write_transformer(tmp_path / "R2V" / "transformer", Job.REFERENCE, "diffusers", shards=3)

    def change(edit):
        content = json.loads((folder / INDEX).read_text())
        edit(content["weight_map"])
        (folder / INDEX).write_text(json.dumps(content))

    return folder, change


def test_a_missing_shard_is_named(shards):
    folder, _ = shards
    (folder / SHARD.format(2, 3)).unlink()
    message = refusal(folder)
    assert message.startswith(f"R2V/transformer lacks {SHARD.format(2, 3)}, ")
    (folder / INDEX).unlink()
    message = refusal(folder)
    assert "2 of 3 shards" in message and "00002-of-00003" in message


def test_an_extra_shard_is_named(shards):
    folder, _ = shards
    save_file({"x": torch.ones(1)}, folder / SHARD.format(4, 3))
    assert SHARD.format(4, 3) in refusal(folder)
    (folder / INDEX).unlink()
    assert "4 of 3 shards" in refusal(folder)
    (folder / SHARD.format(4, 3)).rename(folder / "other-00001-of-00001.safetensors")
    assert "more than one checkpoint" in refusal(folder)


def test_a_truncated_shard_is_named(shards):
    folder, _ = shards
    path = folder / SHARD.format(3, 3)
    path.write_bytes(path.read_bytes()[:-1])
    assert SHARD.format(3, 3) in refusal(folder) and "incomplete" in refusal(folder)


def test_a_tensor_in_the_wrong_shard(shards):
    folder, change = shards
    change(lambda weights: weights.update({"proj_out.bias": SHARD.format(1, 3)}))
    other = json.loads((folder / INDEX).read_text())["weight_map"]
    moved = next(key for key, name in other.items() if name == SHARD.format(2, 3))
    change(lambda weights: weights.update({moved: SHARD.format(1, 3)}))
    message = refusal(folder)
    assert SHARD.format(1, 3) in message and "lists" in message
    change(lambda weights: weights.update({moved: SHARD.format(2, 3), "not.there": SHARD.format(2, 3)}))
    assert "lists" in refusal(folder)


def test_a_tensor_that_the_index_forgets(shards):
    """The official loaders read the shards alone; what the index does name must be there."""
    folder, change = shards
    change(lambda weights: weights.pop("proj_out.bias"))
    assert "proj_out.bias" in {part.key for part in parts_of(open_checkpoint(folder))}
    change(lambda weights: weights.update({"proj_out.bias.more": SHARD.format(3, 3)}))
    assert "lists proj_out.bias.more" in refusal(folder)


def test_a_tensor_in_two_shards(shards):
    folder, _ = shards
    (folder / INDEX).unlink()
    first = load_file(folder / SHARD.format(1, 3))
    twice = next(iter(first))
    save_file({**load_file(folder / SHARD.format(2, 3)), twice: first[twice]}, folder / SHARD.format(2, 3))
    assert twice in refusal(folder)


@pytest.mark.parametrize("name", ["../x.sft", "/etc/x.sft", "a\\x.sft", "C:x.sft", "x.bin", "..", "", "\0.sft"])
def test_an_index_that_leaves_its_folder(shards, name):
    folder, change = shards
    change(lambda weights: weights.update({"proj_out.bias": name}))
    assert "no shard in its own folder" in refusal(folder)


WEIGHT_MAPS = [b'{"weight_map": %s}' % value for value in (b"[]", b"{}", b'{"a": 1}', b'{"a": ["x.sft"]}')]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"{}", b"[" * 99_999, *WEIGHT_MAPS])
def test_a_malformed_index(shards, content):
    folder, _ = shards
    (folder / INDEX).write_bytes(content)
    assert INDEX in refusal(folder)


def test_a_malformed_config(shards):
    folder, _ = shards
    (folder / "config.json").write_text("<html>")
    assert "config.json" in refusal(folder)


def test_folders_without_a_model(tmp_path):
    assert "holds no safetensors file" in refusal(tmp_path)
    assert "no file" in refusal(tmp_path / "missing.safetensors")
    assert "no file" in refusal(tmp_path / "missing") or "no safetensors" in refusal(tmp_path / "missing")


OTHER_MODELS = {
    "LoRA, ComfyUI": (["diffusion_model.blocks.0.self_attn.q.lora_A.weight"], "a LoRA"),
    "LoRA, kohya": (["lora_unet__blocks_0_self_attn_q.lora_up.weight"], "SkyReels-V3 LoRA"),
    "LoRA, diffusers": (["transformer.blocks.0.attn1.to_q.lora_B.weight"], "a LoRA"),
    "SDXL": (["model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.0.x"], "Stable Diffusion"),
    "Flux": (["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"], "Flux"),
    "SD3": (["joint_blocks.0.context_block.attn.qkv.weight"], "Stable Diffusion 3"),
    "Hunyuan": (["double_blocks.0.img_attn.qkv.weight", "txt_in.individual_token_refiner.x"], "HunyuanVideo"),
    "umt5": (["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"], "CLIPLoader"),
    "CLIP text": (["text_model.encoder.layers.0.mlp.fc1.weight"], "text encoder"),
    "Wan VAE": (["decoder.conv1.weight", "encoder.conv1.weight", "decoder.middle.0.residual.0.gamma"], "VAELoader"),
    "CLIP vision": (["vision_model.embeddings.class_embedding"], "CLIPVisionLoader"),
    "wav2vec2": (["wav2vec2.feature_extractor.conv_layers.0.conv.weight"], "AudioEncoderLoader"),
    "something": (["linear.weight", "linear.bias"], "linear.bias"),
    "nothing": ([], "empty"),
}


@pytest.mark.parametrize("keys, words", OTHER_MODELS.values(), ids=OTHER_MODELS)
def test_other_models_are_named(tmp_path, keys, words):
    save_file({key: torch.ones(2, 2) for key in keys}, tmp_path / "x.safetensors")
    assert words in refusal(tmp_path / "x.safetensors")


def test_relatives_of_wan_are_named(single):
    write, weights = single
    assert "Wan VACE" in refusal(write("x.safetensors", {**weights, "vace_blocks.0.after_proj.weight": torch.ones(1)}))
    wide = {**weights, "patch_embedding.weight": torch.zeros(128, 36, 1, 2, 2)}
    assert "Wan image to video" in refusal(write("x.safetensors", wide))
    wide["img_emb.proj.0.weight"] = torch.zeros(1280)
    assert "Wan image to video" in refusal(write("x.safetensors", wide), Job.AVATAR)


LAYER = "blocks.0.ffn.0"
UNREADABLE = {
    "bitsandbytes": ({f"{LAYER}.weight.absmax": torch.ones(256)}, "quantised by bitsandbytes"),
    "GPTQ": ({f"{LAYER}.qweight": torch.ones(256)}, "quantised by GPTQ"),
    "complex numbers": ({f"{LAYER}.weight": torch.ones(256, 128).to(torch.complex64)}, "stored as C64"),
    "quanto": ({f"{LAYER}.weight._data": torch.ones(256, 128).to(torch.int8)}, "quantised by quanto"),
    "torchao": ({f"{LAYER}._weight_qdata": torch.ones(256, 128).to(torch.int8)}, "quantised by torchao"),
    "SDNQ": ({f"{LAYER}.scale": torch.ones(256, 1)}, "quantised by SDNQ"),
    "DFloat11": ({"blocks.0.sign_mantissa": torch.ones(256).byte()}, "quantised by DFloat11"),
    "scales of another format": ({f"{LAYER}.pre_quant_scale": torch.ones(128)}, "which weights in fp8 do not have"),
    "int8 without scales": ({f"{LAYER}.weight": torch.ones(256, 128).to(torch.int8)}, "without its scales"),
    "an unknown format": ({f"{LAYER}.comfy_quant": b'{"format": "int2"}'}, "stored as int2, which is not known"),
    "a format that is no name": ({f"{LAYER}.comfy_quant": b'{"format": [1]}'}, "which is not known"),
    "a format that is no table": ({f"{LAYER}.comfy_quant": b"[1]"}, "holds no table"),
    "a format that is no JSON": ({f"{LAYER}.comfy_quant": b"{"}, "not readable as JSON"),
    "a format without end": ({f"{LAYER}.comfy_quant": b" " * 5000}, "5000 bytes"),
    "scales that do not fit": ({f"{LAYER}.weight_scale": torch.ones(7)}, "scales of shape [7]"),
}


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
@pytest.mark.parametrize("added, words", UNREADABLE.values(), ids=UNREADABLE)
def test_formats_that_cannot_be_read_are_named(single, added, words, prefix):
    write, weights = single
    packed = {f"{LAYER}.weight": weights[f"{LAYER}.weight"].to(torch.float8_e4m3fn)}
    added = {
        key: torch.frombuffer(bytearray(value), dtype=torch.uint8) if isinstance(value, bytes) else value
        for key, value in added.items()
    }
    path = write("x.safetensors", {prefix + key: weight for key, weight in (weights | packed | added).items()})
    message = refusal(path)
    assert words in message and "fp8" in message


@pytest.mark.parametrize("table", ["", "[]", "{", '{"layers": [1]}', '{"layers": {"a": 1}}', '{"layers": "x"}'])
def test_a_damaged_table_of_formats(single, table):
    write, weights = single
    assert "table of quantised layers" in refusal(write("x.safetensors", weights, {"_quantization_metadata": table}))


def test_numbers_that_are_none(single):
    write, weights = single
    broken = weights["blocks.1.ffn.2.bias"].clone()
    broken[5] = float("nan")
    path = write("x.safetensors", {**weights, "blocks.1.ffn.2.bias": broken})
    with pytest.raises(
        InputError, match=r"x\.safetensors holds numbers that are not finite, in blocks\.1\.ffn\.2\.bias"
    ):
        load_weights(open_checkpoint(path))
    zeros = {key: torch.zeros_like(weight) for key, weight in weights.items()}
    with pytest.raises(InputError, match="nothing but zeros"):
        load_weights(open_checkpoint(write("x.safetensors", zeros)))


def test_fuzz_of_names_shapes_and_types(tmp_path):
    """Whatever a file holds under names like the right ones, it opens or is refused in a sentence."""
    shapes = expected_shapes(dataclasses.replace(TINY_AVATAR, num_layers=1))
    words = sorted({part for key in shapes for part in key.split(".")} | {"lora_A", "scale_weight", "-1", "", "é"})
    dtypes = [torch.float16, torch.uint8, torch.float8_e4m3fn, torch.int64]
    generator = random.Random(7)
    path = tmp_path / "x.safetensors"
    for _ in range(150):
        weights = {key: torch.empty(0, dtype=torch.float16) for key in shapes if generator.random() < 0.98}
        for key in generator.sample(sorted(weights), 40):
            shape = [generator.choice([0, 1, 2, 3, 128]) for _ in range(generator.randrange(4))]
            weights[key] = torch.zeros(shape, dtype=generator.choice(dtypes))
        for key in ("patch_embedding.weight", "head.head.weight"):  # else nothing behind them is reached
            weights[key] = torch.zeros([generator.randrange(4) for _ in shapes[key]])
        if generator.random() < 0.5:
            weights[".".join(generator.choices(words, k=3))] = torch.zeros(1)
        save_file(weights, path)
        with pytest.raises(InputError):
            open_checkpoint(path, generator.choice([None, *Job]))
