"""One process at a time in the folder of a run.

The lock is the system's own on a file, which also says whose it is (pid and machine). It ends with its process, however
that ends, so that a lock is never stale. The file stays: deleted, it could be locked by one process and made anew by
another.
"""

import errno
import json
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Any

from ..errors import InputError

log = logging.getLogger(__name__)

LOCK = "lock"
# Windows' locks keep others from reading; a byte far behind the text is locked, and the text stays readable.
LOCKED_BYTE = 1 << 30
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class FolderInUse(InputError):
    """Another process has the folder locked, or this one."""


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        """Raises OSError where another has it."""
        os.lseek(handle, LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        """Raises OSError where another has it."""
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_folder(folder: Path) -> int:
    """The handle of a folder's open lock file, locked; closing it ends the lock.

    The folder is made where it is missing.
    Raises FolderInUse where another process, or this one, has it locked, and OSError where it cannot be written.
    """
    in_use = f"The job folder {folder} is in use by {{owner}}: wait until that job is done, or stop it."
    return lock_file(folder / LOCK, in_use)


def lock_file(path: Path, in_use: str) -> int:
    """The handle of an open lock file, locked; closing it ends the lock.

    in_use: the sentence where another has it, with `{owner}` for who that is.
    Raises FolderInUse and OSError as `lock_folder` does.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            _lock_handle(handle, path, in_use)
            # Between open and lock, `prune` may have taken the folder away.
            if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
                os.ftruncate(handle, 0)
                os.lseek(handle, 0, os.SEEK_SET)
                os.write(handle, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock_handle(handle: int, path: Path, in_use: str) -> None:
    try:
        _take(handle)
    except OSError as error:
        owner = _written_in(handle)
        # Drives without locks: all there is to go by is whether the process that wrote its number is still there.
        if error.errno in NO_LOCKS:
            if not _is_alive(owner):
                log.warning("SkyReels-V3: %s is on a drive without locks; run one job at a time in it.", path.parent)
                return
        elif sys.platform != "win32" and error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}" if owner else "another process"
        raise FolderInUse(in_use.replace("{owner}", who)) from error


def _written_in(handle: int) -> dict[str, Any]:
    """Who wrote into a lock file: pid and machine (`host`), where they can be read."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        owner = json.loads(os.read(handle, 1000))
        return owner if isinstance(owner, dict) else {}
    except (OSError, ValueError):
        return {}


def _is_alive(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote a lock runs on this machine, and is another one; not for Windows."""
    pid = owner.get("pid")
    if owner.get("host") != socket.gethostname() or type(pid) is not int or pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)  # on Windows this would end the process; its drives have locks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
