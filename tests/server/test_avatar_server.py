"""Talking Avatar in a running ComfyUI: sound in sync, recordings of any kind, kill -9, and answers to bad input."""

import json
import re
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.io import wavfile

from pack.dev.comfyui.server import NodeFailed, Server, ServerError
from pack.dev.samples import workflow_inputs
from pack.tools.batching.workflow import to_prompt

FPS = 25
AAC_BLOCK = 1024  # samples; the last one is filled up, and the file says where the sound ends in it
TINY = {"resolution": "custom", "width": 64, "height": 48, "window": 9, "motion": 1, "drop": 0}
RATE, SECONDS = 44100, 1.2
CLICKS = (0.15, 0.53, 0.98)  # seconds
WINDOWS = 4  # for 30 frames: 9, and 8 more each
NODE = "SkyReelsTalkingAvatar"
JOBS = Path("output") / "skyreels_v3_jobs"


def record(base: Path, name: str, samples: np.ndarray, rate: int = RATE) -> str:
    """Write samples [n, channels] in -1..1 as a WAV file in ComfyUI's input folder."""
    path = base / "input" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, samples.astype(np.float32))
    return name


def click_track() -> np.ndarray:
    """Stereo silence with 2 ms of 3 kHz at each of CLICKS."""
    samples = np.zeros((round(SECONDS * RATE), 2))
    click = 0.8 * np.sin(2 * np.pi * 3000 * np.arange(round(0.002 * RATE)) / RATE)
    for at in CLICKS:
        samples[round(at * RATE) :][: len(click)] = click[:, None]
    return samples


def voice(seconds: float, rate: int, channels: int) -> np.ndarray:
    """A buzz that swells and fades as syllables do, another pitch in each channel."""
    time = np.arange(round(seconds * rate)) / rate
    buzz = [np.sign(np.sin(2 * np.pi * (120 + 30 * channel) * time)) for channel in range(channels)]
    return np.stack(buzz, axis=1) * (0.2 * np.sin(2 * np.pi * 4 * time) ** 2)[:, None]


def prompt(server: Server, audio: str, two: str | None = None, **inputs) -> dict:
    """The workflow with a small video of a recording; `two` is what a second person says."""
    name = "talking_avatar" if two is None else "talking_avatar_two_people"
    workflow = json.loads(workflow_inputs.workflow_files()[name].read_text(encoding="utf-8"))
    made = workflow_inputs.changed(to_prompt(workflow, server.object_info()), {NODE: {**TINY, "steps": 1, **inputs}})
    loaders = [node for node in made.values() if node["class_type"] == "LoadAudio"]
    for loader, file in zip(loaders, (audio, two)):
        loader["inputs"]["audio"] = file
    return made


def node(prompt: dict, node_type: str) -> dict:
    """The inputs of the one node of a type."""
    (found,) = [node["inputs"] for node in prompt.values() if node["class_type"] == node_type]
    return found


def result(server: Server, entry: dict) -> tuple[Path, str]:
    """The saved video and the report."""
    (path,) = server.output_files(entry)
    (report,) = [output["text"][0] for output in entry["outputs"].values() if "text" in output]
    return path, report


