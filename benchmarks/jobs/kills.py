"""kill -9 at a random moment of Extend Video and of Talking Avatar on a real ComfyUI server, ten times each.

Each time the server is started again on the same folder, the same prompt is queued, and every frame of the finished
video is compared with those of a run that nobody disturbed. The codec is lossless, so equal means equal pixels.
The moments are drawn with a fixed seed, evenly over the time that the undisturbed run took.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.jobs import extend

SEED = 3
PATIENCE = 900  # seconds, on a machine with much else to do
SCRIPT = """
continue 6s: She walks on past the trees.
cut 2s: [ZOOM_IN_CUT] Close-up of her face.
continue 4s: She smiles and turns to the window.
continue 2s: The rain begins.
"""
QUICK_SCRIPT = "continue 0.5s: She walks on.\ncontinue 0.5s: She stops."
AVATAR, SPEECH = "talking_avatar", "speech.wav"  # the workflow and the file it asks for
SENTENCE, SPOKEN_SECONDS = "I am back from space. It was very quiet up there.", 4.0
AVATAR_INPUTS = {
    "resolution": "custom",
    "width": 96,
    "height": 64,
    "steps": 4,
    "window": 21,
    "motion": 5,
    "drop": 4,
    "codec": "lossless",
}
FILM = "film"  # the workflow
FILM_SCRIPT = """
scene 1s [anna, cafe]: Anna comes in.
continue 5.5s: She walks to the window.
cut 2s: [ZOOM_IN_CUT] Close-up of her face.
speak [anna]: She talks.
scene 1s [cafe, last]: The cafe is empty.
"""
QUICK_FILM = "scene 0.5s [anna]: Anna comes in.\ncut 2s: [ZOOM_IN_CUT] Close-up of her face."
FILM_INPUTS = {"resolution": "custom", "width": 96, "height": 64, "steps": 2, "codec": "lossless"}
Prompt = Callable[..., dict]  # of a running server
JOBS = "skyreels_v3_jobs"  # in output, where the pack keeps what is done


def frames_digest(path: Path) -> tuple[int, str]:
    """(count, digest) of a video's frames as ComfyUI decodes them."""
    import av

    from pack.skyreels_v3.digest import digest

    with av.open(str(path)) as file:
        frames = [digest(frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    return len(frames), digest(frames)


def finished(server, prompt_id: str) -> tuple[tuple[int, str], int, int]:
    """Waits for a run: (its frames, windows made before, windows); of a film shots."""
    entry = server.wait(prompt_id, PATIENCE)
    (video,) = (path for path in server.output_files(entry) if path.suffix == ".mp4")
    (report,) = (output["text"][0] for output in entry["outputs"].values() if "text" in output)
    film = re.search(r"(\d+) shots.*?(\d+) takes? made", report, re.DOTALL)
    if film:
        windows, made = map(int, film.groups())
        return frames_digest(video), windows - made - 1, windows - 1  # but for the clip that it begins with
    before, windows = re.search(r"(\d+) of (\d+) (?:rolls|windows) were made before", report).groups()
    return frames_digest(video), int(before), int(windows)


def windows_on_disk(base: Path) -> int:
    """Finished rolls or windows in the only job's folder; shots in that of a film."""
    done = 0
    for manifest in (base / "output" / JOBS).glob("*/manifest.json"):
        parts = json.loads(manifest.read_text())["parts"].items()
        film = manifest.parent.name.startswith("shots-")
        done += sum(bool(part["info"]["windows"]) for name, part in parts if film and name.startswith("take-"))
        done += sum(not film and name.startswith(("roll-", "window-")) for name, _ in parts)
    return done


def prepare_extension(base: Path, quick: bool) -> Prompt:
    """Writes models and inputs below `base`."""
    extend.write_files(base)
    text = QUICK_SCRIPT if quick else SCRIPT.strip()
    return lambda server: extend.prompt(text, codec="lossless", steps=2)


def prepare_avatar(base: Path, quick: bool) -> Prompt:
    """Writes models and inputs below `base`."""
    from pack.dev.samples.espeak import say

    (base / "input").mkdir()
    say(base / "input" / SPEECH, SENTENCE, "en+f3", 1.0 if quick else SPOKEN_SECONDS)
    return prepared(base, AVATAR, {"SkyReelsTalkingAvatar": AVATAR_INPUTS})


def prepare_film(base: Path, quick: bool) -> Prompt:
    """Writes models and inputs below `base`; for film_shots.py."""
    script = QUICK_FILM if quick else FILM_SCRIPT.strip()
    return prepared(base, FILM, {"SkyReelsFilm": {**FILM_INPUTS, "script": script}})


def prepared(base: Path, name: str, changes: dict[str, dict]) -> Prompt:
    """Writes what a workflow asks for below `base`. changes: of its nodes."""
    from pack.dev.samples import workflow_inputs
    from pack.tools.batching.workflow import to_prompt

    workflow_inputs.prepare(base, [name])
    workflow = json.loads(workflow_inputs.workflow_files()[name].read_text(encoding="utf-8"))
    return lambda server: workflow_inputs.changed(to_prompt(workflow, server.object_info()), changes)


def killed(prepare: Callable[[Path, bool], Prompt], kills: int, quick: bool) -> dict:
    """A job that runs undisturbed once and is killed so many times."""
    from pack.dev.comfyui.server import Server
    from pack.dev.samples import workflow_inputs

    moments, runs = random.Random(SEED), []
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        base = Path(folder)
        prompt_for = prepare(base, quick)
        # Without a cache of nodes' results, which would give back the last run's video.
        options = {
            "packs": workflow_inputs.TINY_PACKS,
            "environment": workflow_inputs.ENVIRONMENT,
            "arguments": ["--cache-none"],
        }
        with contextlib.closing(Server(base, **options)) as server:
            server.start(PATIENCE)
            prompt = prompt_for(server)
            start = time.perf_counter()
            expected, _, windows = finished(server, server.queue(prompt))
            whole = time.perf_counter() - start
            for _ in range(kills):
                for place in ("output", "temp"):
                    shutil.rmtree(base / place / JOBS, ignore_errors=True)
                after = moments.uniform(0, whole)
                prompt_id = server.queue(prompt)
                time.sleep(after)
                done = bool(server.get(f"/history/{prompt_id}"))
                server.kill()
                kept = windows_on_disk(base)
                server.start(PATIENCE)
                start = time.perf_counter()
                found, before, _ = finished(server, server.queue(prompt))
                runs.append(
                    {
                        "killed_after_s": after,
                        "was_finished": done,
                        "windows_on_disk": kept,
                        "windows_not_made_again": before,
                        "rest_s": time.perf_counter() - start,
                        "identical": found == expected,
                    }
                )
                print(runs[-1], flush=True)
    return {"windows": windows, "frames": expected[0], "undisturbed_s": whole, "seed": SEED, "kills": runs}


def measured(quick: bool) -> dict:
    kills = 1 if quick else 10
    return {
        "Extend Video": killed(prepare_extension, kills, quick),
        "Talking Avatar": killed(prepare_avatar, kills, quick),
    }


def tables(result: dict) -> str:
    return "\n\n".join(job_table(name, job) for name, job in result.items())


def job_table(name: str, job: dict, parts: str = "windows") -> str:
    runs, windows = job["kills"], job["windows"]
    rows = [
        [
            f"{number}: after {run['killed_after_s']:.1f} s{', when it was finished' if run['was_finished'] else ''}",
            f"{run['windows_on_disk']} of {windows}",
            f"{run['windows_not_made_again']}",
            f"{run['rest_s']:.1f}",
            "yes" if run["identical"] else "**no**",
        ]
        for number, run in enumerate(runs, start=1)
    ]
    same, saved = (sum(run[key] for run in runs) for key in ("identical", "windows_not_made_again"))
    on_disk = sum(run["windows_on_disk"] for run in runs)
    rows.append(["all", f"{on_disk} of {windows * len(runs)}", f"{saved}", "", f"**{same} of {len(runs)}**"])
    about = (
        f"{name}: undisturbed {job['frames']} frames, {windows} {parts}, {job['undisturbed_s']:.1f} s with loading the "
        "models."
    )
    head = ["kill -9", f"{parts} done by then", "not made again", "second run (s)", "frames identical"]
    return f"{about}\n\n{measure.table(head, rows)}"


if __name__ == "__main__":
    measure.main(measured)
