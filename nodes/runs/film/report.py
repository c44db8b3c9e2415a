"""What a film's run says at its end: the plan, what was made, the takes beside each other, and what to look at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....skyreels_v3.jobs.film.grammar.line import BEST
from ....skyreels_v3.jobs.film.outlook import DONE, KEPT, LOCKED
from ....skyreels_v3.jobs.film.plan import FilmPlan
from ....skyreels_v3.jobs.film.takes import ShotState
from ....skyreels_v3.jobs.table import table

MEASURES = ("likeness", "jump", "colour", "motion")


def report_of(
    plan: FilmPlan,
    now: Sequence[ShotState],
    takes: Mapping[str, Mapping[str, Any]],
    made: int,
    took: float,
    folder: Path,
    notes: Sequence[str],
    frames: int,
    codec: str,
) -> str:
    """plan: as it was before.  now: where the shots stand at the end.  takes: what was noted of each, by its key.

    made: takes of this run.  took: seconds.  frames: of the film.
    """
    said = [*_locked(plan, now), *_unmeasured(plan, now, takes), *notes]
    lines = [
        *plan.describe().split("\n"),
        *_takes(plan, now, takes),
        f"{made} take{'s' if made != 1 else ''} made in {took:.0f} s; all takes are in {folder}.",
        *said,
        f"Film: {frames} frames at {float(plan.rate):.4g} a second, {codec}.",
    ]
    # The page shows text as Markdown: two spaces keep lines apart.
    return "\n".join(line if not line or line.startswith("|") else f"{line}  " for line in lines)


def cards_of(
    plan: FilmPlan, now: Sequence[ShotState], takes: Mapping[str, Mapping[str, Any]], film: Path, root: Path
) -> list[dict[str, Any]]:
    """For the page: what it shows of each shot. film: the video.  root: the output folder."""

    def viewed(name: str) -> dict[str, str]:
        return {"filename": name, "subfolder": film.parent.relative_to(root).as_posix(), "type": "output"}

    cards, start = [], 0
    for shot, state in zip(plan.shots, now, strict=True):
        frames = takes[state.chosen or ""]["frames"]
        cards.append(
            {
                "number": shot.line.number,
                "start": round(float(start / plan.rate), 3),
                "seconds": round(float(frames / plan.rate), 3),
                "state": KEPT if state.kept else LOCKED if shot.line.options.lock else DONE,
                "picture": viewed(f"take-{state.chosen}.jpg"),
                "film": viewed(film.name),
                "takes": [
                    {"take": number, "chosen": key == state.chosen, "measures": takes[key].get("measures", {})}
                    for number, key in sorted(state.keys.items())
                ],
            }
        )
        start += frames
    return cards


def _locked(plan: FilmPlan, now: Sequence[ShotState]) -> list[str]:
    return [
        f"Line {shot.line.number} is locked and was made from other frames than those before it now: a seam may show "
        "there."
        for shot, state in zip(plan.shots, now, strict=True)
        if state.kept
    ]


def _unmeasured(plan: FilmPlan, now: Sequence[ShotState], takes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"Line {shot.line.number} takes the first take as its best: nothing could be measured to choose by; for scenes "
        "and cuts, connect clip_vision."
        for shot, state in zip(plan.shots, now, strict=True)
        if shot.line.options.take == BEST and all(takes[key]["score"] is None for key in state.keys.values())
    ]


def _takes(plan: FilmPlan, now: Sequence[ShotState], takes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The takes of lines with several, beside each other."""
    rows: list[tuple[Any, ...]] = [("line", "take", "shown", *MEASURES)]
    for shot, state in zip(plan.shots, now, strict=True):
        if len(state.keys) < 2:
            continue
        for number, key in sorted(state.keys.items()):
            measures = takes[key].get("measures", {})
            values = [f"{measures[name]:.3g}" if name in measures else "" for name in MEASURES]
            rows.append((shot.line.number, number, "yes" if key == state.chosen else "", *values))
    return table(rows) if len(rows) > 1 else []
