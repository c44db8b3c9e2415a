"""tools/batch.py over several servers: nothing is lost and nothing is there twice, whatever becomes of them."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pack.dev.comfyui import stand_in
from pack.dev.comfyui.stand_in import StandIn
from pack.tools import batch
from pack.tools.batching import attendant, farm, shared
from pack.tools.batching.results import Results
from pack.tools.batching.rows import BatchError, Template
from pack.tools.batching.scripts import wrong_script

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 0.3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (farm, shared):
        monkeypatch.setattr(module, "POLL", 0.02)
    monkeypatch.setattr(attendant, "AGAIN", 0.1)


@pytest.fixture
def servers() -> Iterator[Callable[..., list[StandIn]]]:
    started: list[StandIn] = []

    def start(count: int, **options) -> list[StandIn]:
        started.extend(StandIn(**options) for _ in range(count))
        return started[-count:]

    yield start
    for one in started:
        one.__exit__()


def table(folder: Path, rows: int, seconds: float = 0.03, text: str = "") -> list[str]:
    (folder / "wait.json").write_text(json.dumps(stand_in.prompt(seconds)))
    (folder / "rows.csv").write_text(text or "note\n" + "".join(f"note{number}\n" for number in range(1, rows + 1)))
    return [str(folder / "wait.json"), str(folder / "rows.csv")]


def given(servers: list[StandIn], patience: float = PATIENCE) -> list[str]:
    return [*(word for one in servers for word in ("--server", one.url)), "--patience", str(patience)]


def results(folder: Path) -> dict[str, str]:
    """Name -> the note in it, of all files in the folder of results."""
    found = sorted((folder / "rows_results").iterdir())
    return {path.name: re.sub(r"^(.+?)\1*$", r"\1", path.read_text()) for path in found}


def expected(rows: int) -> dict[str, str]:
    return {f"{number:03}.mp4": f"note{number}" for number in range(1, rows + 1)}


def test_one_is_killed_and_one_hangs(servers, tmp_path: Path, capsys):
    dead, hanging, fine = servers(3)

    def harm() -> None:
        while len(dead.begun) < 3 or len(hanging.begun) < 4:
            time.sleep(0.01)
        dead.kill()
        hanging.freeze()

    thread = threading.Thread(target=harm)
    thread.start()
    code = batch.main([*table(tmp_path, 40), *given([dead, hanging, fine])])
    thread.join()
    said = capsys.readouterr().out
    assert code == 0 and "40 done." in said
    assert results(tmp_path) == expected(40)
    assert said.count("waiting for it at") == 2 and "goes to another server" in said
    made = Counter(dead.begun + hanging.begun + fine.begun)
    assert sum(made.values()) <= 44, "only what the two had is made twice"


def chaos(folder: Path, servers: list[StandIn], rows: int, seed: int) -> int:
    """A batch while servers are killed, brought back and frozen at random: its exit status."""
    dice, over = random.Random(seed), threading.Event()

    def harm() -> None:
        while not over.is_set():
            one = dice.choice(servers)
            time.sleep(dice.uniform(0.05, 0.2))
            if dice.random() < 0.5:
                one.kill()
                time.sleep(dice.uniform(0.3, 0.6))  # as long as it takes to be seen
                one.start()
            else:
                one.freeze()
                time.sleep(dice.uniform(0.1, 0.7))
                one.thaw()

    thread = threading.Thread(target=harm)
    thread.start()
    try:
        return batch.main([*table(folder, rows), *given(servers)])
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.workshop) for seed in range(2, 50))]
)
def test_servers_come_and_go(servers, tmp_path: Path, seed: int):
    chaos(tmp_path, servers(4), 60, seed)
    assert batch.main([*table(tmp_path, 60), *given(servers(2))]) == 0, "what was left out after two deaths"
    assert results(tmp_path) == expected(60)


@pytest.mark.workshop
@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_rows(servers, tmp_path: Path, seed: int):
    chaos(tmp_path, servers(8), 1000, 100 + seed)
    assert batch.main([*table(tmp_path, 1000), *given(servers(2))]) == 0
    found = {name.rjust(8, "0"): note for name, note in results(tmp_path).items()}
    assert found == {f"{number:04}.mp4": f"note{number}" for number in range(1, 1001)}


def test_a_row_that_begins_while_another_is_named(tmp_path: Path):
    """On another server, in its own thread."""

    class Record(dict):
        def get(self, *_):
            rows[len(rows)] = {}
            return ["cafe.mp4"]

    rows = {0: Record()}
    task = SimpleNamespace(record={}, row=SimpleNamespace(name="cafe"))
    named = Results(tmp_path, SimpleNamespace(rows=rows))._names(task, ["there/x.mp4"])
    assert named == ["cafe_2.mp4"] and len(rows) == 2


@pytest.mark.parametrize("how", ["kill", *(["ctrl-c"] if os.name == "posix" else [])])
def test_a_batch_that_was_stopped_goes_on(servers, tmp_path: Path, capsys, how: str):
    pair = servers(2)
    command = [sys.executable, "-S", "-E", str(ROOT / "tools" / "batch.py")]
    arguments = [*table(tmp_path, 12, 0.3), *given(pair, 5)]
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True, **heard)
    for line in process.stdout:
        if "[3/12]" in line:
            break
    second = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30)
    assert second.returncode == 2
    assert re.fullmatch(r"rows\.batch\.json is in use by process \d+ on .*: wait .*\n", second.stderr)
    process.kill() if how == "kill" else process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    if how == "ctrl-c":
        assert process.returncode == 130 and "the same command goes on from here" in said
        assert not any(one.waiting for one in pair)
    assert batch.main(arguments) == 0
    said = capsys.readouterr().out
    assert re.search(r"12 rows, ([3-9]|1[01]) of them done before", said)
    assert results(tmp_path) == expected(12)
    assert Counter(pair[0].begun + pair[1].begun) == Counter(f"note{number}" for number in range(1, 13))
    assert not list(tmp_path.glob("*.lock"))


def test_a_server_that_is_back_late_changes_nothing(servers, tmp_path: Path):
    late, other = servers(2)
    thread = threading.Thread(target=lambda: (time.sleep(0.1), late.freeze(), time.sleep(1.2), late.thaw()))
    thread.start()
    assert batch.main([*table(tmp_path, 24, 0.1), *given([late, other], 0.4)]) == 0
    thread.join()
    assert results(tmp_path) == expected(24)
    made = Counter(late.begun + other.begun)
    assert sum(made.values()) <= 26, "only what it had is made twice"
    assert len(late.begun) > 3, "it gets rows again"


def test_a_row_that_ends_servers_ends_two(servers, tmp_path: Path, capsys):
    trio = servers(3, poison=frozenset({"note2"}))
    over = threading.Event()

    def nurse() -> None:
        while not over.is_set():
            for one in trio:
                if one.dead:
                    time.sleep(0.2)
                    one.start()
            time.sleep(0.01)

    thread = threading.Thread(target=nurse)
    thread.start()
    code = batch.main([*table(tmp_path, 12), *given(trio)])
    over.set()
    thread.join()
    assert code == 1 and "002 failed" in (said := capsys.readouterr().out) and "ComfyUI ended 2 times" in said
    assert results(tmp_path) == {name: note for name, note in expected(12).items() if note != "note2"}
    assert Counter(note for one in trio for note in one.begun)["note2"] == 2


def test_a_server_on_which_all_fails_does_not_use_up_the_table(servers, tmp_path: Path, capsys):
    (broken,), (fine,) = servers(1, fails=None), servers(1, fails=frozenset({"note4"}))
    files = table(tmp_path, 20)
    assert batch.main([*files, *given([broken, fine])]) == 1
    said = capsys.readouterr().out
    assert "19 done, 1 failed." in said and "and is tried once more on another one: Wait: out of memory" in said
    made = Counter(broken.begun + fine.begun)
    assert results(tmp_path) == {name: note for name, note in expected(20).items() if note != "note4"}
    assert max(made.values()) == 2 and made["note4"] == 2
    fine.fails = frozenset()
    assert batch.main([*files, *given([broken, fine])]) == 0, "the same command tries it anew"


def test_what_waits_goes_to_a_server_that_has_nothing(servers, tmp_path: Path):
    slow, quick_ones = servers(1), servers(1)
    rows = "".join(f"{seconds},note{number}\n" for number, seconds in enumerate((2.0, 0.01, 0.01, 0.2, 0.01, 0.2), 1))
    began = time.monotonic()
    assert batch.main([*table(tmp_path, 6, text=f"seconds,note\n{rows}"), *given(slow + quick_ones, 5)]) == 0
    assert results(tmp_path) == expected(6)
    assert Counter(slow[0].begun + quick_ones[0].begun).most_common(1)[0][1] == 1
    assert min(len(slow[0].begun), len(quick_ones[0].begun)) == 1, "behind the long row none has waited"
    assert time.monotonic() - began < 10


def changed(**inputs) -> dict:
    """What a server says that has other inputs of its node; None takes one away."""
    required = {**stand_in.INFO["Wait"]["input"]["required"], **inputs}
    return {"Wait": {"input": {"required": {name: spec for name, spec in required.items() if spec is not None}}}}


def test_a_server_that_lacks_something_gets_no_row(servers, tmp_path: Path, capsys):
    fine = servers(1)
    older = servers(1, info=changed(note=None))
    poor = servers(1, info=changed(model=[["b.safetensors"]]))
    bare = servers(1, info={"Other": {"input": {}}})
    gone = servers(1)
    gone[0].kill()
    every = bare + poor + fine + older + gone
    assert batch.main([*table(tmp_path, 4), *given(every)]) == 0
    caught = capsys.readouterr()
    assert len(fine[0].begun) == 4 and not any(one.begun for one in bare + poor + older)
    told = [line.partition(" (")[0] for line in caught.err.splitlines()]
    assert told == [
        f"ComfyUI does not answer at {gone[0].url}",
        f"{bare[0].url} gets no row: it has no node Wait",
        f"{poor[0].url} gets no row: it has no model or choice a.safetensors",
        f"{older[0].url} gets no row: it has no input note of Wait",
    ]
    assert all(line.endswith((").", "it gets rows once it is there.")) for line in caught.err.splitlines())
    assert batch.main([*table(tmp_path, 5), *given(bare + poor)]) == 2, "nobody is left"


def test_files_of_a_server_s_input_folder_are_looked_for(servers, tmp_path: Path, capsys):
    image = [["other.png"], {"image_upload": True}]
    fine, poor = servers(2, info=changed(image=image))
    prompt = stand_in.prompt(0.01)
    prompt["1"]["inputs"]["image"] = "faces/cat.png"
    fine.put("faces/cat.png", b"x")
    files = table(tmp_path, 3)
    (tmp_path / "wait.json").write_text(json.dumps(prompt))
    assert batch.main([*files, *given([fine, poor])]) == 0
    assert len(fine.begun) == 3 and not poor.begun
    assert f"{poor.url} gets no row: it has no file in its folder input faces/cat.png (copy it there" in (
        capsys.readouterr().err
    )


def test_names_that_are_there_are_not_written_over(servers, tmp_path: Path):
    (tmp_path / "rows_results").mkdir()
    (tmp_path / "rows_results" / "cat.mp4").write_text("mine")
    pair = servers(2)
    files = table(tmp_path, 3, text="name,note\ncat,a\nCat,b\ndog,c\n")
    assert batch.main([*files, *given(pair)]) == 0
    found = results(tmp_path)
    assert found["cat.mp4"] == "mine" and sorted(found.values()) == ["a", "b", "c", "mine"]
    assert len({name.casefold() for name in found}) == 4, "also where capitals do not count"


def test_a_file_that_breaks_off_is_fetched_again(servers, tmp_path: Path):
    pair = servers(2)
    for one in pair:
        one.cut = 2
    assert batch.main([*table(tmp_path, 6), *given(pair)]) == 0
    assert results(tmp_path) == expected(6)
    assert all((tmp_path / "rows_results" / name).stat().st_size == 5000 for name in expected(6))


def test_a_server_that_was_restarted_between_two_looks(servers, tmp_path: Path):
    (one,) = servers(1)

    def restart() -> None:
        while not one.begun:
            time.sleep(0.01)
        time.sleep(0.2)
        one.lose_all()

    thread = threading.Thread(target=restart)
    thread.start()
    assert batch.main([*table(tmp_path, 3, 0.5), *given([one]), "--results", str(tmp_path / "rows_results")]) == 0
    thread.join()
    assert results(tmp_path) == expected(3)


def test_servers_of_a_file_may_change(servers, tmp_path: Path):
    first, second = servers(2)
    listed = tmp_path / "workers.txt"
    listed.write_text(f"# mine\n{first.url}\n")

    def move() -> None:
        while len(first.begun) < 2:
            time.sleep(0.01)
        first.kill()
        listed.write_text(f"{second.url}\n")

    thread = threading.Thread(target=move)
    thread.start()
    files = table(tmp_path, 8)
    assert batch.main([*files, "--servers", str(listed), "--patience", "30"]) == 0
    thread.join()
    assert results(tmp_path) == expected(8) and len(second.begun) >= 6


def test_a_folder_that_cannot_be_written_ends_the_batch_with_a_sentence(servers, tmp_path: Path, capsys):
    (tmp_path / "rows_results").write_text("a file")
    assert batch.main([*table(tmp_path, 3), *given(servers(2))]) == 2
    assert "rows_results cannot be written" in capsys.readouterr().err


EXTEND = {
    "class_type": "SkyReelsExtendVideo",
    "inputs": {"script": "continue 5s: On.\ncut 4s: Her face.", "model": ["1", 0], "shot_model": ["2", 0]},
}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, None),
        ({"script": ["3", 0]}, None),
        ({"script": "continue 5s: On.\ncut 9s: Her face."}, "Line 2 is a cut of 9 s"),
        ({"script": ""}, "script"),
        ({"shot_model": None}, "Line 2 is a cut, but nothing is connected to shot_model"),
    ],
)
def test_scripts_are_read_before_anything_runs(inputs: dict, words: str | None):
    given = {name: value for name, value in {**EXTEND["inputs"], **inputs}.items() if value is not None}
    told = wrong_script({"5": {**EXTEND, "inputs": given}})
    assert (told is None) == (words is None) and (words or "") in (told or "")


@pytest.mark.parametrize(
    ("script", "given", "words"),
    [
        ("scene 5s [anna]: She walks in.\ncontinue 5s: She sits down.", ["reference_model", "model"], None),
        ("scene 5s [anna]: She walks in.\ncontinue 5s: She sits down.", ["reference_model"], "Line 2 "),
        ("scene 5s: Nobody.", ["reference_model"], "Line 1 is a scene without pictures"),
        ("continue 5s: On.", ["model", "source"], None),
        ("continue 5s: On.", ["model"], "nothing comes before it"),
        ("", ["model"], "The script is empty"),
    ],
)
def test_scripts_of_films_too(script: str, given: list[str], words: str | None):
    inputs = {"script": script, **{name: ["1", 0] for name in given}}
    told = wrong_script({"5": {"class_type": "SkyReelsFilm", "inputs": inputs}})
    assert (told is None) == (words is None) and (words or "") in (told or "")


def test_a_wrong_script_is_told_with_its_row(tmp_path: Path):
    info = {"SkyReelsExtendVideo": {"input": {"required": {"script": ["STRING", {"multiline": True}]}}}}
    template = Template({"5": {**EXTEND, "inputs": {"script": "continue 5s: On.", "model": ["1", 0]}}}, info)
    rows = tmp_path / "rows.csv"
    rows.write_text('script\ncontinue 5s: On.\n"continue 5s: On.\ncontinue 0s: Off."\n')
    with pytest.raises(BatchError, match=r"^Row 2 \(002\): Line 2 "):
        batch.make_tasks(batch.read_rows(rows), template, tmp_path, [], batch.State(tmp_path / "state"))
