"""What a run has done so far, on disk: after an interrupt, a crash or kill -9 the next run goes on from there.

Its folder holds data files, `manifest.json` and `lock`. Only the manifest says what is done: a part is written to
it, by renaming a new manifest over the old one, once the part's files are on the disk. Files that no part names are
leftovers of a run that died, and go when the folder is opened next.
"""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Collection, Generator, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from .lock import LOCK, lock_folder

log = logging.getLogger(__name__)

VERSION = 1
KIND = "skyreels-v3-job"
MANIFEST = "manifest.json"
TRASH = ".removed-"  # what a folder is called from the moment it is given up
WINDOWS_DISK_FULL = 112
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class RunFolder:
    """The folder `root / key` of one run, locked for this process until `close` (or the end of `with`).

        with RunFolder(root, key) as folder:
            if not folder.done(part):
                folder.put_tensors(f"{part}.safetensors", {"latents": latents})
                folder.commit(part, [f"{part}.safetensors"], {"frames": 120})

    root: made where it is missing.  key: of the run's inputs, see `digest.digest`; letters, digits, dot, dash and
    underscore.  A folder of another version, or one whose manifest cannot be read, starts anew; a part whose files are
    gone or cut short is not done.
    Raises InputError where the folder cannot be written, is used by another process, or holds something else.
    """

    _lock: int | None = None  # handle of the locked file

    def __init__(self, root: str | os.PathLike, key: str):
        self.folder = Path(root) / _checked(key, "key")
        self.key = key
        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            names = os.listdir(self.folder)
            # The first file of any run; somebody may have deleted it as a leftover.
            if names and LOCK not in names and _manifest(self.folder) is None:
                raise InputError(
                    f"The folder {self.folder} is needed for a job but holds other files: move them elsewhere."
                )
            self._lock = lock_folder(self.folder)
            try:
                self._manifest: dict[str, Any] = self._read()
                self._clean()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes use the folder. What is done stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    __del__ = close  # a run that was given up by an exception must not keep its folder locked

    @property
    def parts(self) -> tuple[str, ...]:
        """Keys of all finished parts, in the order in which they were finished."""
        return tuple(self._manifest["parts"])

    @property
    def finished(self) -> bool:
        """Whether the whole run is finished."""
        return self._manifest["finished"]

    def done(self, part_key: str) -> bool:
        """Whether a part is finished, and its files are whole."""
        return part_key in self._manifest["parts"]

    def info(self, part_key: str) -> dict[str, Any]:
        """What was noted of a finished part. Raises KeyError where it is not done."""
        return self._manifest["parts"][part_key]["info"]

    def age(self, part_key: str) -> float:
        """Seconds since the files of a finished part were written. Raises KeyError where it is not done."""
        written = [self.path(name).stat().st_mtime for name in self._manifest["parts"][part_key]["files"]]
        return time.time() - max(written, default=0.0)

    def path(self, name: str) -> Path:
        """Where the data file `name` is or is to be written. It counts once a part with it is committed."""
        return self.folder / _checked(name, "file name")

    def put_tensors(self, name: str, tensors: Mapping[str, torch.Tensor]) -> Path:
        """Writes tensors (any device, shape and dtype of safetensors) to the data file `name`.

        Raises InputError where the disk is full or cannot be written; nothing is left of the file then.
        """
        from safetensors.torch import save_file

        path = self.path(name)
        self._refuse_finished(name)
        with self.writing(path):
            save_file(_separate(tensors), path)
        return path

    def get_tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of a data file, on the CPU. They are mapped: memory is taken for what is read.

        Raises InputError where the file is missing or broken.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path(name)
        try:
            with safe_open(path, "pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"The file {path} cannot be read ({error}): delete it and queue again, which makes its part anew."
            ) from error

    def commit(self, part_key: str, files: Iterable[str], info: Mapping[str, Any] | None = None) -> None:
        """Notes that a part is finished: `files`, data files already written and closed, are kept from now on.

        info: what JSON can hold.  A part committed again replaces the old one. After this returns, neither kill -9
        nor a power cut loses the part.
        Raises FileNotFoundError for a file that was not written, ValueError for one that belongs to another part, and
        InputError where the disk is full or cannot be written; parts finished before stay finished.
        """
        sizes = {}
        for name in files:
            owner = self._owner(name)
            if owner not in (None, part_key):
                raise ValueError(f"file {name} belongs to part {owner}, not to {part_key}")
            with self.writing(present=True):
                sizes[name] = _flushed(self.path(name))
        parts = {key: part for key, part in self._manifest["parts"].items() if key != part_key}
        parts[part_key] = {"files": sizes, "info": dict(info or {})}
        self._write(parts, finished=False)

    def keep_only(self, part_keys: Iterable[str]) -> None:
        """Drops every part but these and deletes its files: the results of lines that are no longer in a script."""
        keys = set(part_keys)
        if keys.issuperset(self.parts):
            return
        kept = {key: part for key, part in self._manifest["parts"].items() if key in keys}
        self._write(kept, self.finished)
        self._clean()

    def finish(self) -> None:
        """Notes that the whole run is finished: `prune` may remove it one day."""
        self._write(self._manifest["parts"], finished=True)

    @contextlib.contextmanager
    def writing(self, *unfinished: Path, present: bool = False) -> Generator[None]:
        """Turns errors of the disk into one sentence, and removes the `unfinished` files that they left behind.

        For whatever writes into the folder, a video encoder too. present: let FileNotFoundError through.
        Raises InputError.
        """
        try:
            yield
        except Exception as error:
            for path in unfinished:
                with contextlib.suppress(OSError):
                    path.unlink()
            if isinstance(error, InputError) or (present and isinstance(error, FileNotFoundError)):
                raise
            reason = _reason(error)
            if reason is None:
                raise
            raise InputError(f"{reason.format(folder=self.folder)}{self._kept()}") from error

    def _kept(self) -> str:
        done = len(self._manifest["parts"]) if hasattr(self, "_manifest") else 0
        if not done:
            return ""
        return f" {done} finished part{'s are' if done > 1 else ' is'} kept: queue the same prompt again to go on."

    def _owner(self, name: str) -> str | None:
        return next((key for key, part in self._manifest["parts"].items() if name in part["files"]), None)

    def _refuse_finished(self, name: str) -> None:
        # Overwritten and then killed, a finished part would hold another part's data.
        owner = self._owner(name)
        if owner is not None:
            raise ValueError(f"file {name} belongs to the finished part {owner}")

    def _read(self) -> dict[str, Any]:
        """The manifest with the parts that are whole; a new one where there is none, or none of this version."""
        manifest = _manifest(self.folder)
        if manifest is None or manifest["key"] != self.key:
            if (self.folder / MANIFEST).exists():
                log.warning("SkyReels-V3: the notes in %s cannot be used; the job starts anew.", self.folder)
            return {"kind": KIND, "version": VERSION, "key": self.key, "finished": False, "parts": {}}
        for key, part in list(manifest["parts"].items()):
            broken = [name for name, size in part["files"].items() if _size(self.folder / name) != size]
            if broken:
                log.warning(
                    "SkyReels-V3: %s in %s is gone or cut short; its part is made again.", broken[0], self.folder
                )
                del manifest["parts"][key]
                manifest["finished"] = False
        return manifest

    def _write(self, parts: dict[str, Any], finished: bool) -> None:
        manifest = {**self._manifest, "parts": parts, "finished": finished}
        text = json.dumps(manifest, allow_nan=False)
        new = self.folder / f"{MANIFEST}.new"
        with self.writing(new):
            new.write_text(text, encoding="utf-8")
            _flushed(new)
            # Names before the manifest that speaks of them: a power cut may keep either.
            _flush_folder(self.folder)
            _replace(new, self.folder / MANIFEST)
            _flush_folder(self.folder)
        self._manifest = manifest

    def _clean(self) -> None:
        """Deletes the files that no part names. Folders, which this class never makes, are left alone."""
        known = {name for part in self._manifest["parts"].values() for name in part["files"]}
        for path in self.folder.iterdir():
            if path.name in known or path.name in (MANIFEST, LOCK) or (path.is_dir() and not path.is_symlink()):
                continue
            with contextlib.suppress(OSError):  # on Windows, a file that is still mapped: next time
                path.unlink()


