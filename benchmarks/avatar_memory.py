"""Memory of a 200 s Talking Avatar job beside a 10 s one, and how often each encodes: tiny models, on the CPU.

Every job has a process of its own. The peak is the whole process's, with all libraries and models. What grows with the
recording by itself is counted apart: its sound and the features that Speech made of it, which the graph holds anyway.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import extend
import measure
from long_memory import frames_in

AIM = 1.05
MODEL, VISION = "a2v.safetensors", "clip_vision_tiny.safetensors"
WIDTH, HEIGHT = 64, 48
RATE, CHANNELS = 48000, 2
SPOKEN_SECONDS = 10  # of the recording that Speech hears
INPUTS = {
    "prompt": "A woman talks to the camera, natural gestures.",
    "connection_prompt": "a person is talking",
    "resolution": "custom",
    "width": WIDTH,
    "height": HEIGHT,
    "seed": 7,
    "steps": 1,
    "shift": 11.0,
    "text_guidance": 1.0,
    "audio_guidance": 1.0,
    "negative": "",
    "colour_match": 1.0,
    "window": 81,
    "motion": 5,
    "drop": 12,
    "codec": "h264",
}


def write_files(base: Path) -> None:
    """Tiny models below ComfyUI's folder `base`."""
    from pack.skyreels_v3.recipes import Job
    from tiny_models import write_clip_vision, write_text_encoder, write_transformer, write_vae

    models = base / "models"
    write_transformer(models / "diffusion_models" / MODEL, Job.AVATAR)
    write_text_encoder(models / "text_encoders" / extend.TEXT)
    write_vae(models / "vae" / extend.VAE)
    write_clip_vision(models / "clip_vision" / VISION)


def enter(base: Path) -> dict:
    """Makes this process a ComfyUI whose folder is `base`; returns the node's models."""
    extend.enter_comfyui(base)
    import folder_paths
    import nodes

    import tiny_clip_vision  # noqa: F401 - lets the stock CLIPVisionLoader open the tiny image encoder
    from pack.nodes.load import load_patcher

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

    from pack.nodes.speech import Speech
    from pack.nodes.talking_avatar import TalkingAvatar
    from pack.skyreels_v3.avatar import FPS, plan_windows
    from pack.skyreels_v3.speech_features import SpeechFeatures

    texts, images = [], []
    encode = models["clip"].encode_from_tokens_scheduled
    models["clip"].encode_from_tokens_scheduled = lambda *args, **named: texts.append(1) or encode(*args, **named)
    models["clip_vision"].model.register_forward_hook(lambda *_: images.append(1))
    node = TalkingAvatar.PREPARE_CLASS_CLONE({"hidden": {"prompt": None, "unique_id": "1"}})
    generator = torch.Generator().manual_seed(1)
    portrait = torch.rand(1, HEIGHT, WIDTH, 3, generator=generator)
    # What Speech would make of noise: its encoder is not this job's, `spoken` counts its calls.
    layers = (torch.randn(seconds * FPS, 768, generator=generator) for _ in range(12))
    features = SpeechFeatures([layers], folder_paths.get_temp_directory())
    waveform = torch.rand(1, CHANNELS, seconds * RATE, generator=generator).mul_(0.2).sub_(0.1)
    speech = Speech(features, waveform, RATE, float(seconds))
    start = time.perf_counter()
    with measure.PeakMemory() as memory, torch.inference_mode():
        video = node.execute(**models, **INPUTS, portrait=portrait, speech=speech).args[0]
    path = Path(video.get_stream_source())
    return {
        "peak_bytes": memory.before + memory.peak,
        "before_bytes": memory.before,
        "speech_bytes": waveform.nbytes,
        "job_s": time.perf_counter() - start,
        "video_s": seconds,
        "windows": len(plan_windows(speech.frames).windows),
        "texts_encoded": len(texts),
        "images_encoded": len(images),
        "frames": frames_in(path),
        "video_bytes": path.stat().st_size,
    }


