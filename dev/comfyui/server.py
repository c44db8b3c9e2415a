"""A real ComfyUI server as a context manager, for tests and the demo: hermetic, on a port of its own.

    with Server() as server:
        entry = server.run(prompt)          # a prompt in API form
        print(server.output_files(entry))

Not called server.py, because ComfyUI has a module `server` that code in the same process may need.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests

from pack.dev.setup.downloads import ROOT
from pack.dev.setup.environment import comfyui_path, venv_python

PACK = "SkyReels-V3"  # the checkout's folder name in custom_nodes
POLL = 0.1  # seconds
TEXT = 3  # the kind of a binary message, see BinaryEventTypes of ComfyUI's protocol.py
GRACE = 10  # seconds from the request to stop until the process is killed

# Runs main.py as its own process would, and ends with whoever started it: file 0 is a pipe that nobody writes to and
# that closes when the other end dies, however it dies. SIGINT is set because the background jobs of a shell, and so
# their children, ignore it.
LAUNCHER = """
import os, runpy, signal, sys, threading
def follow():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=follow, daemon=True).start()
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class ServerError(RuntimeError):
    """The server did not start, died, or took too long."""


class PromptRefused(ServerError):
    """The server refused a prompt; `node_errors` as it sent them: node id -> errors, class_type."""

    def __init__(self, answer: dict):
        self.node_errors = answer.get("node_errors") or {}
        error = answer.get("error") or "some outputs were left out"
        lines = [error if isinstance(error, str) else f"{error.get('message')} {error.get('details')}".strip()]
        for node, report in self.node_errors.items():
            for one in report["errors"]:
                details = f" ({one['details']})" if one.get("details") else ""
                lines.append(f"node {node} {report['class_type']}: {one['message']}{details}")
        super().__init__("\n  ".join(lines))


class NodeFailed(ServerError):
    """A node raised: node_id, node_type, exception_type, exception_message, traceback (text)."""

    def __init__(self, report: dict):
        self.node_id, self.node_type = report["node_id"], report["node_type"]
        self.exception_type = report["exception_type"]
        self.exception_message = report["exception_message"].strip()
        self.traceback = "".join(report.get("traceback") or [])
        super().__init__(f"node {self.node_id} {self.node_type}: {self.exception_type}: {self.exception_message}")


class Interrupted(ServerError):
    """The run was interrupted."""


