"""The page of one card's results, in Markdown, as an issue shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pack.benchmarks import run
from pack.benchmarks.card.sections import COMPARISONS, IDENTITY, MACHINE, SECTIONS

DRY = "**A dry run without a card: no number here means anything.**"
FAILED = "failed"  # the column of why a row was not measured


def page(found: Mapping[str, Any]) -> str:
    """found: what card.json holds."""
    identity = found["identity"]
    parts = [f"# {identity['card']}", ", ".join(f"{what} {identity[what]}" for what in IDENTITY[1:]) + "."]
    parts += [DRY] if found["dry"] else []
    parts.append(f"Measured on {found['date']} in {found['seconds']:.0f} seconds.")
    for section in (*SECTIONS, MACHINE):
        parts.append(f"## {section.title}")
        parts.append(_section(found["sections"].get(section.name)))
    for comparison in COMPARISONS:
        done = found["sections"].get(comparison.name)
        parts.append(f"## Beside others: {comparison.name}")
        record = (done or {}).get("record")
        parts.append(run.measured_tables(record) if record else _section(done))
    return "\n\n".join(filter(None, parts)) + "\n"


def _section(done: Mapping[str, Any] | None) -> str:
    if done is None:
        return "Not measured: there was no time left. The same command goes on here."
    rows = done.get("rows", [])
    why = [f"Not whole: {done['failed']}."] if done["failed"] else []
    return "\n\n".join([*([_table(rows)] if rows else []), *why])


def _table(rows: list[dict[str, object]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    columns.sort(key=FAILED.__eq__)  # to the end
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name, "")) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
