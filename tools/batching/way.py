"""The way to a ComfyUI that is not on this machine: passwords, headers, proxies, and what stands before it."""

from __future__ import annotations

import base64
import ipaddress
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence

HEADER = "'Name: value'"
AGENT = "SkyReels-V3-batch"  # Cloudflare refuses what urllib calls itself
NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


class WayError(ValueError):
    """An address or a header that is none, in one sentence."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: a POST would arrive as a GET, and a password at a stranger."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return None


class Way:
    """How requests reach a ComfyUI.

    address: with or without http://, a path, `name:password@` before the host, and a query such as ?token=...
    headers: `Name: value` each.  Proxies are those of the environment or the system; machines nearby are asked
    directly.  Raises WayError.
    """

    def __init__(self, address: str, headers: Sequence[str] = ()):
        scheme, _, rest = address.strip().rpartition("://")
        login, at, place = rest.rpartition("@")
        place, _, query = place.partition("?")
        self.address = f"{scheme or 'http'}://{place.rstrip('/')}"
        self._query = f"?{query}" if query else ""
        try:
            parts = urllib.parse.urlsplit(self.address)
            host = parts.hostname if parts.scheme in ("http", "https") and parts.port != 0 else None
        except ValueError:
            host = None
        if not host:
            raise WayError(f"--server is {self.address!r}, but an address is needed, such as http://127.0.0.1:8188.")
        self._headers = {"User-Agent": AGENT}
        if at:
            name, _, password = (urllib.parse.unquote(part) for part in login.partition(":"))
            self._headers["Authorization"] = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
        for header in headers:
            if not re.fullmatch(NAME + r":\s*[ -~]+", header):
                raise WayError(f"--header is {header!r}, but {HEADER} is needed, in ASCII.")
            name, _, value = header.partition(":")
            self._headers[name.capitalize()] = value.strip()  # as urllib writes them: a name counts once
        self._knows = "Authorization" in self._headers
        proxies = {} if _is_near(host) else None
        self.open = urllib.request.build_opener(_Stay, urllib.request.ProxyHandler(proxies)).open

    def request(self, path: str, body: bytes | None = None, kind: str | None = None) -> urllib.request.Request:
        """A request of ComfyUI's `path`; body: of a POST, of the type `kind`."""
        headers = self._headers if kind is None else {**self._headers, "Content-Type": kind}
        query = self._query.replace("?", "&", 1) if "?" in path else self._query
        return urllib.request.Request(self.address + path + query, body, headers)

    def denied(self, error: urllib.error.HTTPError) -> str | None:
        """What to do where an answer says that something before ComfyUI does not let us through, in one sentence."""
        said = f"{error.code} {error.reason}".strip()
        if 300 <= error.code < 400:
            return (
                f"{self.address} sends on to {_place(error.headers.get('Location'))} ({said}): give --server the "
                f"address of ComfyUI itself, and --header {HEADER} where a login is needed."
            )
        if error.code == 401 and self._knows:
            return f"{self.address} does not take this name and password or this token ({said}): correct them."
        if error.code == 401:
            return (
                f"{self.address} asks for a password ({said}): give --server http://name:password@host, or "
                "--header 'Authorization: Bearer ...'."
            )
        if error.code == 403:
            return (
                f"{self.address} forbids it ({said}): a tunnel or a proxy before ComfyUI wants to know who asks; give "
                f"--header {HEADER} with what it needs."
            )
        if error.code == 407:
            return (
                f"The proxy on the way to {self.address} asks for a password ({said}): write it into the variable "
                "https_proxy or http_proxy, as http://name:password@host:port."
            )
        return None


def _is_near(host: str) -> bool:
    """Whether a host is this machine or one of the same network, which no proxy need be asked for."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost"))
    return address.is_private or address.is_link_local


def _place(location: str | None) -> str:
    """Where a redirection leads to, without what may be secret in it."""
    return (location or "another address").partition("?")[0]
