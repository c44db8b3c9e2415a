"""The benchmarks' harness, in tiny sizes: it runs, writes JSON and fills in the README. No time is asserted."""

import json
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import measure
import run


def test_the_harness_writes_json_with_machine_and_versions(tmp_path):
    command = [sys.executable, str(measure.ROOT / "benchmarks" / "run.py"), "--only", "forward", "--quick"]
    done = subprocess.run([*command, "--results", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "forward.json").read_text(encoding="utf-8"))
    assert record["name"] == "forward"
    assert set(record["machine"]) == {"cpu", "cores", "ram_gb", "os"}
    assert set(record["versions"]) == {"python", "torch", "comfyui", "pack"}
    for case in record["results"]["cases"].values():
        assert case["error"] < 1e-4
        assert case["peak_bytes"]["pack"] > 0
        assert case["ratio"]["wall"]["median"] > 0
    assert "| One video: peak of activations (MB) |" in done.stdout


def test_the_readme_has_a_place_for_every_benchmark():
    readme = run.README.read_text(encoding="utf-8")
    for name in run.BENCHMARKS:
        filled = run.with_section(readme, name, "TABLE")
        assert filled.count("TABLE") == 1
        assert run.with_section(filled, name, "TABLE") == filled
    with pytest.raises(ValueError, match="no place for other"):
        run.with_section(readme, "other", "")


def test_calls_take_turns_after_one_round_that_does_not_count():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = measure.interleaved(calls, rounds=2)
    assert "".join(order) == "baabba"
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_the_peak_of_a_call_counts_what_lives_at_once():
    import torch

    def call():
        first = torch.empty(1_000_000, dtype=torch.uint8)
        second = torch.empty(2_000_000, dtype=torch.uint8)
        del first, second
        torch.empty(2_500_000, dtype=torch.uint8)

    assert measure.peak_allocated(call) == pytest.approx(3_000_000, rel=1e-3)


def test_the_peak_of_a_process_is_counted_from_where_it_began():
    with measure.PeakMemory() as memory:
        # Pages of its own: a block of the heap may lie where memory was freed before and is held already.
        with mmap.mmap(-1, 50_000_000) as data:
            for _ in range(50):
                data.write(bytes(1_000_000))
    assert 45_000_000 < memory.peak < 80_000_000
