"""A running ComfyUI as a batch talks to it: over HTTP, with Python's own library."""

from __future__ import annotations

import json
import mimetypes
import re
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, TypeVar

from .way import HEADER, Way

TIMEOUT = 60  # seconds; a busy server answers late
CHUNK = 1 << 20  # bytes of a result that are read at once
Read = TypeVar("Read")
ANNOTATED = re.compile(r"(.*?)\s*\[(input|output|temp)\]")  # as ComfyUI writes which folder a file lies in
RUNNING, PENDING = "queue_running", "queue_pending"


class Away(ConnectionError):
    """The server does not answer."""


class Denied(Away):
    """Something before the server does not let us through; what it needs, in one sentence."""


class Refused(ValueError):
    """The server refused a prompt or a file, in one sentence."""


class ComfyUI:
    """The server at an address such as http://127.0.0.1:8188 or https://name:password@example.com; see `Way`.

    headers: `Name: value` each, sent with every request.  timeout: seconds of silence until it counts as away.
    Raises WayError for an address or a header that is none.
    """

    def __init__(self, address: str, headers: Sequence[str] = (), timeout: float = TIMEOUT):
        self._way = Way(address, headers)
        self._timeout = timeout
        self.address = self._way.address

    def object_info(self) -> dict:
        """Every node the server knows."""
        return self._get("/object_info")

    def upload(self, path: Path) -> str:
        """Copies a file into the input folder, as the page does, and returns its name there.

        One that is there already is not copied again. Raises Refused for a file that is too large.
        """
        border = uuid.uuid4().hex
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        name = path.name.replace('"', "_")
        head = f'--{border}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: {kind}'
        body = f"{head}\r\n\r\n".encode() + path.read_bytes() + f"\r\n--{border}--\r\n".encode()
        try:
            try:
                answer = self._post("/upload/image", body, f"multipart/form-data; boundary={border}")
            except Denied as error:
                self.queued()  # raises Denied if all is, and not this file alone
                raise Refused(str(error)) from error
            except Away as error:
                self.queued()  # raises Away if it is; else it hung up on a file that is larger than it takes
                raise Refused(f"{error}; it is larger than --max-upload-size of ComfyUI") from error
        except Refused as error:
            raise Refused(
                f"{path.name} could not be copied to ComfyUI ({error}); put it into ComfyUI's folder input by hand and "
                "write its name there into the table."
            ) from error
        return "/".join(part for part in (answer.get("subfolder"), answer["name"]) if part)

    def queue(self, prompt: dict, prompt_id: str, workflow: dict | None) -> None:
        """Queues a prompt; results carry `workflow`, so that the page opens it. Raises Refused."""
        data = {"prompt": prompt, "prompt_id": prompt_id}
        if workflow is not None:
            data["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        answer = self._post("/prompt", json.dumps(data).encode(), "application/json")
        if answer.get("node_errors"):  # some outputs are good: the server would run those alone
            self.cancel([prompt_id])
            raise Refused(_why(answer))

    def entry(self, prompt_id: str) -> dict | None:
        """What came of a prompt, as the history has it; None while it is not done or where it is not known."""
        return self._get(f"/history/{prompt_id}").get(prompt_id)

    def queued(self) -> tuple[set[str], set[str]]:
        """The ids of the prompts that run and of those that wait."""
        answer = self._get("/queue")
        return {item[1] for item in answer[RUNNING]}, {item[1] for item in answer[PENDING]}

    def cancel(self, prompt_ids: list[str]) -> None:
        """Takes prompts that wait out of the queue."""
        self._post("/queue", json.dumps({"delete": prompt_ids}).encode(), "application/json")

    def interrupt(self, prompt_id: str) -> None:
        """Stops a prompt if it runs."""
        self._post("/interrupt", json.dumps({"prompt_id": prompt_id}).encode(), "application/json")

    def fetch(self, name: str, into: IO[bytes], given: bool = False) -> None:
        """Writes a file of the output folder, `subfolder/name`, to `into`. given: one that a prompt names, as in `has`.

        Raises Refused where it is gone, and OSError, but no ConnectionError, where it cannot be written here.
        """
        failed: list[OSError] = []

        def read(answer: HTTPResponse) -> None:
            while chunk := answer.read(CHUNK):
                try:
                    into.write(chunk)
                except OSError as error:
                    return failed.append(error)
            if answer.length:  # of what was promised
                raise Away("the connection broke")
            return None

        try:
            self._send(self._way.request(_given(name) if given else _view(name, "output")), read)
        except Refused as error:
            raise Refused(f"{name} could not be fetched from {self.address} ({error}).") from error
        if failed:
            raise failed[0]

    def has(self, name: str) -> bool:
        """Whether a file is in the input folder, or in that of its ending, as in `name [output]`."""
        request = self._way.request(_given(name))
        request.method = "HEAD"
        try:
            self._send(request, lambda answer: None)
        except Refused as error:
            return not str(error).startswith("404")  # others: of a proxy that does not pass such questions
        return True

    def _get(self, path: str) -> dict:
        return self._send(self._way.request(path), self._answer)

    def _post(self, path: str, body: bytes, kind: str) -> dict:
        return self._send(self._way.request(path, body, kind), self._answer)

    def _send(self, request: urllib.request.Request, read: Callable[[HTTPResponse], Read]) -> Read:
        try:
            with self._way.open(request, timeout=self._timeout) as answer:
                return read(answer)
        except urllib.error.HTTPError as error:
            denied = self._way.denied(error)
            if denied is not None:
                raise Denied(denied) from error
            if error.code > 500:  # of a proxy whose ComfyUI is away
                raise Away(f"{error.code} {error.reason}") from error
            try:
                said = json.loads(error.read())
            except (OSError, ValueError, HTTPException):
                said = None
            raise Refused(_why(said) if isinstance(said, dict) else f"{error.code} {error.reason}") from error
        except (OSError, ValueError, HTTPException) as error:
            if isinstance(error, (Away, Refused)):
                raise
            raise Away(str(getattr(error, "reason", error))) from error

    def _answer(self, answer: HTTPResponse) -> dict:
        written = answer.read() or b"{}"
        try:
            said = json.loads(written)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise Denied(
                f"What answers at {self.address} is no ComfyUI but a page, such as one to log in on: give --server the "
                f"address of ComfyUI, and --header {HEADER} with what is needed to pass."
            )
        return said


def outcome(entry: dict, titles: dict[str, str]) -> tuple[str, str]:
    """("done", "" | "cancelled" or "failed", why in one sentence) of a history entry. titles: of nodes, by id."""
    for kind, report in entry.get("status", {}).get("messages", []):
        if kind == "execution_error":
            title = titles.get(str(report["node_id"]), report["node_type"])
            return "failed", f"{title}: {' '.join(report['exception_message'].split())}"
        if kind == "execution_interrupted":
            return "cancelled", "It was stopped in ComfyUI."
    return "done", ""


def seconds(entry: dict) -> float | None:
    """How long a prompt ran, from its history entry."""
    times = [report["timestamp"] for _, report in entry.get("status", {}).get("messages", []) if "timestamp" in report]
    return round((max(times) - min(times)) / 1000, 1) if times else None


def files(entry: dict) -> list[str]:
    """The files in the output folder that a history entry names."""
    found = []
    for output in entry.get("outputs", {}).values():
        for items in output.values():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and "filename" in item and item.get("type", "output") == "output":
                    found.append("/".join(part for part in (item.get("subfolder"), item["filename"]) if part))
    return found


def _view(name: str, kind: str) -> str:
    folder, _, last = name.replace("\\", "/").rpartition("/")
    return "/view?" + urllib.parse.urlencode({"filename": last, "subfolder": folder, "type": kind})


def _given(name: str) -> str:
    found = ANNOTATED.fullmatch(name)
    return _view(found[1], found[2]) if found else _view(name, "input")


def _why(answer: dict) -> str:
    lines = []
    for report in (answer.get("node_errors") or {}).values():
        for error in report["errors"]:
            details = f" ({error['details']})" if error.get("details") else ""
            lines.append(f"{report['class_type']}: {error['message']}{details}")
    error = answer.get("error") or "refused"
    return "; ".join(lines) or (error if isinstance(error, str) else f"{error.get('message')} {error.get('details')}")
