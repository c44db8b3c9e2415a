"""The benchmarks' harness, in tiny sizes: it runs, writes JSON and fills in the README. No time is asserted."""

import json
import mmap
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest

from pack.benchmarks import run
from pack.benchmarks.harness import aims, measure, turns
from pack.dev import charts
from pack.dev.setup import environment

BENCHMARKS = measure.ROOT / "benchmarks"
pytestmark = [pytest.mark.workshop, pytest.mark.host]  # some measure ComfyUI's own code


def harness(*options) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--quick", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_harness_writes_json_with_machine_and_versions(tmp_path):
    done = harness("--only", "forward", "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "forward.json").read_text(encoding="utf-8"))
    assert record["name"] == "forward"
    assert set(record["machine"]) == {"cpu", "cores", "ram_gb", "os", "load"}
    assert set(record["versions"]) - {"diffusers"} == {"python", "torch", "comfyui", "pack"}
    absent = record["results"]["missing"]
    assert absent in ({}, {"diffusers": "not installed"})
    for case in record["results"]["cases"].values():
        assert case["error"] < 1e-4
        assert set(case["peak_bytes"]) | set(absent) == {"pack", "comfyui", "diffusers"}
        assert set(case["ratio"]["wall"]) | set(absent) == {"comfyui", "diffusers", "floor"}
        assert min(*case["peak_bytes"].values(), *case["ratio"]["wall"].values()) > 0
    assert "| One video: peak of activations (MB) |" in done.stdout
    assert ("not installed" in done.stdout) == bool(absent)


def test_what_is_for_graphics_cards_runs_in_tiny_sizes_without_one(tmp_path):
    done = harness("--only", "block", "--only", "streaming", "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("block", "streaming"):
        assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["results"]["cases"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what memory is set aside")
def test_what_loads_files_of_any_size_runs_in_tiny_ones(tmp_path):
    done = harness("--only", "real_sizes", "--only", "film_memory", "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    loads = json.loads((tmp_path / "real_sizes.json").read_text(encoding="utf-8"))["results"]["loads"]
    assert [one["precision"] for one in loads] == ["auto", "auto", "int8"]
    assert not any(one["problems"] for one in loads) and max(one["private_gb"] for one in loads) < 0.1
    film = json.loads((tmp_path / "film_memory.json").read_text(encoding="utf-8"))["results"]
    for form in film.values():
        assert [step["model"] for step in form["steps"]] == ["r2v", "v2v", "v2v_shot", "v2v", "a2v"]
        assert form["private_gb"] < form["limit_gb"] and all(step["on_host_gb"] == 0 for step in form["steps"])


def test_bench_quick_ends_with_one_line_of_json():
    command = [sys.executable, str(BENCHMARKS / "quick.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for case in ("forward", "forward_per_frame_timesteps"):
        assert found[f"{case}_time_vs_comfy"] > 0
        assert found[f"{case}_memory_vs_comfy"] > 0


def test_the_readme_has_a_place_for_every_benchmark():
    readme = run.README.read_text(encoding="utf-8")
    for name in run.BENCHMARKS:
        filled = run.with_section(readme, name, "TABLE")
        assert filled.count("TABLE") == 1
        assert run.with_section(filled, name, "TABLE") == filled
    with pytest.raises(ValueError, match="no place for other"):
        run.with_section(readme, "other", "")


def test_the_readme_and_its_plots_are_those_of_the_results(tmp_path):
    readme, found = run.README.read_text(encoding="utf-8"), run.records()
    for name in run.BENCHMARKS:
        assert run.with_section(readme, name, run.section(name, found)) == readme, f"make bench ARGS=--readme: {name}"
    assert aims.summary(run.BENCHMARKS, found, aims.anchors(readme)) in readme
    run.plots.write(tmp_path, found)
    # Other versions of matplotlib draw the same numbers in other bytes.
    drawn, shown = (
        {file.name: charts.drawn_from(file.read_text(encoding="utf-8")) for file in folder.glob("*.svg")}
        for folder in (tmp_path, run.PLOTS)
    )
    assert drawn == shown and all(drawn.values())
    assert all(f"](plots/{name})" in readme for name in drawn)


def test_results_of_a_card_stand_beside_those_of_the_cpu():
    assert run.file_of("forward", card=False) == "forward.json"
    assert run.file_of("forward", card=True) == "forward-cuda.json"
    assert run.on_card({"results": {"device": "NVIDIA H200"}})
    assert not run.on_card({"results": {"device": "cpu"}})
    assert not run.on_card({"results": {}})


def test_what_ran_without_its_kernels_on_a_card_says_so_and_meets_no_aim(monkeypatch):
    aim = aims.Aim("a", 2, lambda results: results["ratio"], card=True)
    monkeypatch.setattr(aims, "aims_of", lambda _: [aim])
    for refused, met in (({}, "yes"), ({"int8_linear": "no C compiler"}, "not yet")):
        record = {"results": {"device": "NVIDIA X", "ratio": 1, "refused": refused}}
        row = aims.summary(["kernels"], {("kernels", True): record}, {"kernels": "k"}).splitlines()[-1]
        assert row.endswith(f"| {met} |")
        assert ("without the kernels of** int8_linear (no C compiler)" in run.references(record)) == bool(refused)


def test_every_aim_of_a_card_is_unmeasured_until_there_are_results():
    links = dict.fromkeys(run.BENCHMARKS, "here")
    rows = aims.summary(run.BENCHMARKS, {}, links).splitlines()[2:]
    assert len(rows) == sum(len(aims.aims_of(name)) for name in run.BENCHMARKS)
    assert all(aims.UNMEASURED in row for row in rows)
    assert aims.unmeasured("block").count(aims.UNMEASURED) == len(aims.aims_of("block"))
    assert aims.unmeasured("drift") == ""


def test_an_aim_is_met_from_its_side():
    most = aims.Aim("", 0.8, lambda results: results["ratio"])
    assert (most.met(0.8), most.met(0.81), most.shown()) == (True, False, "≤ 0.8")
    least = aims.Aim("", 2, lambda results: results["ratio"], least=True, unit=" x")
    assert (least.met(2.5), least.met(1.9), least.shown()) == (True, False, "≥ 2 x")
    assert most.measured({"ratio": 0.5}) == 0.5
    assert most.measured({}) is most.measured(None) is None


def test_charts_are_readable_as_xml_and_always_the_same():
    bar = charts.Bar("a < b & c", 0.5, "0.50", aim=0.8, above="one")
    drawn = [
        charts.bars("Title", [bar, charts.Bar("other", 1.0, "1.00", "other")], "note"),
        charts.lines("Title", [("a", [(0, 1), (5, 3)]), ("b", [(0, 1), (4, 3)])], "s", "MB"),
    ]
    for svg in drawn:
        assert ElementTree.fromstring(svg).get("width") == f"{charts.WIDTH * 72 / charts.PIXELS_AN_INCH:g}pt"
    assert "a &lt; b &amp; c" in drawn[0]
    assert drawn[0] == charts.bars("Title", [bar, charts.Bar("other", 1.0, "1.00", "other")], "note")


def test_where_diffusers_cannot_be_installed_the_benchmarks_go_on(monkeypatch, capsys, tmp_path):
    def refuse(*_):
        raise environment.SetupError("no connection")

    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "call", lambda *_: "")
    monkeypatch.setattr(environment, "Installer", refuse)
    environment.install_peers()
    assert "diffusers cannot be installed here" in capsys.readouterr().out


def test_long_calls_go_on_in_turns_at_every_pause():
    order = []

    def call(name, pauses):
        for part in range(pauses):
            order.append(f"{name}{part}")
            turns.pause()
        order.append(f"{name}{pauses}")

    times = turns.in_turns({"a": lambda: call("a", 2), "b": lambda: call("b", 1)}, rounds=2)
    assert order == ["a0", "b0", "a1", "b1", "a2", "b0", "a0", "b1", "a1", "a2"]
    assert [len(parts) for parts in times["a"].wall] == [3, 3]
    assert [len(parts) for parts in times["b"].processor] == [2, 2]


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The seconds that turns reads from its clocks."""
    seconds = [0.0]
    stopped = SimpleNamespace(perf_counter=lambda: seconds[0], process_time=lambda: seconds[0] / 2)
    monkeypatch.setattr(turns, "time", stopped)
    return seconds


def test_what_waits_for_its_turn_is_not_timed(clock):
    def call(seconds):
        clock[0] += seconds
        turns.pause()
        clock[0] += 2 * seconds

    times = turns.in_turns({"short": lambda: call(1), "long": lambda: call(10)}, rounds=1)
    assert times["short"].wall == [[1, 2]]
    assert times["long"].wall == [[10, 20]]
    assert times["long"].processor == [[5, 10]]


def test_an_error_in_a_turn_is_raised():
    def fail():
        turns.pause()
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        turns.in_turns({"fail": fail, "other": turns.pause}, rounds=1)


@pytest.mark.parametrize(("seconds", "rounds"), [(1, turns.LEAST_ROUNDS), (99, 4), (1000, 9)])
def test_no_round_is_begun_that_ends_too_late(clock, seconds, rounds):
    def call():
        clock[0] += 20

    times = turns.in_turns({"call": call}, rounds=9, seconds=seconds)
    assert len(times["call"].wall) == rounds


def test_the_undisturbed_time_is_the_sum_of_the_fastest_parts():
    assert turns.steady([[1.0, 5.0], [3.0, 2.0]]) == 3.0
    assert turns.totals([[1.0, 5.0], [3.0, 2.0]]) == [6.0, 5.0]


def test_pausing_does_nothing_elsewhere():
    turns.pause("as", "a", "hook")


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


def test_a_timeline_keeps_few_points_and_every_peak():
    timeline = measure.Timeline()
    timeline._points = [(number / 2, 10 if number == 501 else 1) for number in range(1000)]
    assert len(timeline.points) == 200
    assert max(held for _, held in timeline.points) == 10
    assert timeline.points[-1][0] == 499.5


def test_the_peak_of_a_process_is_counted_from_where_it_began():
    with measure.PeakMemory() as memory:
        # Pages of its own: a block of the heap may lie where memory was freed before and is held already.
        with mmap.mmap(-1, 50_000_000) as data:
            for _ in range(50):
                data.write(bytes(1_000_000))
    assert 45_000_000 < memory.peak < 80_000_000
