"""Memory of a 200 s Talking Avatar job beside a 10 s one, and how often each encodes: tiny models, on the CPU.

Every job has a process of its own. The peak is the whole process's, with all libraries and models. The recording is
counted apart: ComfyUI holds it as the result of Load Audio, whether or not the job runs. So is the node Speech, which
is done before the job begins, with an encoder of the real size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.harness.aims import Aim
from pack.benchmarks.jobs import extend
from pack.benchmarks.jobs.long_memory import frames_in

AIM = 1.05
AIMS = [
    Aim(
        "avatar of 200 s: memory without the recording",
        AIM,
        lambda results: results["job"]["ratios"]["without_recording"],
        of="a job of 10 s",
    )
]
MODEL, VISION, HEARING = "a2v.safetensors", "clip_vision_tiny.safetensors", "wav2vec2.safetensors"
WIDTH, HEIGHT = 64, 48
RATE, CHANNELS = 48000, 2
INPUTS = {"resolution": "custom", "width": WIDTH, "height": HEIGHT, "seed": 7, "steps": 1}


def write_files(base: Path) -> None:
    """Tiny models below ComfyUI's folder `base`."""
    from pack.dev.samples.tiny_models import (
        write_audio_encoder,
        write_clip_vision,
        write_text_encoder,
        write_transformer,
        write_vae,
    )
    from pack.skyreels_v3.recipes import Job

    models = base / "models"
    write_transformer(models / "diffusion_models" / MODEL, Job.AVATAR)
    write_text_encoder(models / "text_encoders" / extend.TEXT)
    write_vae(models / "vae" / extend.VAE)
    write_clip_vision(models / "clip_vision" / VISION)
    write_audio_encoder(models / "audio_encoders" / HEARING)


def enter(base: Path) -> dict:
    """Makes this process a ComfyUI whose folder is `base`; returns the node's models."""
    extend.enter_comfyui(base)
    import folder_paths
    import nodes

    from pack.dev.comfyui import small_encoders  # noqa: F401 - lets the stock CLIPVisionLoader open the tiny image encoder
    from pack.nodes.models.load import load_patcher

    return {
        "clip": nodes.CLIPLoader().load_clip(extend.TEXT, "wan")[0],
        "vae": nodes.VAELoader().load_vae(extend.VAE)[0],
        "clip_vision": nodes.CLIPVisionLoader().load_clip(VISION)[0],
        "model": load_patcher(folder_paths.get_full_path("diffusion_models", MODEL)),
    }


def job(base: Path, seconds: int) -> dict:
    """One job in this process: its memory in bytes, its seconds, its windows and what it encoded."""
    models = enter(base)
    import folder_paths
    import torch

    from pack.dev.comfyui.process import first_values, ready
    from pack.nodes.encoders.speech import Speech
    from pack.nodes.jobs.talking_avatar import TalkingAvatar
    from pack.skyreels_v3.jobs.avatar.plan import plan_windows
    from pack.skyreels_v3.speech.features import SpeechFeatures
    from pack.skyreels_v3.speech.recording import FPS
    from pack.skyreels_v3.speech.speakers import Recording, mixed

    texts, images = [], []
    encode = models["clip"].encode_from_tokens_scheduled
    models["clip"].encode_from_tokens_scheduled = lambda *args, **named: texts.append(1) or encode(*args, **named)
    models["clip_vision"].model.register_forward_hook(lambda *_: images.append(1))
    node = ready(TalkingAvatar, prompt=None)
    generator = torch.Generator().manual_seed(1)
    portrait = torch.rand(1, HEIGHT, WIDTH, 3, generator=generator)
    # What Speech would make of noise: its encoder is not this job's, `spoken` counts its calls.
    features = SpeechFeatures([noise_layers(seconds * FPS, generator)], folder_paths.get_temp_directory())
    recording = torch.rand(1, CHANNELS, seconds * RATE, generator=generator).mul_(0.2).sub_(0.1)
    speech = Speech(features, *mixed([Recording(recording, RATE)]), float(seconds))
    start = time.perf_counter()
    with measure.PeakMemory() as memory, torch.inference_mode():
        values = {**first_values(TalkingAvatar), **INPUTS}
        video = node.execute(**models, **values, portrait=portrait, speech=speech).args[0]
    path = Path(video.get_stream_source())
    return {
        "peak_bytes": memory.before + memory.peak,
        "before_bytes": memory.before,
        "recording_bytes": recording.nbytes,
        "run_s": time.perf_counter() - start,
        "video_s": seconds,
        "windows": len(plan_windows(speech.frames).windows),
        "texts_encoded": len(texts),
        "images_encoded": len(images),
        "frames": frames_in(path),
        "video_bytes": path.stat().st_size,
    }


def noise_layers(frames: int, generator) -> Iterator:
    """12 layers of features. One tensor again and again: what 12 leave in the allocator would count as the job's."""
    import torch

    noise = torch.empty(frames, 768)
    for _ in range(12):
        yield noise.normal_(generator=generator)


