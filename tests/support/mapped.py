"""What this process has mapped into its memory. Empty where the system does not tell."""

from collections.abc import Iterator
from pathlib import Path

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


def _maps() -> Iterator[tuple[Range, str, str]]:
    """Addresses, rights and name of every range."""
    for line in MAPS.read_text().splitlines() if MAPS.exists() else ():
        addresses, rights, *_, name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        yield (start, end), rights, name
