"""Dub Video on a real ComfyUI: what stays to the bit, rates, resume, sound, bad input."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pack.skyreels_v3.video.sources.file import FileSource
from pack.tests.comfyui.test_avatar_nodes import DEFAULTS as AVATAR
from pack.tests.comfyui.test_avatar_nodes import models, own_folders, sound, speak  # noqa: F401, fixtures
from pack.tests.comfyui.test_extension_nodes import decoded, kept_parts, of_file
from pack.tests.support.golden import normal
from pack.tests.support.video_clips import clip, turn

DEFAULTS = {
    **{name: AVATAR[name] for name in AVATAR if name not in ("connection_prompt", "colour_match")},
    "prompt": "a person is talking",
    "window": 21,
    "drop": 5,
    "width": 64,
    "height": 48,
    "start": 0.4,
    "strength": 1.0,
    "context": 1.5,
    "feather": 0.1,
    "original_sound": 0.0,
    "frame_rate": 25.0,
}

KEPT = {
    "dub-234e353a03ab43a678447728a305c87f": [
        "part-0d2870b875633cc9ae7a166481129d96",
        "part-4cae7a5c070abf90fff1ece801ff2488",
        "part-bcd31c33b313823a221da75a813674aa",
        "video-9bbea78d6b9a2200ed6b2e5b9e5ce9f0",
    ]
}


@pytest.fixture
def dub(pack_nodes, models):  # noqa: F811
    """dub(source, speech, **inputs) -> (path of the video, last frames, report)."""

    def run(source, speech, **inputs):
        clone = pack_nodes.ready("SkyReelsDubVideo", prompt=None)
        with torch.inference_mode():
            given = {**models, **DEFAULTS, "source": source, "speech": speech, **inputs}
            out = clone.execute(**given).args
        return out[0].get_stream_source(), *out[1:]

    return run


def footage(frames, height=72, width=96):
    """IMAGE of a soft picture with grain, and MASKs of a head in it that moves."""
    coarse = torch.nn.functional.interpolate(normal("footage", (1, 3, 5, 6)), (height, width), mode="bilinear")
    images = (coarse.movedim(1, -1) * 0.2 + 0.5 + normal("grain", (frames, height, width, 3)) * 0.02).clamp(0, 1)
    masks = torch.zeros(frames, height, width)
    for number in range(frames):
        left = 20 + number // 3
        masks[number, 20:44, left : left + 20] = 1
    return images, masks


def eight_bit(images):
    return (images * 255).round().to(torch.uint8)


def video(path, source, rate, turned=0):
    """A file of frames, without loss, as VIDEO. turned: by its flag, in degrees."""
    height, width = source.shape[1:3]
    frames = list(eight_bit(source).numpy())
    clip(path, frames, rate, "libx264rgb", "rgb24", (width, height), options={"qp": "0"}, sound=(stereo(), 8000))
    if turned:
        turn(path, turned)
    return file(path)


def file(path):
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path))


def stereo():
    return np.full((2, 16000), 0.25, np.float32)


def packets(path):
    """What is encoded of a video's pictures."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


@pytest.mark.usefixtures("computes_in_float32")
def test_the_head_alone_is_made_anew_at_the_footages_rate(dub, speak, tmp_path):  # noqa: F811
    images, masks = footage(60)
    path, last, report = dub(video(tmp_path / "own.mkv", images, 30), speak(1.0), mask=masks)
    frames, rate = decoded(path)
    given = eight_bit(images)
    assert rate == 30 and frames.shape == given.shape
    assert torch.equal(frames[masks == 0], given[masks == 0]), "lossless: equal to the bit"
    changed = (frames != given).flatten(1).any(dim=1).nonzero().flatten()
    assert changed.min() >= 12 and changed.max() < 42 and len(changed) > 25  # 0.4 to 1.4 s
    assert torch.equal(eight_bit(last), frames[-len(last) :])
    assert "of which 0.40 to 1.40 s are spoken anew" in report and "Where the head is:" in report
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels) == (8000, 2)
        assert abs(float(stream.duration * stream.time_base) - 2) < 0.15


