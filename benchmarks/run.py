"""`make bench`: runs the benchmarks and writes what they measured.

    python benchmarks/run.py                  all of them, then the tables in README.md
    python benchmarks/run.py --only forward   one of them (may be given several times)
    python benchmarks/run.py --only fuzz --fuzz-minutes 60
    python benchmarks/run.py --quick          tiny sizes in a minute: shows that they run; README.md stays

Every benchmark is a module here with `measured(quick)` -> results and `tables(results)` -> Markdown, and runs
in a process of its own. The results with the machine and the versions go to results/NAME.json.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import ROOT

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
BENCHMARKS = (
    "forward",
    "kernels",
    "load",
    "precision",
    "lora",
    "import_time",
    "long_memory",
    "source_end",
    "kills",
    "drift",
    "avatar_memory",
    "fuzz",
)


def machine() -> dict:
    import psutil

    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "os": f"{platform.system()} {platform.machine()}",
    }


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
    from importlib.metadata import version

    from environment import comfyui_path

    text = (comfyui_path() / "comfyui_version.py").read_text(encoding="utf-8")
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "comfyui": re.search(r"__version__\s*=\s*[\"'](.+?)[\"']", text)[1],
        "pack": commit(),
    }


def commit() -> str:
    """The checkout's commit, with a + if tracked files are changed; unknown outside git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run(name: str, quick: bool) -> dict:
    """The results of one benchmark from a process of its own. Raises CalledProcessError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "results.json")
        command = [sys.executable, str(HERE / f"{name}.py"), "--out", str(out), *(["--quick"] if quick else [])]
        subprocess.run(command, check=True, stdout=sys.stderr)
        results = json.loads(out.read_text(encoding="utf-8"))
    return {
        "name": name,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "results": results,
    }


def section(record: dict) -> str:
    """The tables of one benchmark and, below them, where they were measured."""
    on, of = record["machine"], record["versions"]
    return (
        importlib.import_module(record["name"]).tables(record["results"])
        + f"\n\nMeasured on {record['date']}: {on['cpu']}, {on['cores']} cores, {on['ram_gb']:.0f} GB, {on['os']}; "
        f"Python {of['python']}, torch {of['torch']}, ComfyUI {of['comfyui']}, pack {of['pack']}."
    )


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
    parser.add_argument("--results", type=Path, help="where the JSON goes; default: benchmarks/results, quick: build")
    parser.add_argument("--fuzz-minutes", metavar="N", help="how many minutes fuzz goes on; default: 1")
    options = parser.parse_args()
    if options.fuzz_minutes:
        os.environ["FUZZ_MINUTES"] = options.fuzz_minutes
    folder = options.results or (ROOT / "build" / "benchmarks" if options.quick else HERE / "results")
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only or BENCHMARKS:
        print(f"== {name}", flush=True)
        try:
            record = run(name, options.quick)
        except subprocess.CalledProcessError:
            failed.append(name)
            continue
        (folder / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        content = section(record)
        print(content, end="\n\n", flush=True)
        if not options.quick:
            README.write_text(with_section(README.read_text(encoding="utf-8"), name, content), encoding="utf-8")
    if failed:
        print(f"Failed: {', '.join(failed)}; the reason stands above.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
