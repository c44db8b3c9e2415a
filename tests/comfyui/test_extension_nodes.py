"""Extension Window and Extend Video on a real ComfyUI: rolls, cuts, resume, files, bad input."""

import os
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from pack.dev.samples.tiny_models import write_text_encoder, write_transformer, write_vae
from pack.tests.support.golden import normal

pytestmark = pytest.mark.usefixtures("computes_in_float32")

SIZE = {"resolution": "custom", "width": 96, "height": 64}
DEFAULTS = {
    "frame_rate": 24.0,
    "fit": "crop",
    "seed": 7,
    "steps": 2,
    "shift": 8.0,
    "sampler": "unipc (official)",
    "guidance": 1.0,
    "negative": "",
    "colour_anchor": 0.0,
    "output": "source + new",
    "output_rate": "as the source",
    "codec": "lossless",
    "official": False,
    **SIZE,
}
KEY = r"[a-z]+-[0-9a-f]{32}"
# Of runs that were begun when models still counted by their files' times of change.
KEPT_BY_TIME = {
    "extension-edaea3310b29c0d5bbf839ed87befe65": [
        "roll-e42e4c29e6b7892ba5d4983f94b88927",
        "roll-e5ee02fecf52c58bc9d952e8b73633ec",
        "video-55532760edd65149a0fbbf77eee9fd26",
    ],
    "source-1278251d9fa79444eac85923c2161039": [],
}
KEPT = {
    "extension-edaea3310b29c0d5bbf839ed87befe65": [
        "roll-a0bd20e600533ffb7aeaf138376bc316",
        "roll-f4ed510e2228af79288a83e107e9a20a",
        "video-f144e6452e2b38e6f7b45e8941e20edf",
    ],
    "source-1278251d9fa79444eac85923c2161039": [],
}
STORY = "continue 1s: She walks on.\ncut 2s: [ZOOM_IN_CUT] Her face.\ncontinue 0.5s: She smiles."
# Of what is kept and made again: five frames a roll, and as short a past.
SHORT = "continue 0.2s: She walks on.\ncontinue 0.2s: She stops.\ncontinue 0.2s: She smiles."
FEW = 5


@pytest.fixture(scope="module")
def models(comfyui, pack_nodes, tmp_path_factory):
    """The stock loaders' CLIP and VAE and both extension models, all tiny."""
    from pack.dev.comfyui import small_encoders  # noqa: F401, it needs the real ComfyUI, which is there only now

    folder = tmp_path_factory.mktemp("models")
    write_vae(folder / "vae" / "extension_vae.safetensors")
    write_text_encoder(folder / "text_encoders" / "extension_umt5.safetensors")
    for kind in ("vae", "text_encoders"):
        comfyui.folder_paths.add_model_folder_path(kind, str(folder / kind))
        comfyui.folder_paths.filename_list_cache.clear()
    Job = pack_nodes.module("skyreels_v3.recipes").Job
    load = pack_nodes.module("nodes.models.load").load_patcher
    return {
        "clip": comfyui.nodes.CLIPLoader().load_clip("extension_umt5.safetensors", "wan")[0],
        "vae": comfyui.nodes.VAELoader().load_vae("extension_vae.safetensors")[0],
        "model": load(str(write_transformer(folder / "v2v_single_shot.safetensors", Job.EXTENSION, seed=1))),
        "shot_model": load(str(write_transformer(folder / "v2v_shot.safetensors", Job.SHOT, seed=2))),
    }


@pytest.fixture(autouse=True)
def own_folders(comfyui, tmp_path):
    """Jobs of one test are not those of another."""
    comfyui.folder_paths.set_output_directory(str(tmp_path / "output"))
    comfyui.folder_paths.set_temp_directory(str(tmp_path / "temp"))


