"""The encoders in nano/: ComfyUI's stock loaders open them, and they give what the nano models were trained with."""

import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pack.skyreels_v3.jobs.avatar.condition import CLIP_SIZE
from pack.training.models import image_encoder, speech_encoder, text_encoder
from pack.training.world.prompts import PHRASINGS, VOCABULARY, write
from pack.training.world.scenes import CUTS, cut_scene, drawn_scene, possible_cuts
from pack.training.world.voices import RATE

pytestmark = pytest.mark.workshop

NANO = Path(__file__).resolve().parents[2] / "nano"
CLOSE = 1e-4  # of features of about unit variance, in float32
MOST_BYTES = 1_200_000  # of all three


@pytest.fixture(scope="module")
def models(comfyui):
    """ComfyUI's nodes, with the folder nano/ among its model folders."""
    from pack.dev.comfyui import small_encoders  # noqa: F401, it needs the real ComfyUI, which is there only now

    for kind in ("text_encoders", "clip_vision", "audio_encoders"):
        comfyui.folder_paths.add_model_folder_path(kind, str(NANO))
    comfyui.folder_paths.filename_list_cache.clear()
    return comfyui.nodes


@pytest.fixture(scope="module")
def audio_encoder(models):
    from comfy_extras.nodes_audio_encoder import AudioEncoderLoader

    return AudioEncoderLoader.execute(speech_encoder.FILE.name).args[0]


def prompts(count: int) -> list[str]:
    rng, made = random.Random(5), []
    for index in range(count):
        scene = drawn_scene(rng)
        cut = rng.choice((None, *possible_cuts(scene)))
        scene = cut_scene(scene, cut) if cut else scene
        made.append(write(scene, index % PHRASINGS, cut, scene.objects if index % 3 == 0 else ()))
    return made


def test_they_are_small_and_in_half_precision():
    files = [text_encoder.FILE, image_encoder.FILE, speech_encoder.FILE]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    for file in files:
        with safe_open(file, framework="pt") as opened:
            kinds = {opened.get_slice(key).get_dtype() for key in opened.keys() if key != "spiece_model"}
        assert kinds == {"F16"}


@torch.no_grad()
def test_the_text_encoder_gives_what_models_are_trained_with(models):
    (clip,) = models.CLIPLoader().load_clip(text_encoder.FILE.name, "wan")
    given = [*prompts(8), "", "An ape and a fox, über alles!"]
    expected = text_encoder.encode(given)
    for prompt, features in zip(given, expected, strict=True):
        [[made, _]] = models.CLIPTextEncode().encode(clip, prompt)[0]
        assert made.shape == (1, 512, 64)
        assert (made[0, : len(features)] - features).abs().max() < CLOSE
        assert not made[0, len(features) :].any()
    assert torch.cat(expected).std() == pytest.approx(1, abs=0.1)


def test_words_and_tags_are_one_piece_each_and_capitals_do_not_matter():
    tokens = text_encoder.tokenizer()
    for word in VOCABULARY:
        (piece, end) = tokens.encode(word)
        assert tokens.id_to_piece(piece) == f"▁{word.lower()}" and end == 1
        assert tokens.encode(word.upper()) == tokens.encode(f" {word.title()}\n") == [piece, end]
    prompt = f"[{CUTS[0]}] The scene cuts to a close shot. A fox waves, holding an object, in space."
    pieces = [tokens.id_to_piece(piece) for piece in tokens.encode(prompt)]
    assert pieces[:3] == [f"▁[{CUTS[0].lower()}]", "▁the", "▁scene"] and pieces[-2:] == [".", "</s>"]
    assert not any(piece.startswith("<0x") for piece in pieces) and len(pieces) == 21
    assert [tokens.id_to_piece(piece) for piece in tokens.encode("ginger")][1:3] == ["<0x67>", "<0x69>"]
    assert tokens.encode("") == [1]


@torch.no_grad()
def test_words_know_whose_they_are():
    """Swapping what two do changes their actions' features far more than the encoder's word for the place."""
    one, two = text_encoder.encode(
        ["A fox waves and a king nods in the forest by day.", "A fox nods and a king waves in the forest by day."]
    )
    first, second = one[2], two[6]  # `waves` of the first, and of the second
    place = one[9], two[9]
    assert (first - second).norm() > 2 * (place[0] - place[1]).norm()


