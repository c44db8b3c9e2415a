"""Film and Cast on a real ComfyUI: each shot as its own job makes it, resume, locks, takes, sound, bad input."""

import json
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from pack.dev.samples.tiny_models import write_transformer
from pack.skyreels_v3.jobs.film.film_check import check_film
from pack.skyreels_v3.jobs.film.grammar.check import Known
from pack.skyreels_v3.jobs.film.outlook import LastRun
from pack.skyreels_v3.recipes import Job
from pack.tests.comfyui.test_extension_nodes import decoded, picture, stored
from pack.tests.support.golden import normal
from pack.tests.support.loaders import loaded
from pack.tests.support.video_clips import clip, numbered, numbers_of, turn
from pack.training.models.wav2vec2 import Wav2Vec2

pytestmark = pytest.mark.usefixtures("computes_in_float32")

SIZE = {"resolution": "custom", "width": 64, "height": 32}
SMALL = {**SIZE, "seed": 7, "steps": 1, "codec": "lossless"}
STORY = """\
scene 1s [anna]: Anna comes in.
continue 0.5s: She walks to the window.
cut 2s: [ZOOM_IN_CUT] Her hands.
scene 0.5s [cafe, last]: The cafe is empty.
"""


@pytest.fixture(scope="module")
def models(comfyui, pack_nodes, tmp_path_factory):
    """Loaders' CLIP and VAE, ComfyUI's encoders of images and speech, and all four models, tiny."""
    from comfy.audio_encoders import audio_encoders

    folder = tmp_path_factory.mktemp("models")
    load = pack_nodes.module("nodes.models.load").load_patcher

    def model(name, job, seed):
        return load(str(write_transformer(folder / f"{name}.safetensors", job, seed=seed)))

    return {
        **loaded(comfyui, folder, "film"),
        "reference_model": model("r2v", Job.REFERENCE, 3),
        "model": model("v2v_single_shot", Job.EXTENSION, 1),
        "shot_model": model("v2v_shot", Job.SHOT, 2),
        "avatar_model": model("a2v", Job.AVATAR, 4),
        "audio_encoder": audio_encoders.load_audio_encoder_from_sd(Wav2Vec2(768, 12, 12, 32).state_dict()),
    }


@pytest.fixture(autouse=True)
def own_folders(comfyui, tmp_path):
    """Films and inputs of one test are not those of another."""
    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        getattr(comfyui.folder_paths, f"set_{kind}_directory")(str(tmp_path / kind))


@pytest.fixture
def cast(pack_nodes):
    """Anna, with a voice, and the cafe."""
    anna = pack_nodes.ready("SkyReelsCast").execute("Anna", picture(1, "anna", (64, 80)), voice=sound(0.5)).args[0]
    return pack_nodes.ready("SkyReelsCast").execute("cafe", picture(1, "cafe", (80, 64)), cast=anna).args[0]


@pytest.fixture
def shown():
    """What the page gets of the last run."""
    return {}


@pytest.fixture
def film(pack_nodes, models, cast, shown):
    """film(script, **inputs) -> (path of the video, last frames, report)."""

    def run(script, **inputs):
        with torch.inference_mode():  # as ComfyUI runs nodes
            values = {**pack_nodes.values("SkyReelsFilm"), **SMALL}
            given = {**models, **values, "cast": cast, "script": script, **inputs}
            out = pack_nodes.ready("SkyReelsFilm").execute(**given)
        shown.update(out.ui)
        return out.args[0].get_stream_source(), *out.args[1:]

    return run


@pytest.fixture
def forwards(pack_nodes, monkeypatch):
    """Jobs of the passes that were sampled, in order."""
    guider, seen = pack_nodes.module("nodes.sampling.guider").BranchGuider, []
    sample = guider.sample

    def noted(self, *args, **kwargs):
        seen.append(self.model_patcher.model.job.value)
        return sample(self, *args, **kwargs)

    monkeypatch.setattr(guider, "sample", noted)
    return seen


@pytest.fixture
def windows(pack_nodes, monkeypatch):
    """windows(frames, drop): speech is made in windows of so many, instead of 81."""

    def of(frames, drop=0):
        timing = pack_nodes.module("skyreels_v3.jobs.avatar.plan").Timing(frames, 5, drop)
        monkeypatch.setattr(pack_nodes.module("nodes.runs.film.spoken"), "DEFAULT_TIMING", timing)

    return of


