"""Speech, Dialogue, Avatar Window and Talking Avatar on a real ComfyUI: what is made, resume, sound, bad input."""

from dataclasses import replace
from pathlib import Path

import av
import pytest
import torch

from pack.dev.samples.tiny_models import write_transformer
from pack.skyreels_v3.recipes import AVATAR_NEGATIVE, Job
from pack.tests.comfyui.test_extension_nodes import check_keys, decoded, kept_parts, of_file
from pack.tests.support.golden import normal
from pack.tests.support.loaders import loaded
from pack.training.models.vit import Vit
from pack.training.models.wav2vec2 import Wav2Vec2

pytestmark = pytest.mark.usefixtures("computes_in_float32")

SIZE = {"resolution": "custom", "width": 96, "height": 64}
DEFAULTS = {
    "prompt": "A woman talks.",
    "connection_prompt": "a person is talking",
    "seed": 7,
    "steps": 2,
    "shift": 11.0,
    "text_guidance": 1.0,
    "audio_guidance": 1.0,
    "negative": "",
    "colour_match": 1.0,
    "window": 13,
    "motion": 5,
    "drop": 0,
    "codec": "lossless",
    **SIZE,
}


KEPT_BY_TIME = {  # see test_extension_nodes.py
    "avatar-db039028e70aa72f4357a29de47ae9ff": [
        "video-38168e8fe8fdf56bbbc1bcc3fd67d180",
        "window-4c475cd4e78ae8d2dd2d6d5009755f88",
        "window-5245ff717d52581c63de516d90730d97",
        "window-a584b3f791ae50c2b2fd07c454818857",
    ]
}
KEPT = {
    "avatar-ab7a4c365b55e939090653ba8b974ba7": [
        "video-cc6f9d31c796f68ddba41b78f0e3ea3a",
        "window-23486000625830ac40f26f4cc723443a",
        "window-7eaa69fadf2fe1a6faf00ba3272c3490",
        "window-87b029d4b183e13d384802de1ade9b81",
    ]
}


@pytest.fixture(scope="module")
def models(comfyui, pack_nodes, tmp_path_factory):
    """The stock loaders' CLIP and VAE, the tiny A2V model, and ComfyUI's own encoders of images at a small size."""
    folder = tmp_path_factory.mktemp("models")
    load = pack_nodes.module("nodes.models.load").load_patcher
    model = load(str(write_transformer(folder / "a2v.safetensors", Job.AVATAR)))
    return {"model": model, **loaded(comfyui, folder, "avatar")}


@pytest.fixture(autouse=True)
def own_folders(comfyui, tmp_path):
    """Jobs of one test are not those of another."""
    comfyui.folder_paths.set_output_directory(str(tmp_path / "output"))
    comfyui.folder_paths.set_temp_directory(str(tmp_path / "temp"))


def portrait(size=(80, 96)):
    coarse = normal("portrait", (1, 3, 4, 5))
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=True)
    return (smooth.permute(0, 2, 3, 1) * 0.25 + 0.5).clamp(0, 1)


def sound(seconds, rate=22050, channels=1, key="sound"):
    return {"waveform": normal(key, (1, channels, int(seconds * rate))) * 0.1, "sample_rate": rate}


