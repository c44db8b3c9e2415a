"""Lines of a film that dub footage or speak a dialogue: as Dub Video and Talking Avatar do it."""

# ruff: noqa: F811, fixtures of another file are arguments here
from pathlib import Path

import numpy as np
import pytest
import torch

from pack.tests.comfyui.test_avatar_nodes import DEFAULTS as AVATAR_DEFAULTS
from pack.tests.comfyui.test_dialogue_nodes import PLACES
from pack.tests.comfyui.test_dub_nodes import DEFAULTS as DUB_DEFAULTS
from pack.tests.comfyui.test_dub_nodes import footage, stereo
from pack.tests.comfyui.test_extension_nodes import decoded, picture, stored
from pack.tests.comfyui.test_film_nodes import (
    cast,  # noqa: F401, fixture
    film,  # noqa: F401, fixture
    foreseen,
    forwards,  # noqa: F401, fixture
    heard,
    models,  # noqa: F401, fixture
    own_folders,  # noqa: F401, fixture
    shown,  # noqa: F401, fixture
    sound,
    stopped_at_the_second_window,
    windows,  # noqa: F401, fixture
)
from pack.tests.support.video_clips import clip

pytestmark = pytest.mark.usefixtures("computes_in_float32")

BOX = "0.2, 0.3, 0.7, 0.9"
DUB = f"dub Harbour.mkv 0.5s- [Anna] {{box {BOX}, start 0.3}}: Anna shouts."
SMALL = {"width": 64, "height": 48, "fit": "letterbox", "rate": "as the footage"}


@pytest.fixture
def harbour(tmp_path):
    """Frames of 2 s at 30 a second, [60, 72, 96, 3], which lie in the input folder, with a sound of 0.25."""
    images, _ = footage(60)
    path, frames = tmp_path / "input" / "harbour.mkv", list(stored(images).numpy())
    clip(path, frames, 30, "libx264rgb", "rgb24", (96, 72), options={"qp": "0"}, sound=(stereo(), 8000))
    return images


@pytest.fixture
def dub_video(pack_nodes, models, cast, harbour):
    """dub_video(**inputs) -> (path of the video, report): what DUB is, by the node Dub Video."""

    def run(**inputs):
        given = {**DUB_DEFAULTS, "start": 0.3, "steps": 1, "seed": 7, "box": BOX, "prompt": "Anna shouts."}
        given |= {"strength": 0.85, "context": 2.0, "width": 64, "height": 48, "codec": "lossless", "frame_rate": 30.0}
        given |= {"window": 21, "motion": 5, "drop": 5, "model": models["avatar_model"], "source": harbour[15:]}
        given |= {name: models[name] for name in ("clip", "vae", "clip_vision")}
        with torch.inference_mode():
            speech = (
                pack_nodes.ready("SkyReelsSpeech")
                .execute(models["audio_encoder"], cast[0].voice, "together", 0.0, 200.0)
                .args[0]
            )
            out = pack_nodes.ready("SkyReelsDubVideo", prompt=None).execute(**{**given, "speech": speech, **inputs})
        return Path(out.args[0].get_stream_source()), out.args[2]

    return run


def test_a_dub_is_what_dub_video_makes_put_in_as_a_clip(film, forwards, tmp_path, windows, dub_video, shown):
    windows(21, drop=5)
    made, _ = dub_video()
    (tmp_path / "input" / "dubbed.mp4").write_bytes(made.read_bytes())
    again, after, _ = film("clip dubbed.mp4\ncontinue 0.5s: The sea.", **SMALL)
    forwards.clear()
    script = f"{DUB}\ncontinue 0.5s: The sea."
    path, last, report = film(script, **SMALL)
    frames, rate = decoded(path)
    assert rate == 30 and len(frames) == 45 + 15 and forwards == ["avatar", "avatar", "extension"]
    assert "Made in this order: lines 1, 2; 2 loads of a model." in report and "Line 1: " not in report
    assert torch.equal(frames, decoded(again)[0]) and torch.equal(last, after)
    samples, rate = heard(path)
    levels = [samples[:, int(second * rate) :][:, :400].mean() for second in (0.1, 0.5, 1.0, 1.7)]
    assert np.allclose(levels, [0.25, 0, 0.25, 0], atol=0.03), "its own, the recording, its own, none"
    assert foreseen(shown, script) == ["done", "done"]
    for other in ("strength 1, box", "seed 8, box"):
        assert foreseen(shown, script.replace("box", other)) == ["changed", "stale"]
    assert foreseen(shown, script.replace("Anna]", "hello.wav]")) == ["changed", "stale"]


