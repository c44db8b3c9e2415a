"""`make bench`: runs the benchmarks and writes what they measured.

    python benchmarks/run.py                  all of them, then the tables in README.md
    python benchmarks/run.py --only forward   one of them (may be given several times)
    python benchmarks/run.py --only fuzz --fuzz-minutes 60
    python benchmarks/run.py --quick          tiny sizes in a minute: shows that they run; README.md stays
    python benchmarks/run.py --readme         README.md and the plots again from the results; measures nothing

Every benchmark is a module here with `measured(quick)` -> results and `tables(results)` -> Markdown, and runs
in a process of its own. The results with the machine and the versions go to results/NAME.json; where they name a
graphics card as their "device", to results/NAME-cuda.json beside it. A module may have AIMS, see harness/aims.py; with
CARD_ONLY it is passed over where there is no card. Without ComfyUI or diffusers their columns say so.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.benchmarks import plots
from pack.benchmarks.harness import aims
from pack.benchmarks.harness.measure import ROOT, benchmark, device, script_of

HERE = Path(__file__).resolve().parent
README, RESULTS, PLOTS = HERE / "README.md", HERE / "results", HERE / "plots"
BUSY = 0.4  # programs per core, from which on a result says so
BENCHMARKS = (
    "forward",
    "block",
    "streaming",
    "kernels",
    "attention",
    "roofline",
    "audio_attention",
    "vae",
    "load",
    "real_sizes",
    "precision",
    "lora",
    "import_time",
    "long_memory",
    "source_end",
    "kills",
    "drift",
    "avatar_memory",
    "film_memory",
    "film_shots",
    "batch_queue",
    "farm",
    "fuzz",
)


def machine() -> dict:
    import psutil

    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "os": f"{platform.system()} {platform.machine()}",
        "load": busy(),
    }


def busy() -> float | None:
    """How many programs want to compute, in the mean of the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    # The name of a virtual machine's processor says little; family and model say which it is.
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    name = fields.get("model name") or platform.processor() or platform.machine()
    return ", ".join([name, *numbers])


def versions() -> dict:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "torch": version("torch"), "comfyui": comfyui(), "pack": commit()}
    with contextlib.suppress(PackageNotFoundError):
        found["diffusers"] = version("diffusers")
    return found


def comfyui() -> str:
    from pack.dev.setup.environment import SetupError, comfyui_path

    try:
        text = (comfyui_path() / "comfyui_version.py").read_text(encoding="utf-8")
    except (SetupError, OSError):
        return "none"
    return re.search(r"__version__\s*=\s*[\"'](.+?)[\"']", text)[1]


