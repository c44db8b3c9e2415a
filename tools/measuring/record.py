"""What was measured as JSON for programs and as a table for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ...skyreels_v3.jobs.table import table
from .measured import Measured
from .ranking import MEASURES, Groups, shown_measures, text_of


def as_json(groups: Groups, problems: dict[str, str]) -> str:
    """problems: of videos that could not be measured, by their paths."""
    rows = [_record(one, place, mean) for group in groups for place, (one, mean) in enumerate(group, start=1)]
    what = {measure.key: measure.what for measure in MEASURES}
    return json.dumps({"measures": what, "videos": rows, "problems": problems}, indent=1, ensure_ascii=False) + "\n"


def _record(one: Measured, place: int, mean: float) -> dict[str, Any]:
    fps, lips = float(one.watched.fps), one.lips

    def at(numbers: Sequence[int]) -> list[float]:
        return [round(number / fps, 3) for number in numbers]

    rolls = [
        {
            "line": roll.stretch.line,
            "kind": roll.stretch.kind,
            "part": roll.stretch.part,
            "from_s": round(roll.stretch.start / fps, 3),
            "to_s": round(roll.stretch.stop / fps, 3),
            "seam": None if roll.seam is None else {"jump": _r(roll.seam.jump), "colour": _r(roll.seam.colour)},
            "drift": _r(roll.drift),
        }
        for roll in one.rolls
    ]
    speech = lips and {"by": lips.by, "confidence": _r(lips.confidence), "lag": lips.lag, "distance": _r(lips.distance)}
    return {
        "name": one.task.name,
        "file": str(one.task.video),
        "group": one.task.group,
        "place": place,
        "mean_place": _r(mean),
        "seconds": _r(one.watched.seconds),
        "size": [one.watched.width, one.watched.height],
        "fps": _r(fps),
        "values": {measure.key: _r(measure.value(one)) for measure in MEASURES},
        "cuts": {
            "by": one.found_by,
            "found_s": at(one.found),
            "asked_s": at(one.cuts.asked) if one.scripted else None,
            "missed_s": at(one.cuts.missed) if one.scripted else None,
            "unasked_s": at(one.cuts.unasked) if one.scripted else None,
            "precision": _r(one.cuts.precision),
            "recall": _r(one.cuts.recall),
        },
        "rolls": rolls,
        "likeness": {
            kind: {str(path): _r(value) for path, value in zip(one.task.references, values)}
            for kind, values in one.likeness.items()
        },
        "speech": speech,
        "left_out": one.left_out,
        "took_s": _r(one.took),
    }


def as_text(groups: Groups) -> str:
    """The table for the terminal."""
    shown = shown_measures(groups)
    rows: list[tuple[Any, ...]] = [("place", "video", *(measure.title for measure in shown))]
    for group in groups:
        for place, (one, _) in enumerate(group, start=1):
            rows.append((place, one.task.name, *(text_of(measure, one) for measure in shown)))
    return "\n".join(table(rows, text=True))


def _r(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