@pytest.fixture
def speak(pack_nodes):
    """speak(seconds, people) -> what the node Speech puts out, with random features: the encoder has its own tests."""
    Speech = pack_nodes.module("nodes.encoders.speech").Speech
    SpeechFeatures = pack_nodes.module("skyreels_v3.speech.features").SpeechFeatures

    def make(seconds, people=1, channels=1, width=768):
        audio = sound(seconds, channels=channels)
        frames = -(-audio["waveform"].shape[-1] * 25 // audio["sample_rate"])
        features = SpeechFeatures.of(normal("speech", (people, frames, 12, width)))
        return Speech(features, audio["waveform"], audio["sample_rate"], 200.0)

    return make


@pytest.fixture
def talk(pack_nodes, models):
    """talk(speech, **inputs) -> (path of the video, last frames, report)."""

    def run(speech, **inputs):
        clone = pack_nodes.ready("SkyReelsTalkingAvatar", prompt=None)
        with torch.inference_mode():
            out = clone.execute(**{**models, **DEFAULTS, "portrait": portrait(), "speech": speech, **inputs}).args
        return out[0].get_stream_source(), *out[1:]

    return run


def test_a_portrait_talks_with_its_sound(talk, speak):
    path, last, report = talk(speak(0.9, channels=2), portrait=portrait((64, 96)))
    frames, rate = decoded(path)
    assert len(frames) == 23 and rate == 25 and frames.shape[1:] == (64, 96, 3)
    assert last.shape[1:] == (64, 96, 3)
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (22050, 2)
        assert abs(float(stream.duration * stream.time_base) - 0.92) < 0.04
    assert "Key frames:" in report and "|\n\n0 of " in report  # else the page takes what follows for more rows


def test_short_speech_is_one_pass(talk, speak):
    path, _, report = talk(speak(0.2))
    assert len(decoded(path)[0]) == 5
    assert "one pass" in report


def test_windows_share_key_frames(talk, speak, comfyui):
    from PIL import Image

    path, _, report = talk(speak(0.9), window=9, motion=1, drop=6)
    assert len(decoded(path)[0]) == 23 and "0 of 8 windows were made" in report
    folder = Path(comfyui.folder_paths.get_output_directory())
    # Their ends, 8, 10 ... 22, squeezed into frames 0 to 8: 3, 4, 4, 5, 6, 7, 7, 8.
    assert len(list(folder.rglob("key-frames-*.safetensors"))) == 6
    with Image.open(next(folder.rglob("key-frames.png"))) as sheet:
        assert sheet.size == (5 * 96, 2 * 64)


def test_interrupted_it_goes_on_with_the_same_frames(talk, speak, comfyui, tmp_path, pack_nodes, monkeypatch):
    import comfy.model_management as management

    speech = speak(0.9)
    whole = decoded(talk(speech)[0])[0]
    comfyui.folder_paths.set_output_directory(str(tmp_path / "other"))
    run = pack_nodes.module("skyreels_v3.jobs.avatar.passes").AvatarPasses
    make, made = run.window, []

    def interrupted(self, window, *args):
        if len(made) == 2:
            raise management.InterruptProcessingException
        made.append(window)
        return make(self, window, *args)

    monkeypatch.setattr(run, "window", interrupted)
    with pytest.raises(management.InterruptProcessingException):
        talk(speech)
    so_far = decoded(next((tmp_path / "other").rglob("so_far.mp4")))[0]
    assert torch.equal(so_far, whole[: len(so_far)])
    assert next((tmp_path / "other").rglob("key-frames.png")).stat().st_size > 0
    monkeypatch.undo()
    path, _, report = talk(speech)
    assert torch.equal(decoded(path)[0], whole)
    assert "2 of" in report


def test_keys_of_kept_jobs_stay(talk, models, pack_nodes, tmp_path, monkeypatch):
    """A release that computes other keys makes artists' unfinished jobs anew: these were computed once and stay."""
    monkeypatch.setattr(av, "__version__", "fixed")
    features = pack_nodes.module("skyreels_v3.speech.features").SpeechFeatures.of(torch.ones(2, 23, 12, 768))
    speech = pack_nodes.module("nodes.encoders.speech").Speech(features, torch.zeros(1, 1, 20286), 22050, 200.0)
    given = {"portrait": torch.full((1, 64, 96, 3), 0.5), "negative": "dark", "text_guidance": 2.0}
    given["position_map"] = "official"  # all that there was then
    given |= {"model": of_file(models["model"], tmp_path / "model.safetensors"), "steps": 1, "colour_match": 0.5}

    def run():
        return talk(speech, **given)

    made = "3 of 3 windows were made before"
    check_keys(run, pack_nodes.module, tmp_path / "output", monkeypatch, KEPT, KEPT_BY_TIME, made)


def test_two_people_with_masks_and_halves(talk, speak):
    speech = speak(0.4, people=2)
    halves = decoded(talk(speech)[0])[0]
    left = torch.zeros(1, 40, 48)
    left[:, 10:30, 4:20] = 1
    masked = decoded(talk(speech, mask_1=left, mask_2=left.flip(-1))[0])[0]
    assert halves.shape == masked.shape and not torch.equal(halves, masked)
    boxed = decoded(talk(speech, box_1="0.1, 0.25, 0.4, 0.75", box_2="0.6,0.25,0.9,0.75")[0])[0]
    assert not torch.equal(boxed, halves)
    with pytest.raises(ValueError, match="Mask 2 shows no one"):
        talk(speech, mask_2=torch.zeros(1, 40, 48))
    with pytest.raises(ValueError, match="left, top, right, bottom are needed"):
        talk(speech, box_1="0.5, 0, 0.2, 1")


def test_the_map_that_two_people_go_by_reaches_the_network(talk, speak, models, tmp_path):
    """The tiny network has one head, for which both are the same; tests/model/test_speaker_map.py tells them apart."""
    seen, network = [], models["model"].model.diffusion_model
    hook = network.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    try:
        for choice in ("own frame", "official"):
            talk(speak(0.4, people=2), position_map=choice)
            assert [given["skyreels_position_map"] for given in seen] == [choice] * 2
            seen.clear()
        for choice in ("own frame", "official"):
            talk(speak(0.4), position_map=choice)
    finally:
        hook.remove()
    # With one speaker it is one and the same run.
    assert len(seen) == 2 and len(kept_parts(tmp_path / "output")) == 3
    assert not any("skyreels_position_map" in given for given in seen)
    with pytest.raises(ValueError, match="position_map is 'nearest', but it must be one of own frame, official"):
        talk(speak(0.4), position_map="nearest")


def test_one_recording_belongs_to_the_person_whose_place_is_given(talk, pack_nodes, models, monkeypatch):
    from comfy.audio_encoders.audio_encoders import load_audio_encoder_from_sd

    encoder = load_audio_encoder_from_sd(Wav2Vec2(768, 12, 12, 32).state_dict())
    voice, told = sound(0.4), []

    def hear(*others):
        given = (encoder, voice, "together", 0.0, 200.0, *others)
        with torch.inference_mode():
            return pack_nodes.ready("SkyReelsSpeech").execute(*given).args[0]

    left = torch.zeros(1, 80, 96)
    left[:, 20:60, 10:38] = 1  # as the box below
    monkeypatch.setattr(pack_nodes.module("nodes.versions"), "tell", lambda node, *lines: told.extend(lines))
    speech, nobody = hear(), {**voice, "waveform": torch.zeros_like(voice["waveform"])}
    first, second = (decoded(talk(speech, **place)[0])[0] for place in ({"mask_1": left}, {"box_2": "10%,25%,40%,75%"}))
    assert "The recording is that of speaker 2, who has a box or mask; everyone else is silent." in told
    assert torch.equal(first, decoded(talk(hear(nobody), mask_1=left, mask_2=1 - left)[0])[0])
    assert not torch.equal(first, second)
    with torch.inference_mode():
        unheard = replace(speech, waveform=None).placed((left, None), ("", ""))
    assert unheard.features.key == hear(nobody).features.key, "the voice is not encoded again"
    voice, nobody = nobody, voice
    assert torch.equal(second, decoded(talk(hear(nobody), mask_1=1 - left, mask_2=left)[0])[0])
    text = models["clip"].encode_from_tokens_scheduled(models["clip"].tokenize("She talks."))
    with torch.inference_mode():
        given = (text, models["vae"], models["clip_vision"], portrait(), speech, 0.0)
        positive = pack_nodes.ready("SkyReelsAvatarWindow").execute(*given, **SIZE, box_2="0.5,0,1,1").args[0]
    condition = next(value for value in positive[0][1].values() if hasattr(value, "speakers"))
    assert condition.speech.shape[0] == 2 and condition.speakers.shape[0] == 3


def test_odd_portraits_and_overlapping_masks(talk, speak):
    everyone = torch.ones(1, 40, 48)
    assert len(decoded(talk(speak(0.2, people=2), mask_1=everyone, mask_2=everyone)[0])[0]) == 5
    for size in ((40, 160), (160, 40), (1, 1)):
        assert len(decoded(talk(speak(0.2), portrait=portrait(size))[0])[0]) == 5
    _, _, report = talk(speak(0.2), portrait=portrait((40, 160)))
    assert "is cut away at the left and right" in report


def test_guidance_changes_the_video(talk, speak):
    speech = speak(0.4)
    plain, text, audio = (
        decoded(talk(speech, **given)[0])[0] for given in ({}, {"text_guidance": 3.0}, {"audio_guidance": 2.0})
    )
    assert not torch.equal(plain, text) and not torch.equal(plain, audio) and not torch.equal(text, audio)
    named = talk(speech, text_guidance=3.0, negative=AVATAR_NEGATIVE)[0]
    assert torch.equal(decoded(named)[0], text)  # what stands in for an empty one


def test_a_window_for_the_artists_own_sampler(pack_nodes, models, speak):
    import comfy.sample

    text = models["clip"].encode_from_tokens_scheduled(models["clip"].tokenize("She talks."))
    clone = pack_nodes.ready("SkyReelsAvatarWindow")
    given = (text, models["vae"], models["clip_vision"], portrait(), speak(4.0))
    with torch.inference_mode():
        positive, negative, latent = clone.execute(*given, 0.5, **SIZE, negative=text).args
        noise = comfy.sample.prepare_noise(latent["samples"], 1)
        out = comfy.sample.sample(
            models["model"], noise, 2, 2.0, "euler", "simple", positive, negative, latent["samples"], seed=1
        )
    assert out.shape == (1, 16, 21, 8, 12) and torch.isfinite(out).all()
    with pytest.raises(ValueError, match="starts at 5 s, but the speech is"):
        clone.execute(*given, 5.0, **SIZE)


def test_models_of_other_jobs_are_refused(pack_nodes, talk, speak, tmp_path):
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    other = pack_nodes.module("nodes.models.load").load_patcher(str(path))
    with pytest.raises(ValueError, match="does the reference job, but a talking avatar needs the A2V checkpoint"):
        talk(speak(0.4), model=other)


def test_another_audio_encoder_is_refused(pack_nodes, models):
    from comfy.audio_encoders.audio_encoders import load_audio_encoder_from_sd

    clone = pack_nodes.ready("SkyReelsSpeech")
    with pytest.raises(ValueError, match="the avatar needs wav2vec2-chinese-base"):
        clone.execute(object(), sound(1.0), "together", 0.0, 200.0)
    large = load_audio_encoder_from_sd(_narrow_large())
    with pytest.raises(
        ValueError, match="makes 2 layers of 32 features, but the avatar was trained on 12 of 768: load"
    ):
        clone.execute(large, sound(1.0), "together", 0.0, 200.0)


def test_encoders_that_the_avatar_was_not_trained_with_are_told_before_any_work(pack_nodes, models, talk, speak):
    import comfy.clip_vision
    import comfy.sample

    speech = "speech has 12 layers of 32 features, but the avatar was trained on 12 of 768: load wav2vec2-chinese-base"
    with pytest.raises(ValueError, match=speech):
        talk(speak(0.4, width=32))
    narrow = comfy.clip_vision.load_clipvision_from_sd(_narrow_vit())
    image = "makes 1 x 257 x 32 numbers of an image, but 1 x 257 x 1280 are needed: load clip_vision_h"
    with pytest.raises(ValueError, match=image):
        talk(speak(0.4), clip_vision=narrow)
    # Avatar Window does not know the model: what samples its conditioning tells.
    text = models["clip"].encode_from_tokens_scheduled(models["clip"].tokenize("She talks."))
    clone = pack_nodes.ready("SkyReelsAvatarWindow")
    for vision, width, words in ((narrow, 768, image), (models["clip_vision"], 32, speech)):
        with torch.inference_mode():
            given = (text, models["vae"], vision, portrait(), speak(4.0, width=width))
            positive, negative, latent = clone.execute(*given, 0.5, **SIZE).args
            noise = comfy.sample.prepare_noise(latent["samples"], 1)
            with pytest.raises(ValueError, match=words):
                comfy.sample.sample(
                    models["model"], noise, 1, 1.0, "euler", "simple", positive, negative, latent["samples"], seed=1
                )


def _narrow_vit() -> dict[str, torch.Tensor]:
    return {key: normal(key, tuple(weight.shape)) for key, weight in Vit(32, 2, 2, 32, 14, 257).state_dict().items()}


def _narrow_large() -> dict[str, torch.Tensor]:
    """Two narrow layers in the layout of wav2vec2-large: its convolutions have norms and biases."""
    weights = Wav2Vec2(32, 2, 2, 32).state_dict()
    for index in range(7):
        layer = f"feature_extractor.conv_layers.{index}"
        weights |= {f"{layer}.{name}": torch.ones(32) for name in ("layer_norm.weight", "layer_norm.bias", "conv.bias")}
    return weights


def test_what_decides_no_frame_makes_nothing_anew(talk, speak):
    speech = speak(0.2)
    given = {"steps": 1, "portrait": portrait()}
    path, *_ = talk(speech, **given)
    for same in (
        {"negative": "dark"},
        {"connection_prompt": "of windows that there are none of"},
        {"drop": 4},
        {"width": 97},
        {"portrait": torch.cat([portrait(), portrait()])},
    ):
        again, _, report = talk(speech, **{**given, **same})
        assert again == path and "1 of 1 windows" in report, same
    louder = replace(speech, waveform=speech.waveform * 2)
    again, _, report = talk(louder, **given)
    assert again != path and "1 of 1 windows" in report, "another sound to the same frames"
    assert "0 of 1 windows" in talk(speech, **{**given, "prompt": "A man talks."})[2]
