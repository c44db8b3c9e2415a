"""What this process has mapped into its memory. Empty where the system does not tell."""

import ctypes
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MAPS = Path("/proc/self/maps")
Range = tuple[int, int]  # first address, end


def mapped_files() -> dict[str, list[Range]]:
    """Path of a file -> where its pages lie."""
    found: dict[str, list[Range]] = {}
    for addresses, _, name in _maps():
        found.setdefault(name, []).append(addresses)
    return found


def writable_memory() -> list[Range]:
    return [addresses for addresses, rights, _ in _maps() if "w" in rights]


def cached_bytes(path: Path) -> int:
    """How much of a file the system holds in memory, whoever read it and however far ahead. Linux only."""
    with path.open("rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    content = np.frombuffer(pages, np.uint8)
    there = np.zeros(-(-len(content) // mmap.PAGESIZE), np.uint8)
    address, size = ctypes.c_void_p(content.ctypes.data), ctypes.c_size_t(len(content))
    assert ctypes.CDLL(None).mincore(address, size, ctypes.c_void_p(there.ctypes.data)) == 0
    return int((there & 1).sum()) * mmap.PAGESIZE


def bytes_read() -> int:
    """Bytes that this process has read from files so far, mapped ones aside. Linux only."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


def _maps() -> Iterator[tuple[Range, str, str]]:
    """Addresses, rights and name of every range."""
    for line in MAPS.read_text().splitlines() if MAPS.exists() else ():
        addresses, rights, *_, name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        yield (start, end), rights, name
