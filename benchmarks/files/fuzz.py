"""Damaged model files for as long as it is given: what became of them, and how long the slowest took.

`make bench ARGS="--only fuzz --fuzz-minutes 60"`; a minute without the option. The targets take turns. A failed mutant
is made again by its target and number: see dev/samples/damaged_models.py.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure

MINUTES = "FUZZ_MINUTES"  # environment variable
AT_ONCE = 100  # mutants of one target, before the next has its turn
FAILURES_KEPT = 20  # of each target


def measured(quick: bool) -> dict:
    from pack.dev.samples.damaged_models import Fuzz

    minutes = 0.1 if quick else float(os.environ.get(MINUTES) or 1)
    with tempfile.TemporaryDirectory() as folder, Fuzz(Path(folder)) as fuzz:
        targets = {name: _nothing() for name in fuzz.targets}
        start, rounds = time.monotonic(), 0
        while not rounds or time.monotonic() - start < 60 * minutes:
            for name, counts in targets.items():
                for result in fuzz.run(name, range(rounds * AT_ONCE, (rounds + 1) * AT_ONCE)):
                    _count(counts, result)
            rounds += 1
        seconds = time.monotonic() - start
    for counts in targets.values():
        counts["places"] = len(counts["places"])
    return {
        "minutes": minutes,
        "seconds": seconds,
        "numbers": [0, rounds * AT_ONCE],
        "grown_bytes": _grown(),
        "targets": targets,
    }


def _nothing() -> dict:
    counts = {"opened": 0, "refused": 0, "failed": 0}
    return {**counts, "places": {}, "slowest_s": 0.0, "slowest": 0, "peak_bytes": 0, "largest": 0, "failures": []}


def _count(counts: dict, result) -> None:
    counts[result.outcome] += 1
    if result.place:
        counts["places"][result.place] = True
    if result.seconds > counts["slowest_s"]:
        counts.update(slowest_s=result.seconds, slowest=result.number)
    if result.peak > counts["peak_bytes"]:
        counts.update(peak_bytes=result.peak, largest=result.number)
    if result.problem and len(counts["failures"]) < FAILURES_KEPT:
        counts["failures"].append({"number": result.number, "problem": result.problem})


def _grown() -> int:
    """Bytes by which this process grows over 1,000 mutants that it has opened before."""
    import psutil

    from pack.dev.samples.damaged_models import Fuzz

    held = []
    with tempfile.TemporaryDirectory() as folder, Fuzz(Path(folder), trace=False) as fuzz:
        for _ in range(3):
            for name in fuzz.targets:
                list(fuzz.run(name, range(AT_ONCE)))
            held.append(psutil.Process().memory_info().rss)
    return held[-1] - held[0]


def tables(result: dict) -> str:
    rows = []
    for name, counts in result["targets"].items():
        outcomes = [f"{counts[outcome]:,}" for outcome in ("opened", "refused")]
        worst = [f"{counts['slowest_s']:.3f}", f"{counts['peak_bytes'] / 1e6:.1f}"]
        rows.append([name, *outcomes, f"**{counts['failed']:,}**", str(counts["places"]), *worst])
    head = ["", "opened", "refused", "failed", "lines that refuse", "slowest (s)", "most memory (MB)"]
    total = sum(counts[outcome] for counts in result["targets"].values() for outcome in ("opened", "refused", "failed"))
    failures = [
        f"- {name}, mutant {failure['number']}: `{failure['problem']}`"
        for name, counts in result["targets"].items()
        for failure in counts["failures"]
    ]
    first, end = result["numbers"]
    return "\n\n".join(
        [
            measure.table(head, rows),
            f"{total:,} mutants in {result['seconds'] / 60:.0f} minutes, {first} to {end - 1:,} of each target. Over "
            f"1,000 that it had opened before, the process grew by {result['grown_bytes'] / 1e6:.1f} MB.",
            *(["\n".join(failures)] if failures else []),
        ]
    )


if __name__ == "__main__":
    measure.main(measured)
