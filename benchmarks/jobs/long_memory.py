"""Memory of a 120 s Extend Video job beside a 10 s one, and how often each encodes text: tiny models, on the CPU.

Every job has a process of its own. The peak is the whole process's, with all libraries and models; beside it stands
what the job added to what the process held before it.
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
from pack.benchmarks.jobs import extend

AIM = 1.05
LINE_SECONDS = 10
AIMS = [Aim("extension of 120 s: memory", AIM, lambda results: results["ratio"], of="a job of 10 s")]


def job(base: Path, seconds: int) -> dict:
    """One job in this process: {peak_bytes, before_bytes, seconds, lines, encodes, rolls, frames}."""
    models = extend.enter(base)
    lines = max(1, seconds // LINE_SECONDS)
    counted, original = [], models["clip"].encode_from_tokens_scheduled
    models["clip"].encode_from_tokens_scheduled = lambda *args, **named: counted.append(1) or original(*args, **named)
    run = extend.extender(base, models)
    start = time.perf_counter()
    with measure.PeakMemory() as memory, measure.Timeline() as timeline:
        path, _, report = run(extend.script(seconds, lines), output="new only")
    return {
        "peak_bytes": memory.before + memory.peak,
        "before_bytes": memory.before,
        "job_s": time.perf_counter() - start,
        "video_s": seconds,
        "lines": lines,
        "encodes": len(counted),
        "rolls": int(re.search(r"(\d+) rolls? of", report)[1]),
        "frames": frames_in(path),
        "video_bytes": path.stat().st_size,
        "timeline": timeline.points,
    }


def frames_in(path: Path) -> int:
    import av

    with av.open(str(path)) as file:
        return file.streams.video[0].frames


def measured(quick: bool) -> dict:
    short, long, rounds = (1, 3, 1) if quick else (10, 120, 3)
    jobs: dict[str, list[dict]] = {"short": [], "long": []}
    for number in range(rounds):
        for name, seconds in (("short", short), ("long", long)):
            if name == "short" or not number:  # the long one takes minutes
                jobs[name].append(in_a_process(seconds))
    short_peaks = sorted(one["peak_bytes"] for one in jobs["short"])
    added = {name: max(one["peak_bytes"] - one["before_bytes"] for one in runs) for name, runs in jobs.items()}
    return {
        "size": [extend.WIDTH, extend.HEIGHT],
        "jobs": jobs,
        "ratio": jobs["long"][0]["peak_bytes"] / short_peaks[len(short_peaks) // 2],
        "ratio_added": added["long"] / added["short"],
    }


def in_a_process(seconds: int) -> dict:
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        extend.write_files(Path(folder))
        command = [sys.executable, __file__, "--job", folder, str(seconds)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def tables(result: dict) -> str:
    width, height = result["size"]
    rows = []
    for name, runs in result["jobs"].items():
        one = sorted(runs, key=lambda run: run["peak_bytes"])[len(runs) // 2]
        image = one["frames"] * width * height * 3 * 4
        rows.append(
            [
                f"{one['video_s']} s in {one['rolls']} rolls of {width} x {height}",
                f"{one['peak_bytes'] / 1e6:.0f}",
                f"{(one['peak_bytes'] - one['before_bytes']) / 1e6:.0f}",
                f"{image / 1e6:.0f}",
                f"**{result['ratio']:.3f}**" if name == "long" else "",
                f"{result['ratio_added']:.3f}" if name == "long" else "",
                f"≤ {AIM:.2f}" if name == "long" else "",
                f"{one['encodes']} of {one['lines']}",
            ]
        )
    head = ["", "peak (MB)", "of it the job's (MB)", "its frames as IMAGE (MB)", "ratio of peaks", "of the jobs' parts"]
    return measure.table([*head, "aim", "texts encoded of lines"], rows)


def child() -> bool:
    """Does what a process of its own was started for; False in the first process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--job", nargs=2)
    options, _ = parser.parse_known_args()
    if options.job:
        print(json.dumps(job(Path(options.job[0]), int(options.job[1]))))
    return bool(options.job)


if __name__ == "__main__" and not child():
    measure.main(measured)
