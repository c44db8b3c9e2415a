"""Dialogue on a real ComfyUI: three people in Talking Avatar and Avatar Window, one recording of all, bad input."""

# ruff: noqa: F811, fixtures of another file are arguments here
import pytest
import torch

from pack.tests.comfyui.test_avatar_nodes import (
    SIZE,
    models,  # noqa: F401, fixture
    own_folders,  # noqa: F401, fixture
    portrait,
    sound,
    speak,  # noqa: F401, fixture
    talk,  # noqa: F401, fixture
)
from pack.tests.comfyui.test_extension_nodes import decoded
from pack.training.models.wav2vec2 import Wav2Vec2

pytestmark = pytest.mark.usefixtures("computes_in_float32")


@pytest.fixture
def converse(pack_nodes, comfyui, models, tmp_path):
    """converse(script, **inputs) -> (speech, audio, picture), heard by a narrow wav2vec2; *.wav lie in its input."""
    from comfy.audio_encoders.audio_encoders import load_audio_encoder_from_sd
    from scipy.io import wavfile

    encoder = load_audio_encoder_from_sd(Wav2Vec2(768, 12, 12, 32).state_dict())
    comfyui.folder_paths.set_input_directory(str(tmp_path))
    for name, seconds in (("hello", 0.3), ("answer", 0.25), ("laugh", 0.2)):
        wavfile.write(tmp_path / f"{name}.wav", 16000, sound(seconds, 16000, key=name)["waveform"][0, 0].numpy())

    def run(script, **inputs):
        given = {"audio_encoder": encoder, "script": script, "max_seconds": 200.0, **inputs}
        with torch.inference_mode():
            return pack_nodes.ready("SkyReelsDialogue").execute(**given).args

    return run


TABLE = """\
anna: hello.wav
pause 0.08s
Ben: audio_1
carl: laugh.wav
anna + ben: audio_1 0s-0.2s
"""


PLACES = "Anna: 0, 0.1, 0.3, 0.9\nben: 0.35, 0.1, 0.65, 0.9\ncarl: 0.7, 0.1, 1, 0.9"


def test_a_table_of_three_talks(converse, talk, pack_nodes, models, tmp_path):
    from PIL import Image

    speech, audio, picture = converse(TABLE, audio_1=sound(0.25, key="tts"))
    assert (speech.names, speech.people, speech.frames, speech.features.people) == (("anna", "Ben", "carl"), 3, 26, 4)
    assert abs(audio["waveform"].shape[-1] / audio["sample_rate"] - 1.03) < 1e-3 and audio["sample_rate"] == 22050
    assert picture.shape[0] == 1 and picture.shape[3] == 3 and len(picture[0].flatten(0, 1).unique(dim=0)) > 6
    seen, network = [], models["model"].model.diffusion_model
    hook = network.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    try:
        path, _, report = talk(speech, places=PLACES)
    finally:
        hook.remove()
    frames = decoded(path)[0]
    assert len(frames) == 26
    assert all(given["skyreels_speech"].shape[0] == 2 for given in seen), "the two ranges that the network knows"
    assert all(given["skyreels_speakers"].shape[0] == 4 for given in seen)
    told = torch.stack([given["skyreels_speaker_ranges"] for given in seen])
    assert told.shape[1:] == (4, 3) and set(told.flatten().tolist()) == {0, 1, 2}
    rows = [line.split(" | ")[-1].strip(" |") for line in report.split("\n") if line.startswith("| ")]
    assert rows[0] == "who speaks" and rows[2:] == ["anna, Ben", "anna, Ben, carl", "anna, Ben"]
    with Image.open(next((tmp_path / "output").rglob("key-frames.png"))) as sheet:
        shown = {color for _, color in sheet.convert("RGB").getcolors(1 << 20)}
    assert {(0x4E, 0xA1, 0xFF), (0xFF, 0xB0, 0x2E)} <= shown, "names in the colours of their boxes"
    again, _, report = talk(speech, places=PLACES.replace("Anna", "ANNA"))
    assert again == path and "3 of 3 windows" in report
    painted = torch.zeros(3, 80, 96)
    for person, (left, right) in enumerate(((0, 29), (34, 62), (67, 96))):
        painted[person, 8:72, left:right] = 1
    assert torch.equal(decoded(talk(speech, masks=painted)[0])[0], frames), "masks in the order of the names"


def test_one_and_two_of_a_dialogue_are_as_from_speech(converse, talk, pack_nodes, models):
    """To the bit; only names are new."""
    speech, audio, _ = converse("ben: audio_1\npause 0.2s\nanna: audio_2", audio_1=sound(0.45), audio_2=sound(0.4))
    encoder = speech.audio_encoder
    with torch.inference_mode():
        plain, other = (
            pack_nodes.ready("SkyReelsSpeech").execute(encoder, sound(0.45), "in turns", 0.2, 200.0, sound(0.4)).args
        )
    assert speech.features.key == plain.features.key and torch.equal(audio["waveform"], other["waveform"])
    path, _, report = talk(speech, places="anna: 0.5,0,1,1\nben: 0,0,0.5,1")
    again, _, kept = talk(plain, box_1="0,0,0.5,1", box_2="0.5,0,1,1")
    assert again == path and "were made before" in kept and "who speaks" in report and "who speaks" not in kept
    alone, *_ = converse("anna: audio_1", audio_1=sound(0.5))
    with torch.inference_mode():
        plain = pack_nodes.ready("SkyReelsSpeech").execute(encoder, sound(0.5), "together", 0.0, 200.0).args[0]
    assert alone.features.key == plain.features.key
    boxes = {"box_1": "0,0,0.5,1", "box_2": "0,0,0.5,1"}
    assert "both of theirs: who is who may go wrong." in talk(speech, **boxes)[2]


