"""tools/inspect_model.py on what is no model of this pack: LoRAs, companions, other models and relatives."""

import json

import pytest
import torch
from safetensors.torch import save_file

from pack.dev.samples.tiny_models import (
    TINY,
    transformer_weights,
    write_audio_encoder,
    write_clip_vision,
    write_text_encoder,
    write_vae,
)
from pack.model_loaders.architecture.params import expected_shapes
from pack.tests.inspection.test_inspect_model import header_only, inspected
from pack.tests.loading.test_model_refusals import OTHER_MODELS, UNREADABLE
from pack.tests.support import dialects, loras


@pytest.mark.parametrize("naming", loras.NAMINGS)
def test_loras(tmp_path, naming):
    style = dict.fromkeys(("kohya", "musubi", "lycoris", "onetrainer"), "kohya")
    style |= dict.fromkeys(("wan", "fastvideo", "compiled", "sharded", "second of two", "low noise"), "wan")
    style |= dict.fromkeys(("peft", "diffsynth", "nested", "adapters", "own adapter"), "peft")
    style |= dict.fromkeys(("diffusion-pipe", "extracted", "whole"), "comfyui") | {"lycoris, diffusers": "kohya"}
    tensors = loras.named(loras.lora_pairs(), naming, alpha=loras.ALPHA)
    line = inspected(loras.write_lora(tmp_path / "x.safetensors", tensors))
    assert line["dialect"] == f"lora, {style.get(naming, 'diffusers')}"
    count = len(loras.linear_layers())
    assert f"{count} of its {count} layers" in line["why"] and "is a LoRA, not a model" in line["problems"][0]
    assert "models/loras" in line["advice"][0] and "SkyReels-V3 LoRA" in line["advice"][0]
    assert "128 wide" in line["advice"][1] and line["precision"] == "fp32"
    tensors = loras.named_products(loras.lora_products("LoKr"), naming, alpha=loras.ALPHA)
    line = inspected(loras.write_lora(tmp_path / "x.safetensors", tensors))
    assert line["dialect"].startswith("lora, ") and line["dialect"].endswith(", LoKr")
    assert f"{count} of its {count} layers" in line["why"]


def test_loras_that_need_a_word(tmp_path):
    tensors = loras.named(loras.lora_pairs())
    line = inspected(loras.write_lora(tmp_path / "Wan21_lightx2v_rank64.safetensors", tensors))
    assert "the picture burns" in " ".join(line["advice"])
    tensors = {"lora_unet_blocks_0_self_attn_q.lokr_w1": torch.ones(2, 2)}
    line = inspected(loras.write_lora(tmp_path / "x.safetensors", tensors))
    assert line["dialect"] == "lora, kohya, LoKr" and "load it with SkyReels-V3 LoRA" in line["advice"][0]
    tensors = {"lora_unet_blocks_0_self_attn_q.oft_blocks": torch.ones(2, 2, 2)}
    line = inspected(loras.write_lora(tmp_path / "x.safetensors", tensors))
    assert line["dialect"] == "lora, kohya, OFT"
    assert line["advice"][0].startswith("SkyReels-V3 LoRA does not read this kind of LoRA (OFT): use one that was")
    pairs = loras.named(loras.lora_pairs(layers=["blocks.0.self_attn.q"]))
    for shape, advice in (
        ((128, 1), "load it with SkyReels-V3 LoRA"),
        ((1, 128), "use one with a magnitude for each row"),
    ):
        tensors = pairs | {"diffusion_model.blocks.0.self_attn.q.dora_scale": torch.ones(shape)}
        line = inspected(loras.write_lora(tmp_path / "x.safetensors", tensors))
        assert line["dialect"].startswith("lora, comfyui, DoRA") and advice in line["advice"][0]
    tensors = {f"lora_unet_down_blocks_0_attentions_0.lora_{end}.weight": torch.ones(2, 2) for end in ("up", "down")}
    line = inspected(loras.write_lora(tmp_path / "x.safetensors", tensors))
    assert "None of its layers" in line["advice"][0]
    line = inspected(
        loras.write_lora(tmp_path / "x.safetensors", {"diffusion_model.blocks.0.ffn.0.diff": torch.ones(2)})
    )
    assert line["dialect"] == "lora, comfyui"
    wide = {key: (5120, 16) if "lora_B" in key else (16, 5120) for key in loras.named(loras.lora_pairs())}
    line = inspected(header_only(tmp_path / "x.safetensors", wide))
    assert len(line["advice"]) == 1 and line["precision"] == "bf16"


COMPANIONS = {
    "umt5.safetensors": (write_text_encoder, "companion, umt5 text encoder", "CLIPLoader, type wan", "text_encoders"),
    "vae.safetensors": (write_vae, "companion, VAE of Wan 2.1", "VAELoader", "vae"),
    "clip.safetensors": (write_clip_vision, "companion, CLIP vision model", "CLIPVisionLoader", "clip_vision"),
    "ears.safetensors": (
        write_audio_encoder,
        "companion, wav2vec2 speech encoder",
        "AudioEncoderLoader",
        "audio_encoders",
    ),
}


@pytest.mark.parametrize("name", COMPANIONS)
def test_companions(tmp_path, name):
    write, dialect, loader, folder = COMPANIONS[name]
    write(tmp_path / name)
    line = inspected(tmp_path / name)
    advice = " ".join(line["advice"])
    assert line["dialect"] == dialect and loader in advice and f"models/{folder}" in advice
    assert line["parameters"] > 0 and name in line["problems"][0]