class Server:
    """A ComfyUI server; start() and stop(), or a `with` block.

    base: the folder for models, input, output, user, temp and custom_nodes; a temporary one, removed at the
        end, by default
    pack: whether this checkout is put into custom_nodes
    packs: folders of further packs
    arguments: further options of ComfyUI's main.py
    cpu: whether to run on the CPU only
    environment: variables to set or, with None, to unset
    """

    def __init__(
        self,
        base: Path | None = None,
        *,
        pack: bool = True,
        packs: Sequence[Path] = (),
        arguments: Sequence[str] = (),
        cpu: bool = True,
        environment: dict[str, str | None] | None = None,
    ):
        self._temporary = None if base else tempfile.mkdtemp(prefix="skyreels-v3-server-")
        self.base = Path(base or self._temporary).absolute()
        self.url = ""
        self.process: subprocess.Popen | None = None
        self.client_id = uuid.uuid4().hex
        self._packs = ([(ROOT, PACK)] if pack else []) + [(Path(p).absolute(), Path(p).name) for p in packs]
        self._arguments = [*(["--cpu"] if cpu else []), *map(str, arguments)]
        self._environment = environment or {}
        self._log = self.base / "server.log"
        self._web = requests.Session()
        self._web.trust_env = False  # no proxy between us and our own machine

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error) -> None:
        self.close()

    @property
    def log(self) -> str:
        """What the server has printed so far, over all its starts."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def start(self, timeout: float = 180, port: int | None = None) -> None:
        """Start the server and wait until it answers. port: a free one by default.

        Raises ServerError with the end of its log.
        """
        host = comfyui_path()
        for folder in ("custom_nodes", "input", "output", "models", "user"):
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        for source, name in self._packs:
            put_in_place(source, self.base / "custom_nodes" / name)
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [venv_python(), "-c", LAUNCHER, host / "main.py", "--listen", "127.0.0.1", "--port", port]
        command += ["--base-directory", self.base, "--database-url", "sqlite:///:memory:"]
        if "--disable-api-nodes" in (host / "comfy" / "cli_args.py").read_text(encoding="utf-8"):
            command.append("--disable-api-nodes")
        # A session of its own: an interrupt from the keyboard reaches only us, and we stop it in good order.
        own = {"start_new_session": True} if os.name != "nt" else {"creationflags": 0x200}
        with open(self._log, "a") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command + self._arguments],
                cwd=self.base,
                env=closed_environment(self._environment),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                **own,
            )
        end = time.monotonic() + timeout
        while True:
            self._check_alive()
            with contextlib.suppress(requests.RequestException):
                if self._web.get(f"{self.url}/system_stats", timeout=5).ok:
                    return
            if time.monotonic() > end:
                raise ServerError(f"ComfyUI did not answer within {timeout:.0f} s:\n{self._tail()}")
            time.sleep(POLL)

    def stop(self) -> None:
        """Stop the server in good order, as Ctrl+C does; kill it when that takes too long."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT if os.name != "nt" else signal.CTRL_BREAK_EVENT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash or a power cut would; `base` stays as it is."""
        if self.process is None:
            return
        if self.process.poll() is None:
            if os.name == "nt":
                self.process.kill()
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process = None

    def restart(self) -> None:
        """Stop the server if it runs and start it again on the same `base`, on a new port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the server and remove its folder if it was a temporary one."""
        try:
            self.stop()
        finally:
            self.kill()
            if self._temporary:
                shutil.rmtree(self._temporary, ignore_errors=True)

    def get(self, path: str) -> dict | list:
        """The JSON of a GET request, for example get("/extensions")."""
        answer = self._web.get(self.url + path, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, data: dict) -> requests.Response:
        """The answer to a POST request with JSON, whatever its status."""
        return self._web.post(self.url + path, json=data, timeout=60)

    def object_info(self) -> dict:
        """Every node the server knows: id -> its inputs, outputs, category and so on."""
        return self.get("/object_info")

    def upload_image(self, path: Path) -> str:
        """Copy an image, clip or sound into the input folder as the page does, and return its name there."""
        with open(path, "rb") as file:
            files = {"image": (Path(path).name, file)}
            answer = self._web.post(f"{self.url}/upload/image", files=files, timeout=60)
        answer.raise_for_status()
        return "/".join(part for part in (answer.json()["subfolder"], answer.json()["name"]) if part)

    def post_settings(self, settings: dict) -> None:
        """Set settings of the page, for example {"Comfy.VueNodes.Enabled": True}, before it is opened."""
        self.post("/settings", settings).raise_for_status()

    def interrupt(self) -> None:
        """Ask the running node to stop, as the page's Cancel does."""
        self.post("/interrupt", {}).raise_for_status()

    def queue(self, prompt: dict) -> str:
        """Queue a prompt in API form and return its id.

        Raises PromptRefused when any of its nodes has an error, even if others could run.
        """
        data = {"prompt": prompt, "client_id": self.client_id}
        answer = self.post("/prompt", data)
        body = answer.json()
        if not answer.ok or body.get("node_errors"):
            raise PromptRefused(body)
        return body["prompt_id"]

    def wait(self, prompt_id: str, timeout: float = 300) -> dict:
        """Wait for a queued prompt and return its history entry: prompt, outputs, status, meta.

        Raises NodeFailed, Interrupted or, when the server dies or `timeout` seconds pass, ServerError.
        """
        end = time.monotonic() + timeout
        while True:
            self._check_alive()
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return checked(entry)
            if time.monotonic() > end:
                raise ServerError(f"The prompt was not done within {timeout:.0f} s:\n{self._tail()}")
            time.sleep(POLL)

    def run(self, prompt: dict, timeout: float = 300) -> dict:
        """queue() and wait()."""
        return self.wait(self.queue(prompt), timeout)

    def output_files(self, entry: dict) -> list[Path]:
        """The files that a history entry names, in the order of its nodes; previews are none."""
        files = []
        for output in entry["outputs"].values():
            for items in output.values():
                for item in items if isinstance(items, list) else ():
                    if isinstance(item, dict) and "filename" in item and item.get("type") != "temp":
                        place = self.base / item.get("type", "output") / item.get("subfolder", "")
                        files.append(place / item["filename"])
        return files

    def events(self, prompt: dict, timeout: float = 300) -> Iterator[dict]:
        """Run a prompt and yield the server's messages until it has ended, well or not.

        Each is {"type": ..., "data": {...}}; a preview image is {"type": "preview", "data": bytes}, what a node says
        {"type": "text", "data": {"node": its id, "text": ...}}. Raises PromptRefused, and ServerError when nothing
        comes for `timeout` seconds.
        """
        import websocket

        address = self.url.replace("http://", "ws://") + f"/ws?clientId={self.client_id}"
        socket_ = websocket.create_connection(address, timeout=timeout, http_no_proxy=["127.0.0.1"])
        try:
            # Newer servers send previews only to a client that says it can read them.
            flags = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
            socket_.send(json.dumps(flags))
            prompt_id = self.queue(prompt)
            while True:
                try:
                    message = socket_.recv()
                except (websocket.WebSocketException, OSError) as error:
                    raise ServerError(f"No message from the server ({error}):\n{self._tail()}") from error
                if isinstance(message, bytes):
                    yield _spoken(message) or {"type": "preview", "data": message}
                    continue
                event = json.loads(message)
                yield event
                data = event.get("data") or {}
                if data.get("prompt_id") == prompt_id and (
                    event["type"] in ("execution_success", "execution_error", "execution_interrupted")
                ):
                    return
        finally:
            socket_.close()

    def memory(self) -> int:
        """The resident memory of the server and its children, in bytes."""
        import psutil

        server = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in (server, *server.children(recursive=True)))

    def _check_alive(self) -> None:
        if self.process is None or self.process.poll() is not None:
            code = "" if self.process is None else f" with exit status {self.process.returncode}"
            raise ServerError(f"ComfyUI ended{code}:\n{self._tail()}")

    def _tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.splitlines()[-lines:])