def spoken(base: Path, seconds: int) -> dict:
    """Speech of one person: its memory in bytes, and how often it runs the audio encoder's transformer."""
    import torch

    extend.enter_comfyui(base)
    import comfy.utils
    from comfy.audio_encoders.audio_encoders import load_audio_encoder_from_sd

    from pack.dev.comfyui.process import ready
    from pack.nodes.jobs.speech import TOGETHER, SpeechNode

    path = base / "models" / "audio_encoders" / HEARING
    encoder = load_audio_encoder_from_sd(comfy.utils.load_torch_file(str(path)))
    calls = []
    encoder.model.encoder.layers[0].layer_norm.register_forward_hook(lambda *_: calls.append(1))
    node = ready(SpeechNode)
    noise = torch.rand(1, CHANNELS, seconds * RATE, generator=torch.Generator().manual_seed(1)).sub_(0.5)
    start = time.perf_counter()
    with measure.PeakMemory() as memory, torch.inference_mode():
        speech = node.execute(encoder, {"waveform": noise, "sample_rate": RATE}, TOGETHER, 0.0, float(seconds)).args[0]
    return {
        "peak_bytes": memory.before + memory.peak,
        "before_bytes": memory.before,
        "recording_bytes": noise.nbytes,
        "run_s": time.perf_counter() - start,
        "video_s": seconds,
        "frames": speech.frames,
        "audio_encoded": len(calls),
    }


def measured(quick: bool) -> dict:
    lengths, rounds = ({"short": 4, "long": 8}, 1) if quick else ({"short": 10, "long": 200}, 3)
    runs = {what: {name: [] for name in lengths} for what in ("job", "speech")}
    for _ in range(rounds):
        for what, found in runs.items():
            for name, seconds in lengths.items():
                found[name].append(in_a_process(f"--{what}", seconds))
    return {"size": [WIDTH, HEIGHT], **{what: {"runs": found, "ratios": ratios(found)} for what, found in runs.items()}}


def ratios(runs: dict[str, list[dict]]) -> dict[str, float]:
    """How much more the long runs take than the short ones."""
    short, long = median(runs["short"]), median(runs["long"])
    return {
        "peak": long["peak_bytes"] / short["peak_bytes"],
        "without_recording": own(long) / own(short),
        "added": added(long) / added(short),
    }


def own(run: dict) -> int:
    """The peak without the recording, which ComfyUI holds."""
    return run["peak_bytes"] - run["recording_bytes"]


def added(run: dict) -> int:
    """What the run added to what the process held before it, libraries, models and recording."""
    return run["peak_bytes"] - run["before_bytes"]


def median(runs: list[dict]) -> dict:
    """The run with the middle peak."""
    return sorted(runs, key=lambda run: run["peak_bytes"])[len(runs) // 2]


def in_a_process(*command) -> dict:
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        write_files(Path(folder))
        done = subprocess.run(
            [sys.executable, __file__, "--base", folder, *map(str, command)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def tables(result: dict) -> str:
    return f"{memory_table(result)}\n\n{calls_table(result)}"


def memory_table(result: dict) -> str:
    width, height = result["size"]
    rows = []
    for what in ("job", "speech"):
        more = result[what]["ratios"]
        for name, runs in result[what]["runs"].items():
            one, long = median(runs), name == "long"
            made = f"{one['windows']} windows of {width} x {height}" if what == "job" else "the node Speech"
            peaks = [own(run) / 1e6 for run in runs]
            rows.append(
                [
                    f"{one['video_s']} s, {made}",
                    f"{one['peak_bytes'] / 1e6:.0f}",
                    f"{one['recording_bytes'] / 1e6:.0f}",
                    f"{own(one) / 1e6:.0f}",
                    f"{min(peaks):.0f} to {max(peaks):.0f}",
                    f"{added(one) / 1e6:.0f}",
                    f"{more['peak']:.3f}" if long else "",
                    f"**{more['without_recording']:.3f}**" if long else "",
                    f"{more['added']:.3f}" if long else "",
                    f"≤ {AIM:.2f}" if long and what == "job" else "",
                    f"{one['run_s']:.0f}",
                ]
            )
    head = ["", "peak (MB)", "of it the recording (MB)", "peak without (MB)", "in all runs (MB)", "added (MB)"]
    head += ["ratio of peaks", "without the recording", "of what was added", "aim", "time (s)"]
    return measure.table(head, rows)


def calls_table(result: dict) -> str:
    rows = []
    for one in map(median, result["job"]["runs"].values()):
        images = f"{one['images_encoded']} for {one['windows']} windows"
        rows.append([f"{one['video_s']} s", str(one["texts_encoded"]), images, "0"])
    for one in map(median, result["speech"]["runs"].values()):
        rows.append([f"{one['video_s']} s, the node Speech", "0", "0", str(one["audio_encoded"])])
    return measure.table(["encoder calls", "texts", "images", "recordings"], rows)


def child() -> bool:
    """Does what a process of its own was started for; False in the first process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--job", type=int)
    parser.add_argument("--speech", type=int)
    options, _ = parser.parse_known_args()
    if options.base:
        run = spoken(options.base, options.speech) if options.speech else job(options.base, options.job)
        print(json.dumps(run))
    return bool(options.base)


if __name__ == "__main__" and not child():
    measure.main(measured)
