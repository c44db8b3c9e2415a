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
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from comfyui_server import Server, ServerError
from downloads import ROOT, SetupError
from stock import ENVIRONMENT, SHORT_WINDOWS, TINY_PACKS, Video, changed, needs, prepare, probe, workflow_files
from workflow import WorkflowError, to_prompt

FOLDER = ROOT / "demo"
HONEST = "random tiny weights: this shows that everything runs, not how it looks"
# What the licences of the inputs ask to be said.
CREDITS = {"input/bigbuckbunny.mp4": "Big Buck Bunny, (c) 2008 Blender Foundation, www.bigbuckbunny.org, CC BY 3.0"}


@dataclass(frozen=True)
class Demo:
    """How the demo runs a workflow: what is changed of it, and the videos that it then writes.

    changes: node type -> its inputs. They make the video small and short: even with tiny checkpoints, full
    size takes many minutes without a graphics card.
    runs: for a workflow that is queued more than once, what the page changes each time, as in changes.
    variant: whether it is another workflow with other settings, which the demo runs only when asked to.
    """

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
DEMOS: dict[str, Demo] = {
    "reference_to_video": Demo(
        changes={"SkyReelsReferenceToVideo": {"resolution": "custom", "width": 192, "height": 192, "seconds": 1}},
        videos=(Video(192, 192, Fraction(24), 25),),
    ),
    "video_extension": Demo(
        changes={"SkyReelsExtendVideo": {**SMALL, "script": "continue 1s: The big grey rabbit looks around."}},
        videos=(Video(112, 64, Fraction(25), 132 + 25, sound=True),),
    ),
    "storyboard_extension": Demo(
        changes={"SkyReelsExtendVideo": {**SMALL, "script": STORY}},
        videos=(Video(112, 64, Fraction(25), 132 + 25 + 50 + 25, sound=True),),
    ),
    "talking_avatar": Demo(
        changes={"SkyReelsTalkingAvatar": {**SMALL, "width": 96, "height": 96, **SHORT_WINDOWS}},
        videos=(Video(96, 96, Fraction(25), 40, sound=True),),
    ),
    "talking_avatar_two_people": Demo(
        changes={"SkyReelsTalkingAvatar": {**SMALL, "width": 128, **SHORT_WINDOWS}},
        videos=(Video(128, 64, Fraction(25), 50, sound=True),),
    ),
    "reference_extend_cut": Demo(
        changes={
            "SkyReelsReferenceToVideo": {**SMALL, "seconds": 1},
            "SkyReelsExtendVideo": {**SMALL, "script": SHORT_STORY},
        },
        videos=(Video(112, 64, Fraction(24), 25 + 24 + 48),),
    ),
    "short_film": Demo(
        changes={
            "SkyReelsReferenceToVideo": {**SMALL, "seconds": 1},
            "SkyReelsExtendVideo": {**SMALL, "script": SHORT_STORY},
            "SkyReelsTalkingAvatar": {**SMALL, **SHORT_WINDOWS},
        },
        # 40 frames of speech at 25 a second are 38 of the film's.
        videos=(Video(112, 64, Fraction(24), 25 + 24 + 48 + 38, sound=True),),
    ),
    "prompt_batch": Demo(
        changes={"SkyReelsReferenceToVideo": {**SMALL, "seconds": 1}},
        runs=tuple({"SkyReelsPrompts": {"number": number}} for number in (1, 2, 3)),
        videos=3 * (Video(112, 64, Fraction(24), 25),),
    ),
    "reference_to_video_low_vram": Demo(
        changes={"SkyReelsReferenceToVideo": {**SMALL, "seconds": 1}},
        videos=(Video(112, 64, Fraction(24), 25),),
        variant=True,
    ),
    "talking_avatar_low_vram": Demo(
        changes={"SkyReelsTalkingAvatar": {**SMALL, "width": 96, "height": 96, **SHORT_WINDOWS}},
        videos=(Video(96, 96, Fraction(25), 40, sound=True),),
        variant=True,
    ),
}


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    print(what, end=" ... ", flush=True)
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def run(server: Server, name: str, file: Path, demo: Demo) -> bool:
    """Run one workflow, print its progress and its videos, and return whether they are what was planned."""
    workflow = json.loads(file.read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, server.object_info())
    print(f"\n{name}: workflows/{file.name}")
    for node_type, values in demo.changes.items():
        for name, value in values.items():
            shown = str(value).replace("\n", "\n      ")
            print(f"  changed for the demo, {node_type}: {name} {shown}")
    for name in CREDITS.keys() & needs(workflow):
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
        strange = [name for name in files if name not in DEMOS]
        if strange:
            raise SetupError(f"{', '.join(strange)} in workflows/ has no entry in DEMOS of tools/demo.py: add one.")
        unknown = [name for name in names if name not in files and name != "all"]
        if unknown:
            raise SetupError(f"There is no {', '.join(unknown)} in workflows/: it has {', '.join(files)}.")
        wanted = names or [name for name in files if not DEMOS[name].variant]
        chosen = {name: file for name, file in files.items() if name in wanted or "all" in wanted}
        with timed("Tiny checkpoints, photographs, speech and the clip"):
            prepare(FOLDER, chosen)
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
