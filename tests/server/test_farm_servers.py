"""tools/batch.py over two real ComfyUI, each with files of its own: one is killed, one is frozen, a long job moves."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pack.dev.comfyui.server import Server
from pack.dev.samples import workflow_inputs
from pack.tests.server import test_extension_server as extension
from pack.tools.batching.workflow import to_prompt

pytestmark = [pytest.mark.server, pytest.mark.workshop, pytest.mark.skipif(os.name != "posix", reason="signals")]

TOOL = workflow_inputs.ROOT / "tools" / "batch.py"
SMALL = {"resolution": "custom", "width": 64, "height": 64, "frames": 5}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two servers on copies of the same models, as on two machines, that share the folder of long jobs."""
    one, other = (tmp_path_factory.mktemp(name) for name in ("one", "other"))
    workflow_inputs.prepare(one, ["reference_to_video", "storyboard_extension"])
    extension.put_clip(one)
    for folder in ("models", "input"):
        shutil.copytree(one / folder, other / folder, copy_function=shutil.copyfile)  # with other times
    (one / extension.JOBS).mkdir(parents=True)
    (other / "output").mkdir()
    (other / extension.JOBS).symlink_to(one / extension.JOBS)
    servers = [
        Server(base, packs=workflow_inputs.TINY_PACKS, environment=workflow_inputs.ENVIRONMENT) for base in (one, other)
    ]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.close()


def batch(servers: list[Server], *files: Path, patience: float) -> subprocess.Popen:
    command = [sys.executable, "-S", "-E", TOOL, *files, "--patience", patience]
    command += [word for server in servers for word in ("--server", server.url)]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)


def test_forty_rows_while_one_is_killed_and_one_is_frozen(pair: list[Server], tmp_path: Path):
    workflow = json.loads(workflow_inputs.workflow_files()["reference_to_video"].read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, pair[0].object_info())
    changes = {"SkyReelsReferenceToVideo": SMALL, "SkyReelsSigmas": {"steps": 1}}
    (tmp_path / "robots.json").write_text(json.dumps(workflow_inputs.changed(prompt, changes)))
    rows = "".join(f"A robot drinks cup {number} of tea.,{number}\n" for number in range(1, 41))
    (tmp_path / "rows.csv").write_text(f"prompt,seed\n{rows}")
    dying, freezing = pair
    running = batch(pair, tmp_path / "robots.json", tmp_path / "rows.csv", patience=8)
    said: list[str] = []

    def frozen() -> None:
        os.killpg(freezing.process.pid, signal.SIGSTOP)
        time.sleep(15)
        os.killpg(freezing.process.pid, signal.SIGCONT)

    ice = threading.Thread(target=frozen)
    for line in running.stdout:
        said.append(line)
        if line.startswith("[6/40]"):
            port = int(dying.url.rsplit(":", 1)[1])
            dying.kill()
            dying.start(port=port)
            ice.start()
    ice.join()
    assert running.wait(60) == 0, "".join(said)
    found = sorted((tmp_path / "rows_results").iterdir())
    assert [path.name for path in found] == [f"{number:03}.mp4" for number in range(1, 41)]
    for number, path in enumerate(found, 1):
        made = carried(path)
        assert [node["inputs"]["noise_seed"] for node in made.values() if "noise_seed" in node["inputs"]] == [number]
        assert workflow_inputs.probe(path).frames == 5
    assert any("goes to another server" in line for line in said), "the frozen one's rows"
    assert {dying.url, freezing.url} == {
        line.split(" done on ")[1].split(" ")[0] for line in said if " done on " in line
    }


def carried(path: Path) -> dict:
    import av

    with av.open(str(path)) as file:
        return json.loads(file.metadata["prompt"])


def test_a_long_job_of_a_server_that_died_goes_on_on_another(pair: list[Server], tmp_path: Path):
    (tmp_path / "story.json").write_text(json.dumps(extension.prompt(pair[0])))
    (tmp_path / "rows.csv").write_text("seed\n5\n")
    running = batch(pair, tmp_path / "story.json", tmp_path / "rows.csv", patience=4)
    jobs = pair[0].base / extension.JOBS
    while not (parts := finished(jobs)):
        assert running.poll() is None
        time.sleep(0.02)
    (owner,) = [server for server in pair if server.get("/queue")["queue_running"]]
    owner.kill()
    began = time.time()
    out, _ = running.communicate(timeout=120)
    assert running.returncode == 0, out
    (folder,) = jobs.glob("extension-*")
    kept = [path for path in folder.iterdir() if path.stem in parts and path.stat().st_mtime < began]
    assert kept, "the rolls of the first are those of the second"
    (other,) = [server for server in pair if server is not owner]
    assert re.search(rf"[1-3] of {extension.ROLLS} rolls are kept from before", other.log)
    owner.start()


def finished(jobs: Path) -> list[str]:
    """Keys of the rolls that are done."""
    try:
        (path,) = jobs.glob("extension-*/manifest.json")
        return [key for key in json.loads(path.read_text())["parts"] if key.startswith("roll-")]
    except ValueError:
        return []
