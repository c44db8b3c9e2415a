"""`make card`: what this graphics card does with the pack, in eight minutes: one JSON and one page, ready to be sent.

    python benchmarks/card/run.py                     with the Python whose torch sees the card
    python benchmarks/card/run.py --again blocks      a section once more; --again all for everything
    python benchmarks/card/run.py --add card.json     a maintainer's: into benchmarks/results/cards

What is there already of the same card, driver, torch, Triton and commit is not measured again. Sections run one after
the other in the order of what they decide. One that fails says why in one line; one that never ends, or breaks the
card's process, is ended, and the next one goes on in a new process.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
import argparse
import datetime
import json
import os
import queue
import re
import subprocess
import threading
import time
from typing import Any

from pack.benchmarks import run as benchmarks
from pack.benchmarks.card.page import page
from pack.benchmarks.card.sections import COMPARISONS, IDENTITY, MACHINE, SECTIONS
from pack.benchmarks.harness.measure import ROOT

MEASURED = ROOT / "build" / "card"
FACTORS = (
    ROOT / "skyreels_v3" / "jobs" / "estimates" / "measured_cards.json"
)  # see skyreels_v3/jobs/estimates/modelled.py
LATE = 30  # seconds after a section's time at which it is ended
NAMES = [one.name for one in (*SECTIONS, *COMPARISONS)]


class Measured:
    """Everything found so far, on disk after every row."""

    def __init__(self, folder: Path, identity: dict[str, str], dry: bool):
        self.file = folder / "card.json"
        before = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        same = before.get("identity") == identity and before.get("dry") == dry
        date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        self.found: dict[str, Any] = {"identity": identity, "dry": dry, "date": date, "seconds": 0.0, "sections": {}}
        self.found.update(before if same else {})
        folder.mkdir(parents=True, exist_ok=True)

    def done(self, name: str) -> bool:
        return self.found["sections"].get(name, {"failed": True})["failed"] is None

    def section(self, name: str) -> dict[str, Any]:
        return self.found["sections"].setdefault(name, {"rows": [], "failed": "it was interrupted"})

    def write(self) -> None:
        for file, text in ((self.file, json.dumps(self.found, indent=1)), (self.page, page(self.found))):
            unfinished = file.with_suffix(".unfinished")
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(file)

    @property
    def page(self) -> Path:
        return self.file.with_suffix(".md")


class Worker:
    """A process that measures some sections; see worker.py."""

    command = (sys.executable, str(Path(__file__).with_name("worker.py")))

    def __init__(self, names: list[str], pretend: str | None):
        command = [*self.command, *names, *(["--pretend", pretend] if pretend else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def event(self, seconds: float) -> dict[str, Any] | None:
        """What happens next, None at its end. Raises queue.Empty when nothing has for so long."""
        line = self._lines.get(timeout=max(0.0, seconds))
        return None if line is None else json.loads(line)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def follow(worker: Worker, measured: Measured | None, until: float, dry: bool) -> dict[str, list]:
    """The rows of a worker's sections, written as they come; it is ended when one of them is late.

    until: when all time is over, of time.monotonic.
    """
    rows: dict[str, list] = {}
    name, late = None, until
    try:
        while True:
            try:
                event = worker.event(min(late, until) - time.monotonic())
            except queue.Empty:
                why = "the time of all was over" if time.monotonic() >= until else "it did not end"
                break
            if event is None:
                why = "it ended the process that measured it"
                break
            name = event["section"]
            entry = measured.section(name) if measured else {}
            if "begins" in event:
                print(f"== {name}", flush=True)
                late = until if dry else time.monotonic() + event["begins"] + LATE
                rows[name] = entry["rows"] = []
            elif "row" in event:
                rows[name].append(event["row"])
                print("   " + ", ".join(f"{what} {_short(value)}" for what, value in event["row"].items()), flush=True)
            else:
                entry.update(seconds=round(event["seconds"], 1), failed=event["failed"])
                print(f"   {event['failed'] or 'done'} ({event['seconds']:.0f} s)", flush=True)
                name, late = None, until
            if measured:
                measured.write()
    finally:
        worker.end()
    if name and measured:
        measured.section(name)["failed"] = why
        print(f"   {why}", flush=True)
        measured.write()
    return rows


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def measure_sections(measured: Measured, wanted: list[str], until: float, pretend: str | None) -> None:
    """The sections that are wanted, in as many processes as it takes."""
    wanted = list(wanted)
    while wanted and time.monotonic() < until:
        begun = follow(Worker(wanted, pretend), measured, until, pretend is not None)
        if not begun:
            break  # it does not even start; why stands above
        wanted = [name for name in wanted if name not in begun]


def compare(measured: Measured, wanted: list[str], until: float, room: float, dry: bool) -> None:
    """The benchmarks that stand beside the code of others, as long as time is left."""
    for one in COMPARISONS:
        left = until - time.monotonic()
        if one.name not in wanted or left < (0 if dry else one.least):
            continue
        print(f"== {one.name}", flush=True)
        entry = measured.section(one.name)
        began = time.monotonic()
        if room < one.room and not dry:
            entry["failed"] = f"it needs a card of {one.room:g} GiB"
        else:
            try:
                entry.update(record=benchmarks.run(one.name, dry, min(left, one.most)), failed=None)
            except subprocess.TimeoutExpired:
                entry["failed"] = f"it did not end in {min(left, one.most):.0f} s"
            except subprocess.CalledProcessError as error:
                entry["failed"] = f"it ended with {error.returncode}; why is in what was printed"
        entry["seconds"] = round(time.monotonic() - began, 1)
        print(f"   {entry['failed'] or 'done'} ({entry['seconds']:.0f} s)", flush=True)
        measured.write()


def add(file: Path, results: Path = benchmarks.RESULTS, factors: Path = FACTORS) -> list[Path]:
    """Keeps a file that was sent: in results/cards, and its benchmarks where none of a card is there yet. From then on
    the time that Plan tells on such a card, before it has made a step there, is corrected by it: in `factors`.

    Returns what was written. Raises SystemExit for one of a dry run.
    """
    found = json.loads(file.read_text(encoding="utf-8"))
    if found["dry"]:
        raise SystemExit(f"{file} is of a dry run without a card: its numbers mean nothing.")
    folder = results / "cards"
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{_name(found['identity'])}.json"
    written = {place: json.dumps(found, indent=1) + "\n", place.with_suffix(".md"): page(found)}
    for one in COMPARISONS:
        record = found["sections"].get(one.name, {}).get("record")
        target = results / benchmarks.file_of(one.name, card=True)
        if record and not target.is_file():
            written[target] = json.dumps(record, indent=2) + "\n"
    from pack.benchmarks.card.blocks import slower_than_modelled  # late: imports torch

    factor = slower_than_modelled(found)
    if factor is not None:
        known = json.loads(factors.read_text(encoding="utf-8")) if factors.is_file() else {}
        known[found["identity"]["card"]] = factor
        written[factors] = json.dumps(known, indent=1, sort_keys=True) + "\n"
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    return list(written)


def _name(identity: dict[str, str]) -> str:
    """A folder's name for card, torch and commit."""
    words = (identity["card"], identity["torch"], identity["commit"])
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-") for word in words)