def test_one_recording_of_all_with_known_times(converse):
    whole = sound(1.0, channels=2)
    speech, audio, _ = converse("anna: 0-0.4s\nben: 0.35s-0.7\ncarl: 0.72-", recording=whole)
    assert torch.equal(audio["waveform"], whole["waveform"]) and speech.frames == 25
    assert [(turn.people, turn.start) for turn in speech.turns] == [((0,), 0), ((1,), 0.35), ((2,), 0.72)]


@pytest.mark.parametrize(
    ("script", "given", "told"),
    [
        ("anna: nowhere.wav", {}, "Line 1 needs the file 'nowhere.wav', but the input folder has none of that name"),
        ("anna: audio_2", {"audio_1": sound(0.5)}, "Line 1 takes audio_2, but nothing is connected to it: connect a"),
        ("anna: broken.wav", {}, "Line 1: The recording 'broken.wav' of the input folder cannot be read: save it"),
        ("# x\nanna: audio_1", {"audio_1": {"waveform": torch.zeros(1, 1, 0), "sample_rate": 8000}}, "Line 2: The rec"),
        (
            "anna: audio_1",
            {"audio_1": {"waveform": torch.full((1, 1, 9), float("nan")), "sample_rate": 8}},
            "no number",
        ),
        (
            "anna: hello.wav 3s-5s",
            {},
            "Line 1 takes 3 to 5 s of hello.wav, which is 0.30 s long: write times within it",
        ),
        ("anna: 0s-3s", {}, "Line 1 has times alone, but nothing is connected to recording: connect the recording of"),
        (
            "anna: hello.wav",
            {"recording": sound(1.0)},
            "A recording of all is connected, but the lines have recordings",
        ),
        ("anna: hello.wav\npause 300s\nben: hello.wav", {}, "The speech is 300.6 s long, but at most 200 s are made"),
        ("anna: hello.wav\npause 99:59:59\nben: hello.wav", {}, "The speech is 359999.6 s long, but at most 200 s"),
        (
            "anna: audio_1",
            {"audio_1": sound(0.001)},
            "The dialogue is 0.00 s long, but at least 0.4 s are needed: add a",
        ),
        ("anna: ../secret.wav", {}, "Line 1 needs the file '../secret.wav', but the input folder has none"),
    ],
)
def test_what_makes_no_dialogue_is_told(converse, script, given, told, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(ValueError, match=told):
        converse(script, **given)


def test_places_that_do_not_fit_the_dialogue_are_told_before_any_work(converse, talk):
    speech, *_ = converse("anna: hello.wav\nben: answer.wav\ncarl: laugh.wav")
    boxes = PLACES.split("\n")
    for given, told in (
        ({}, "anna has no place in the picture: draw a box around each of the 3 people who speak"),
        ({"places": "\n".join(boxes[:2])}, "carl has no place in the picture"),
        (
            {"places": PLACES + "\ndora: 0,0,1,1"},
            "Line 4 of `places` is of 'dora', but those who speak are anna, ben, carl",
        ),
        ({"places": PLACES.replace("0.35", "0.01")}, "places of anna and ben is both of theirs: give each a place"),
        ({"places": PLACES, "box_1": "0,0,1,1"}, "Person 1 has a box in `places` and one in box_1: clear one of them"),
        (
            {"places": PLACES, "mask_2": torch.ones(1, 8, 8)},
            "ben has a box in `places`, but mask_2 is connected too: disc",
        ),
        ({"places": boxes[2], "masks": torch.ones(3, 8, 8)}, "carl has a box in `places`, but masks is connected too"),
        ({"places": PLACES.replace("0.9", "9")}, "The box is .* but left, top, right, bottom are needed"),
        ({"masks": torch.ones(2, 8, 8)}, r"masks is a batch of 2, but the people who speak are 3 \(anna, ben, carl\)"),
        ({"masks": torch.ones(3, 8, 8), "mask_2": torch.ones(1, 8, 8)}, "Both masks and mask_2 are connected"),
        ({"masks": torch.zeros(3, 8, 8)}, "Mask of anna shows no one in the picture of 96 x 64: paint over the person"),
        ({"places": PLACES, "position_map": "official"}, "is official, which knows two people, but 3 were given"),
    ):
        with pytest.raises(ValueError, match=told):
            talk(speech, **given)


def test_a_window_of_a_dialogue_for_the_artists_own_sampler(pack_nodes, models, converse):
    speech, *_ = converse(TABLE, audio_1=sound(0.25, key="tts"))
    text = models["clip"].encode_from_tokens_scheduled(models["clip"].tokenize("They talk."))
    given = (text, models["vae"], models["clip_vision"], portrait(), speech, 0.4)
    with torch.inference_mode():
        positive = pack_nodes.ready("SkyReelsAvatarWindow").execute(*given, **SIZE, places=PLACES).args[0]
    condition = next(value for value in positive[0][1].values() if hasattr(value, "speakers"))
    assert condition.speech.shape[:2] == (2, 81) and condition.speakers.shape[0] == 4
    assert condition.speaker_ranges.shape == (21, 3)
