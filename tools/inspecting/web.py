"""Files on the web, read in pieces by HTTP range requests, with Python's own library."""

from __future__ import annotations

import http.client
import io
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from ...model_loaders.files.tensor_info import printable
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.units import gb

if TYPE_CHECKING:
    from typing_extensions import Buffer

    Answer = http.client.HTTPResponse | urllib.error.HTTPError
HUB = "https://huggingface.co"
ENDPOINT, TOKEN = "HF_ENDPOINT", "HF_TOKEN"  # variables of the environment, as huggingface_hub has them
AGENT = "SkyReels-V3-inspect"
TIMEOUT = 30  # seconds without a byte
PATIENCE = 300  # seconds for one answer
NO_SUCH_RANGE = http.client.REQUESTED_RANGE_NOT_SATISFIABLE
PIECE = 2**19  # bytes asked for at once, which hold the header of nearly every model
SMALL_PIECE = 2**16  # where a few bytes among the weights are wanted; most files have all of these side by side
RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
NEXT = re.compile(r'<([^>]+)>; *rel="?next"?')


class Missing(InputError):
    """There is nothing at an address."""


class Web:
    """The way to files on the web; proxies are those of the environment or the system.

    hub: where Hugging Face's repositories are asked for.  received: bytes of answers until now.
    """

    def __init__(self):
        self.hub = (os.environ.get(ENDPOINT) or HUB).rstrip("/")
        self.hubs = {HUB, origin(self.hub)}
        self._token = os.environ.get(TOKEN, "").strip()
        if self._token and not re.fullmatch("[!-~]+", self._token):
            raise InputError(f"{TOKEN} holds signs that no token has: set it to one from {HUB}/settings/tokens.")
        self._open = _opener(_Token(self._token, self.hubs)).open
        self._moved: dict[str, str] = {}  # address -> where its redirects led
        self._away: dict[str, InputError] = {}  # origin -> why nothing comes from there; it is not waited for again
        self.received = 0

    @contextmanager
    def file(self, url: str, name: str) -> Generator[tuple[BinaryIO, int]]:
        """The file, open at its start, and its size in bytes. name: for sentences. Raises InputError where it cannot
        be read in pieces."""
        pieces = _Pieces(self, url, name)
        with io.BufferedReader(pieces) as file:
            yield cast("BinaryIO", file), pieces.size

    def piece(self, url: str, name: str, start: int, length: int) -> tuple[bytes, int]:
        """(so many bytes of a file, fewer at its end; the size of the whole file). Raises InputError."""
        there = self._moved.get(url, url)
        with self._answer(there, {"Range": f"bytes={start}-{start + length - 1}"}) as answer:
            said = RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
            if answer.status == NO_SUCH_RANGE:
                return b"", int(said[2]) if said else 0  # an empty file
            if answer.status == http.client.PARTIAL_CONTENT and said and said[1] and int(said[1]) == start:
                size = int(said[2])
            else:
                size = _size_of_whole(answer, url, name, length if start == 0 else 0)
            data = self._within_time(answer, url, length)
        self._moved[url] = answer.url
        self.received += len(data)
        if len(data) < min(length, size - start):
            raise InputError(f"{_host(url)} broke off while {name} was read: try again.")
        return data, size

    def small(self, url: str, name: str, largest: int) -> tuple[bytes, str]:
        """(a small file, the address of its next page or nothing). Raises InputError, also for one that is larger."""
        with self._answer(url, {}) as answer:
            data = self._within_time(answer, url, largest + 1)
            following = NEXT.search(answer.headers.get("Link", ""))
        self.received += len(data)
        if len(data) > largest:
            raise InputError(f"{name} has more than {largest} bytes, so it is not what it should be: use another file.")
        return data, urllib.parse.urljoin(url, following[1]) if following else ""

    def _within_time(self, answer: Answer, url: str, length: int) -> bytes:
        """So many bytes of an answer, fewer at its end. Raises InputError for a server that sends them one by one."""
        pieces, end = [], time.monotonic() + PATIENCE
        while length and (piece := answer.read1(length)):
            pieces.append(piece)
            length -= len(piece)
            if length and time.monotonic() > end:
                self._away[origin(url)] = InputError(f"{_host(url)} sends too slowly: try again later.")
                raise self._away[origin(url)]
        return b"".join(pieces)

    @contextmanager
    def _answer(self, url: str, headers: dict[str, str]) -> Generator[Answer]:
        if away := self._away.get(origin(url)):
            raise away
        try:
            with self._opened(url, headers) as answer:
                yield answer
        except InputError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                away = InputError(f"{_host(url)} sent nothing for {TIMEOUT} s: try again later.")
                self._away[origin(url)] = away
                raise away from error
            words = " ".join(str(reason).split()) or type(reason).__name__
            raise InputError(
                f"{shown(url)} cannot be read ({printable(words)}): check the address, the connection and, where there "
                "is a proxy, the variables https_proxy and http_proxy."
            ) from error

    def _opened(self, url: str, headers: dict[str, str]) -> Answer:
        request = urllib.request.Request(url, headers={"User-Agent": AGENT, **headers})
        try:
            return self._open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            if error.code == NO_SUCH_RANGE and "Range" in headers:
                return error
            error.close()
            kind = Missing if error.code in (http.client.NOT_FOUND, http.client.GONE) else InputError
            # A redirect that is not followed has the address that it leads to.
            raise kind(self._why(url if error.code < http.client.BAD_REQUEST else error.url, error)) from error

    def _why(self, url: str, error: urllib.error.HTTPError) -> str:
        """Why an address gives nothing, and what to do, in one sentence."""
        said, place, host = " ".join(f"{error.code} {error.reason}".split()), shown(url), _host(url)
        if error.code in (http.client.NOT_FOUND, http.client.GONE):
            return f"There is nothing at {place} ({said}): copy the address from the page of the model."
        if error.code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            if origin(url) not in self.hubs:
                return (
                    f"{host} does not let everybody read {place} ({said}), and {TOKEN} is sent to {_host(self.hub)} "
                    "alone: download the file with your browser and inspect it here."
                )
            if self._token:
                return (
                    f"{host} does not let you read {place} with the token in {TOKEN} ({said}): accept the terms on the "
                    "page of the model, take a token that may read it, or correct the address."
                )
            return (
                f"{host} does not let everybody read {place} ({said}): if the address is right, accept the terms on "
                f"the page of the model and set the variable {TOKEN} to a token of yours, from {HUB}/settings/tokens."
            )
        if error.code == http.client.PROXY_AUTHENTICATION_REQUIRED:
            return (
                f"The proxy on the way to {host} asks for a password ({said}): write it into the variable https_proxy, "
                "as http://name:password@host:port."
            )
        if error.code == http.client.TOO_MANY_REQUESTS or error.code >= http.client.INTERNAL_SERVER_ERROR:
            return f"{host} cannot answer now ({said}): try again in some minutes."
        return f"{host} does not send {place} ({said}): check the address."