def spoken(base: Path) -> dict:
    """How often Speech runs the audio encoder's transformer for one recording."""
    import torch

    from tiny_models import write_audio_encoder

    extend.enter_comfyui(base)
    import comfy.utils
    from comfy.audio_encoders.audio_encoders import load_audio_encoder_from_sd

    from pack.nodes.speech import TOGETHER, SpeechNode

    encoder = load_audio_encoder_from_sd(comfy.utils.load_torch_file(str(write_audio_encoder(base / "audio.sft"))))
    calls = []
    encoder.model.encoder.layers[0].feed_forward.register_forward_hook(lambda *_: calls.append(1))
    node = SpeechNode.PREPARE_CLASS_CLONE({"hidden": {"unique_id": "1"}})
    noise = torch.rand(1, 1, SPOKEN_SECONDS * 16000, generator=torch.Generator().manual_seed(1)).sub_(0.5)
    with torch.inference_mode():
        speech = node.execute(encoder, {"waveform": noise, "sample_rate": 16000}, TOGETHER, 0.0, 200.0).args[0]
    return {"video_s": SPOKEN_SECONDS, "frames": speech.frames, "audio_encoded": len(calls)}


def measured(quick: bool) -> dict:
    short, long, rounds = (4, 8, 1) if quick else (10, 200, 3)
    jobs: dict[str, list[dict]] = {"short": [], "long": []}
    for number in range(rounds):
        for name, seconds in (("short", short), ("long", long)):
            if name == "short" or not number:  # the long one takes minutes
                jobs[name].append(in_a_process("--job", seconds))
    first, long_job = median(jobs["short"]), jobs["long"][0]

    def ratio(value) -> float:
        return value(long_job) / value(first)

    return {
        "size": [WIDTH, HEIGHT],
        "jobs": jobs,
        "speech": in_a_process("--spoken"),
        "ratio": ratio(lambda one: one["peak_bytes"]),
        "ratio_without_speech": ratio(lambda one: one["peak_bytes"] - one["speech_bytes"]),
        "ratio_added": ratio(lambda one: one["peak_bytes"] - one["before_bytes"]),
    }


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
    width, height = result["size"]
    rows = []
    for name, runs in result["jobs"].items():
        one, long = median(runs), name == "long"
        rows.append(
            [
                f"{one['video_s']} s in {one['windows']} windows of {width} x {height}",
                f"{one['peak_bytes'] / 1e6:.0f}",
                f"{one['speech_bytes'] / 1e6:.0f}",
                f"{(one['peak_bytes'] - one['speech_bytes']) / 1e6:.0f}",
                f"{(one['peak_bytes'] - one['before_bytes']) / 1e6:.0f}",
                f"{result['ratio']:.3f}" if long else "",
                f"**{result['ratio_without_speech']:.3f}**" if long else "",
                f"{result['ratio_added']:.3f}" if long else "",
                f"≤ {AIM:.2f}" if long else "",
                f"{one['job_s']:.0f}",
            ]
        )
    head = ["", "peak (MB)", "of it the speech (MB)", "peak without (MB)", "added by the job (MB)"]
    head += ["ratio of peaks", "without the speech", "of what was added", "aim", "job (s)"]
    calls = [
        [f"{one['video_s']} s", str(one["texts_encoded"]), f"{one['images_encoded']} for {one['windows']} windows", "0"]
        for one in (median(runs) for runs in result["jobs"].values())
    ]
    speech = result["speech"]
    calls.append([f"Speech, {speech['video_s']} s for one person", "", "", str(speech["audio_encoded"])])
    counted = measure.table(["encoder calls", "texts", "images", "recordings"], calls)
    return f"{measure.table(head, rows)}\n\n{counted}"


def child() -> bool:
    """Does what a process of its own was started for; False in the first process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--job", type=int)
    parser.add_argument("--spoken", action="store_true")
    options, _ = parser.parse_known_args()
    if options.base:
        print(json.dumps(spoken(options.base) if options.spoken else job(options.base, options.job)))
    return bool(options.base)


if __name__ == "__main__" and not child():
    measure.main(measured)