def sound(seconds, rate=16000, key="voice"):
    return {"waveform": normal(key, (1, 1, int(seconds * rate))) * 0.1, "sample_rate": rate}


@contextmanager
def stopped_at_the_second_window(passes):
    """Whatever makes two windows of a kind within the block is interrupted. passes: the class that makes them."""
    from comfy.model_management import InterruptProcessingException

    make, made = passes.window, []

    def interrupted(self, *args):
        if made:
            raise InterruptProcessingException
        made.append(args)
        return make(self, *args)

    with pytest.MonkeyPatch.context() as patched, pytest.raises(InterruptProcessingException):
        patched.setattr(passes, "window", interrupted)
        yield


def foreseen(shown: dict, script: str) -> list[str]:
    """What the cards of the last run say of a script."""
    (run,) = shown["skyreels_film_run"]
    last = LastRun.read(json.loads(json.dumps({**run, "shots": shown["skyreels_film"]})))
    return [line.state for line in check_film(script, Known(), run["settings"], last).lines]


def heard(path) -> tuple[np.ndarray, int]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1), stream.rate


def test_a_story_becomes_one_film(film, forwards):
    path, last, report = film(STORY)
    frames, rate = decoded(path)
    assert len(frames) == 24 + 12 + 48 + 12 and rate == 24 and frames.shape[1:] == (32, 64, 3)
    assert last.shape == (12, 32, 64, 3) and torch.equal(stored(last), frames[-12:])
    assert forwards == ["reference", "extension", "shot", "reference"]
    assert "4 shots, 96 frames (4 s at 24 a second)" in report and "| 4 |" not in report
    forwards.clear()
    again, _, report = film(STORY)
    assert again == path and forwards == [] and "0 takes made" in report


def test_footage_gone_on_from_is_as_extend_video_makes_it(film, pack_nodes, models):
    script = "continue 5.5s: She walks on.\ncut 2s: [ZOOM_IN_CUT] Her face.\ncontinue 0.3s: She smiles."
    given = {"source": picture(30), "colour_anchor": 0.5, "width": 32, "height": 32}
    path, last, _ = film(script, **given)
    extended = pack_nodes.ready("SkyReelsExtendVideo", prompt=None)
    others = {name: models[name] for name in ("clip", "vae", "model", "shot_model")}
    settings = {**pack_nodes.values("SkyReelsExtendVideo"), **SMALL, "script": script, "output_rate": "24"}
    with torch.inference_mode():
        out = extended.execute(**{**others, **settings, **given}).args
    assert torch.equal(decoded(path)[0], decoded(out[0].get_stream_source())[0])
    assert torch.equal(last, out[1])


def test_a_scene_is_as_reference_to_video_makes_it(film, pack_nodes, models, cast):
    import comfy.sample

    path, *_ = film("scene 0.7s [anna, cafe]: Anna comes in.", steps=2)
    with torch.inference_mode():
        prompts = pack_nodes.module("nodes.encoders.prompts").Prompts(models["clip"])
        images = {f"image_{number}": member.picture for number, member in enumerate(cast, 1)}
        positive, _, latent = (
            pack_nodes.ready("SkyReelsReferenceToVideo")
            .execute(prompts["Anna comes in."], models["vae"], **SIZE, seconds=1.0, frames=17, batch_size=1, **images)
            .args
        )
        guider = pack_nodes.module("nodes.sampling.guider").BranchGuider(models["reference_model"])
        guider.set_branches(positive, None, pack_nodes.module("skyreels_v3.sampling.guidance").text_branches(1.0))
        noise = comfy.sample.prepare_noise(latent["samples"], 7)
        sigmas = pack_nodes.module("skyreels_v3.sampling.schedule").job_sigmas(
            pack_nodes.module("skyreels_v3.recipes").Job.REFERENCE, 2
        )
        sampler = pack_nodes.module("nodes.sampling.samplers").unipc_sampler()
        made = guider.sample(noise, latent["samples"], sampler, sigmas, seed=7)
        pixels = models["vae"].decode(made)
    pixels = pixels.reshape(-1, *pixels.shape[-3:])
    assert len(decoded(path)[0]) == 17
    assert (decoded(path)[0].int() - stored(pixels.clamp(0, 1)).int()).abs().max() <= 1


