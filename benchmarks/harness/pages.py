"""What of files is read, and what memory a process asks the system to set aside for it. Linux tells, others do not."""

from __future__ import annotations

import ctypes
import mmap
import threading
from pathlib import Path

import numpy as np


def cached_bytes(path: Path) -> int:
    """How much of a file the system holds in memory, whoever read it and however far ahead."""
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    content = np.frombuffer(pages, np.uint8)
    there = np.zeros(-(-len(content) // mmap.PAGESIZE), np.uint8)
    address, size = ctypes.c_void_p(content.ctypes.data), ctypes.c_size_t(len(content))
    assert ctypes.CDLL(None).mincore(address, size, ctypes.c_void_p(there.ctypes.data)) == 0
    return int((there & 1).sum()) * mmap.PAGESIZE


def bytes_read() -> int:
    """Bytes that this process has read from files so far, mapped ones aside."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


def private_bytes() -> int:
    """What only this process can write to: the system must keep a place for it, in RAM or swap, whatever of it is used.
    This is what RLIMIT_DATA limits."""
    return int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024


class PeakPrivate:
    """The most of `private_bytes`, `peak` above `before`; looked at every 5 ms."""

    def __enter__(self) -> PeakPrivate:
        self.before = self._highest = private_bytes()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_) -> None:
        self._look_once()
        self._done.set()
        self._watch.join()
        self.peak = self._highest - self.before

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self._look_once()

    def _look_once(self) -> None:
        self._highest = max(self._highest, private_bytes())
