"""What a training's logs say, as charts: `training/curves/*.svg` and the numbers behind them, `curves.json`.

python training/curves.py
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.dev.charts import lines
from pack.training.methods.distil import GUIDANCE

RUNS, OUT = Path(__file__).parent / "runs", Path(__file__).parent / "curves"
POINTS = 60  # of a curve
Log = list[dict]


def logs(runs: Path) -> dict[str, Log]:
    """What every run has logged, by its name."""
    return {file.stem: log for file in sorted(runs.glob("*.pt")) if (log := _log(file))}


def _log(file: Path) -> Log:
    state = torch.load(file, weights_only=False, mmap=True)
    progress = state.get("progress", {}) if isinstance(state, dict) else {}
    return progress.get("log", [])


def curve(log: Sequence[Mapping], name: str, before: float = 0.0) -> list[tuple[float, float]]:
    """(thousand steps, mean), at most POINTS of them. before: steps of the runs before."""
    size = -(-len(log) // POINTS)
    parts = [log[i : i + size] for i in range(0, len(log), size)]
    return [
        (round((before + part[-1]["step"]) / 1000, 3), round(sum(entry[name] for entry in part) / len(part), 4))
        for part in parts
    ]


def charts(found: Mapping[str, Log]) -> dict[str, dict]:
    """Name -> title, axes and named curves, of the runs that are there."""
    made: dict[str, dict] = {}
    joined, before = [], 0.0
    for stage in ("images", "clips", "long"):
        log = found.get(f"autoencoder-{stage}", [])
        joined += curve(log, "decibel", before) if log else []
        before += log[-1]["step"] if log else 0
    made["autoencoder"] = {"title": "Autoencoder", "curves": {"": joined}, "up": "dB of crops, with the latents' noise"}
    groups = {
        "video": ("Reference, extension and cuts in one network", ["video"]),
        "own": ("Each of them on its own", [job.value for job in GUIDANCE]),
        "avatar": ("Avatar", ["avatar"]),
        "distilled": ("Distillation", [f"{job.value}-distilled" for job in GUIDANCE]),
    }
    for name, (title, runs) in groups.items():
        curves = {run.removesuffix("-distilled"): curve(found[run], "loss") for run in runs if found.get(run)}
        made[name] = {"title": title, "curves": curves, "up": "squared error of the velocity"}
    return {name: chart for name, chart in made.items() if any(chart["curves"].values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = charts(logs(options.runs))
    (options.out / "curves.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, chart in found.items():
        svg = lines(chart["title"], list(chart["curves"].items()), "thousand steps", chart["up"])
        (options.out / f"{name}.svg").write_text(svg, encoding="utf-8")
        print(options.out / f"{name}.svg")


if __name__ == "__main__":
    main()
