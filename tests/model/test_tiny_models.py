"""The tiny models of tests and demo: the stock loaders of a real ComfyUI open them and give the real shapes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pack.dev.samples.tiny_models import (
    write_audio_encoder,
    write_clip_vision,
    write_text_encoder,
    write_transformer,
    write_vae,
)
from pack.skyreels_v3.recipes import Job
from pack.tests.support import golden


def test_the_same_call_writes_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_transformer(tmp_path / f"{name}.safetensors", Job.SHOT)
        write_vae(tmp_path / f"{name}.vae.safetensors")
        write_text_encoder(tmp_path / f"{name}.text.safetensors")
        write_clip_vision(tmp_path / f"{name}.vision.safetensors")
    for kind in ("safetensors", "vae.safetensors", "text.safetensors", "vision.safetensors"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_names_and_shapes_of_the_vae_are_the_official_ones(tmp_path):
    file = golden.read(Path(__file__).resolve().parents[1] / "goldens" / "vae.safetensors")
    with safe_open(write_vae(tmp_path / "vae.safetensors", width=file.config["dim"]), framework="pt") as written:
        assert {key: written.get_slice(key).get_shape() for key in written.keys()} == file.shapes


def test_folders_have_skyworks_layout(tmp_path):
    write_transformer(tmp_path / "transformer", Job.REFERENCE, "diffusers", shards=2)
    assert sorted(path.name for path in (tmp_path / "transformer").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model-00001-of-00002.safetensors",
        "diffusion_pytorch_model-00002-of-00002.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
    ]
    assert json.loads((tmp_path / "transformer" / "config.json").read_text())["num_attention_heads"] == 1


@pytest.fixture(scope="module")
def models(comfyui):
    """ComfyUI's nodes, with the tiny VAE and text encoder in its model folders."""
    from pack.dev.comfyui import small_encoders  # noqa: F401, it needs the real ComfyUI, which is there only now

    write_vae(comfyui.base / "models" / "vae" / "tiny_vae.safetensors")
    write_text_encoder(comfyui.base / "models" / "text_encoders" / "tiny_text.safetensors")
    for kind in ("vae", "text_encoders"):
        comfyui.folder_paths.add_model_folder_path(kind, str(comfyui.base / "models" / kind))
    return comfyui.nodes


def test_the_stock_clip_loader_opens_the_text_encoder(models):
    (clip,) = models.CLIPLoader().load_clip("tiny_text.safetensors", "wan")
    features = []
    for text, tokens in (("a cat walks on the beach", None), ("一只猫 äöü", None), ("", 1)):
        [[text_features, _]] = models.CLIPTextEncode().encode(clip, text)[0]
        assert text_features.shape == (1, 512, 4096) and text_features.isfinite().all()
        used = int((text_features[0] != 0).any(dim=1).sum())
        assert used == tokens or (tokens is None and 2 < used < 60)
        assert not text_features[0, used:].any()
        assert 0.5 < text_features[0, :used].std() < 2
        features.append(text_features)
    assert not torch.equal(features[0], features[1])


@torch.no_grad()
def test_the_stock_vae_loader_opens_the_vae(models):
    (vae,) = models.VAELoader().load_vae("tiny_vae.safetensors")
    frame = torch.nn.functional.interpolate(torch.rand(1, 3, 3, 4), size=(48, 64), mode="bicubic").clamp(0, 1)
    frames = torch.stack([frame[0].permute(1, 2, 0).roll(4 * n, dims=1) for n in range(9)])
    latents = vae.encode(frames)
    assert latents.shape == (1, 16, 3, 6, 8)
    decoded = vae.decode(latents)
    assert decoded.shape == (1, 9, 48, 64, 3)
    for n in (0, 4, 8):  # it looks like the input, in motion too
        pair = torch.stack([decoded[0, n].flatten(), frames[n].flatten()])
        assert torch.corrcoef(pair)[0, 1] > 0.8
    import comfy.latent_formats

    noise = comfy.latent_formats.Wan21().process_out(torch.randn(1, 16, 2, 6, 8))
    picture = vae.decode(noise)
    assert picture.std() > 0.05 and ((picture > 0) & (picture < 1)).float().mean() > 0.9


@torch.no_grad()
def test_the_stock_clip_vision_loader_opens_the_image_encoder(comfyui, tmp_path):
    from pack.dev.comfyui import small_encoders  # noqa: F401, it needs the real ComfyUI, which is there only now

    write_clip_vision(tmp_path / "tiny_h.safetensors")
    comfyui.folder_paths.add_model_folder_path("clip_vision", str(tmp_path))
    (vision,) = comfyui.nodes.CLIPVisionLoader().load_clip("tiny_h.safetensors")
    tokens = [
        vision.model(pixel_values=torch.full((1, 3, 224, 224), value), intermediate_output=-2)[1]
        for value in (-1.0, 1.0)
    ]
    for one in tokens:
        assert one.shape == (1, 257, 1280) and one.isfinite().all()
        assert 0.5 < one.std() < 3
    assert not torch.allclose(*tokens, atol=0.1)


@torch.no_grad()
def test_the_stock_audio_encoder_loader_opens_the_audio_encoder(comfyui, tmp_path, caplog):
    from comfy_extras.nodes_audio_encoder import AudioEncoderLoader

    write_audio_encoder(tmp_path / "wav2vec2_base.safetensors")
    comfyui.folder_paths.add_model_folder_path("audio_encoders", str(tmp_path))
    with caplog.at_level("WARNING"):
        (encoder,) = AudioEncoderLoader.execute("wav2vec2_base.safetensors").args
    assert "missing audio encoder" not in caplog.text and "unexpected audio encoder" not in caplog.text
    sound = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    features, layers = encoder.model(sound[None])
    assert features.shape == (1, 49, 768) and len(layers) == 13
    for layer in layers:
        assert layer.isfinite().all() and 0.5 < layer.std() < 3
        assert layer.std(dim=1).mean() > 0.4, "it changes with time"


def test_speech_is_made_on_the_spot(tmp_path):
    import wave

    from pack.dev.samples.espeak import say

    with wave.open(str(say(tmp_path / "speech.wav", "Hello!", "en+f3", seconds=1.5))) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(1.5, abs=1e-3)
        samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
    assert samples.abs().max() > 5000 and not samples[-1000:].any()
    with pytest.raises(RuntimeError, match="no voice nobody"):
        say(tmp_path / "speech.wav", "Hello!", "nobody")
