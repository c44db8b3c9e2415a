"""Film: memory of 3 minutes beside 20 s, what edits make anew, loads of models, kill -9: tiny models, on the CPU.

Every film whose memory is measured has a process of its own. The peak is the whole process's, with all libraries and
models.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.harness.aims import Aim
from pack.benchmarks.jobs import extend, kills
from pack.benchmarks.jobs.long_memory import frames_in

AIM = 1.05
AIMS = [Aim("film of 3 minutes: memory", AIM, lambda results: results["memory"]["ratio"], of="a film of 20 s")]
MODEL = "r2v.safetensors"
WIDTH, HEIGHT = 64, 48
INPUTS = {"resolution": "custom", "width": WIDTH, "height": HEIGHT, "seed": 7, "steps": 1}
BLOCK = ("scene 5s [anna]: She waits, {}.", "continue 10s: She walks on, {}.", "cut 5s: [ZOOM_IN_CUT] Her face, {}.")
# Eight shots of a second or two each, and what is changed in them: number of a line, its head before and after.
EIGHT = """\
scene 1s [anna]: Anna comes in.
continue 1s: She looks round.
cut 2s: [ZOOM_IN_CUT] Her face.
scene 1s [anna]: She stands in a park.
continue 1s {lock}: She walks.
scene 1s [anna, last]: She sits down.
continue 1s: She reads.
scene 1s [anna]: She goes home.
"""
EDITS = (
    ("nothing", "", ""),
    ("line 2 re-rolled", "continue 1s: She looks", "continue 1s {seed 8}: She looks"),
    ("line 6 edited", "She sits down.", "She lies down."),
    ("line 4 edited, line 5 locked", "She stands", "She kneels"),
    ("line 8 first", "", "scene 1s [anna]: She goes home."),
)
# Lines of all four models in an order that loads them often: see `loads_of`.
TWELVE = "\n".join(
    3 * ["scene 5s [anna]: x", "continue 5s: x", "cut 4s: [ZOOM_IN_CUT] x", "speak [anna]: x"],
)


def film_of(seconds: int) -> str:
    """A script of as many seconds, in blocks of 20 s."""
    return "\n".join(line.format(number) for number in range(seconds // 20) for line in BLOCK)


def write_files(base: Path) -> None:
    """Tiny models below ComfyUI's folder `base`."""
    from pack.dev.samples.tiny_models import write_transformer
    from pack.skyreels_v3.recipes import Job

    extend.write_files(base)
    write_transformer(base / "models" / "diffusion_models" / MODEL, Job.REFERENCE, seed=3)


def enter(base: Path):
    """Makes this process a ComfyUI whose folder is `base`; returns film(script) -> (path, report)."""
    extend.enter_comfyui(base)
    import folder_paths
    import nodes
    import torch

    from pack.dev.comfyui.process import first_values, ready
    from pack.nodes.jobs.cast import Cast
    from pack.nodes.jobs.film import Film
    from pack.nodes.models.load import load_patcher

    files = {"reference_model": MODEL, "model": extend.MODEL, "shot_model": extend.SHOT_MODEL}
    paths = {name: folder_paths.get_full_path("diffusion_models", file) for name, file in files.items()}
    given = {name: load_patcher(path) for name, path in paths.items()}
    given["clip"] = nodes.CLIPLoader().load_clip(extend.TEXT, "wan")[0]
    given["vae"] = nodes.VAELoader().load_vae(extend.VAE)[0]
    picture = torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))
    given["cast"] = ready(Cast).execute("anna", picture).args[0]

    def film(script: str) -> tuple[Path, str]:
        with torch.inference_mode():
            values = {**first_values(Film), **INPUTS, "script": script}
            video, _, report = ready(Film, prompt=None).execute(**given, **values).args
        return Path(video.get_stream_source()), report

    return film


