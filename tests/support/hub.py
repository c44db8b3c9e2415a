"""A hub of models on this machine, as far as its readers see one: lists of files, redirects to a second host, ranges.

    with Hub(folder) as hub:          folder/OWNER/NAME/PATH
        hub.url + "/OWNER/NAME"

Hugging Face's and ModelScope's lists and addresses both work, and /plain/PATH gives a file of the folder as it is.
"""

from __future__ import annotations

import json
import os
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

PAGE = 3  # files in a page of a list
BLOCK = 2**16
FILE = re.compile(r"/(?:models/)?(?P<name>[^/]+/[^/]+)/resolve/(?:main|master)/(?P<path>.+)")
LIST = re.compile(r"/api/(?:v1/)?models/(?P<name>[^/]+/[^/]+)/(?:tree/main|repo/files)")


class Hub:
    """ranges: whether parts of files are sent.  token: which alone opens files; empty for everybody.  answer, list:
    what files and lists are answered with instead, (status, headers, text).

    asked: (host, path, headers) of each request; host: "hub" or "cdn".  sent: bytes of files.  listed: names that its
    lists have besides.
    """

    def __init__(self, folder: Path, ranges: bool = True, token: str = ""):
        self.folder, self.ranges, self.token = folder, ranges, token
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.list: tuple[int, dict[str, str], bytes] | None = None
        self.listed: list[str] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.sent = 0
        self._servers = {host: ThreadingHTTPServer(("127.0.0.1", 0), self._handler(host)) for host in ("hub", "cdn")}
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_port}" for server in self._servers.values())

    def __enter__(self) -> Hub:
        for server in self._servers.values():
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        for server in self._servers.values():
            server.shutdown()
            server.server_close()

    def paths(self, host: str) -> list[str]:
        return [path for asked, path, _ in self.asked if asked == host]

    def _handler(self, host: str) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append((host, self.path, dict(self.headers)))
                parts = urlsplit(self.path)
                path = unquote(parts.path)
                if host == "hub" and (found := LIST.fullmatch(path)):
                    self.list(found["name"], parts.path.startswith("/api/v1/"), parse_qs(parts.query))
                elif host == "hub" and (found := FILE.fullmatch(path)):
                    self.gate(f"{found['name']}/{found['path']}")
                elif path.startswith("/plain/"):
                    self.file(hub.folder / path.removeprefix("/plain/"))
                else:
                    self.reply(404)

            def list(self, name: str, is_modelscope: bool, query: dict):
                if hub.list:
                    return self.reply(*hub.list)
                home = hub.folder / name
                if not home.is_dir():
                    return self.reply(404)
                files = sorted(path for path in home.rglob("*") if path.is_file())
                entries = [{"type": "file", "path": path.relative_to(home).as_posix()} for path in files]
                entries += [{"type": "directory", "path": "x"}, *({"type": "file", "path": one} for one in hub.listed)]
                if is_modelscope:
                    table = [{"Type": {"file": "blob"}.get(e["type"], "tree"), "Path": e["path"]} for e in entries]
                    return self.reply(200, {}, json.dumps({"Code": 200, "Data": {"Files": table}}).encode())
                start = int(query.get("cursor", ["0"])[0])
                more = f"{hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + PAGE}"
                link = {"Link": f'<{more}>; rel="next"'} if start + PAGE < len(entries) else {}
                self.reply(200, link, json.dumps(entries[start : start + PAGE]).encode())

            def gate(self, path: str):
                given = self.headers.get("Authorization")
                if hub.answer:
                    self.reply(*hub.answer)
                elif hub.token and given != f"Bearer {hub.token}":
                    self.reply(403 if given else 401)
                elif not os.path.isfile(hub.folder / path):
                    self.reply(404)
                elif path.endswith(".json"):  # as what is not in LFS
                    self.file(hub.folder / path)
                else:
                    self.reply(302, {"Location": f"{hub.cdn}/plain/{quote(path)}?signature=secret"})

            def file(self, path: Path):
                if not os.path.isfile(path):
                    return self.reply(404)
                size = path.stat().st_size
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
                start, end = (int(asked[1]), min(int(asked[2]) + 1, size)) if asked and hub.ranges else (0, size)
                if asked and hub.ranges and start >= size:
                    return self.reply(416, {"Content-Range": f"bytes */{size}"})
                self.send_response(206 if asked and hub.ranges else 200)
                if asked and hub.ranges:
                    self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
                self.send_header("Content-Length", str(end - start))
                self.end_headers()
                with path.open("rb") as file:
                    file.seek(start)
                    while start < end:
                        try:
                            self.wfile.write(block := file.read(min(BLOCK, end - start)))
                        except OSError:  # whoever asked has enough
                            return
                        start += len(block)
                        hub.sent += len(block)

            def reply(self, status: int, headers: dict | None = None, text: bytes = b""):
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format, *args):
                pass

        return Handler
