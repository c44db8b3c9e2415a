"""What the address of a model means: a file of any web server, or a repository of Hugging Face or ModelScope."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

from ...model_loaders.files.folders import GGUF
from ...model_loaders.files.shards import INDEX, SUFFIXES
from ...model_loaders.files.tensor_info import printable
from ...skyreels_v3.errors import InputError
from .web import HUB, Web, origin, shown

# Hosts that people write without https://
KNOWN = ("huggingface.co/", "hf.co/", "hf-mirror.com/", "modelscope.cn/", "www.modelscope.cn/", "civitai.com/")
HUGGING_FACE = re.compile(
    r"/(?P<name>[^/]+/[^/]+)"
    r"(?:/(?:blob|resolve|raw|tree)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?"
)
MODELSCOPE = re.compile(
    r"/models/(?P<name>[^/]+/[^/]+)"
    r"(?:/(?:file/view|resolve|tree)/(?P<revision>[^/]+)(?:/(?P<path>.+))?|/(?:summary|files))?"
)
# Its pages name no file; the addresses of its download buttons do.
CIVITAI = re.compile(r"(?:www\.)?civitai\.[a-z]+/models/.*", re.IGNORECASE)
MODELS = (*SUFFIXES, GGUF)  # ends of names
QUOTED = "/%:@!$&'()*+,;=~?[]"  # signs that stay as they are in an address that people give
MOST_PAGES = 20  # of a listing; Hugging Face's have 1000 files each
LONGEST_LIST = 20_000_000  # bytes of a page of a listing
# Addresses where hubs list the files of a repository.
LISTINGS = {
    HUGGING_FACE: "{root}/api/models/{name}/tree/{revision}?recursive=true",
    MODELSCOPE: "{root}/api/v1/models/{name}/repo/files?Revision={revision}&Recursive=true",
}


@dataclass(frozen=True)
class Place:
    """A file or a folder on the web.

    base: what the addresses of its files begin with.  path: of the file or folder below that, empty for all.  query:
    what addresses end with.  folders: names of the folders around, outermost first.  listing: where the names of all
    files are; empty where nothing says them.
    """

    base: str
    path: str
    folders: tuple[str, ...]
    query: str = ""
    listing: str = ""

    @property
    def is_file(self) -> bool:
        return not self.listing or self.path.lower().endswith((*MODELS, INDEX))

    def url(self, path: str) -> str:
        """The address of a file."""
        return f"{self.base}/{quote(path)}{self.query}"

    def page(self, folder: str) -> str:
        """The address of a folder."""
        return f"{self.base.replace('/resolve/', '/tree/')}/{quote(folder)}"

    def files(self, web: Web) -> list[str]:
        """The paths of all files that are there. Raises InputError."""
        found, page = [], self.listing
        for _ in range(MOST_PAGES):
            if page:
                data, page = web.small(page, f"the list of {'/'.join(self.folders)}", LONGEST_LIST)
                found += _paths(data, shown(self.listing))
        return found


def is_address(given: str) -> bool:
    """Whether it is meant as a web address, not as a path."""
    return given.lower().startswith(("http://", "https://")) or (
        given.lower().startswith(KNOWN) and not os.path.lexists(given)
    )


def place_of(address: str, hub: str) -> Place:
    """What an address means. hub: where Hugging Face's repositories are asked for. Raises InputError for none."""
    parts = _split(address if "://" in address else f"https://{address}")
    if parts is None:
        raise InputError(
            f"{shown(address)} is no address of a model: copy the one of a file or of a repository, such as "
            f"{HUB}/Skywork/SkyReels-V3-R2V-14B."
        )
    if CIVITAI.fullmatch(f"{parts.hostname}{parts.path}"):
        version = "".join(parse_qs(parts.query).get("modelVersionId", ["NUMBER"])[:1])
        raise InputError(
            f"{shown(address)} is a page, not a file: give the address of its download button, which looks like "
            f"https://{parts.hostname}/api/download/models/{printable(version)}."
        )
    root, path = origin(parts.geturl()), quote(parts.path.rstrip("/"), QUOTED)
    if root in (HUB, "https://www.huggingface.co", "https://hf.co"):
        root = hub
    for pattern, main in ((MODELSCOPE, "master"), (HUGGING_FACE, "main")):
        found = pattern.fullmatch(path)
        if found and (found["revision"] or not path.lower().endswith((*MODELS, INDEX))):
            name, revision = found["name"], found["revision"] or main
            base = f"{root}{'/models' if pattern is MODELSCOPE else ''}/{name}/resolve/{revision}"
            listing = LISTINGS[pattern].format(root=root, name=name, revision=revision)
            return Place(base, unquote(found["path"] or ""), tuple(unquote(name).split("/")), listing=listing)
    folder, _, file = path.rpartition("/")
    folders = tuple(unquote(folder).strip("/").split("/"))
    base, query = f"{parts.scheme}://{parts.netloc}{folder}", f"?{quote(parts.query, QUOTED)}" if parts.query else ""
    return Place(base, unquote(file), folders, query)


def _split(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        is_one = parts.hostname and parts.port != 0 and "@" not in parts.netloc and parts.path.strip("/")
    except ValueError:
        return None
    return parts if is_one else None


def _paths(data: bytes, place: str) -> list[str]:
    """The paths of a page of a listing."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    for key in ("Data", "Files"):  # ModelScope's lists lie in these
        found = found.get(key) if isinstance(found, dict) else found
    if not isinstance(found, list):
        raise InputError(f"{place} is no list of files: copy the address from the page of the model.")
    files = [{key.lower(): value for key, value in entry.items()} for entry in found if isinstance(entry, dict)]
    paths = [file.get("path") for file in files if file.get("type") in ("file", "blob")]
    return [path for path in paths if isinstance(path, str)]