def test_a_changed_line_makes_only_what_follows_from_it(film, forwards, shown):
    whole = decoded(film(STORY)[0])[0]
    forwards.clear()
    assert foreseen(shown, STORY) == ["done"] * 4
    assert foreseen(shown, STORY.replace("0.5s", "0.5s {seed 8}", 1)) == ["done", "changed", "stale", "stale"]
    film(STORY.replace("continue 0.5s", "continue 0.5s {seed 8}"))
    assert forwards == ["extension", "shot", "reference"]
    forwards.clear()
    locked = STORY.replace("continue 0.5s", "continue 0.5s {seed 9}").replace("cut 2s", "cut 2s {lock}")
    path, _, report = film(locked)
    assert forwards == ["extension"] and "Line 3 is locked" in report
    assert foreseen(shown, locked) == ["done", "done", "kept", "done"]
    assert foreseen(shown, locked.replace(" {lock}", "")) == ["done", "done", "stale", "stale"]
    assert not torch.equal(decoded(path)[0][24:36], whole[24:36])
    forwards.clear()
    assert torch.equal(decoded(film(STORY)[0])[0], whole) and forwards == [], "what was before is found again"
    film("\n".join(reversed(STORY.replace(", last", "").splitlines()[::3])))
    assert forwards == ["reference"], "of scenes in another order only one has other references"


def test_takes_are_kept_and_chosen(film, forwards):
    first = decoded(film(STORY)[0])[0]
    forwards.clear()
    path, _, report = film(STORY.replace("scene 1s", "scene 1s {takes 3, take 2}"))
    assert "| line | take | shown | likeness | jump | colour | motion |" in report
    assert "| yes |" in report.replace("  ", "")
    assert forwards == ["reference"] * 2 + ["extension", "shot", "reference"], "the first is there"
    frames = decoded(path)[0]
    assert not torch.equal(frames[:24], first[:24])
    forwards.clear()
    assert torch.equal(decoded(film(STORY.replace("scene 1s", "scene 1s {seed 8}"))[0])[0][:24], frames[:24])
    assert forwards == [], "the second take has the seed after the first's"
    _, _, report = film(STORY.replace("continue 0.5s", "continue 0.5s {takes 2, take best}"))
    jumps = [
        float(row.split("|")[5]) for row in report.splitlines() if row.startswith("|    2 |") and "walks" not in row
    ]
    assert len(jumps) == 2 and "nothing could be measured" not in report


def test_takes_are_measured_when_a_clip_vision_is_connected_later(film, forwards, shown, tmp_path, comfyui):
    script = "scene 0.2s [anna] {takes 2, take best}: x\ncut 2s {takes 2, take best}: y"
    assert "nothing could be measured" in film(script, clip_vision=None)[2]
    forwards.clear()
    path, _, report = film(script)
    assert "nothing could be measured" not in report and set(forwards) <= {"shot"}
    cards = [shot["takes"] for shot in shown["skyreels_film"]]
    comfyui.folder_paths.set_output_directory(str(tmp_path / "other"))
    assert torch.equal(decoded(film(script)[0])[0], decoded(path)[0])
    assert [shot["takes"] for shot in shown["skyreels_film"]] == cards


def test_references_in_another_order_are_another_scene(film, forwards):
    script = "scene 0.2s [anna] {name a}: x\nscene 0.2s [cafe]: y\nscene 0.2s [a, last]: z"
    path, *_ = film(script)
    frames = decoded(path)[0]
    assert torch.equal(decoded(film(script.replace("a}", "b}").replace("[a,", "[b,"))[0])[0], frames)
    assert len(forwards) == 3, "another name is the same scene"
    path, *_ = film(script.replace("[a, last]", "[last, a]"))
    assert len(forwards) == 4 and not torch.equal(decoded(path)[0][-5:], frames[-5:])


