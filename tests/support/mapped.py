"""What this process has mapped into its memory."""

from pathlib import Path


def mapped_files() -> dict[str, list[tuple[int, int]]]:
    """Path of a file -> where its pages lie, (first address, end). Empty where the system does not tell."""
    maps = Path("/proc/self/maps")
    found: dict[str, list[tuple[int, int]]] = {}
    for line in maps.read_text().splitlines() if maps.exists() else ():
        addresses, *_, name = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        found.setdefault(name, []).append((start, end))
    return found
