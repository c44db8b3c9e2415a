"""`make demo`: the workflows of this pack on a real ComfyUI, with the nano checkpoints of `nano/`.

    .venv/bin/python showcase/demo.py             each job once
    .venv/bin/python showcase/demo.py NAME ...    some of them, by their file's name in workflows/; "all" for all

The inputs are drawn by `training/`. What it needs and makes lies in `demo/`, which git ignores: the videos, and
`what_was_made.png`, which shows of each what went in and what came out. It is there as soon as the first is made; that
of an earlier run is then `what_was_made_1.png`, and so on.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.dev.comfyui.server import Server, ServerError
from pack.dev.samples.workflow_inputs import ENVIRONMENT, TINY_PACKS, changed, probe, workflow_files
from pack.dev.setup.downloads import ROOT, SetupError
from pack.showcase.jobs import DEMOS, MAIN
from pack.showcase.runs import Run, note, runs
from pack.showcase.sheet import write_sheet
from pack.showcase.world import draw_inputs
from pack.tools.batching.workflow import WorkflowError, to_prompt

FOLDER = ROOT / "demo"
NANO = ROOT / "nano"
SHEET = FOLDER / "what_was_made.png"
# Files of NANO, and where the workflows look for them below models/. A transformer is one shard in a folder.
SHARD = "diffusion_pytorch_model-00001-of-00001.safetensors"
MODELS = {
    "reference.safetensors": f"diffusion_models/SkyReels-V3-R2V-14B/transformer/{SHARD}",
    "extension.safetensors": f"diffusion_models/SkyReels-V3-V2V-14B/transformer/{SHARD}",
    "shot.safetensors": f"diffusion_models/SkyReels-V3-V2V-14B/shot_transformer/{SHARD}",
    "avatar.safetensors": f"diffusion_models/SkyReels-V3-A2V-19B/{SHARD}",
    "text_encoder.safetensors": "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "clip_vision.safetensors": "clip_vision/clip_vision_h.safetensors",
    "audio_encoder.safetensors": "audio_encoders/wav2vec2-chinese-base_fp16.safetensors",
    "vae.safetensors": "vae/wan_2.1_vae.safetensors",
}


def prepare(checkpoints: Path) -> None:
    """Put checkpoints where ComfyUI looks for them below FOLDER, and take away what earlier runs needed.

    Raises SetupError for a checkpoint that is not there.
    """
    missing = [name for name in MODELS if not (checkpoints / name).is_file()]
    if missing:
        raise SetupError(f"There is no {', '.join(missing)} in {checkpoints}: take the folder nano/ of the repository.")
    # Packs are linked again, and windows that an earlier run has kept would be of other checkpoints.
    for folder in ("models", "input", "custom_nodes", "output/skyreels_v3_jobs"):
        shutil.rmtree(FOLDER / folder, ignore_errors=True)
    for name, place in MODELS.items():
        (FOLDER / "models" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoints / name, FOLDER / "models" / place)


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    print(what, end=" ... ", flush=True)
    start = time.monotonic()
    yield
    print(f"{time.monotonic() - start:.0f} s", flush=True)


def run(server: Server, name: str) -> bool:
    """Run one workflow, print its progress and its videos, note them, and return whether they are as planned."""
    demo, file = DEMOS[name], workflow_files()[name]
    prompt = to_prompt(json.loads(file.read_text(encoding="utf-8")), server.object_info())
    print(f"\n{name}: workflows/{file.name}")
    for node, values in demo.changes.items():
        for key, value in values.items():
            shown = str(value).replace("\n", "\n      ")
            print(f"  changed for the demo, {node}: {key} {shown}")
    start = time.monotonic()
    prompt, paths = changed(prompt, demo.changes), []
    for turn in demo.runs:
        for path in server.output_files(server.wait(_follow(server, changed(prompt, turn)))):
            print(f"  {path.relative_to(ROOT)}: {probe(path)}")
            paths.append(path)
    seconds = time.monotonic() - start
    print(f"  took {seconds:.0f} s")
    note(Run(name, FOLDER, tuple(path.relative_to(FOLDER).as_posix() for path in paths), seconds))
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


def run_all(names: Sequence[str], checkpoints: Path = NANO, after_first: Callable[[], None] | None = None) -> list[str]:
    """Run these workflows on a server of their own; the names of those that made what was planned.

    after_first: is called when the first one has run.
    Raises SetupError, ServerError or WorkflowError.
    """
    prepare(checkpoints)
    server = Server(FOLDER, packs=TINY_PACKS, environment=ENVIRONMENT)
    try:
        with timed("ComfyUI, and meanwhile pictures, clips and speech, drawn"), ThreadPoolExecutor(1) as other:
            drawing = other.submit(draw_inputs, FOLDER / "input")
            server.start()
            drawing.result()
        good = []
        for name in names:
            good += [name] if run(server, name) else []
            if name == names[0] and after_first:
                after_first()
        return good
    finally:
        server.close()


def set_aside(path: Path) -> None:
    """Keep what an earlier run left there, under the next number that is free."""
    if path.exists():
        numbered = (path.with_stem(f"{path.stem}_{number}") for number in itertools.count(1))
        path.rename(next(one for one in numbered if not one.exists()))


def show_first(names: Sequence[str]) -> None:
    """Draw the sheet with the first workflow alone, so that one sees early that it works, and say what will follow."""
    set_aside(SHEET)
    write_sheet(SHEET, [runs(FOLDER)[names[0]]])
    print(f"\nTo look at already: {SHEET.relative_to(ROOT)}")
    if names[1:]:
        titles = ", ".join(f"{DEMOS[name].title} ({name})" for name in names[1:])
        print(f"It will also show: {titles}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the workflows on a real ComfyUI with nano checkpoints.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a workflow's file name without .json, or all")
    parser.add_argument(
        "--checkpoints", type=Path, default=NANO, metavar="FOLDER", help="other ones of the same names, default nano/"
    )
    options = parser.parse_args()
    names = list(DEMOS) if "all" in options.names else options.names or list(MAIN)
    unknown = [name for name in names if name not in DEMOS]
    if unknown:
        print(f"There is no {', '.join(unknown)} in workflows/: it has {', '.join(DEMOS)}.", file=sys.stderr)
        return 1
    sys.stdout.reconfigure(line_buffering=True)  # each line when it is said, into a pipe as well
    try:
        good = run_all(names, options.checkpoints, lambda: show_first(names))
        with timed("\nThe sheet"):
            write_sheet(SHEET, [runs(FOLDER)[name] for name in names])
    except (SetupError, ServerError, WorkflowError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    print(f"{len(good)} of {len(names)} workflows made the videos that were planned.")
    print(f"What went in and what came out: {SHEET.relative_to(ROOT)}")
    return 0 if len(good) == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
