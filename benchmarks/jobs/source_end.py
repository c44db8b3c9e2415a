"""The last 25 frames of a 10-minute 1080p clip as Extend Video reads them, beside decoding the clip from its start.

Each way has a process of its own and reads the file anew. Decoding whole keeps only the last 25 frames, and only
those are converted to RGB: as cheap as it gets. Nothing is measured unless both give the same pixels.

The clip is one piece of 10 s, encoded once and joined to itself without encoding. It has one key frame in 10 s, as
x264 makes them by default, so the end is decoded from 10 s before it: the worst case of an ordinary file.
"""

from __future__ import annotations

import argparse
import collections
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.jobs import extend

LAST = 25
WAYS = ("end", "whole")


def write_clip(path: Path, quick: bool) -> None:
    """10 minutes of 1080p at 24 frames a second; quick: 12 s of 320 x 180."""
    from pack.skyreels_v3.video.join import join

    width, height, seconds, times = (320, 180, 2, 6) if quick else (1920, 1080, 10, 60)
    frames = seconds * extend.FPS
    piece = path.with_name("piece.mp4")
    options = {"preset": "veryfast", "crf": "23", "g": str(frames), "keyint_min": str(frames), "sc_threshold": "0"}
    extend.write_clip(piece, frames, width, height, options)
    join([piece] * times, path, extend.FPS)
    piece.unlink()


def read(way: str, path: Path) -> dict:
    """One reading in this process: {seconds, peak_bytes above what the imports hold, digest of the pixels, ...}."""
    import numpy as np
    import torch

    from pack.skyreels_v3.digest import digest
    from pack.skyreels_v3.video.sources.file import FileSource
    from pack.skyreels_v3.video.sources.source import last_frames

    torch.zeros(2, 2) @ torch.zeros(2, 2)  # the libraries' own buffers
    source = FileSource(path)
    with measure.PeakMemory() as memory:
        start = time.perf_counter()
        if way == "end":
            taken = last_frames(source, LAST, extend.FPS)
        else:
            kept = collections.deque(source.timed(Fraction(0)), maxlen=LAST)
            taken = torch.from_numpy(np.stack([pixels() for _, pixels in kept]))
        seconds = time.perf_counter() - start
    info = source.info
    return {
        "seconds": seconds,
        "peak_bytes": memory.peak,
        "digest": digest(taken),
        "frames": info.frames,
        "size": [info.width, info.height],
        "video_s": float(info.duration),
        "file_bytes": path.stat().st_size,
    }


def measured(quick: bool) -> dict:
    rounds = 1 if quick else 3
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        path = Path(folder, "clip.mp4")
        write_clip(path, quick)
        for _ in range(rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--read", way, str(path)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                runs[way].append(json.loads(done.stdout.splitlines()[-1]))
    if len({run["digest"] for ways in runs.values() for run in ways}) > 1:
        raise SystemExit("Nothing to compare: the ways give different frames.")
    seconds = {way: [run["seconds"] for run in runs[way]] for way in WAYS}
    return {
        "clip": {key: runs["end"][0][key] for key in ("frames", "size", "video_s", "file_bytes")},
        "seconds": {way: measure.summary(seconds[way]) for way in WAYS},
        "peak_bytes": {way: sorted(run["peak_bytes"] for run in runs[way])[rounds // 2] for way in WAYS},
        "ratio": measure.ratios(seconds["end"], seconds["whole"]),
    }


def tables(result: dict) -> str:
    clip = result["clip"]
    width, height = clip["size"]
    image = clip["frames"] * width * height * 3 * 4
    labels = {"end": "as the pack reads it", "whole": "decoded from the start"}
    rows = []
    for way in WAYS:
        ratio = [f"**{result['ratio']['median']:.3f}**", f"{result['ratio']['min']:.3f}"] if way == "end" else ["", ""]
        times = result["seconds"][way]
        peak = f"{result['peak_bytes'][way] / 1e6:.0f}"
        rows.append([labels[way], f"{times['median_s']:.2f}", f"{times['min_s']:.2f}", *ratio, peak])
    rows.append(["every frame as IMAGE", "", "", "", "", f"{image / 1e6:.0f} (by its size)"])
    about = (
        f"The clip: {clip['video_s']:.0f} s of {width} x {height}, {clip['frames']} frames, "
        f"{clip['file_bytes'] / 1e6:.0f} MB."
    )
    head = ["", "median (s)", "fastest (s)", "ratio", "of the fastest runs", "peak (MB)"]
    return f"{measure.table(head, rows)}\n\n{about}"


def child() -> bool:
    """Does what a process of its own was started for; False in the first process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--read", nargs=2)
    options, _ = parser.parse_known_args()
    if options.read:
        print(json.dumps(read(options.read[0], Path(options.read[1]))))
    return bool(options.read)


if __name__ == "__main__" and not child():
    measure.main(measured)