MORE_MODELS = {
    "CLIP vision H": ({"vision_model.encoder.layers.31.mlp.fc1.weight"}, "companion, CLIP vision H model"),
    "Whisper": ({"model.encoder.embed_positions.weight", "model.encoder.layers.0.self_attn.q_proj.weight"}, "Whisper"),
    "umt5 of Wan": ({"blocks.1.pos_embedding.embedding.weight", "blocks.0.attn.q.weight"}, "own names"),
    "Wan 2.2 VAE": ({"decoder.upsamples.0.upsamples.0.residual.0.gamma"}, "companion, VAE of Wan 2.2 5B"),
    "VACE module": ({"vace_blocks.0.after_proj.weight"}, "other model, VACE module for Wan"),
    "InfiniteTalk": ({"blocks.0.audio_cross_attn.q_linear.weight", "audio_proj.norm.weight"}, "audio layers"),
    "a lost shard": ({"blocks.9.self_attn.norm_q.weight", "blocks.9.audio_cross_attn.proj.weight"}, "part of a Wan"),
    "Flux": ({"double_blocks.0.img_attn.qkv.weight"}, "other model, Flux model"),
    "SDXL": ({"model.diffusion_model.input_blocks.0.0.weight"}, "other model, Stable Diffusion"),
}


@pytest.mark.parametrize("keys, dialect", MORE_MODELS.values(), ids=MORE_MODELS)
def test_more_models_are_named(tmp_path, keys, dialect):
    save_file({key: torch.ones(2, 2) for key in keys}, tmp_path / "x.safetensors")
    line = inspected(tmp_path / "x.safetensors")
    assert dialect in line["dialect"] and line["job"] == "unknown" and line["parameters"] == 4 * len(keys)


@pytest.mark.parametrize("keys, words", OTHER_MODELS.values(), ids=OTHER_MODELS)
def test_other_models_are_named(tmp_path, keys, words):
    save_file({key: torch.ones(2, 2) for key in keys}, tmp_path / "x.safetensors")
    line = inspected(tmp_path / "x.safetensors")
    assert words in json.dumps(line)


VARIANTS = {
    "VACE": ({"vace_blocks.0.after_proj.weight": (1,)}, "other model, Wan VACE"),
    "Animate": ({"face_adapter.x": (1,)}, "other model, Wan Animate"),
    "S2V": ({"casual_audio_encoder.x": (1,)}, "other model, Wan S2V"),
    "HuMo": (
        {"blocks.0.audio_cross_attn_wrapper.x": (1,), "audio_proj.audio_proj_glob_1.x": (1,)},
        "other model, HuMo",
    ),
    "SkyReels-V2": ({"fps_embedding.weight": (2, 5120)}, "other model, SkyReels-V2"),
    "I2V": ({"patch_embedding.weight": (128, 36, 1, 2, 2)}, "other model, Wan image to video"),
}


@pytest.mark.parametrize("added, dialect", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_relatives_of_wan_are_named(tmp_path, added, dialect, prefix):
    shapes = {prefix + key: shape for key, shape in (expected_shapes(TINY) | added).items()}
    line = inspected(header_only(tmp_path / "x.safetensors", shapes))
    assert line["dialect"] == dialect and "huggingface.co/Skywork" in " ".join(line["advice"])


def test_gguf_of_other_architectures(tmp_path):
    weights = {"enc.blk.0.attn_q.weight": torch.ones(32, 32), "enc.blk.1.attn_rel_b.weight": torch.ones(32, 32)}
    dialects.write_gguf(tmp_path / "umt5.gguf", weights, "F16", architecture="t5encoder")
    line = inspected(tmp_path / "umt5.gguf")
    assert line["dialect"] == "companion, umt5 text encoder in GGUF" and "CLIPLoader (GGUF)" in " ".join(line["advice"])
    dialects.write_gguf(tmp_path / "x.gguf", {"x.weight": torch.ones(32, 32)}, "F16", architecture="flux")
    assert inspected(tmp_path / "x.gguf")["dialect"] == "other model, Flux model"
    dialects.write_gguf(tmp_path / "x.gguf", {"x.weight": torch.ones(32, 32)}, "F16", architecture="new")
    line = inspected(tmp_path / "x.gguf")
    assert line["dialect"] == "unknown" and "architecture new" in line["problems"][0]


@pytest.mark.parametrize("added, words", UNREADABLE.values(), ids=UNREADABLE)
def test_formats_that_cannot_be_read(tmp_path, added, words):
    weights = {key: weight.half() for key, weight in transformer_weights(TINY).items()}
    weights["blocks.0.ffn.0.weight"] = weights["blocks.0.ffn.0.weight"].to(torch.float8_e4m3fn)
    added = {
        key: torch.frombuffer(bytearray(value), dtype=torch.uint8) if isinstance(value, bytes) else value
        for key, value in added.items()
    }
    save_file(weights | added, tmp_path / "x.safetensors")
    line = inspected(tmp_path / "x.safetensors")
    assert words in line["problems"][0] and line["dialect"].startswith("wan") and line["parameters"] == 0
    assert line["advice"][0].startswith(("Use the", "Choose"))
