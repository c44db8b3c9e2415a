"""The newest page of ComfyUI, for tests beside the one that the tests' ComfyUI brings.

    with Server(arguments=newest_frontend().arguments) as server, Page(server) as page:
        ...

The page comes from PyPI into the cache folder, checked by the index's own SHA-256. Without a connection the newest one
that is there already is used.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.dev.setup.downloads import SetupError, Wheel, cache_folder, call, contents, is_whole, only_one
from pack.dev.setup.environment import fetch, venv_python

NAME = "comfyui-frontend-package"
PREFIX = "frontend-"  # of its folder in the cache, with the version behind it


@dataclass(frozen=True)
class Frontend:
    """A page of ComfyUI. version: such as "1.58.1".  folder: what main.py's --front-end-root takes."""

    version: str
    folder: Path

    @property
    def arguments(self) -> list[str]:
        """The options of main.py that serve it."""
        return ["--front-end-root", str(self.folder)]


@cache
def newest_frontend() -> Frontend:
    """The newest release of the page. Raises SetupError where there is none, neither on PyPI nor in the cache."""
    with only_one(cache_folder()):
        try:
            wheel = newest_wheel()
            if not is_whole(cache_folder() / wheel.folder):
                fetch(wheel)
        except SetupError:
            there = in_cache()
            if not there:
                raise
            return there[-1]
        for old in in_cache():
            if old.version != wheel.version:
                shutil.rmtree(old.folder, ignore_errors=True)
                contents(old.folder).unlink(missing_ok=True)
        return Frontend(wheel.version, cache_folder() / wheel.folder)


def newest_wheel() -> Wheel:
    """What pip would install now. Raises SetupError."""
    dry = ["install", "--dry-run", "--ignore-installed", "--no-deps", "-q", "--report", "-", NAME]
    needs = "PyPI is needed, or the mirror in pip's configuration: check the connection and run it again."
    answer = call([venv_python(), "-m", "pip", "--no-input", *dry], f"Looking for the newest {NAME}", needs)
    (found,) = json.loads(answer[answer.index("{") :])["install"]
    version = found["metadata"]["version"]
    sha256 = found["download_info"]["archive_info"]["hashes"]["sha256"]
    return Wheel(NAME, version, sha256, PREFIX + version, inside="comfyui_frontend_package/static/")


def in_cache() -> list[Frontend]:
    """The pages that are there, oldest first."""
    folders = [folder for folder in cache_folder().glob(PREFIX + "*") if (folder / "index.html").is_file()]
    pages = [Frontend(folder.name.removeprefix(PREFIX), folder) for folder in folders]
    return sorted(pages, key=lambda page: tuple(int(part) for part in page.version.split(".") if part.isdigit()))


if __name__ == "__main__":
    try:
        print(newest_frontend())
    except SetupError as error:
        sys.exit(str(error))
