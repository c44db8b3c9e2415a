"""`make card` on a card that is not there: it comes to its last line, goes on where it stopped, survives what fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pack.benchmarks.card import run

SCRIPT = Path(run.__file__)
if sys.platform == "win32":
    pytest.skip("torch's guards for devices are not exported there", allow_module_level=True)


def card(folder: Path, *options: str) -> str:
    command = [sys.executable, str(SCRIPT), "--pretend", "4090", "--out", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def found(folder: Path) -> dict:
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


def test_a_section_is_measured_once_unless_it_is_asked_for(tmp_path):
    some = ("--only", "transfers", "--only", "fp8_products")
    assert "Everything is measured." in card(tmp_path, *some)
    first = found(tmp_path)
    text = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert first["identity"]["card"] in text and "A dry run" in text and "| pinned" not in text.splitlines()[0]
    assert {name for name, one in first["sections"].items() if one["failed"] is None} == {
        "machine",
        "transfers",
        "fp8_products",
    }
    assert len(first["sections"]["fp8_products"]["rows"]) == 12
    printed = card(tmp_path, *some, "--again", "transfers")
    assert "== transfers" in printed and "== fp8_products" not in printed


@pytest.mark.workshop
def test_everything_comes_to_its_last_line(tmp_path):
    assert "Everything is measured." in card(tmp_path, "--minutes", "14")
    for name, one in found(tmp_path)["sections"].items():
        assert one["failed"] is None, (name, one)
        for row in one.get("rows", []):
            assert "failed" not in row and "refused" not in str(row.get("taken")), (name, row)
