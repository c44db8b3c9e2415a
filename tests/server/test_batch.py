"""tools/batch.py: whole batches against a running ComfyUI, by a Python with nothing installed."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import skimage

from pack.dev.comfyui.server import Server
from pack.dev.samples import workflow_inputs
from pack.tests.server.test_batch_rows import write
from pack.tests.support import registry_archive
from pack.tools.batching.server import ComfyUI, Denied
from pack.tools.batching.way import WayError
from pack.tools.batching.workflow import Graph, to_prompt
from pack.tools.measuring.python import CHOSEN

TOOL = Path("tools") / "batch.py"
PACK = "skyreels-v3"  # the folder that ComfyUI Manager unpacks the registry's archive into
PHOTO = Path(skimage.__file__).parent / "data" / "chelsea.png"
WAITING = """
import time
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import ComfyExtension, io, ui

class Wait(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Wait",
            category="test",
            inputs=[io.Float.Input("seconds"), io.String.Input("note"), io.String.Input("filename_prefix")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, seconds, note, filename_prefix):
        for _ in range(int(seconds * 10)):
            throw_exception_if_processing_interrupted()
            time.sleep(0.1)
        return io.NodeOutput()

class Extension(ComfyExtension):
    async def get_node_list(self):
        return [Wait]

async def comfy_entrypoint():
    return Extension()
"""


# Whole batches


def batch(server: Server, *arguments) -> subprocess.Popen:
    """The tool in a process of its own, as a Python without any package runs it."""
    archived = server.base / "custom_nodes" / PACK
    folder = archived if archived.exists() else workflow_inputs.ROOT
    command = [sys.executable, "-S", "-E", folder / TOOL, *arguments, "--server", server.url]
    # Ctrl+C does nothing to what a shell has started in the background, nor to what that starts.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)} if os.name == "posix" else {}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), **pipes, **heard)


def finished(process: subprocess.Popen, code: int) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    return out + err


def until(process: subprocess.Popen, words: str) -> None:
    """Reads what the tool prints up to a line with `words`."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    pytest.fail("".join(seen) + process.stderr.read())


@pytest.mark.server
def test_fifty_prompts_are_a_table_and_one_command(stocked_server: Server, tmp_path: Path):
    workflow = json.loads(workflow_inputs.workflow_files()["reference_to_video"].read_text(encoding="utf-8"))
    graph = Graph(workflow, stocked_server.object_info())
    for name, value in {"resolution": "custom", "width": 64, "height": 64, "frames": 5}.items():
        graph.set("8", name, value)
    graph.set("13", "steps", 1)
    file = write(tmp_path / "robots.json", json.dumps(workflow))
    (tmp_path / "faces").mkdir()
    write(tmp_path / "faces" / "my cat.png", PHOTO.read_bytes())
    write(tmp_path / "faces" / "broken.png", "no picture")
    table = write(
        tmp_path / "robots.csv",
        "name,prompt,seed,Load Image: reference 1.image\n"
        'cat,"A cat, who drinks tea.",11,faces/my cat.png\n'
        "broken,Nothing.,12,faces/broken.png\n"
        ",An astronaut.,13,\n",
    )
    assert "3 rows, 0 of them done before; they fill in CLIP Text" in finished(
        batch(stocked_server, file, table, "--check"), 0
    )
    said = finished(batch(stocked_server, file, table), 1)
    assert " broken failed" in said and "Load Image: reference 1: cannot identify" in said
    assert "2 done, 1 failed." in said
    videos = sorted((stocked_server.base / "output" / "video" / "robots").iterdir())
    assert [path.name for path in videos] == ["003_00001_.mp4", "cat_00001_.mp4"]
    for path, text, seed in zip(videos, ("An astronaut.", "A cat, who drinks tea."), (13, 11)):
        carried = metadata(path)
        assert (carried["prompt"]["5"]["inputs"]["text"], carried["prompt"]["10"]["inputs"]["noise_seed"]) == (
            text,
            seed,
        )
        opened = to_prompt(carried["workflow"], stocked_server.object_info())
        assert {key: node["inputs"] for key, node in opened.items()} == {
            key: node["inputs"] for key, node in carried["prompt"].items()
        }

    write(tmp_path / "faces" / "broken.png", PHOTO.read_bytes())
    ran = len(stocked_server.get("/history"))
    said = finished(batch(stocked_server, file, table), 0)
    assert "3 rows, 2 of them done before" in said and "3 done." in said
    assert len(stocked_server.get("/history")) == ran + 1, "only the row that had failed is made"

    wrong = write(tmp_path / "wrong.csv", "prompt,seed\nFine.,1\nNot fine.,many\n")
    said = finished(batch(stocked_server, file, wrong), 2)
    assert said == "Row 2 (002), column seed: 'many' is no whole number, which noise_seed needs.\n"


@pytest.mark.server
def test_a_batch_ends_with_the_best_of_its_takes(stocked_server: Server, tmp_path: Path):
    workflow = json.loads(workflow_inputs.workflow_files()["reference_to_video"].read_text(encoding="utf-8"))
    graph = Graph(workflow, stocked_server.object_info())
    for name, value in {"resolution": "custom", "width": 64, "height": 64, "frames": 5}.items():
        graph.set("8", name, value)
    graph.set("13", "steps", 1)
    file = write(tmp_path / "cats.json", json.dumps(workflow))
    write(tmp_path / "my cat.png", PHOTO.read_bytes())
    head = "name,prompt,seed,Load Image: reference 1.image\n"
    table = write(tmp_path / "cats.csv", f"{head}cat,A cat.,21,my cat.png\n")
    finished(batch(stocked_server, file, table), 0)  # stays on the server

    command = [sys.executable, workflow_inputs.ROOT / TOOL, file, table, "--server", stocked_server.url, "--takes", "2"]
    env = {**os.environ, CHOSEN: "1"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rows, 1 of them done before" in done.stdout
    assert "Best of cat: cat_take_" in done.stdout and "Left out. Likeness to references: no CLIP" in done.stdout
    folder = tmp_path / "cats_results"
    assert sorted(path.name for path in folder.rglob("*.*")) == [
        "cat.mp4", "cat_take_1.mp4", "cat_take_2.mp4", "contact_sheet.jpg", "measured.html", "measured.json",
    ]  # fmt: skip
    rows = json.loads((folder / "measured.json").read_text(encoding="utf-8"))["videos"]
    assert [row["group"] for row in rows] == ["cat", "cat"] and [row["place"] for row in rows] == [1, 2]
    assert (folder / "best" / "cat.mp4").read_bytes() == Path(rows[0]["file"]).read_bytes()

    (tmp_path / "my cat.png").unlink()  # the copy that ComfyUI has got is the reference then
    command[-2:] = ["--measure"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cat is measured as one take alone: best/cat.mp4 was picked from several" in done.stdout
    assert "Left out. Likeness to references: no CLIP" in done.stdout
    assert (folder / "given" / "my cat.png").read_bytes() == PHOTO.read_bytes()


def test_a_batch_that_cannot_measure_says_so_first(tmp_path: Path):
    folder = registry_archive.write(tmp_path / "pack")
    for given, words in (
        ("--measure", "make a venv for it once: python tools/measure.py --setup (--measure and --takes need it)"),
        ("--takes=0", "--takes is 0, but it must be 1 to 100."),
    ):
        command = [sys.executable, "-S", "-E", folder / TOOL, *waits(tmp_path, 0), given]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.endswith(f"{words}\n") and done.stderr.count("\n") == 1


def metadata(path: Path) -> dict:
    import av

    with av.open(str(path)) as file:
        return {key: json.loads(value) for key, value in file.metadata.items() if key in ("prompt", "workflow")}


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with this pack as the registry serves it, and a node that takes its time."""
    packs = tmp_path_factory.mktemp("packs")
    (packs / "Waiting").mkdir()
    (packs / "Waiting" / "__init__.py").write_text(WAITING)
    archive = registry_archive.write(packs / PACK)
    arguments = ["--max-upload-size", "1"]
    with Server(pack=False, packs=[packs / "Waiting", archive], arguments=arguments) as server:
        yield server


def waits(folder: Path, *seconds: float) -> tuple[Path, Path]:
    node = {"class_type": "Wait", "inputs": {"seconds": 1.0, "note": "", "filename_prefix": "waits"}}
    rows = "".join(f"{one},{number}\n" for number, one in enumerate(seconds))
    return write(folder / "wait.json", json.dumps({"1": node})), write(folder / "rows.csv", f"seconds,note\n{rows}")


@pytest.mark.server
def test_comfyui_loads_the_registry_s_archive(waiting: Server):
    assert "IMPORT FAILED" not in waiting.log
    ours = {key for key, one in waiting.object_info().items() if one["python_module"] == f"custom_nodes.{PACK}"}
    assert ours == set(
        json.loads((workflow_inputs.ROOT / "tests" / "data" / "snapshots" / "nodes.json").read_text(encoding="utf-8"))
    )
    assert sorted(waiting.get("/workflow_templates")[PACK]) == sorted(workflow_inputs.workflow_files())


@pytest.mark.server
def test_ctrl_c_stops_a_batch_and_the_same_command_goes_on(waiting: Server, tmp_path: Path):
    files = waits(tmp_path, 0, 3, 0, 0)
    before = set(waiting.get("/history"))
    stopped = batch(waiting, *files)
    until(stopped, "[1/4] 001 done")
    time.sleep(1)  # row 2 runs, row 3 waits in the queue
    stopped.send_signal(signal.SIGINT)
    said = finished(stopped, 130)
    assert "the same command goes on from here" in said and "1 done, 3 to do." in said
    assert waiting.get("/queue")["queue_pending"] == []
    said = finished(batch(waiting, *files), 0)
    assert "4 rows, 1 of them done before" in said and "4 done." in said
    assert len(set(waiting.get("/history")) - before) == 4, "the row that ran on is not made twice"


@pytest.mark.server
def test_a_row_that_was_stopped_on_the_page_does_not_stop_the_rest(waiting: Server, tmp_path: Path):
    running = batch(waiting, *waits(tmp_path, 20, 0))
    while not waiting.get("/queue")["queue_running"]:
        time.sleep(0.1)
    waiting.interrupt()
    said = finished(running, 1)
    assert "001 cancelled" in said and "It was stopped in ComfyUI." in said and "1 done, 1 cancelled." in said


@pytest.mark.server
def test_a_file_that_is_too_large_to_be_copied_is_told(waiting: Server, tmp_path: Path):
    write(tmp_path / "large.png", bytes(4_000_000))
    load = {"class_type": "LoadImage", "inputs": {"image": "large.png"}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "large"}}
    workflow = write(tmp_path / "save.json", json.dumps({"1": load, "2": save}))
    said = finished(batch(waiting, workflow, write(tmp_path / "rows.csv", "image\nlarge.png\n")), 1)
    assert "large.png could not be copied to ComfyUI" in said and "put it into ComfyUI's folder input" in said


@pytest.mark.server
def test_a_batch_outlives_the_server(waiting: Server, tmp_path: Path):
    files = waits(tmp_path, 0, 2, 0)
    port = int(waiting.url.rsplit(":", 1)[1])
    running = batch(waiting, *files)
    until(running, "[1/3] 001 done")
    time.sleep(1)
    waiting.kill()
    until(running, "ComfyUI does not answer")
    waiting.start(port=port)
    said = finished(running, 0)
    assert "3 done." in said


class Gate:
    """What stands before a rented ComfyUI: it refuses urllib's name as Cloudflare does, and asks for a password."""

    def __init__(self, behind: str = "", answer: tuple[int, dict, bytes] | None = None):
        self.seen: list[tuple[str, dict]] = []
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                gate.seen.append((self.path, dict(self.headers)))
                status, headers, text = answer or self.passed(body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_GET

            def passed(self, body: bytes | None) -> tuple[int, dict, bytes]:
                if "urllib" in self.headers["User-Agent"]:
                    return 403, {}, b"error code: 1010"
                login = base64.b64encode(b"me:se:cr@t").decode()
                if self.headers.get("Authorization") not in (f"Basic {login}", "Bearer token"):
                    return 401, {"WWW-Authenticate": "Basic"}, b"<html>"
                kind = self.headers.get("Content-Type")
                request = urllib.request.Request(behind + self.path, body, {"Content-Type": kind} if kind else {})
                try:
                    with urllib.request.urlopen(request) as reply:
                        return 200, {}, reply.read()
                except urllib.error.HTTPError as error:
                    return error.code, {}, error.read()

            def log_message(self, format, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.server
def test_a_comfyui_behind_a_password_and_a_tunnel_is_reached(waiting: Server, tmp_path: Path):
    files = waits(tmp_path, 0, 0)
    command = [sys.executable, "-S", "-E", workflow_inputs.ROOT / TOOL, *files, "--server"]

    def told(*given: str) -> tuple[int, str]:
        done = subprocess.run(list(map(str, [*command, *given])), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    with Gate(waiting.url) as gate:
        code, said = told(f"http://me:se%3Acr%40t@{gate.place}")
        assert code == 0 and "2 done." in said and "cr@t" not in said
        assert told(f"me:se:cr@t@{gate.place}/", "--again")[0] == 0
        assert told(gate.place, "--header", "Authorization: Bearer token", "--again")[0] == 0
        code, said = told(gate.place)
        assert code == 2 and "asks for a password (401 Unauthorized): give --server http://name:password@" in said
        code, said = told(f"me:wrong@{gate.place}")
        assert code == 2 and "does not take this name and password" in said and "wrong" not in said
        code, said = told(f"me:se:cr@t@{gate.place}", "--header", "user-agent: Python-urllib/3")
        assert code == 2 and "forbids it (403 Forbidden)" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((302, {"Location": "https://login.example/?secret=1"}, b""), r"sends on to https://login\.example/ \(302"),
        ((301, {"Location": "https://127.0.0.1/"}, b""), "give --server the address of ComfyUI itself"),
        ((200, {}, b"<html>Log in"), "is no ComfyUI but a page"),
        ((407, {}, b""), "The proxy on the way .* asks for a password"),
    ],
)
def test_what_stands_before_comfyui_is_told(answer, words: str):
    with Gate(answer=answer) as gate:
        server = ComfyUI(f"{gate.place}/comfy/?token=t", ["X-Key: 1", "user-agent: mine"])
        for ask in (server.object_info, lambda: server.queue({}, "1", None)):
            with pytest.raises(Denied, match=words):
                ask()
        assert [path for path, _ in gate.seen] == ["/comfy/object_info?token=t", "/comfy/prompt?token=t"]
        assert all((sent["X-Key"], sent["User-Agent"]) == ("1", "mine") for _, sent in gate.seen)


def test_far_servers_are_asked_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    with Gate(answer=(200, {}, b'{"queue_running": [], "queue_pending": []}')) as gate:
        monkeypatch.setenv("http_proxy", f"http://{gate.place}")
        monkeypatch.delenv("no_proxy", raising=False)
        assert ComfyUI("http://comfy.example:8188").queued() == (set(), set())
        assert [path for path, _ in gate.seen] == ["http://comfy.example:8188/queue"]
        assert ComfyUI(gate.place).queued() == (set(), set()), "a machine nearby is asked directly"
        assert gate.seen[1][0] == "/queue"
        monkeypatch.setenv("no_proxy", "127.0.0.9,comfy.invalid")
        with pytest.raises(ConnectionError):
            ComfyUI("http://comfy.invalid").queued()


@pytest.mark.parametrize(
    ("address", "headers"),
    [("ftp://a", []), ("http://", []), ("http://a:80b", []), ("http://[::1", []), ("a", ["x"]), ("a", ["N: \u00e9"])],
)
def test_addresses_and_headers_that_are_none(address: str, headers: list[str]):
    with pytest.raises(WayError, match=r"^--(server|header) is .*needed"):
        ComfyUI(address, headers)


def test_a_server_that_is_not_there_is_told_at_once(tmp_path: Path):
    command = [sys.executable, "-S", "-E", workflow_inputs.ROOT / TOOL, *waits(tmp_path, 0), "--server", "127.0.0.1:9"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr.startswith("ComfyUI does not answer at http://127.0.0.1:9") and done.stderr.count("\n") == 1
