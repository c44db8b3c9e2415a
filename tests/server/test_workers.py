"""tools/workers.py: what it starts is kept alive, and nothing of it stays behind."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pack.tools import workers
from pack.tools.serving import worker
from pack.tools.serving.here import on_cards
from pack.tools.serving.worker import Setup, Worker, is_private

LOCAL = workers.LOCAL
ROOT = Path(__file__).resolve().parents[2]
# Answers as ComfyUI does, and has a child, as a node may. Kept alive is any program that is started in this way; the
# real one is started in test_farm.py.
MAIN = """
import argparse, http.server, subprocess, sys
parser = argparse.ArgumentParser()
for name in ("--listen", "--port", "--temp-directory", "--database-url", "--disable-auto-launch"):
    parser.add_argument(name, nargs="?")
parser.add_argument("--broken", action="store_true")
parser.add_argument("--alone", action="store_true")
options = parser.parse_args()
if options.broken:
    sys.exit("There is no card.")
if not options.alone:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer((options.listen, int(options.port)), Handler).serve_forever()
"""

SCRIPT = (str(ROOT / "tools" / "workers.py"),)
# The same, but looks more often and waits less long.
RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import workers
from pack.tools.serving import worker
workers.POLL, worker.WITHIN = 0.1, 1
sys.exit(workers.main())
"""
QUICK = ("-c", RUN, str(ROOT / "tools"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    (tmp_path / "comfyui").mkdir()
    (tmp_path / "comfyui" / "main.py").write_text(MAIN)
    started: list[subprocess.Popen] = []

    def run(*arguments: str, script: tuple[str, ...] = SCRIPT) -> subprocess.Popen:
        command = [sys.executable, "-E", *script, "--comfyui", "comfyui", *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes, **heard))
        return started[-1]

    yield run
    for one in started:
        one.kill()
        one.wait()


def listed(folder: Path, count: int) -> list[str]:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        path = folder / "workers.txt"
        found = path.read_text().split() if path.exists() else []
        if len(found) == count:
            return found
        time.sleep(0.05)
    raise AssertionError("they did not come up")


def family(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def are_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=20)
    return not alive


def until(process: subprocess.Popen, words: str) -> str:
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"it never said {words}")


@pytest.mark.skipif(os.name != "posix", reason="signals, and a child of what was killed, which Windows lets live")
def test_what_dies_or_hangs_is_started_again_and_ctrl_c_stops_all(start, tmp_path: Path):
    process = start("--count", "2", "--port", "9300", "--silent", "1", script=QUICK)
    addresses = listed(tmp_path, 2)
    assert all(re.fullmatch(r"http://127\.0\.0\.1:93\d\d", one) for one in addresses)
    assert "no other machine reaches them" in until(process, "Ctrl+C stops them")
    first = family(process)
    assert len(first) == 4, "two, each with a child"
    first[0].kill()
    until(process, "ComfyUI has ended (signal 9) and is started again")
    until(process, f"{addresses[0]} is there")
    assert listed(tmp_path, 2) == addresses, "at the same address"
    assert are_gone([one for one in first if one not in family(process)]), "its child has not stayed"
    hung = [one for one in first if one in family(process)]
    hung[0].suspend()
    until(process, "ComfyUI has not answered for")
    until(process, f"{addresses[1]} is there")
    assert are_gone(hung), "its child neither"
    now = family(process)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert are_gone(now) and not (tmp_path / "workers.txt").exists()


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_no_orphan_stays_however_it_ends(start, tmp_path: Path, how: str):
    process = start("--count", "1", "--port", "9400", "--", *([] if os.name == "posix" else ["--alone"]))
    listed(tmp_path, 1)
    there = family(process)
    getattr(process, how)()
    process.wait(timeout=30)
    assert are_gone(there)


