"""kill -9 at a random moment of an Extend Video job on a real ComfyUI server, ten times.

Each time the server is started again on the same folder, the same prompt is queued, and every frame of the finished
video is compared with those of a run that nobody disturbed. The codec is lossless, so equal means equal pixels.
The moments are drawn with a fixed seed, evenly over the time that the undisturbed run took.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
import time
from pathlib import Path

import extend
import measure

SEED = 3
SCRIPT = """
continue 6s: She walks on past the trees.
cut 2s: [ZOOM_IN_CUT] Close-up of her face.
continue 4s: She smiles and turns to the window.
continue 2s: The rain begins.
"""
QUICK_SCRIPT = "continue 0.5s: She walks on.\ncontinue 0.5s: She stops."
JOBS = "skyreels_v3_jobs"  # in output, where the pack keeps what is done


def frames_digest(path: Path) -> tuple[int, str]:
    """(count, digest) of a video's frames as ComfyUI decodes them."""
    import av

    from pack.skyreels_v3.job_keys import digest

    with av.open(str(path)) as file:
        frames = [digest(frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    return len(frames), digest(frames)


def finished(server, prompt_id: str) -> tuple[tuple[int, str], int, int]:
    """Waits for a run: (its frames, rolls made before, rolls)."""
    entry = server.wait(prompt_id)
    (video,) = server.output_files({"outputs": {"save": entry["outputs"]["save"]}})
    before, rolls = re.search(r"(\d+) of (\d+) rolls were made before", entry["outputs"]["report"]["text"][0]).groups()
    return frames_digest(video), int(before), int(rolls)


def rolls_on_disk(base: Path) -> int:
    """Finished rolls in the only job's folder."""
    manifests = list((base / "output" / JOBS).glob("*/manifest.json"))
    return sum(key.startswith("roll-") for path in manifests for key in json.loads(path.read_text())["parts"])


def measured(quick: bool) -> dict:
    from comfyui_server import Server

    text, kills = (QUICK_SCRIPT, 1) if quick else (SCRIPT, 10)
    prompt = extend.prompt(text.strip(), codec="lossless", steps=2)
    moments = random.Random(SEED)
    runs = []
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        base = Path(folder)
        extend.write_files(base)
        # Without a cache of nodes' results, which would give back the last run's video.
        options = {"packs": [measure.ROOT / "tools" / "tiny_umt5"], "arguments": ["--cache-none"]}
        with Server(base, environment={"OMP_NUM_THREADS": "1"}, **options) as server:
            start = time.perf_counter()
            expected, _, rolls = finished(server, server.queue(prompt))
            whole = time.perf_counter() - start
            for _ in range(kills):
                for place in ("output", "temp"):
                    shutil.rmtree(base / place / JOBS, ignore_errors=True)
                after = moments.uniform(0, whole)
                prompt_id = server.queue(prompt)
                time.sleep(after)
                done = bool(server.get(f"/history/{prompt_id}"))
                server.kill()
                kept = rolls_on_disk(base)
                server.start()
                start = time.perf_counter()
                found, before, _ = finished(server, server.queue(prompt))
                runs.append(
                    {
                        "killed_after_s": after,
                        "was_finished": done,
                        "rolls_on_disk": kept,
                        "rolls_not_made_again": before,
                        "rest_s": time.perf_counter() - start,
                        "identical": found == expected,
                    }
                )
                print(runs[-1], flush=True)
    return {"rolls": rolls, "frames": expected[0], "undisturbed_s": whole, "seed": SEED, "kills": runs}


def tables(result: dict) -> str:
    runs, rolls = result["kills"], result["rolls"]
    rows = [
        [
            f"{number}: after {run['killed_after_s']:.1f} s{', when it was finished' if run['was_finished'] else ''}",
            f"{run['rolls_on_disk']} of {rolls}",
            f"{run['rolls_not_made_again']}",
            f"{run['rest_s']:.1f}",
            "yes" if run["identical"] else "**no**",
        ]
        for number, run in enumerate(runs, start=1)
    ]
    same, saved = (sum(run[key] for run in runs) for key in ("identical", "rolls_not_made_again"))
    on_disk = sum(run["rolls_on_disk"] for run in runs)
    rows.append(["all", f"{on_disk} of {rolls * len(runs)}", f"{saved}", "", f"**{same} of {len(runs)}**"])
    about = (
        f"The undisturbed run: {result['frames']} frames, {rolls} rolls, {result['undisturbed_s']:.1f} s "
        "with loading the models."
    )
    head = ["kill -9", "rolls done by then", "not made again", "second run (s)", "frames identical"]
    return f"{measure.table(head, rows)}\n\n{about}"


if __name__ == "__main__":
    measure.main(measured)