def finished_parts(root: str | os.PathLike, key: str) -> tuple[str, ...]:
    """Keys of the finished parts of the run in `root / key`, whoever uses it; none where there is no such run."""
    with contextlib.suppress(OSError):
        manifest = _manifest(Path(root) / key)
        return tuple(manifest["parts"]) if manifest is not None and manifest["key"] == key else ()
    return ()


def prune(
    root: str | os.PathLike, keep: int = 3, days: float = 7.0, keep_names: Collection[str] = ()
) -> tuple[str, ...]:
    """Removes finished runs from `root` that are older than `days` and not among the `keep` newest finished ones.

    Unfinished runs, those in use by any process, `keep_names` and folders of anything else are left alone.
    Returns the keys of the removed ones. Never raises for what cannot be removed.
    """
    root = Path(root)
    finished = []
    with contextlib.suppress(OSError):
        for folder in root.iterdir():
            if folder.name.startswith(TRASH):
                shutil.rmtree(folder, ignore_errors=True)  # removed before, but not to its end
                continue
            with contextlib.suppress(OSError):
                manifest = _manifest(folder)
                if manifest is not None and manifest["finished"]:
                    finished.append(((folder / MANIFEST).stat().st_mtime, folder))
    oldest = time.time() - days * 86400
    finished.sort(key=lambda entry: entry[0], reverse=True)
    old = [folder for changed, folder in finished[keep:] if changed < oldest and folder.name not in keep_names]
    return tuple(folder.name for folder in old if _remove(folder))