def test_people_speak_where_they_are_in_the_film(film, forwards, tmp_path, windows):
    windows(33)
    import wave

    with wave.open(str(tmp_path / "input" / "ben.wav"), "wb") as file:
        file.setparams((1, 2, 22050, 0, "NONE", ""))
        file.writeframes((np.sin(np.arange(11025) / 20) * 20000).astype("<i2").tobytes())
    script = "scene 1s [anna]: Anna waits.\nspeak [Anna: ben.wav]: Anna talks.\ncontinue 0.5s: She nods."
    path, *_ = film(script)
    frames, rate = decoded(path)
    assert len(frames) == 24 + 12 + 12 and rate == 24
    assert forwards == ["reference", "avatar", "extension"]
    samples, rate = heard(path)
    loud = np.abs(samples).max(axis=0) > 0.05
    assert rate == 22050 and not loud[: int(0.98 * rate)].any() and loud[int(1.02 * rate) : int(1.48 * rate)].any()
    assert not loud[int(1.6 * rate) :].any()
    forwards.clear()
    path, *_ = film(script.replace("Anna: ben.wav", "Anna: ben.wav, cafe: ben.wav"))
    assert forwards == ["avatar", "extension"] and len(decoded(path)[0]) == 24 + 24 + 12, "in turns"


def test_long_speech_goes_on_window_by_window(film, forwards, shown, tmp_path, comfyui, pack_nodes, windows):
    script = "scene 0.5s [dora]: x\nspeak [dora]: Dora talks.\ncontinue 0.5s: y"
    Member = pack_nodes.module("nodes.inputs.cast").Member
    windows(13)
    given = {"cast": (Member("dora", picture(1, "dora"), sound(0.92)),), "steps": 1, "rate": "25"}
    whole = decoded(film(script, **given)[0])[0]
    assert len(whole) == 12 + 23 + 12
    measured = [shot["takes"] for shot in shown["skyreels_film"]]
    assert forwards == ["reference", *["avatar"] * 4, "extension"]
    comfyui.folder_paths.set_output_directory(str(tmp_path / "other"))
    with stopped_at_the_second_window(pack_nodes.module("skyreels_v3.jobs.avatar.passes").AvatarPasses):
        film(script, **given)
    so_far = decoded(next((tmp_path / "other").rglob("so_far.mp4")))[0]
    assert torch.equal(so_far, whole[:12]), "finished shots"
    forwards.clear()
    assert torch.equal(decoded(film(script, **given)[0])[0], whole)
    assert forwards == ["avatar", "avatar", "extension"], "the key frames and the first window are kept"
    assert not list((tmp_path / "other").rglob("key-frames*")), "and are not needed any more"
    assert [shot["takes"] for shot in shown["skyreels_film"]] == measured, "the best take is the same one"


def test_another_file_of_the_same_name_is_another_film(pack_nodes, tmp_path):
    film, file = pack_nodes.ready("SkyReelsFilm"), tmp_path / "input" / "a.wav"
    script = "clip b.mp4\nspeak [A.wav]: x"
    before = film.fingerprint_inputs(script=script)
    file.write_bytes(b"1")
    after = film.fingerprint_inputs(script=script)
    assert before != after == film.fingerprint_inputs(script=script)
    assert film.fingerprint_inputs(script=None) == film.fingerprint_inputs()