def _spoken(message: bytes) -> dict | None:
    """The event of a binary message that holds text, as send_progress_text packs it; None for an image."""
    kind, length = struct.unpack(">II", message[:8])
    if kind != TEXT:
        return None
    return {"type": "text", "data": {"node": message[8 : 8 + length].decode(), "text": message[8 + length :].decode()}}


def checked(entry: dict) -> dict:
    """Return a history entry, or raise what its status tells: NodeFailed or Interrupted."""
    for kind, report in entry["status"]["messages"]:
        if kind == "execution_error":
            raise NodeFailed(report)
        if kind == "execution_interrupted":
            raise Interrupted(f"The run was interrupted in node {report['node_id']} {report['node_type']}.")
    return entry


def put_in_place(source: Path, target: Path) -> None:
    """Link a pack into custom_nodes, or copy it where links are not allowed; keep what is there already."""
    if target.exists():
        return
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__"))


def closed_environment(changes: dict[str, str | None]) -> dict[str, str]:
    """The environment of a server that must not reach the network nor read this user's own packages."""
    nowhere = "http://127.0.0.1:9"  # the discard port: whoever heeds a proxy is refused at once
    environment = dict(os.environ)
    for name in ("PYTHONPATH", "PYTHONHOME"):
        environment.pop(name, None)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        environment[name] = environment[name.upper()] = nowhere
    environment["no_proxy"] = environment["NO_PROXY"] = "127.0.0.1,localhost"
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        environment[name] = "1"
    environment |= {"PIP_NO_INDEX": "1", "PYTHONNOUSERSITE": "1", "PYTHONUNBUFFERED": "1"}
    for name, value in changes.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return environment


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
