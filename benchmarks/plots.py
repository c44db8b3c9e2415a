"""Which charts README.md shows, made from the results alone. Numbers that are not there have no chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pack.benchmarks.files import load
from pack.benchmarks.forward import forward, streaming
from pack.benchmarks.harness import aims, peers
from pack.dev import charts
from pack.dev.charts import Bar

Records = Mapping[tuple[str, bool], Mapping]


def of(name: str, found: Records) -> list[tuple[str, str]]:
    """The charts of one benchmark: (file, what it shows in a sentence)."""
    return [(file, alt) for file, alt, _ in _charts(name, found)]


def write(folder: Path, found: Records) -> None:
    """All charts as files. One whose numbers are gone is removed."""
    folder.mkdir(exist_ok=True)
    names = ["summary", *{name: None for name, _ in found}]
    made = {file: svg for name in names for file, _, svg in _charts(name, found)}
    for old in folder.glob("*.svg"):
        if old.name not in made:
            old.unlink()
    for file, svg in made.items():
        (folder / file).write_text(svg, encoding="utf-8")


def _charts(name: str, found: Records) -> list[tuple[str, str, str]]:
    """(file, sentence, SVG) of one benchmark, of the CPU and of a card."""
    if name == "summary":
        drawn = _summary(found)
        return [("summary.svg", *drawn)] if drawn else []
    made = []
    for card in (False, True):
        if name in MAKERS and (name, card) in found:
            drawn = MAKERS[name](found[name, card]["results"])
            made += [(f"{name}{'-cuda' if card else ''}.svg", *drawn)] if drawn else []
    return made


def _summary(found: Records) -> tuple[str, str] | None:
    rows = []
    for name, card in found:
        for aim in aims.aims_of(name):
            number = aim.measured(found[name, card]["results"]) if aim.card == card else None
            if number is not None and not aim.unit and not aim.least and aim.limit <= 1:
                rows.append(Bar(f"{aim.what}, of {aim.of}", number, f"{number:.2f}", aim=aim.limit))
    if not rows:
        return None
    title = "Time or memory, as a share of what each is compared with"
    return f"{title}, beside the aim", charts.bars(title, rows, "Shorter is better; the red mark is the aim.")


def _forward(results: Mapping) -> tuple[str, str] | None:
    size = forward.Size(**results["size"])
    cases = forward.cases(size, results.get("device", "cpu") != "cpu")
    rows = []
    for name, case in results["cases"].items():
        if "operations" not in case or "comfyui" not in case["wall"]:
            return None
        times, peaks = case["wall"], case["peak_bytes"]
        for what, numbers in (
            ("time", {who: times[who]["steady_s"] for who in times if who in (*peers.WHO, "floor")}),
            ("peak of activations", peaks),
        ):
            whole, above = numbers["comfyui"], f"{cases[name].label}: {what}"
            for who in (*peers.WHO, "floor"):
                if who in numbers:
                    share = numbers[who] / whole
                    kind = "pack" if who == "pack" else "floor" if who == "floor" else "other"
                    label = peers.WHO.get(who, "floor: products and attention alone")
                    rows.append(Bar(label, share, f"{share:.2f}", kind, above=above))
                    above = ""
    title = "One forward, ComfyUI's WanModel = 1"
    return f"{title}: time and memory of all", charts.bars(title, rows, "Shorter is better.")


def _load(results: Mapping) -> tuple[str, str]:
    rows = []
    for name in filter(results.get, load.CASES):
        share = results[name]["read_peak_bytes"] / results[name]["file_bytes"]
        kind = "pack" if name.startswith("pack") else "other"
        rows.append(Bar(load.LABELS[name], share, f"{share:.2f}", kind, load.AIMS_OF_CASES.get(name)))
    title = "RAM that loading takes at most, the file's size = 1"
    return title, charts.bars(title, rows, "Shorter is better; the red mark is the aim.")


def _drift(results: Mapping) -> tuple[str, str]:
    walks = results["distance_to_first"]
    series = [
        ("without" if not float(strength) else f"colour_anchor {float(strength):g}", list(enumerate(walk, start=1)))
        for strength, walk in walks.items()
    ]
    title = f"How far the colours walk in {results['seconds']} s"
    return title, charts.lines(title, series, "roll", "distance to the first roll's colours (Lab)")


def _long_memory(results: Mapping) -> tuple[str, str] | None:
    series = []
    for runs in results["jobs"].values():
        one = sorted(runs, key=lambda run: run["peak_bytes"])[len(runs) // 2]
        if "timeline" not in one:
            return None
        points = [(seconds, held / 1e6) for seconds, held in one["timeline"]]
        series.append((f"a video of {one['video_s']} s", points))
    title = "Memory of the whole process while a job runs"
    return title, charts.lines(title, series, "seconds since the job began", "MB")


def _streaming(results: Mapping) -> tuple[str, str]:
    rows = []
    for name, precisions in results["cases"].items():
        for precision, case in precisions.items():
            above = f"{name}, {precision}"
            for who in ("resident", "streamed"):
                held = case["peak_bytes"][who] / 1e9
                kind = "pack" if who == "streamed" else "other"
                rows.append(Bar(streaming.LABELS[who], held, f"{held:.1f} GB", kind, above=above))
                above = ""
    title = "Memory of the graphics card in a forward"
    return title, charts.bars(title, rows, "Shorter is better.")


MAKERS = {
    "forward": _forward,
    "load": _load,
    "drift": _drift,
    "long_memory": _long_memory,
    "streaming": _streaming,
}