def test_footage_stays_what_it_is(film, forwards, tmp_path):
    tone = (np.sin(np.arange(4 * 48000) / 10)[None] * 0.5).astype(np.float32)
    clip(tmp_path / "input" / "Harbour.mp4", 100, rate=25, size=(64, 32), options={"qp": "0"}, sound=(tone, 48000))
    script = "clip harbour.mp4 1s-3s\nscene 0.5s [anna]: x\nclip harbour.mp4 0:03-"
    path, _, report = film(script, rate="as the footage", resolution="custom")
    frames, rate = decoded(path)
    assert rate == 25 and len(frames) == 50 + 12 + 25
    assert numbers_of(frames[:50]) == list(range(25, 75)) and numbers_of(frames[62:]) == list(range(75, 100))
    assert forwards == ["reference"]
    samples, rate = heard(path)
    loud = [np.abs(samples[:, int(second * rate) :][:, : rate // 10]).max() > 0.1 for second in (0.1, 1.8, 2.2, 2.7)]
    assert loud == [True, True, False, True]
    path, _, report = film("clip harbour.mp4 3s-9s\ncontinue 0.5s: The sea.")
    assert len(decoded(path)[0]) == 24 + 12 and "asks for 6 s of footage, but there are only 1.00 s" in report
    with pytest.raises(Exception, match="Line 1: The video is trimmed"):
        film("clip harbour.mp4 30s-40s")
    (tmp_path / "input" / "empty.mp4").touch()
    with pytest.raises(Exception, match=r"Line 2: The video empty\.mp4 is empty"):
        film("clip harbour.mp4\nclip empty.mp4")


@pytest.mark.parametrize("turned", [90, 180, 270])
def test_footage_of_a_phone_is_upright(film, tmp_path, turned):
    stored = [np.rot90(numbered(number, 96, 64), turned // 90).copy() for number in range(12)]
    size = stored[0].shape[1], stored[0].shape[0]
    turn(clip(tmp_path / "input" / "phone.mp4", stored, rate=24, size=size, options={"qp": "0"}), turned)
    assert numbers_of(decoded(film("clip phone.mp4")[0])[0]) == list(range(12))


def test_pictures_come_from_the_input_folder_too(film, tmp_path):
    Image.new("RGB", (90, 60), "orange").save(tmp_path / "input" / "Dog.png")
    (tmp_path / "input" / "cats").mkdir()
    Image.new("RGB", (90, 60), "grey").save(tmp_path / "input" / "cats" / "cat.png")
    path, *_ = film("scene 0.5s [dog.png, cats/cat.png, anna]: x")
    assert len(decoded(path)[0]) == 12
    (tmp_path / "secret.png").write_bytes((tmp_path / "input" / "Dog.png").read_bytes())
    with pytest.raises(Exception, match=r"Line 1 names the picture '\.\./secret\.png'"):
        film("scene 0.5s [../secret.png]: x")
    (tmp_path / "input" / "broken.png").write_text("no picture")
    with pytest.raises(Exception, match=r"Line 1: The picture 'broken\.png'"):
        film("scene 0.5s [broken.png]: x")


@pytest.mark.parametrize(
    "script, inputs, told",
    [
        ("scene 1s [eva]: x", {}, "Line 1 names the picture 'eva', but the film has Anna, cafe"),
        ("scene 1s [anna]: x", {"cast": None}, "no Cast is connected"),
        ("continue 1s: x", {}, "Line 1 is a continue, but nothing comes before it"),
        (
            "scene 1s [anna]: x\ncut 2s: y",
            {"shot_model": None},
            "Line 2 is a cut, but nothing is connected to shot_model",
        ),
        ("scene 1s [anna]: x\nspeak [anna]: y", {"audio_encoder": None}, "Line 2 speaks, but nothing is connected to"),
        ("scene 1s [anna]: x\nspeak [cafe]: y", {}, "Line 2 gives 'cafe' no recording"),
        ("", {}, "The script is empty"),
    ],
)
def test_what_cannot_be_made_is_told_before_anything_runs(film, forwards, script, inputs, told, tmp_path):
    with pytest.raises(Exception, match=told):
        film(script, **inputs)
    assert forwards == [] and not list((tmp_path / "output").rglob("*.mp4"))


def test_a_swapped_model_and_long_speech_are_told(film, models, pack_nodes):
    with pytest.raises(Exception, match="The model at shot_model does the extension job"):
        film(STORY, shot_model=models["model"])
    Member = pack_nodes.module("nodes.inputs.cast").Member
    with pytest.raises(Exception, match=r"Line 2 speaks for 201\.0 s, but at most 200 s"):
        film("scene 1s [d]: x\nspeak [d]: y", cast=(Member("d", picture(1), sound(201.0, rate=100)),))


def test_names_of_a_cast(pack_nodes, cast):
    add = pack_nodes.ready("SkyReelsCast").execute
    for name, told in (
        ("anna", "Two Cast nodes"),
        ("last", "the last frame so far"),
        ("a, b", "without"),
        (" ", "letter"),
    ):
        with pytest.raises(Exception, match=told):
            add(name, picture(1), cast=cast)
    assert [member.name for member in add("Ben B.", picture(1), cast=cast).args[0]] == ["Anna", "cafe", "Ben B."]


def test_a_film_takes_its_size_and_rate_from_where_it_is_told(film, tmp_path):
    path, _, report = film("scene 0.2s [anna]: x", resolution="custom", width=100, height=70, rate="25")
    assert decoded(path)[0].shape[1:] == (64, 96, 3) and "Size 100 x 70 became 96 x 64" in report
    assert decoded(path)[1] == Fraction(25) and Path(path).exists()