def test_killed_in_the_middle_it_goes_on_with_the_same_frames(dub, speak, comfyui, tmp_path, pack_nodes, monkeypatch):  # noqa: F811
    import comfy.model_management as management

    (images, masks), speech = footage(48), speak(1.0)
    whole = decoded(dub(images, speech, mask=masks)[0])[0]
    comfyui.folder_paths.set_output_directory(str(tmp_path / "other"))
    run = pack_nodes.module("skyreels_v3.jobs.dub.passes").DubPasses
    make, made = run.window, []

    def interrupted(self, window, *args):
        if made:
            raise management.InterruptProcessingException
        made.append(window)
        return make(self, window, *args)

    monkeypatch.setattr(run, "window", interrupted)
    with pytest.raises(management.InterruptProcessingException):
        dub(images, speech, mask=masks)
    so_far = decoded(next((tmp_path / "other").rglob("so_far.mp4")))[0]
    assert torch.equal(so_far, whole[: len(so_far)])
    assert next((tmp_path / "other").rglob("heads.png")).stat().st_size > 0
    monkeypatch.undo()
    path, _, report = dub(images, speech, mask=masks)
    assert torch.equal(decoded(path)[0], whole)
    assert "2 of" in report  # what is copied before the first window counts as a part
    assert "parts were made before; this run took" in dub(images, speech, mask=masks)[2]


def test_keys_of_kept_jobs_stay(dub, models, pack_nodes, tmp_path, monkeypatch):  # noqa: F811
    """As in test_extension_nodes.py: computed once, and they stay."""
    monkeypatch.setattr(av, "__version__", "fixed")
    features = pack_nodes.module("skyreels_v3.speech.features").SpeechFeatures.of(torch.ones(1, 8, 12, 768))
    speech = pack_nodes.module("nodes.encoders.speech").Speech(features, torch.zeros(1, 1, 2560), 8000, 200.0)
    given = {"box": "0.2, 0.2, 0.6, 0.8", "steps": 1, "strength": 0.9, "seed": 3}
    given["model"] = of_file(models["model"], tmp_path / "model.safetensors")
    dub(torch.full((16, 48, 64, 3), 0.5), speech, **given, start=0.1)
    assert kept_parts(tmp_path / "output") == KEPT


def test_strength_place_and_settings_matter(dub, speak):  # noqa: F811
    (images, masks), speech = footage(24), speak(0.3)
    given = {"mask": masks, "steps": 4}
    full, report = (dub(images, speech, **given)[part] for part in (0, 2))
    low, told = (dub(images, speech, **given, strength=0.85)[part] for part in (0, 2))
    assert "of 4 steps" in report and "of 2 steps from the footage under 0.85 of noise" in told
    near, far = ((decoded(path)[0].int() - eight_bit(images).int()).abs().sum() for path in (low, full))
    assert near < far
    one = decoded(dub(images, speech, mask=masks[:1])[0])[0]
    box = decoded(dub(images, speech, box="20.9%, 27.8%, 41.6%, 61%")[0])[0]
    assert torch.equal(one, box), "a mask of one box and the box are the same"
    whole = dub(images, speech)
    assert "the whole picture is made anew" in whole[2]
    assert torch.equal(decoded(whole[0])[0][:10], eight_bit(images)[:10])


def test_odd_footage(dub, speak, tmp_path):  # noqa: F811
    images, masks = footage(40, 71, 95)
    path, _, report = dub(images, speak(3.0), mask=masks, frame_rate=60000 / 1001, start=0.0)
    frames, rate = decoded(path)
    assert rate == Fraction(60000, 1001) and frames.shape == (40, 70, 94, 3)
    assert "behind the end of the footage: that is cut off" in report and "H.264 has none" in report
    outside = masks[:, :70, :94] == 0
    assert torch.equal(frames[outside], eight_bit(images)[:, :70, :94][outside])
    masks[10:16] = 0  # a slip of what finds the head
    masks[28:] = 0  # the head leaves the picture
    report = dub(images, speak(1.3), mask=masks, start=0.0)[2]
    assert "The mask is empty in 5 frames of what is heard, from 1.12 s on" in report
    assert len(decoded(dub(images[:5], speak(0.2), start=0.0)[0])[0]) == 5  # 0.2 s
    assert len(decoded(dub(images[:5], speak(0.5), start=0.0, mask=torch.ones(1, 8, 8))[0])[0]) == 5
    cut = images.clone()
    cut[20:] = 1 - cut[20:].flip(2)
    assert "Hard cuts at 0.80 s" in dub(cut, speak(1.0), start=0.0)[2]