def test_killed_in_the_middle_a_dub_goes_on(film, forwards, tmp_path, comfyui, pack_nodes, windows, harbour):
    windows(21, drop=5)
    script = f"{DUB}\nclip harbour.mkv 1s-"
    whole = decoded(film(script, **SMALL)[0])[0]
    comfyui.folder_paths.set_output_directory(str(tmp_path / "other"))
    with stopped_at_the_second_window(pack_nodes.module("skyreels_v3.jobs.dub.passes").DubPasses):
        film(script, **SMALL)
    assert len(list((tmp_path / "other").rglob("heads-*.png"))) == 1
    forwards.clear()
    assert torch.equal(decoded(film(script, **SMALL)[0])[0], whole)
    assert forwards == ["avatar"], "what was made before the stop is kept"
    assert not list((tmp_path / "other").rglob("heads-*"))
    forwards.clear()
    other = decoded(film(script.replace("{", "{takes 2, take 2, "), **SMALL)[0])[0]
    assert forwards == ["avatar", "avatar"] and not torch.equal(other, whole), "the first take is there"


@pytest.mark.parametrize(
    "script, inputs, told",
    [
        (DUB, {"avatar_model": None}, "Line 2 is a dub, but nothing is connected to avatar_model"),
        (DUB, {"clip_vision": None}, "Line 2 dubs, but nothing is connected to clip_vision"),
        (DUB.replace("Anna]", "cafe]"), {}, "Line 2 gives 'cafe' no recording"),
        (DUB.replace("0.5s-", "3s-"), {}, "Line 2: The video is trimmed to"),
        (
            DUB.replace("start 0.3", "start 2"),
            {},
            "Line 2: The recording starts at 2 s, but the footage is 1.50 s long",
        ),
    ],
)
def test_a_dub_that_cannot_be_made_is_told_before_anything_runs(film, forwards, harbour, script, inputs, told):
    with pytest.raises(ValueError, match=told):
        film(f"scene 0.2s [anna]: x\n{script}", **SMALL, **inputs)
    assert forwards == []


def test_what_is_to_be_known_of_a_dub_is_told_with_its_line(film, harbour, windows):
    windows(21, drop=5)
    report = film("scene 0.2s [anna]: x\ndub harbour.mkv 1.8s- [anna]", **SMALL)[2]
    assert "Line 2: The recording goes on for 0.32 s behind the end of the footage: that is cut off." in report
    assert "Line 2: Without a mask or a box the whole picture is made anew." in report


TABLE_SCRIPT = "anna: audio_1\nben: audio_2\ncarl: audio_1 0s-0.2s"


@pytest.fixture
def dialogue(pack_nodes, models):
    """dialogue(script) -> (speech, audio) of Dialogue; audio_1 and audio_2 are noises of 0.3 and 0.25 s."""

    def run(script=TABLE_SCRIPT):
        sounds = {"audio_1": sound(0.3), "audio_2": sound(0.25, key="other")}
        given = {"audio_encoder": models["audio_encoder"], "script": script, "max_seconds": 200.0, **sounds}
        with torch.inference_mode():
            return pack_nodes.ready("SkyReelsDialogue").execute(**given).args[:2]

    return run


@pytest.fixture
def seated(pack_nodes, cast):
    """seated(**inputs) -> the cast, and a member named table with these inputs."""

    def run(**inputs):
        return pack_nodes.ready("SkyReelsCast").execute("Table", picture(1, "table"), cast=cast, **inputs).args[0]

    return run