def measure(options: argparse.Namespace) -> Path:
    """The folder of the JSON and the page. Raises SystemExit where there is no card."""
    began = time.monotonic()
    until = began + 60 * options.minutes
    dry = options.pretend is not None
    rows = follow(Worker([MACHINE.name], options.pretend), None, until, dry).get(MACHINE.name, [])
    on = {row["what"]: row["value"] for row in rows}
    if any(what not in on for what in IDENTITY):
        raise SystemExit("No card was measured; the reason stands above.")
    identity = {what: on[what] for what in IDENTITY}
    folder = options.out or MEASURED / (("dry-" if dry else "") + _name(identity))
    measured = Measured(folder, identity, dry)
    before = measured.found["seconds"]
    measured.section(MACHINE.name).update(rows=rows, failed=None)
    again = NAMES if "all" in options.again else options.again
    wanted = [name for name in options.only or NAMES if name in again or not measured.done(name)]
    try:
        measure_sections(measured, [one.name for one in SECTIONS if one.name in wanted], until, options.pretend)
        compare(measured, wanted, until, float(on["memory"].split()[0]), dry)
    finally:
        measured.found["seconds"] = round(before + time.monotonic() - began, 1)
        measured.write()
    left = [name for name in options.only or NAMES if not measured.done(name)]
    print(f"\n{measured.page}\n{measured.file}")
    print(f"{len(left)} to go on with, by the same command: {', '.join(left)}" if left else "Everything is measured.")
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description="What this graphics card does with the pack, in eight minutes.")
    parser.add_argument("--minutes", type=float, default=8, help="after which it ends; default: 8")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="SECTION", help=", ".join(NAMES))
    parser.add_argument("--again", action="append", default=[], choices=[*NAMES, "all"], metavar="SECTION")
    parser.add_argument("--out", type=Path, help="the folder of both files; default: one in build/card")
    parser.add_argument("--pretend", metavar="CARD", help="a dry run on one of dev/fake_card, such as 4090")
    parser.add_argument("--add", type=Path, metavar="JSON", help="keep a file that was sent, and write README.md")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
    if options.add:
        print("\n".join(map(str, add(options.add))))
        benchmarks.write_readme()
    else:
        measure(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