def test_what_does_not_start_is_given_up_with_the_end_of_its_log(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(worker, "TRIES", 2)
    (tmp_path / "main.py").write_text(MAIN)
    one = Worker(Setup(tmp_path, sys.executable, LOCAL, tmp_path, ("--broken",)), "card 3", 9500, {})
    told: list[str] = []
    while not one.given_up:
        told += [line for line in (one.look(),) if line]
        time.sleep(0.05)
    assert told[0] == "card 3: ComfyUI has ended (exit status 1) and is started again."
    assert re.match(r"card 3: ComfyUI does not start \(exit status 1\); the end of .*card-3.comfyui\.log:\n", told[1])
    assert told[1].endswith("There is no card.") and len(told) == 2 and not one.there


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--comfyui", "."], "has no main.py: give its folder with --comfyui"),
        (["--comfyui", "comfyui", "--listen", "0.0.0.0"], "--listen is 0.0.0.0, which others than a private network"),
        (["--comfyui", "comfyui", "--listen", "8.8.8.8"], "can run what he likes on this machine"),
        (["--comfyui", "comfyui", "--cards", "a"], "--cards is a, but numbers are needed"),
        (["--comfyui", "comfyui", "--count", "1", "--listen", "10.255.255.1"], "--listen an address of this machine"),
        (["--comfyui", "comfyui"], "sees no card here"),
        (["--comfyui", "comfyui", "--python", "no-python"], "no-python"),
        (["--comfyui", "comfyui", "--python", sys.executable, "--ray", "127.0.0.1:1"], "pip install ray"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(given, words, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "comfyui").mkdir()
    (tmp_path / "comfyui" / "main.py").write_text(MAIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
    if "sees no card" in words:
        monkeypatch.setattr(workers, "cards_of", lambda python: 0)
    assert workers.main(given) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


def test_a_card_is_one_of_those_that_may_be_seen(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5")
    given = on_cards(Setup(tmp_path, sys.executable, LOCAL, tmp_path), [1, 0], 9600)
    assert [one._environment["CUDA_VISIBLE_DEVICES"] for one in given] == ["GPU-5", "2"]
    assert len({one.port for one in given}) == 2


@pytest.mark.parametrize(
    ("private", "listen"),
    [
        (True, ("127.0.0.1", "10.1.2.3", "192.168.0.2", "100.100.1.1", "::1", "fd00::1", "localhost")),
        (False, ("0.0.0.0", "::", "8.8.8.8", "2001:4860:4860::8888", "example.com")),
    ],
)
def test_private_addresses(private: bool, listen: tuple[str, ...]):
    assert {is_private(one) for one in listen} == {private}


@pytest.mark.workshop
def test_on_the_machines_of_a_ray_cluster(start, tmp_path: Path):
    """One on each of two, of which one goes and another comes; and one that hangs."""
    from ray.cluster_utils import Cluster

    one_each = {"num_cpus": 1, "object_store_memory": 10**8}
    machines = Cluster(initialize_head=True, head_node_args={**one_each, "num_cpus": 0, "include_dashboard": False})
    try:
        first, _ = machines.add_node(**one_each), machines.add_node(**one_each)
        process = start("--ray", machines.address, "--count", "2", "--port", "9700", "--silent", "3")
        there = listed(tmp_path, 2)
        comfyuis = stand_ins(tmp_path / "comfyui")
        assert len(set(there)) == len(comfyuis) == 2
        machines.remove_node(first, allow_graceful=False)
        until(process, "Ray starts another one where a card is free")
        machines.add_node(**one_each)
        assert len(set(listed(tmp_path, 2))) == 2
        lost = [one for one in comfyuis if not one.is_running()]
        assert len(lost) == 1, "of the machine that is gone"
        (kept,) = set(comfyuis) - set(lost)
        kept.suspend()
        until(process, "ComfyUI has not answered for 3 s")
        until(process, "is there")
        assert not kept.is_running() and len(listed(tmp_path, 2)) == 2
        now = stand_ins(tmp_path / "comfyui")
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out
        assert len(now) == 2 and are_gone(now)
    finally:
        machines.shutdown()


def stand_ins(folder: Path) -> list[psutil.Process]:
    """Those of `folder`: a ComfyUI that another test has left running is a child of this process as well."""
    return [one for one in psutil.Process().children(recursive=True) if str(folder / "main.py") in command_of(one)]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
