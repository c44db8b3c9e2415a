"""`make card` on a card that is not there: it comes to its last line, goes on where it stopped, survives what fails."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pack.benchmarks.card import run
from pack.kernels.dispatch import Operation
from pack.skyreels_v3.jobs.estimates.modelled import Way, seconds
from pack.skyreels_v3.jobs.estimates.rates import rates
from pack.skyreels_v3.model.params import TransformerParams

SCRIPT = Path(run.__file__)
KERNELS = SCRIPT.parents[2] / "kernels"
IDENTITY = {"card": "NVIDIA X", "driver": "1", "torch": "2.9.0", "triton": "3.5", "commit": "abc"}
# A worker in whose process a section may do what it likes.
WORKER = """
import json, os, sys, time
def tell(**event): print(json.dumps(event), flush=True)
for name in sys.argv[1:]:
    tell(section=name, begins=0.1)
    tell(section=name, row={"tokens": 1, "ms": 2.5})
    if name == os.environ.get("HANGS"): time.sleep(60)
    if name == os.environ.get("CRASHES"): os._exit(11)
    tell(section=name, seconds=0.1, failed="no room" if name == os.environ.get("FAILS") else None)
"""


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """What a run finds, with the worker above."""
    monkeypatch.setattr(run.Worker, "command", (sys.executable, "-c", WORKER))
    monkeypatch.setattr(run, "LATE", 1)

    def measure(*wanted: str, **identity: str) -> tuple[run.Measured, dict]:
        found = run.Measured(tmp_path, IDENTITY | identity, dry=False)
        left = [name for name in wanted if not found.done(name)]
        run.measure_sections(found, left, run.time.monotonic() + 30, None)
        return found, json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))["sections"]

    return measure


@pytest.mark.parametrize(
    ("how", "why"),
    [("HANGS", "it did not end"), ("CRASHES", "it ended the process that measured it"), ("FAILS", "no room")],
)
def test_what_fails_says_why_and_the_next_section_runs(how, why, measured, monkeypatch):
    monkeypatch.setenv(how, "blocks")
    _, sections = measured("operations", "blocks", "transfers")
    assert {name: one["failed"] for name, one in sections.items()} == {
        "operations": None,
        "blocks": why,
        "transfers": None,
    }
    assert sections["blocks"]["rows"] == [{"tokens": 1, "ms": 2.5}]


def test_what_is_done_is_not_repeated_and_what_failed_is(measured, monkeypatch, capsys):
    monkeypatch.setenv("CRASHES", "blocks")
    measured("operations", "blocks")
    monkeypatch.delenv("CRASHES")
    capsys.readouterr()
    found, sections = measured("operations", "blocks")
    assert "== blocks" in (printed := capsys.readouterr().out) and "== operations" not in printed
    assert sections["blocks"]["failed"] is None
    text = found.page.read_text(encoding="utf-8")
    assert "| tokens | ms |" in text and "Not measured" in text and all(word in text for word in IDENTITY.values())
    # Another driver: another result.
    found, sections = measured("transfers", driver="2")
    assert set(sections) == {"transfers"}


def test_no_section_begins_when_the_time_is_over(tmp_path, measured):
    found = run.Measured(tmp_path, IDENTITY, dry=False)
    run.measure_sections(found, ["operations"], run.time.monotonic() - 1, None)
    run.compare(found, ["kernels"], run.time.monotonic() + 1, 24, dry=False)
    assert found.found["sections"] == {}


def test_a_file_that_was_sent_is_kept(tmp_path):
    record = {"name": "kernels", "results": {"device": "NVIDIA X", "tokens": 1, "dtypes": {}}}
    record |= {"date": "2026-11-29", "machine": {"cpu": "c", "cores": 4, "ram_gb": 8.0, "os": "o"}}
    record["versions"] = {"python": "3", "torch": "2", "comfyui": "none", "pack": "abc"}
    found = {"identity": IDENTITY, "dry": False, "date": "2026-11-29", "seconds": 1.0}
    found["sections"] = {"kernels": {"failed": None, "record": record}}
    sent, results, factors = tmp_path / "card.json", tmp_path / "results", tmp_path / "factors.json"
    sent.write_text(json.dumps(found), encoding="utf-8")
    assert {file.name for file in run.add(sent, results, factors)} == {
        "NVIDIA-X-2.9.0-abc.json",
        "NVIDIA-X-2.9.0-abc.md",
        "kernels-cuda.json",
    }
    other = {**found, "identity": {**IDENTITY, "card": "NVIDIA Y"}}
    sent.write_text(json.dumps(other), encoding="utf-8")
    assert "kernels-cuda.json" not in {file.name for file in run.add(sent, results, factors)}
    sent.write_text(json.dumps(found | {"dry": True}), encoding="utf-8")
    with pytest.raises(SystemExit, match="dry run"):
        run.add(sent, results, factors)


def test_a_card_that_was_sent_corrects_what_plan_tells_of_such_cards(tmp_path):
    speed = rates("NVIDIA GeForce RTX 4090", (8, 9), 128)
    one = TransformerParams(num_layers=1)
    rows = [
        {"tokens": "32,760", "precision": "16 bits", "ms": 1250 * seconds(one, 32_760, Way(), speed)},
        {"tokens": "75,600", "precision": "int8", "ms": 1250 * seconds(one, 75_600, Way("int8"), speed)},
        {"tokens": "126,000", "precision": "nf4", "failed": "no room"},
    ]
    machine = [{"what": "kind", "value": "sm_89"}, {"what": "processors", "value": "128"}]
    found = {"identity": {**IDENTITY, "card": "NVIDIA GeForce RTX 4090"}, "dry": False}
    found |= {"date": "2026-11-29", "seconds": 1.0}
    found["sections"] = {"blocks": {"failed": None, "rows": rows}, "machine": {"failed": None, "rows": machine}}
    sent, factors = tmp_path / "card.json", tmp_path / "factors.json"
    factors.write_text('{"NVIDIA Y": 0.9}', encoding="utf-8")
    sent.write_text(json.dumps(found), encoding="utf-8")
    assert factors in run.add(sent, tmp_path, factors)
    told = json.loads(factors.read_text(encoding="utf-8"))
    assert told == {"NVIDIA Y": 0.9, "NVIDIA GeForce RTX 4090": 1.25}


def on_a_pretended_card(folder: Path, *options: str) -> dict:
    command = [sys.executable, str(SCRIPT), "--pretend", "4090", "--out", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Everything is measured." in done.stdout, done.stdout[-3000:]
    sections = json.loads((folder / "card.json").read_text(encoding="utf-8"))["sections"]
    for name, one in sections.items():
        assert one["failed"] is None, (name, one)
        for row in one.get("rows", []):
            assert "failed" not in row and row.get("taken", "yes") == "yes", (name, row)
    return sections


@pytest.mark.workshop
@pytest.mark.skipif(sys.platform == "win32", reason="torch's guards for devices are not exported there")
def test_all_runs_to_its_last_line_on_a_card(tmp_path):
    sections = on_a_pretended_card(tmp_path, "--minutes", "14")
    assert set(sections) == {"machine", *run.NAMES}
    assert len(sections["fp8_products"]["rows"]) == 12
    modules = [importlib.import_module(f"pack.kernels.{file.stem}") for file in KERNELS.glob("[a-z]*.py")]
    operations = {one.__name__ for module in modules for one in vars(module).values() if isinstance(one, Operation)}
    # Those of attention have a section of their own.
    assert {row["operation"] for row in sections["operations"]["rows"]} == operations - {"attention"}