def test_a_dialogue_is_spoken_as_by_talking_avatar(
    film, forwards, pack_nodes, models, windows, dialogue, seated, harbour, shown
):
    windows(21)
    speech, audio = dialogue()
    given = {"width": 96, "height": 64, "fit": "stretch", "rate": "25", "audio_encoder": None}
    script = "clip harbour.mkv 1s-1.4s\nspeak [table]: They talk.\ncontinue 0.2s: They nod."
    path, *_ = film(script, cast=seated(dialogue=speech, places=PLACES), **given)
    frames, rate = decoded(path)
    assert rate == 25 and len(frames) == 10 + speech.frames + 5 and speech.frames == 19
    with torch.inference_mode():
        avatar = {"portrait": frames[9:10] / 255, "prompt": "They talk.", "window": 21, "motion": 5, "drop": 0}
        avatar |= {"model": models["avatar_model"], "speech": speech, "places": PLACES, "seed": 7, "codec": "lossless"}
        avatar |= {name: models[name] for name in ("clip", "vae", "clip_vision")}
        avatar |= {"steps": 1, "width": 96, "height": 64}
        avatar |= {"connection_prompt": "a person is talking", "colour_match": 1.0}
        out = pack_nodes.ready("SkyReelsTalkingAvatar", prompt=None).execute(**{**AVATAR_DEFAULTS, **avatar}).args
    assert torch.equal(frames[10:29], decoded(out[0].get_stream_source())[0])
    samples, rate = heard(path)
    said = audio["waveform"][0, :, : int(0.7 * rate)].numpy()
    assert rate == audio["sample_rate"]
    assert np.corrcoef(samples[0, round(0.4 * rate) :][: said.shape[1]], said[0])[0, 1] > 0.95, "in its place"
    forwards.clear()
    film(script, cast=seated(dialogue=dialogue()[0], places=PLACES.replace("Anna", "ANNA")), **given)
    assert forwards == [], "the same dialogue, encoded again"
    film(script, cast=seated(dialogue=speech, places=PLACES.replace("0.1", "0.2")), **given)
    assert forwards == ["avatar", "extension"]
    assert [shot["seconds"] for shot in shown["skyreels_film"]] == [0.4, 0.76, 0.2]


@pytest.mark.parametrize(
    "line, inputs, told",
    [
        ("speak [table, anna]: x", {}, "Line 2 has the dialogue 'table' beside another voice"),
        ("dub harbour.mkv [table]", {}, "Line 2 dubs one person, but 'table' is a dialogue"),
        ("speak [table]: x", {"places": PLACES.rpartition("\n")[0]}, "Line 2: carl has no place in the picture"),
        ("speak [table]: x", {"clip_vision": None}, "Line 2 speaks, but nothing is connected to clip_vision"),
        (
            "speak [table]: x",
            {"places": "anna: 0 0 1 1\nben: 0 0 1 1\ncarl: 0 0 1 1"},
            "Line 2: 100 % of the smaller one of the places of anna and ben",
        ),
        ("speak [table]: x", {"places": "dora: 0 0 1 1"}, "Line 1 of .places. is of 'dora'"),
        ("speak [table]: x", {"voice": sound(0.5)}, "Table has a voice and a dialogue"),
        ("speak [table]: x", {"dialogue": None}, "Table has places of people, but no dialogue"),
    ],
)
def test_a_dialogue_that_cannot_be_spoken_is_told(film, forwards, dialogue, seated, harbour, line, inputs, told):
    ours = {name: inputs[name] for name in inputs if name != "clip_vision"}
    with pytest.raises(ValueError, match=told):
        table = seated(**{"dialogue": dialogue()[0], "places": PLACES, **ours})
        film(f"scene 0.2s [anna]: x\n{line}", **SMALL, cast=table, **{n: v for n, v in inputs.items() if n not in ours})
    assert forwards == []