def pictures(path: Path) -> np.ndarray:
    """uint8 [F, H, W, 3]."""
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def sound(path: Path) -> tuple[np.ndarray, int, float]:
    """Samples [channels, n] of what a player plays, their rate, and the time of the first one."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), frames[0].sample_rate, frames[0].time


def in_sync(path: Path, frames: int, rate: int, channels: int) -> None:
    """Assert a video of so many frames whose sound keeps its rate and channels and ends within one frame of it."""
    assert workflow_inputs.probe(path) == workflow_inputs.Video(64, 48, Fraction(FPS), frames, sound=True)
    samples, made_rate, start = sound(path)
    assert (made_rate, len(samples)) == (rate, channels)
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        seconds = float(stream.duration * stream.time_base)
    assert abs(start + seconds - frames / FPS) < 1 / FPS
    assert 0 <= samples.shape[1] - round(seconds * rate) < AAC_BLOCK


@pytest.fixture(scope="module")
def undisturbed(stocked_server: Server) -> Path:
    """The video of the click track, made in one go."""
    audio = record(stocked_server.base, "clicks.wav", click_track())
    events = list(stocked_server.events(prompt(stocked_server, audio, steps=4)))
    said = [event["data"]["text"] for event in events if event["type"] == "text"]
    for number in range(1, WINDOWS + 2):
        assert any(text.startswith(f"window {number} of {WINDOWS + 1}") for text in said), said
    assert sum(event["type"] == "preview" for event in events) >= WINDOWS + 1
    path, report = result(stocked_server, stocked_server.wait(events[-1]["data"]["prompt_id"]))
    assert f"0 of {WINDOWS} windows were made before" in report
    (sheet,) = re.findall(r"^Key frames: (.*)$", report, re.MULTILINE)
    assert Path(sheet.strip()).is_file()
    return path


def test_the_video_has_the_recording_in_sync(undisturbed: Path):
    in_sync(undisturbed, 30, RATE, 2)
    samples, rate, start = sound(undisturbed)
    loud = np.abs(samples).max(axis=0)
    for at in CLICKS:
        near = slice(round((at - start - 0.1) * rate), round((at - start + 0.1) * rate))
        found = start + (near.start + loud[near].argmax()) / rate
        assert loud[near].max() > 0.3 and abs(found - at) < 0.005, f"the click at {at} s is at {found:.4f} s"
    assert np.median(loud) < 0.01, "between the clicks it is silent"


def test_a_killed_server_loses_only_the_window_it_met(stocked_server: Server, undisturbed: Path):
    shutil.rmtree(stocked_server.base / JOBS)
    # Without guidance the negative prompt decides no frame; ComfyUI does not know that and asks the node again.
    job = prompt(stocked_server, record(stocked_server.base, "clicks.wav", click_track()), steps=4, negative="dark")
    reached = False
    with pytest.raises(ServerError, match=r"No message|ended"):
        for event in stocked_server.events(job):
            reached = reached or (event["type"] == "text" and event["data"]["text"].startswith("window 4 of "))
            if reached and event["type"] == "progress" and stocked_server.process is not None:
                stocked_server.kill()
    stocked_server.start()
    path, report = result(stocked_server, stocked_server.run(job))
    assert f"2 of {WINDOWS} windows were made before" in report
    assert np.array_equal(pictures(path), pictures(undisturbed))


@pytest.mark.parametrize(("rate", "channels", "frames"), [(8000, 1, 15), (96000, 6, 15)])
def test_recordings_of_any_kind_work(stocked_server: Server, rate: int, channels: int, frames: int):
    audio = record(stocked_server.base, f"voice_{rate}_{channels}.wav", voice(0.6, rate, channels), rate)
    path, _ = result(stocked_server, stocked_server.run(prompt(stocked_server, audio)))
    in_sync(path, frames, rate, channels)


def test_silence_and_clipping_work(stocked_server: Server):
    for name, samples in (("silence.wav", np.zeros((8000, 1))), ("loud.wav", 30 * voice(0.5, 16000, 1))):
        audio = record(stocked_server.base, name, samples, 16000)
        path, _ = result(stocked_server, stocked_server.run(prompt(stocked_server, audio, window=21)))
        in_sync(path, 13, 16000, 1)


def test_two_people_speak_in_turns(stocked_server: Server):
    left = record(stocked_server.base, "left.wav", voice(0.4, 16000, 1), 16000)
    right = record(stocked_server.base, "right.wav", voice(0.4, 48000, 2), 48000)
    path, report = result(stocked_server, stocked_server.run(prompt(stocked_server, left, right)))
    in_sync(path, 20, 48000, 2)
    assert "2 people" in report
    samples, rate, _ = sound(path)
    apart = np.abs(samples[0] - samples[1]).reshape(-1)  # the left one is mono, the right one is not
    assert apart[: round(0.35 * rate)].max() < 0.05 < apart[round(0.45 * rate) :].max()


def refused(server: Server, bad: dict, node_type: str, words: str) -> None:
    """Assert that a node ends a prompt with one sentence that `words` (a pattern) fits."""
    with pytest.raises(NodeFailed) as caught:
        server.run(bad)
    failed = caught.value
    assert failed.node_type == node_type
    assert failed.exception_type.endswith("InputError")
    assert re.search(words, failed.exception_message), failed.exception_message
    assert "\n" not in failed.exception_message


@pytest.mark.parametrize(
    ("name", "samples", "rate", "words"),
    [
        ("short.wav", voice(0.2, 16000, 1), 16000, r"^The recording is 0\.20 s long, but at least 0\.4 s are needed"),
        ("nan.wav", np.full((8000, 1), np.nan), 16000, "^The recording holds samples that are no numbers"),
        ("long.wav", np.zeros((300 * 8000, 1)), 8000, r"^The speech is 300\.0 s long, but at most 200 s .*max_seconds"),
    ],
)
def test_recordings_that_do_not_work_are_told(stocked_server: Server, name: str, samples, rate: int, words: str):
    bad = prompt(stocked_server, record(stocked_server.base, name, samples, rate))
    refused(stocked_server, bad, "SkyReelsSpeech", words)


def test_a_whisper_encoder_is_told(stocked_server: Server):
    # The one tensor by which ComfyUI knows it: the others stay as they come, and nobody asks for them.
    path = stocked_server.base / "models" / "audio_encoders" / "whisper_tiny.safetensors"
    save_file({"model.encoder.embed_positions.weight": torch.zeros(1500, 1280, dtype=torch.float16)}, path)
    bad = prompt(stocked_server, record(stocked_server.base, "voice.wav", voice(0.4, 16000, 1), 16000))
    node(bad, "AudioEncoderLoader")["audio_encoder_name"] = path.name
    refused(stocked_server, bad, "SkyReelsSpeech", "^The audio encoder is WhisperLargeV3, but the avatar needs wav2vec")
    path.unlink()


def test_a_mask_without_a_person_is_told(stocked_server: Server):
    left = record(stocked_server.base, "left.wav", voice(0.4, 16000, 1), 16000)
    bad = prompt(stocked_server, left, left)
    bad["mask"] = {"class_type": "SolidMask", "inputs": {"value": 0.0, "width": 40, "height": 30}}
    node(bad, NODE)["mask_2"] = ["mask", 0]
    refused(stocked_server, bad, NODE, "^Mask 2 shows no one in the picture")


def test_the_model_of_another_job_is_told(stocked_server: Server):
    left = record(stocked_server.base, "left.wav", voice(0.4, 16000, 1), 16000)
    bad = prompt(stocked_server, left)
    node(bad, "SkyReelsLoadModel")["model"] = "SkyReels-V3-R2V-14B/transformer/"
    refused(stocked_server, bad, NODE, "^The model does the reference job, but a talking avatar needs the A2V")


def test_after_all_that_a_video_is_made(stocked_server: Server):
    left = record(stocked_server.base, "left.wav", voice(0.4, 16000, 1), 16000)
    assert stocked_server.output_files(stocked_server.run(prompt(stocked_server, left, seed=9, window=21)))
