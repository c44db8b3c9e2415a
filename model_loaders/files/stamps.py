"""Whether files are still what they were when they were opened, or the same as on another machine. Needs no torch."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ...skyreels_v3.errors import InputError

ENDS = 1 << 20  # bytes at each end of a file that tell it from others: headers, and the last weights
PLACES, PLACE = 256, 4096  # and so many places between them, of so many bytes: about one in every second large weight


@dataclass(frozen=True)
class FileStamp:
    """A file at a time. inode: which file the path led to.  size: in bytes.  changed: when, in nanoseconds."""

    path: Path
    inode: int
    size: int
    changed: int

    @property
    def key(self) -> tuple[str, int, int]:
        """(name, size, time of change): the same as long as the file is, whatever folder it lies in."""
        return self.path.name, self.size, self.changed

    @property
    def content_key(self) -> tuple[str, int, str | int]:
        """(name, size, 32 hex digits of the content): the same for a copy on another machine.

        Taken from some 3 MB of a large file, once; `key` where it cannot be read any more.
        """
        try:
            return self.path.name, self.size, _content(self)
        except OSError:
            return self.key


def stamp_of(path: Path) -> FileStamp:
    """The file as it is now. Raises OSError where there is none."""
    return _stamp(path, path.stat())


def _stamp(path: Path, stat: os.stat_result) -> FileStamp:
    return FileStamp(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1000)
def _content(stamp: FileStamp) -> str:
    state = hashlib.blake2b(digest_size=16)
    with stamp.path.open("rb") as file:
        if _stamp(stamp.path, os.fstat(file.fileno())) != stamp:
            raise OSError("another file by now")
        if stamp.size <= 2 * ENDS + PLACES * PLACE:
            state.update(file.read())
            return state.hexdigest()
        state.update(file.read(ENDS))
        step = (stamp.size - 2 * ENDS) // PLACES
        for place in range(ENDS, stamp.size - ENDS - PLACE, step):
            file.seek(place)
            state.update(file.read(PLACE))
        file.seek(-ENDS, 2)
        state.update(file.read(ENDS))
    return state.hexdigest()


def check_unchanged(stamps: Iterable[FileStamp]) -> None:
    """Raises InputError where one of these files, which may be mapped, has been written to since.

    Numbers of two models would be mixed, and to read a page that was cut off kills the process. A file that was deleted
    or replaced by another stays on the disk as long as it is mapped, so that is no reason.
    """
    for stamp in stamps:
        if _is_written_to(stamp):
            raise InputError(
                f"{stamp.path.name} has been written to since it was loaded, or its drive is gone: wait until the "
                "file is complete, then queue again, which loads it anew."
            )


def _is_written_to(stamp: FileStamp) -> bool:
    try:
        now = stamp_of(stamp.path)
    except FileNotFoundError:
        return not stamp.path.parent.exists()
    except OSError:
        return True
    return now.inode == stamp.inode and now != stamp