@torch.no_grad()
def test_the_image_encoder_gives_what_the_avatar_is_trained_with(models, pack_nodes):
    (vision,) = models.CLIPVisionLoader().load_clip(image_encoder.FILE.name)
    tokens = pack_nodes.module("nodes.encoders.clip_vision").image_tokens(vision, 64)
    pixels, _ = image_encoder.picture(random.Random(3))
    made, expected = tokens(pixels.float()[None]), image_encoder.encode(pixels.float()[None])
    assert made.shape == (1, 257, 64) and (made - expected).abs().max() < CLOSE
    assert vision.encode_image(torch.rand(1, 64, 96, 3))["last_hidden_state"].shape == (1, 257, 64)
    InputError = pack_nodes.module("skyreels_v3.errors").InputError
    any_avatar = pack_nodes.module("nodes.encoders.clip_vision").image_tokens(vision)
    assert torch.equal(any_avatar(pixels.float()[None]), made)
    published = pack_nodes.module("nodes.encoders.clip_vision").image_tokens(vision, 1280)
    with pytest.raises(InputError, match="makes 1 x 257 x 64 numbers of an image, but 1 x 257 x 1280 are needed"):
        published(torch.zeros(1, 3, CLIP_SIZE, CLIP_SIZE))


@torch.no_grad()
def test_the_image_encoder_knows_whose_part_a_patch_shows():
    """By a linear map fitted to other pictures, of the patches that show someone; with false names it knows nothing."""
    rng = random.Random(8)
    pictures = [image_encoder.picture(rng) for _ in range(48)]
    tokens = torch.cat([image_encoder.encode(pixels.float()[None])[:, 1:] for pixels, _ in pictures])
    x = torch.nn.functional.layer_norm(tokens, tokens.shape[2:])
    parts = torch.stack([told["parts"] for _, told in pictures])
    shifts = torch.tensor([rng.randrange(12) for _ in pictures])[:, None]
    false = torch.where(parts > 0, (parts - 1 + shifts) % 12 + 1, 0)

    def right(truth: torch.Tensor) -> float:
        known, new = x[:36].flatten(0, 1), x[36:].flatten(0, 1)
        told = torch.nn.functional.one_hot(truth[:36].flatten(), 13).float()
        fit = torch.linalg.solve(known.T @ known + torch.eye(64), known.T @ told)
        seen = truth[36:].flatten() > 0
        return ((new @ fit)[seen, 1:].argmax(1) + 1 == truth[36:].flatten()[seen]).float().mean().item()

    assert right(parts) > 0.6 > 2 * right(false)


@torch.no_grad()
def test_the_speech_encoder_gives_what_the_avatar_is_trained_with(audio_encoder, pack_nodes):
    speech = speech_encoder.recording(random.Random(9), 2.0)
    expected = speech_encoder.encode(speech.wave)
    assert expected.shape == (50, 12, 32) and 0.5 < expected.std() < 2
    recording = pack_nodes.module("skyreels_v3.speech.speakers").Recording
    encode = pack_nodes.module("nodes.encoders.speech").encode_speech
    made = encode(audio_encoder, [recording(torch.from_numpy(speech.wave)[None, None], RATE)], 200.0)
    assert (made.layers, made.width, made.frames) == (12, 32, 50)
    heard = made.windows(torch.arange(50)[:, None])[0, :, 0]
    assert (heard - expected).abs().max() < CLOSE


def test_mouths_of_new_voices_are_heard():
    measured = speech_encoder.measured()
    assert measured["all layers"] > 0.9 and measured["worst layer"] > 0.8, measured
    assert measured["silence"] < 0.1, measured


def test_files_that_comfyui_knows_are_left_alone(models):
    from pack.dev.comfyui.small_encoders import image, speech, text

    first = text.FIRST
    with torch.device("meta"):
        umt5 = {f"{first}.0.SelfAttention.relative_attention_bias.weight": torch.empty(32, 64)}
        umt5 |= {f"{first}.1.DenseReluDense.wi_1.weight": torch.empty(10240, 4096), "spiece_model": torch.empty(1)}
        other = {key: tensor for key, tensor in umt5.items() if key != "spiece_model"}
        vit = {"vision_model.embeddings.patch_embedding.weight": torch.empty(1280, 3, 14, 14)}
        vit |= {"vision_model.embeddings.class_embedding": torch.empty(1280), image.KNOWN: torch.empty(1280)}
        base = {"feature_projection.projection.weight": torch.empty(768, 512)}
    assert text.sizes(umt5) is text.sizes(other) is text.sizes({}) is None
    assert image.config(vit) is image.config({}) is None
    assert speech.config(base) is speech.config({}) is None