def memory(base: Path, seconds: int) -> dict:
    """One film in this process: its memory in bytes, its seconds and shots."""
    film, script = enter(base), film_of(seconds)
    start = time.perf_counter()
    with measure.PeakMemory() as peak:
        path, _ = film(script)
    return {
        "peak_bytes": peak.before + peak.peak,
        "before_bytes": peak.before,
        "run_s": time.perf_counter() - start,
        "video_s": seconds,
        "shots": len(script.splitlines()),
        "frames": frames_in(path),
        "video_bytes": path.stat().st_size,
    }


def edits(base: Path) -> dict:
    """How many of eight shots are made after each edit of the finished film, each in the same folder."""
    film, made = enter(base), {}
    film(EIGHT)
    for name, old, new in EDITS:
        script = EIGHT.replace(old, new, 1) if old else EIGHT
        if new and not old:
            script = "\n".join([new, *(line for line in EIGHT.splitlines() if line != new)])
        _, report = film(script)
        made[name] = int(re.search(r"(\d+) takes? made", report)[1])
    return {"shots": len(EIGHT.splitlines()), "made": made}


def loads_of(script: str) -> dict:
    """How often a model is loaded for a film, by the plan and in the order as it is written."""
    from pack.skyreels_v3.jobs.film.grammar.script import parse_film
    from pack.skyreels_v3.jobs.film.graph import shots_of
    from pack.skyreels_v3.jobs.film.order import loads, order

    shots = shots_of(parse_film(script), ["anna"])
    places = range(len(shots))
    return {"shots": len(shots), "planned": loads(shots, order(shots, places)), "as_written": loads(shots, places)}


def measured(quick: bool) -> dict:
    lengths = {"short": 20, "long": 40 if quick else 180}
    runs = {name: in_a_process("--seconds", seconds) for name, seconds in lengths.items()}
    return {
        "memory": {"runs": runs, "ratio": runs["long"]["peak_bytes"] / runs["short"]["peak_bytes"]},
        "edits": in_a_process("--edits"),
        "loads": loads_of(TWELVE),
        "kills": kills.killed(kills.prepare_film, 1 if quick else 10, quick),
    }


def in_a_process(*command) -> dict:
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        write_files(Path(folder))
        arguments = [sys.executable, __file__, "--base", folder, *map(str, command)]
        done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def tables(result: dict) -> str:
    parts = [memory_table(result["memory"]), edits_table(result["edits"]), loads_line(result["loads"])]
    return "\n\n".join([*parts, kills.job_table("Film", result["kills"], "shots")])


def memory_table(result: dict) -> str:
    rows = []
    for name, run in result["runs"].items():
        long = name == "long"
        rows.append(
            [
                f"{run['video_s']} s, {run['shots']} shots of {WIDTH} x {HEIGHT}",
                f"{run['peak_bytes'] / 1e6:.0f}",
                f"{(run['peak_bytes'] - run['before_bytes']) / 1e6:.0f}",
                f"**{result['ratio']:.3f}**" if long else "",
                f"≤ {AIM:.2f}" if long else "",
                f"{run['run_s']:.0f}",
            ]
        )
    return measure.table(["", "peak (MB)", "added (MB)", "ratio of peaks", "aim", "time (s)"], rows)


def edits_table(result: dict) -> str:
    rows = [[name, f"{made} of {result['shots']}"] for name, made in result["made"].items()]
    return measure.table(["changed in a finished film", "shots made anew"], rows)


def loads_line(result: dict) -> str:
    return (
        f"A film of {result['shots']} shots, four kinds in turn: {result['planned']} loads of a model in the order of "
        f"the plan, {result['as_written']} as written."
    )


def child() -> bool:
    """Does what a process of its own was started for; False in the first process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--edits", action="store_true")
    options, _ = parser.parse_known_args()
    if options.base:
        print(json.dumps(edits(options.base) if options.edits else memory(options.base, options.seconds)))
    return bool(options.base)


if __name__ == "__main__" and not child():
    measure.main(measured)
