"""What this pack is held to, and the table of all of it at the top of README.md.

Every benchmark may have a list AIMS. A value comes from its results, those of the CPU or those of a graphics card;
where there are none, or they lack it, the table says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pack.benchmarks.harness import measure

UNMEASURED = "unmeasured"


@dataclass(frozen=True)
class Aim:
    """what: the line in the table.  value: results -> the measured number; may raise KeyError where it is absent.
    card: of a graphics card's results, else of the CPU's.  least: at least `limit`, else at most.  unit: after numbers.
    of: what a share is of.
    """

    what: str
    limit: float
    value: Callable[[Mapping], float]
    card: bool = False
    least: bool = False
    unit: str = ""
    of: str = ""

    def shown(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.limit:g}{self.unit}"

    def measured(self, results: Mapping | None) -> float | None:
        """The number in these results, None where it was not measured."""
        if results is None:
            return None
        try:
            return self.value(results)
        except (KeyError, TypeError):  # an older file may lack it or hold something else there
            return None

    def met(self, number: float) -> bool:
        return number >= self.limit if self.least else number <= self.limit


def refused(record: Mapping | None) -> Mapping[str, str]:
    """Operations that ran without their kernels on the card, each with its reason."""
    return record["results"].get("refused", {}) if record else {}


def aims_of(name: str) -> list[Aim]:
    return getattr(measure.benchmark(name), "AIMS", [])


def summary(names: Iterable[str], records: Mapping[tuple[str, bool], Mapping], links: Mapping[str, str]) -> str:
    """The table of all aims.

    records: (benchmark, whether of a card) -> what its JSON holds.  links: benchmark -> its heading's anchor.
    """
    rows = []
    for name in names:
        for aim in aims_of(name):
            record = records.get((name, aim.card))
            number = aim.measured(record and record["results"])
            shown = UNMEASURED if number is None else f"**{number:.3g}{aim.unit}**"
            # What references took says nothing of the kernels.
            met = "" if number is None else "yes" if aim.met(number) and not refused(record) else "not yet"
            where = "graphics card" if aim.card else "CPU"
            rows.append([f"[{aim.what}](#{links[name]})", where, aim.shown(), shown, aim.of, met])
    return measure.table(["", "on", "aim", "measured", "of", "met"], rows)


def unmeasured(name: str) -> str:
    """The aims of a benchmark for a graphics card, as long as none has been measured; nothing if it has none."""
    rows = [[aim.what, aim.shown(), UNMEASURED, aim.of] for aim in aims_of(name) if aim.card]
    return measure.table(["on a graphics card", "aim", "measured", "of"], rows) if rows else ""


def anchors(readme: str) -> dict[str, str]:
    """Benchmark -> the anchor of the heading that its section stands under."""
    found, anchor = {}, ""
    for line in readme.splitlines():
        if heading := re.match(r"#+ (.+)", line):
            anchor = re.sub(r"[^\w\- ]", "", heading[1].lower()).replace(" ", "-")
        elif marker := re.match(r"<!-- (\w+): from its JSON -->", line):
            found[marker[1]] = anchor
    return found