def picture(frames, key="clip", size=(64, 96)):
    """A smooth moving picture, IMAGE [F, H, W, 3]."""
    coarse = normal(key, (1, 3, max(2, frames // 8), 4, 6))
    smooth = torch.nn.functional.interpolate(coarse, (frames, *size), mode="trilinear", align_corners=True)
    return (smooth[0].permute(1, 2, 3, 0) * 0.25 + 0.5).clamp(0, 1)


@pytest.fixture
def extend(pack_nodes, models):
    """extend(script, **inputs) -> (path of the video, last frames, report)."""

    def run(script, source=None, prompt=None, unique_id="1", **inputs):
        clone = pack_nodes.ready("SkyReelsExtendVideo", prompt=prompt, unique_id=unique_id)
        given = {**models, **DEFAULTS, "source": picture(30) if source is None else source, **inputs}
        with torch.inference_mode():  # as ComfyUI runs nodes: otherwise every roll is kept for its gradients
            out = clone.execute(script=script, **given).args
        return out[0].get_stream_source(), *out[1:]

    return run


def stored(images):
    """IMAGE as uint8."""
    return (images * 255).round().to(torch.uint8)


def decoded(path):
    """uint8 [F, H, W, 3] and the video's rate."""
    with av.open(str(path)) as container:
        rate = container.streams.video[0].average_rate
        return torch.stack([torch.from_numpy(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]), rate


def test_a_story_becomes_one_video(extend, models):
    path, last, report = extend(STORY)
    frames, rate = decoded(path)
    assert len(frames) == 30 + 24 + 48 + 12 and rate == 24
    assert frames.shape[1:] == (64, 96, 3)
    assert torch.equal(frames[:30], stored(picture(30))), "lossless keeps the source to the bit"
    assert last.shape == (25, 64, 96, 3)
    assert torch.equal(stored(last)[-12:], frames[-12:])
    assert "3 rolls" in report
    assert "0 of 3 rolls were made before" in report


def test_prompts_are_encoded_once_a_line_before_sampling(extend, models, pack_nodes, monkeypatch):
    events = []

    def noted(name, function):
        def call(self, *args, **kwargs):
            events.append(name)
            return function(self, *args, **kwargs)

        return call

    tiled = pack_nodes.module("nodes.encoders.vae").TiledVae
    for name, kind, method in (
        ("clip", type(models["clip"]), "encode_from_tokens_scheduled"),
        ("vae", tiled, "run"),
    ):
        monkeypatch.setattr(kind, method, noted(name, getattr(kind, method)))
    extend("continue 6s: She walks on.\ncontinue 0.5s: She stops.", steps=1)
    assert events == ["clip"] * 2 + ["vae"] * 6, "an encode and a decode of each roll"


def test_queued_again_nothing_is_made_twice(extend, pack_nodes, monkeypatch):
    first, *_ = extend(SHORT, picture(FEW))
    tiled = pack_nodes.module("nodes.encoders.vae").TiledVae
    monkeypatch.setattr(tiled, "run", lambda *_: pytest.fail("nothing is left to decode"))
    again, _, report = extend(SHORT, picture(FEW))
    assert torch.equal(decoded(first)[0], decoded(again)[0])
    assert "3 of 3 rolls were made before" in report


def test_a_changed_line_keeps_those_before_it(extend):
    source = picture(FEW)
    extend(SHORT, source)
    *_, report = extend(SHORT.replace("She smiles", "She laughs"), source)
    assert "2 of 3 rolls were made before" in report
    *_, report = extend("# a comment\n\n" + SHORT, source)
    assert "3 of 3 rolls were made before" in report, "the last line is the old one again"
    *_, report = extend(SHORT, source, seed=8)
    assert "0 of 3 rolls were made before" in report


def of_file(model, path: Path):
    """The model as if it were of this file, empty and of 2001: its stamp is part of a job's keys."""
    path.touch()
    os.utime(path, (10**9, 10**9))
    model = model.clone()
    load, arguments = model.cached_patcher_init
    model.cached_patcher_init = (load, arguments._replace(path=str(path)))
    return model


def kept_parts(output: Path) -> dict[str, list[str]]:
    """The keys of the job's folder, without the encoder's files behind them: {folder: its parts}."""
    folders = [path for path in output.rglob("*") if path.is_dir() and re.match(KEY, path.name)]
    return {path.name: sorted({one.stem for one in path.iterdir() if re.match(KEY, one.name)}) for path in folders}


def check_keys(run, module, output: Path, monkeypatch, now: dict, once: dict, report: str) -> None:
    """A run keeps its files under the keys `now`; one that was begun `once` goes on under those."""
    with monkeypatch.context() as older:
        kind = module("nodes.runs.resumable").ResumableRun
        older.setattr(kind, "_keys", lambda self: self._keys_by(by_time=True))
        run()
        assert kept_parts(output) == once
    assert report in run()[-1]
    assert kept_parts(output) == once
    shutil.rmtree(output)
    run()
    assert kept_parts(output) == now


def test_keys_of_kept_jobs_stay(extend, models, pack_nodes, tmp_path, monkeypatch):
    """A release that computes other keys makes artists' unfinished jobs anew: these were computed once and stay."""
    monkeypatch.setattr(av, "__version__", "fixed")
    given = {name: of_file(models[name], tmp_path / f"{name}.safetensors") for name in ("model", "shot_model")}
    given |= {"steps": 1, "guidance": 2.0, "negative": "dark", "colour_anchor": 0.5}
    script = "continue 0.5s: She walks on.\ncut 2s: [ZOOM_IN_CUT] Her face."

    def run():
        return extend(script, torch.full((30, 64, 96, 3), 0.5), **given)

    made = "2 of 2 rolls were made before"
    check_keys(run, pack_nodes.module, tmp_path / "output", monkeypatch, KEPT, KEPT_BY_TIME, made)


def test_an_interrupted_job_is_playable_and_goes_on(extend, comfyui, tmp_path, pack_nodes, monkeypatch):
    import comfy.model_management as management

    source = picture(FEW)
    whole = decoded(extend(SHORT, source)[0])[0]
    comfyui.folder_paths.set_output_directory(str(tmp_path / "other"))
    job = pack_nodes.module("nodes.runs.extension")
    run_roll, made = job.run_roll, []

    def interrupted(roll, *args):
        if len(made) == 2:
            raise management.InterruptProcessingException
        made.append(roll)
        return run_roll(roll, *args)

    monkeypatch.setattr(job, "run_roll", interrupted)
    with pytest.raises(management.InterruptProcessingException):
        extend(SHORT, source)
    so_far = next((tmp_path / "other").rglob("so_far.mp4"))
    assert torch.equal(decoded(so_far)[0], whole[: FEW + 5 + 5])
    monkeypatch.undo()
    path, _, report = extend(SHORT, source)
    assert torch.equal(decoded(path)[0], whole)
    assert "2 of 3 rolls were made before" in report


def test_other_rates_and_new_frames_only(extend, tmp_path):
    path, _, _ = extend("continue 1s: On.", source=picture(60), frame_rate=60.0)
    frames, rate = decoded(path)
    assert rate == 60 and len(frames) == 60 + 60
    path, _, _ = extend("continue 1s: On.", source=picture(60), frame_rate=60.0, output="new only", output_rate="24")
    frames, rate = decoded(path)
    assert rate == 24 and len(frames) == 24


def test_a_video_file_with_sound(extend, comfyui, tmp_path):
    from comfy_api.latest import InputImpl, Types

    sound = {"waveform": torch.sin(torch.arange(44100) / 20)[None, None].expand(1, 2, -1), "sample_rate": 44100}
    clip = Types.VideoComponents(images=picture(25), audio=sound, frame_rate=Fraction(25))
    for video in (InputImpl.VideoFromComponents(clip), None):
        if video is None:
            InputImpl.VideoFromComponents(clip).save_to(str(tmp_path / "clip.mp4"))
            video = InputImpl.VideoFromFile(str(tmp_path / "clip.mp4"))
        path, _, _ = extend("continue 1s: On.", source=video, codec="h264")
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            assert (stream.rate, stream.channels) == (44100, 2)
            assert abs(float(stream.duration * stream.time_base) - 2) < 0.05
            assert container.streams.video[0].frames == 50


def test_short_sources_and_official_counts(extend):
    path, _, report = extend("continue 1s: On.", source=picture(1))
    assert len(decoded(path)[0]) == 1 + 24
    assert "shown 1 frame of the past instead of 25" in report
    path, _, report = extend("continue 1s: On.", source=picture(40), official=True)
    assert len(decoded(path)[0]) == 40 + 36
    assert "official" in report


def test_a_cut_in_the_source_is_found(extend):
    source = torch.cat([picture(20, "one"), 1 - picture(12, "two")])
    _, _, report = extend("continue 1s: On.", source=source)
    assert "hard cut 12 frames before its end" in report


def test_guidance_and_other_samplers(extend):
    plain = decoded(extend("continue 0.2s: On.", picture(FEW))[0])[0]
    guided = decoded(extend("continue 0.2s: On.", picture(FEW), guidance=3.0, negative="blurry")[0])[0]
    euler = decoded(extend("continue 0.2s: On.", picture(FEW), sampler="euler")[0])[0]
    assert not torch.equal(plain, guided) and not torch.equal(plain, euler)


BAD = [
    ({"script": ""}, "The script is empty"),
    ({"script": "continue 0s: On."}, "Line 1"),
    ({"script": "continue 1s: On.\ncut 9s: Face."}, "Line 2"),
    ({"script": "cut 2s: [ZOOM_IN_CUT] Face.", "shot_model": None}, "nothing is connected to shot_model"),
    ({"script": "continue 1s: On.", "model": None}, "nothing is connected to model"),
    ({"script": "continue 1s: On.", "frame_rate": 0.0}, "frame"),
    ({"script": "continue 1s: On.", "source": torch.zeros(0, 64, 96, 3)}, "frame"),
]


@pytest.mark.parametrize(("inputs", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_is_told_in_a_sentence(extend, inputs, message):
    with pytest.raises(ValueError, match=message):
        extend(**inputs)


def test_swapped_models_are_named(extend, models):
    with pytest.raises(ValueError, match="at model does the shot job, but extension is needed there"):
        extend("continue 1s: On.", model=models["shot_model"], shot_model=models["model"])


def test_a_window_for_the_artists_own_sampler(pack_nodes, models):
    import comfy.sample

    text = models["clip"].encode_from_tokens_scheduled(models["clip"].tokenize("She walks on."))
    for shot, model, frames, past in (("continue", "model", 24, 25), ("cut", "shot_model", 49, 0)):
        clone = pack_nodes.ready("SkyReelsExtensionWindow")
        positive, negative, latent, prefix, drop = clone.execute(
            text, models["vae"], picture(30), shot, frames // 24, **SIZE, fit="crop", frame_rate=24.0
        ).args
        assert drop == past
        samples = comfy.sample.prepare_noise(latent["samples"], 1)
        out = comfy.sample.sample(
            models[model], samples, 2, 1.0, "euler", "simple", positive, negative, latent["samples"], seed=1
        )
        joined = torch.cat([prefix["samples"], out], dim=2) if drop else out
        assert len(models["vae"].decode(joined)[0]) == past + frames


def graph_of(name="clip.mp4", first=1, **inputs):
    """A prompt of Extend Video, ids from `first` on."""
    load, vae, clip = (str(first + number) for number in (1, 2, 3))
    linked = {"source": [load, 0], "vae": [vae, 0], "clip": [clip, 0]}
    return {
        str(first): {"class_type": "SkyReelsExtendVideo", "inputs": {**DEFAULTS, **linked, **inputs}},
        load: {"class_type": "LoadVideo", "inputs": {"file": name}},
        vae: {"class_type": "VAELoader", "inputs": {"vae_name": "wan.safetensors"}},
        clip: {"class_type": "CLIPLoader", "inputs": {"clip_name": "umt5.safetensors"}},
    }


def test_what_decides_no_frame_makes_nothing_anew(extend, models, comfyui, tmp_path):
    from comfy_api.latest import InputImpl, Types

    clip = tmp_path / "clip.mp4"
    components = Types.VideoComponents(images=picture(FEW), audio=None, frame_rate=Fraction(24))
    InputImpl.VideoFromComponents(components).save_to(str(clip))
    copy = tmp_path / "another name.mp4"
    copy.write_bytes(clip.read_bytes())
    os.utime(copy, (10**9, 10**9))

    def report(file=clip, first=1, script="continue 0.2s: On.", **inputs):
        source = InputImpl.VideoFromFile(str(file))
        prompt = graph_of(file.name, first, **inputs)
        path, _, said = extend(script, source, prompt, str(first), steps=1, **inputs)
        assert Path(path).exists()
        return re.search(r"(\d) of \d rolls", said)[1], path

    made, path = report()
    assert made == "0"
    for same in (
        {"first": 50},
        {"file": copy},
        {"width": 97},
        {"negative": "dark"},
        {"frame_rate": 30.0},
        {"shot_model": None},
        {"output_rate": "24"},
    ):
        assert report(**same) == ("1", path), same
    for other in ({"guidance": 2.0}, {"seed": 8}, {"width": 64}, {"codec": "h264"}):
        assert report(**other)[0] == "0", other


def sources(output: Path) -> dict[Path, int]:
    """All pieces of written sources, with when they were written."""
    return {path: path.stat().st_mtime_ns for path in output.rglob("piece-*.mp4")}


def test_a_source_is_written_once_for_all_seeds_and_scripts(extend, pack_nodes, tmp_path):
    path, *_ = extend("continue 0.2s: On.", picture(FEW), steps=1)
    written = sources(tmp_path / "output")
    assert len(written) == 1 and torch.equal(decoded(next(iter(written)))[0], decoded(path)[0][:FEW])
    extend("continue 0.3s: Off.", picture(FEW), steps=2, seed=8, guidance=2.0)
    extend("continue 0.2s: On.", picture(FEW + 1, "other"), steps=1, output="new only")
    assert sources(tmp_path / "output") == written, "taken over, and not written where it is not shown"

    FramesSource = pack_nodes.module("skyreels_v3.video.sources.source").FramesSource
    one = pack_nodes.module("nodes.runs.lead").Lead(FramesSource(picture(30), 24), 96, 64, "crop", Fraction(24), "h264")
    others = {"codec": "lossless", "width": 64, "fit": "stretch", "rate": Fraction(25)}
    others["source"] = FramesSource(picture(31), 24)
    keys = {one.key, *(replace(one, **{name: value}).key for name, value in others.items())}
    assert len(keys) == 1 + len(others), "by all that decides its frames"


def test_an_earlier_result_goes_on_without_a_frame_encoded_anew(extend, tmp_path):
    from comfy_api.latest import InputImpl

    def packets(path, count):
        with av.open(str(path)) as container:
            return [bytes(packet) for packet, _ in zip(container.demux(video=0), range(count))]

    path, *_ = extend("continue 0.2s: On.", picture(FEW), steps=1, codec="h264")
    before = sources(tmp_path / "output")
    InputImpl.VideoFromFile(str(path)).save_to(str(tmp_path / "saved.mp4"))  # as Save Video does
    saved = InputImpl.VideoFromFile(str(tmp_path / "saved.mp4"))
    longer, *_ = extend("continue 0.2s: Off.", saved, steps=1, codec="h264")
    assert packets(longer, FEW + 5) == packets(path, FEW + 5) and len(decoded(longer)[0]) == FEW + 5 + 5
    assert sources(tmp_path / "output") == before
    other, *_ = extend("continue 0.2s: Off.", saved, steps=1, codec="h264", width=64)
    assert len(sources(tmp_path / "output")) == 2 and len(decoded(other)[0]) == FEW + 5 + 5


def test_results_stay_where_a_second_server_empties_temp(extend, comfyui, pack_nodes, tmp_path):
    node = pack_nodes["SkyReelsExtendVideo"]
    path, *_ = extend("continue 0.5s: On.", steps=1)
    other, *_ = extend("continue 0.5s: Off.", steps=1)
    again, *_ = extend("continue 0.5s: On.", steps=1)
    assert path == again != other and Path(path).is_file() and Path(other).is_file(), "one folder for both scripts"
    assert Path(comfyui.folder_paths.get_temp_directory()) not in Path(path).parents
    before = node.fingerprint_inputs(script="continue 0.5s: On.")
    whole = Path(path).read_bytes()
    Path(path).unlink()
    assert node.fingerprint_inputs() == before + 1 == node.fingerprint_inputs(), "ComfyUI asks the node again, once"
    path, _, report = extend("continue 0.5s: On.", steps=1)
    assert Path(path).read_bytes() == whole and "1 of 1 rolls were made before" in report
