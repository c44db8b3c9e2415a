"""What a batch meets of a ComfyUI, over real HTTP, with rows that take a fixed time: for tests of many servers at once.

What ComfyUI itself does is tested on real ones (tests/server/test_batch.py). This one can be killed, frozen and brought
back in an instant, and its rows cost no processor, so that the figures are those of the batch alone.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TYPE = "Wait"
INFO = {
    TYPE: {
        "input": {
            "required": {
                "seconds": ["FLOAT", {}],
                "note": ["STRING", {}],
                "model": [["a.safetensors", "b.safetensors"]],
                "filename_prefix": ["STRING", {}],
            }
        },
        "display_name": TYPE,
    }
}


def prompt(seconds: float) -> dict:
    """The workflow of a table with a column `note`, in API form."""
    inputs = {"seconds": seconds, "note": "", "model": "a.safetensors", "filename_prefix": "video"}
    return {"1": {"class_type": TYPE, "inputs": inputs}}


class StandIn:
    """A server at `url` whose rows take the seconds that their prompt says. poison: notes that end it, as a crash does.

    fails: notes whose rows fail; None for all.
    begun: the notes of the rows that were started, in order.  cut: how many files more break off in the middle.
    """

    def __init__(
        self, info: dict | None = None, poison: frozenset[str] = frozenset(), fails: frozenset[str] | None = frozenset()
    ):
        self.info, self.poison, self.fails = info or INFO, poison, fails
        self.begun: list[str] = []
        self.cut = 0
        self._frozen = threading.Event()
        self._server: _Server | None = None
        self._port = 0
        self._forget()
        self.start()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_) -> None:
        self.thaw()
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """As after a restart: at the same address, knowing of nothing."""
        self._forget()
        self._server = _Server(("127.0.0.1", self._port), self)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        threading.Thread(target=self._work, args=(self._server,), daemon=True).start()

    def kill(self) -> None:
        """Ends it in the middle of whatever it does."""
        with self._lock:
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut()

    def freeze(self) -> None:
        """It takes connections but answers none, as a machine that hangs does."""
        self._frozen.set()

    def thaw(self) -> None:
        self._frozen.clear()

    @property
    def dead(self) -> bool:
        return self._server is None

    @property
    def waiting(self) -> int:
        return len(self._pending)

    def lose_all(self) -> None:
        """As after a restart that nobody has seen."""
        with self._lock:
            self._stop, self._running = True, None
            self._pending.clear()
            self._history.clear()

    def put(self, name: str, data: bytes) -> None:
        """Lays a file, `folder/name`, into its folder input."""
        self._files[name] = data

    def wait(self) -> bool:
        """Waits while it is frozen; whether it still lives then."""
        server = self._server
        while self._frozen.is_set() and self._server is server:
            time.sleep(0.005)
        return self._server is server and server is not None

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._pending: list[tuple[str, dict]] = []
        self._running: str | None = None
        self._stop = False
        self._history: dict[str, dict] = {}
        self._files: dict[str, bytes] = {}
        self._made = 0

    def _work(self, server: _Server) -> None:
        while self._server is server:
            with self._lock:
                self._running, inputs = self._pending.pop(0) if self._pending else (None, {})
                self._stop = False
            if self._running is None:
                time.sleep(0.002)
                continue
            self.begun.append(inputs["note"])
            began = time.time()
            while time.time() < began + inputs["seconds"] and not self._stop and self._server is server:
                time.sleep(min(0.01, inputs["seconds"]))
            if inputs["note"] in self.poison:
                return self.kill()
            if not self.wait():
                return None
            self._finish(inputs, began)

    def _finish(self, inputs: dict, began: float) -> None:
        with self._lock:
            if self._running is None:  # lost
                return
            self._made += 1
            name = f"{inputs['filename_prefix']}_{self._made:05}_.mp4"
            messages = [("execution_start", {"timestamp": began * 1000})]
            if self._stop:
                messages.append(("execution_interrupted", {"node_id": "1", "timestamp": time.time() * 1000}))
                outputs = {}
            elif self.fails is None or inputs["note"] in self.fails:
                report = {"node_id": "1", "node_type": TYPE, "exception_message": "out of memory"}
                messages.append(("execution_error", {**report, "timestamp": time.time() * 1000}))
                outputs = {}
            else:
                self._files[name] = inputs["note"].encode() * 1000
                messages.append(("execution_success", {"timestamp": time.time() * 1000}))
                folder, _, file = name.rpartition("/")
                outputs = {"1": {"images": [{"filename": file, "subfolder": folder, "type": "output"}]}}
            self._history[str(self._running)] = {"outputs": outputs, "status": {"messages": messages}}
            self._running = None

    def answer(self, path: str, body: bytes) -> dict | bytes | None:
        """To a request; None: there is no such thing."""
        place, _, query = path.partition("?")
        asked = json.loads(body) if body else {}
        with self._lock:
            if place == "/object_info":
                return self.info
            if place == "/queue" and body:
                self._pending = [one for one in self._pending if one[0] not in asked["delete"]]
                return {}
            if place == "/queue":
                running = [] if self._running is None else [[0, self._running]]
                return {"queue_running": running, "queue_pending": [[0, one[0]] for one in self._pending]}
            if place == "/prompt":
                self._pending.append((asked["prompt_id"], next(iter(asked["prompt"].values()))["inputs"]))
                return {"prompt_id": asked["prompt_id"]}
            if place == "/interrupt":
                self._stop |= asked["prompt_id"] == self._running
                return {}
            if place.startswith("/history/"):
                prompt_id = place.rpartition("/")[2]
                return {one: self._history[one] for one in (prompt_id,) if one in self._history}
            given = dict(urllib.parse.parse_qsl(query))
            return self._files.get(f"{given.get('subfolder')}/{given.get('filename')}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], stand_in: StandIn):
        self._open: set[socket.socket] = set()
        super().__init__(address, _handler(stand_in))

    def process_request(self, request, client_address) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address) -> None:
        pass  # connections that were cut


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not stand_in.wait():
                return
            answer = stand_in.answer(self.path, body)
            text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if stand_in.cut and isinstance(answer, bytes):
                stand_in.cut -= 1
                text = text[: len(text) // 2]
            if self.command != "HEAD":
                self.wfile.write(text)

        do_POST = do_HEAD = do_GET

        def log_message(self, format, *args) -> None:
            pass

    return Handler