def commit() -> str:
    """The checkout's commit, with a + if tracked files are changed; unknown outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def has_card() -> bool:
    return device().type == "cuda"


def run(name: str, quick: bool, seconds: float | None = None) -> dict:
    """The results of one benchmark from a process of its own.

    seconds: after which it is ended, None for never. Raises CalledProcessError if it fails, TimeoutExpired then.
    """
    on = machine()  # before it is busy with this
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        command = [sys.executable, str(script_of(name)), "--out", str(out), *(["--quick"] if quick else [])]
        subprocess.run(command, check=True, stdout=sys.stderr, timeout=seconds)
        results = json.loads(out.read_text(encoding="utf-8"))
    return {
        "name": name,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": on,
        "versions": versions(),
        "results": results,
    }


def on_card(record: dict) -> bool:
    return record["results"].get("device", "cpu") != "cpu"


def file_of(name: str, card: bool) -> str:
    return f"{name}-cuda.json" if card else f"{name}.json"


def records(folder: Path = RESULTS) -> dict[tuple[str, bool], dict]:
    """(benchmark, whether of a graphics card) -> what its JSON holds."""
    files = {(name, card): folder / file_of(name, card) for name in BENCHMARKS for card in (False, True)}
    return {key: json.loads(file.read_text(encoding="utf-8")) for key, file in files.items() if file.is_file()}


def measured_tables(record: dict) -> str:
    """The tables of one benchmark and, below them, where they were measured."""
    on, of = record["machine"], record["versions"]
    where = f"{on['cpu']}, {on['cores']} cores, {on['ram_gb']:.0f} GB, {on['os']}"
    if (on.get("load") or 0) > BUSY * on["cores"]:
        where += f", busy with other programs (load {on['load']:.0f})"
    if on_card(record):
        where = f"{record['results']['device']}{references(record)}; {where}"
    how = getattr(benchmark(record["name"]), "HOW", "Measured")
    diffusers = f", diffusers {of['diffusers']}" if "diffusers" in of else ""
    return (
        benchmark(record["name"]).tables(record["results"]) + f"\n\n{how} on {record['date']}: {where}; "
        f"Python {of['python']}, torch {of['torch']}, ComfyUI {of['comfyui']}{diffusers}, pack {of['pack']}."
    )


def references(record: dict) -> str:
    """Which operations ran without their kernels on the card, and why: what was measured there is not what it can."""
    said = ", ".join(f"{name} ({why})" for name, why in aims.refused(record).items())
    return f", **without the kernels of** {said}" if said else ""


def section(name: str, found: dict[tuple[str, bool], dict]) -> str:
    """What README.md shows of a benchmark: plot and tables of the CPU, then those of a card or what is aimed at."""
    parts = [f"![{alt}](plots/{file})" for file, alt in plots.of(name, found)]
    parts += [measured_tables(found[name, card]) for card in (False, True) if (name, card) in found]
    if (name, True) not in found:
        parts.append(aims.unmeasured(name))
    return "\n\n".join(filter(None, parts)) or "Not measured yet."


def write_readme() -> None:
    """README.md and the plots from all results."""
    found, readme = records(), README.read_text(encoding="utf-8")
    plots.write(PLOTS, found)
    for name in BENCHMARKS:
        readme = with_section(readme, name, section(name, found))
    readme = with_section(readme, "summary", aims.summary(BENCHMARKS, found, aims.anchors(readme)))
    README.write_text(readme, encoding="utf-8")


def with_section(readme: str, name: str, content: str) -> str:
    """The README with the part between the markers of `name` replaced. Raises ValueError if it has none."""
    begin, end = f"<!-- {name}: from its JSON -->\n", f"<!-- end of {name} -->"
    before, found, rest = readme.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"README.md has no place for {name}: it needs the lines {begin.strip()} and {end}.")
    return f"{before}{begin}{content}\n{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure speed and memory against the plain way.")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="one benchmark; may be repeated")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that they run, not how fast")
    parser.add_argument("--readme", action="store_true", help="write README.md again from the results, measure nothing")
    parser.add_argument("--results", type=Path, help="where the JSON goes; default: benchmarks/results, quick: build")
    parser.add_argument("--fuzz-minutes", metavar="N", help="how many minutes fuzz goes on; default: 1")
    options = parser.parse_args()
    if options.fuzz_minutes:
        os.environ["FUZZ_MINUTES"] = options.fuzz_minutes
    if options.readme:
        write_readme()
        return 0
    folder = options.results or (ROOT / "build" / "benchmarks" if options.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only or BENCHMARKS:
        print(f"== {name}", flush=True)
        if not options.quick and getattr(benchmark(name), "CARD_ONLY", False) and not has_card():
            print("Needs a graphics card; there is none here.", flush=True)
            continue
        try:
            record = run(name, options.quick)
        except subprocess.CalledProcessError:
            failed.append(name)
            continue
        content = json.dumps(record, indent=2) + "\n"
        (folder / file_of(name, on_card(record))).write_text(content, encoding="utf-8")
        print(measured_tables(record), end="\n\n", flush=True)
        if folder == RESULTS:
            write_readme()
    if failed:
        print(f"Failed: {', '.join(failed)}; the reason stands above.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
