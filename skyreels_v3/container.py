"""The memory that a container may use, which the system's own figures do not tell."""

from pathlib import Path
from typing import NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
# Limit and statistics of the two kinds, and the rows of what cannot be given back.
KINDS = (
    ("memory.max", "memory.stat", ("anon", "shmem")),
    ("memory/memory.limit_in_bytes", "memory/memory.stat", ("total_rss", "total_shmem")),
)


class Limit(NamedTuple):
    """Bytes that a container may use, and those of them that it holds and cannot give back."""

    total: int
    held: int


def memory_limit(cgroups: Path = CGROUPS) -> Limit | None:
    """The limit of the container that this process runs in; None where there is none, or none is told."""
    for limit, statistics, rows in KINDS:
        try:
            total = int((cgroups / limit).read_text())  # "max" where there is none
            lines = (line.split() for line in (cgroups / statistics).read_text().splitlines())
            return Limit(total, sum(int(count) for name, count in lines if name in rows))
        except (OSError, ValueError):
            continue
    return None