def _checked(name: str, what: str) -> str:
    """A name that is one inside a folder on every system."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,149}", name) or name in (MANIFEST, f"{MANIFEST}.new", LOCK):
        raise ValueError(f"{name!r} is no {what}: letters, digits, dot, dash and underscore")
    return name


def _manifest(folder: Path) -> dict[str, Any] | None:
    """A folder's manifest, None where it has none or none that makes sense to this version.

    Raises OSError where it is there but cannot be read now: to start anew would delete what is done.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if (manifest["kind"], manifest["version"]) != (KIND, VERSION) or type(manifest["finished"]) is not bool:
            return None
        for part in manifest["parts"].values():
            if not isinstance(part["info"], dict) or not all(type(size) is int for size in part["files"].values()):
                return None
        return manifest if isinstance(manifest["key"], str) else None
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the CPU and without shared memory, which safetensors refuses; copied only where that is needed."""
    separate, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.nbytes:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        separate[name] = tensor
    return separate


def _reason(error: Exception) -> str | None:
    """An error of the disk in one sentence, or None. The number is in the text where Rust wrote (safetensors)."""
    number = getattr(error, "errno", None)
    found = re.search(r"\(os error (\d+)\)", str(error))
    if found and not isinstance(number, int):
        number = int(found[1])
    elif not isinstance(error, OSError):
        return None
    full = number in FULL or getattr(error, "winerror", None) == WINDOWS_DISK_FULL
    if full or (os.name == "nt" and found and int(found[1]) == WINDOWS_DISK_FULL):
        return "The disk of {folder} is full: free some space."
    return (
        f"The folder {{folder}} cannot be written ({str(error).replace('{', '(').replace('}', ')')}): make it writable."
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _flushed(path: Path) -> int:
    """The size of a file that is on the disk from now on."""
    with path.open("r+b") as file:  # writable, or Windows does not flush
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _flush_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk. Windows does so by itself; some network drives cannot."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _replace(new: Path, old: Path) -> None:
    """os.replace, which Windows refuses for a moment while a virus scanner looks at the file."""
    for wait in (0.05, 0.2, 1.0):
        try:
            return os.replace(new, old)
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(wait)
    return os.replace(new, old)


def _remove(folder: Path) -> bool:
    """Removes the folder of a run that is not in use; it is first renamed, so that none is ever there by half."""
    trash = folder.with_name(f"{TRASH}{folder.name}-{os.getpid()}")
    try:
        handle = lock_folder(folder)
    except (OSError, InputError):
        return False
    try:
        manifest = _manifest(folder)
        if manifest is None or not manifest["finished"]:  # gone on with since it was looked at
            return False
        if os.name == "nt":  # which renames no folder with an open file in it
            os.close(handle)
            handle = None
        os.replace(folder, trash)
    except OSError:
        return False
    finally:
        if handle is not None:
            os.close(handle)
    shutil.rmtree(trash, ignore_errors=True)
    return True
