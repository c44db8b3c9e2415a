"""Whether files are still what they were when they were opened. Needs no torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...skyreels_v3.errors import InputError


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


def stamp_of(path: Path) -> FileStamp:
    """The file as it is now. Raises OSError where there is none."""
    stat = path.stat()
    return FileStamp(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


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