def test_h264_is_encoded_once(dub, speak, tmp_path, pack_nodes, monkeypatch):  # noqa: F811
    """Each frame by the piece that it is in; the pieces are joined as they are."""
    (images, masks), writer = footage(24), pack_nodes.module("skyreels_v3.video.writer").VideoWriter
    encode, given = writer.write, []
    monkeypatch.setattr(writer, "write", lambda self, frames: given.append(frames) or encode(self, frames))
    path = dub(images, speak(0.3), mask=masks, start=0.2, steps=1, codec="h264")[0]
    assert len(given) == 24
    assert torch.equal(torch.stack(given)[masks == 0], eight_bit(images)[masks == 0])
    pieces = Path(path).parent.glob("part-*.mp4")
    assert sorted(packets(path)) == sorted(packet for piece in pieces for packet in packets(piece))


def test_a_second_person_is_dubbed_in_the_video_of_the_first(dub, speak, tmp_path):  # noqa: F811
    images, masks = footage(24)
    other = masks.roll(40, 2)  # two heads, which meet nowhere
    first = dub(video(tmp_path / "own.mkv", images, 25), speak(0.3), mask=masks, start=0.2, steps=1)[0]
    second = dub(file(first), speak(0.3), mask=other, start=0.6, steps=1, original_sound=1.0)[0]
    given, once, twice = eight_bit(images), decoded(first)[0], decoded(second)[0]
    around = (masks + other) == 0
    assert torch.equal(twice[around], given[around]), "encoded twice, and the same to the bit"
    assert torch.equal(twice[masks > 0], once[masks > 0]) and not torch.equal(twice[other > 0], once[other > 0])
    before, after = (
        np.concatenate(list(FileSource(path).sound().blocks), axis=1)[:, :4000] for path in (first, second)
    )
    assert np.abs(after - before).max() < 0.05 < before.std(), "the first one's voice stays"


def test_masks_of_footage_upside_down_are_as_comfyui_gives_its_frames(dub, speak, tmp_path):  # noqa: F811
    images, masks = footage(20)
    source = video(tmp_path / "phone.mp4", images.flip(1, 2), 25, turned=180)
    upright = bool((source.get_components().images - images).abs().mean() < 0.01)
    path, _, report = dub(source, speak(0.3), mask=masks if upright else masks.flip(1, 2))
    made = decoded(path)[0]
    assert torch.equal(made[masks == 0], eight_bit(images)[masks == 0]) and not torch.equal(made, eight_bit(images))
    assert ("turned by 180 degrees, and so are its frames in this ComfyUI" in report) != upright


def test_what_makes_no_dub_is_told_before_any_work(dub, speak, tmp_path):  # noqa: F811
    (images, masks), speech = footage(24), speak(0.5)
    for given, told in (
        ({"start": 1.0}, "starts at 1 s, but the footage is 0.96 s long: set start"),
        ({"mask": masks[:7]}, "There are 7 masks, but the footage has 24 frames: give one mask for each"),
        ({"mask": masks * 0}, "The mask shows no one from"),
        ({"mask": masks[:1] * 0}, "The mask shows no one: paint over the head"),
        ({"box": "0.5, 0, 0.2, 1"}, "left, top, right, bottom are needed"),
        ({"speech": speak(0.5, people=2)}, "The speech is of 2 people, but Dub Video gives one person"),
        ({"source": images[:, :1]}, "The footage is 96 x 1 pixels, but at least 2 x 2 are needed"),
        ({"drop": 20}, "leaves no new frames"),
    ):
        with pytest.raises(ValueError, match=told):
            dub(**{"source": images, "speech": speech, **given})
    assert not list(Path(tmp_path / "output").rglob("*.safetensors"))
