"""What a batch says of its rows at the end."""

from __future__ import annotations

from collections.abc import Iterable

from .state import CANCELLED, DONE, FAILED, Task


def clock(seconds: float) -> str:
    """65 -> 1:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def summary(tasks: Iterable[Task], places: bool = False) -> str:
    """The table at the end. places: with the server of each row."""
    lines = [("row", "name", "state", "seconds", "server", "file")]
    count = dict.fromkeys((DONE, FAILED, CANCELLED, "to do"), 0)
    for task in tasks:
        record = task.record
        count[record["state"] if task.ended else "to do"] += 1
        took = "" if record.get("seconds") is None else f"{record['seconds']:.1f}"
        what = ", ".join(record.get("files") or []) or record.get("why", "")
        server = record.get("server", "").partition("://")[2]
        lines.append((str(task.row.number), task.row.name, record["state"], took, server, what))
    if not places:
        lines = [(*line[:4], line[5]) for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines)]
    end = ", ".join(f"{number} {state}" for state, number in count.items() if number)
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([*rows, f"{end}."])