class _Pieces(io.RawIOBase):
    """A file that is read where it is asked for; what came last is kept."""

    def __init__(self, web: Web, url: str, name: str):
        self._web, self._url, self._name, self._at, self._start = web, url, name, 0, 0
        self._piece, self.size = web.piece(url, name, 0, PIECE)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, buffer: Buffer) -> int:
        with memoryview(buffer) as view:
            wanted = min(len(view), max(0, self.size - self._at))
            end = self._start + len(self._piece)
            if wanted and not self._start <= self._at < end:
                least = PIECE if self._at == end else SMALL_PIECE
                self._piece, _ = self._web.piece(self._url, self._name, self._at, max(least, wanted + SMALL_PIECE))
                self._start = self._at
            place = self._at - self._start
            found = self._piece[place : place + wanted]
            view[: len(found)] = found
        self._at += len(found)
        return len(found)


class _Token(urllib.request.BaseHandler):
    """Gives every request to a hub its token. urllib hands no header of this kind on to where a redirect leads; the
    request there passes here again."""

    def __init__(self, token: str, hubs: set[str]):
        self._token, self._hubs = token, hubs

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        if self._token and origin(request.full_url) in self._hubs:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return request

    https_request = http_request


def _opener(*more: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
    """Reads from the web alone: neither redirects nor lists lead to files of this machine."""
    opener, own = urllib.request.OpenerDirector(), urllib.request
    usual = own.ProxyHandler, own.UnknownHandler, own.HTTPHandler, own.HTTPSHandler, own.HTTPDefaultErrorHandler
    for handler in (*usual, own.HTTPRedirectHandler, own.HTTPErrorProcessor):
        opener.add_handler(handler())
    for handler in more:
        opener.add_handler(handler)
    return opener


def origin(url: str) -> str:
    """Scheme, host and port of an address."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def shown(url: str) -> str:
    """An address for a sentence, without what may be secret in it."""
    scheme, mark, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return printable(f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}")


def _host(url: str) -> str:
    return printable(urllib.parse.urlsplit(url).netloc)


def _size_of_whole(answer: Answer, url: str, name: str, length: int) -> int:
    """The size of a file that comes as a whole. Raises InputError where it has more bytes than `length`."""
    said = answer.headers.get("Content-Length", "")
    size = int(said) if said.isdigit() else None
    if size is not None and size <= length and answer.status == http.client.OK:
        return size
    if answer.headers.get_content_type() == "text/html":
        raise InputError(f"{shown(url)} is a web page, not a model: copy the address of the file itself.")
    amount = f" ({gb(size)})" if size else ""
    raise InputError(
        f"{_host(url)} sends {name} as a whole only{amount}, not its header alone: download it and inspect the "
        "file, or take it from another place."
    )
