"""Extend Video with tiny checkpoints, in this process or on a real server: what the benchmarks of long jobs run.

Both take the same folder: `write_files` makes the models and a clip in it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

from pack.benchmarks.harness import measure

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other take longer than a tiny model

WIDTH, HEIGHT, FPS = 96, 64, 24
SOURCE_FRAMES = 48
INPUTS = {
    "frame_rate": float(FPS),
    "resolution": "custom",
    "width": WIDTH,
    "height": HEIGHT,
    "fit": "crop",
    "seed": 7,
    "steps": 1,
    "shift": 8.0,
    "sampler": "unipc (official)",
    "guidance": 1.0,
    "negative": "",
    "colour_anchor": 0.0,
    "output": "source + new",
    "output_rate": "as the source",
    "codec": "h264",
    "official": False,
}
MODEL, SHOT_MODEL = "v2v_single_shot.safetensors", "v2v_shot.safetensors"
TEXT, VAE, CLIP = "umt5_tiny.safetensors", "wan_vae_tiny.safetensors", "clip.mp4"


def write_files(base: Path) -> None:
    """Tiny models and a clip of 2 s below ComfyUI's folder `base`."""
    from pack.dev.samples.tiny_models import write_text_encoder, write_transformer, write_vae
    from pack.skyreels_v3.recipes import Job

    models = base / "models"
    write_transformer(models / "diffusion_models" / MODEL, Job.EXTENSION, seed=1)
    write_transformer(models / "diffusion_models" / SHOT_MODEL, Job.SHOT, seed=2)
    write_text_encoder(models / "text_encoders" / TEXT)
    write_vae(models / "vae" / VAE)
    (base / "input").mkdir(parents=True, exist_ok=True)
    write_clip(base / "input" / CLIP, SOURCE_FRAMES, WIDTH, HEIGHT)


def write_clip(path: Path, frames: int, width: int, height: int, options: dict[str, str] | None = None) -> None:
    """A clip at 24 frames a second of soft colours with fine grain, drifting sideways, in H.264.

    Waves are whole, so that frames differ while their colours as a whole stay.
    """
    import av
    import numpy as np

    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    turn = 2 * np.pi
    grain = np.random.default_rng(0).integers(-12, 13, (height, width, 1), dtype=np.int16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            waves = (np.sin((c + 1) * (columns * turn / width + index / 20) + rows * 3 / height) for c in range(3))
            soft = np.stack([128 + 70 * wave for wave in waves], axis=-1).astype(np.int16)
            pixels = (soft + np.roll(grain, index, axis=1)).clip(0, 255).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode(None))


def script(seconds: float, lines: int) -> str:
    """A script of equally long continues."""
    return "\n".join(f"continue {seconds / lines:g}s: She walks on past the trees, {n}." for n in range(1, lines + 1))


def enter_comfyui(base: Path) -> None:
    """Makes this process a ComfyUI whose folder is `base`."""
    measure.enter_comfyui()
    from comfy.cli_args import args

    args.base_directory = str(base)
    importlib.import_module("utils.extra_config")  # before `nodes` hides it behind comfy/utils.py
    from pack.dev.comfyui import small_encoders  # noqa: F401 - lets the stock CLIPLoader open the tiny text encoder

    for folder in ("output", "temp"):
        (base / folder).mkdir(exist_ok=True)


def enter(base: Path) -> dict:
    """`enter_comfyui`, and the node's models: clip, vae, model, shot_model."""
    enter_comfyui(base)
    import folder_paths
    import nodes

    from pack.nodes.models.load import load_patcher

    found = [folder_paths.get_full_path("diffusion_models", name) for name in (MODEL, SHOT_MODEL)]
    return {
        "clip": nodes.CLIPLoader().load_clip(TEXT, "wan")[0],
        "vae": nodes.VAELoader().load_vae(VAE)[0],
        "model": load_patcher(found[0]),
        "shot_model": load_patcher(found[1]),
    }


def extender(base: Path, models: dict) -> Callable:
    """extend(script, **inputs) -> (path of the video, last frames, report), as ComfyUI runs the node."""
    import torch
    from comfy_api.latest import InputImpl

    from pack.dev.comfyui.process import ready
    from pack.nodes.jobs.extend_video import ExtendVideo

    node = ready(ExtendVideo, prompt=None)
    source = InputImpl.VideoFromFile(str(base / "input" / CLIP))

    def extend(text: str, **inputs) -> tuple:
        with torch.inference_mode():
            video, last, report = node.execute(script=text, **{**models, **INPUTS, "source": source, **inputs}).args
        return Path(video.get_stream_source()), last, report

    return extend


def prompt(text: str, **inputs) -> dict:
    """The same job for a server's queue: the video is saved, the report shown by the node `report`."""
    links = {"clip": ["text", 0], "vae": ["vae", 0], "source": ["source", 0]}
    links |= {"model": ["model", 0], "shot_model": ["shot", 0]}
    save = {"video": ["extend", 0], "filename_prefix": "kills", "format": "auto", "codec": "auto"}
    return {
        "text": {"class_type": "CLIPLoader", "inputs": {"clip_name": TEXT, "type": "wan", "device": "default"}},
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": VAE}},
        "model": {"class_type": "SkyReelsLoadModel", "inputs": {"model": MODEL, "job": "auto"}},
        "shot": {"class_type": "SkyReelsLoadModel", "inputs": {"model": SHOT_MODEL, "job": "auto"}},
        "source": {"class_type": "LoadVideo", "inputs": {"file": CLIP}},
        "extend": {"class_type": "SkyReelsExtendVideo", "inputs": {**INPUTS, **links, "script": text, **inputs}},
        "save": {"class_type": "SaveVideo", "inputs": save},
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["extend", 2]}},
    }
