"""Which measures there are, which way is better, and which video comes first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .likeness import CLIP, DINO
from .measured import Measured

Groups = Sequence[Sequence[tuple[Measured, float]]]


@dataclass(frozen=True)
class Measure:
    """key: in the JSON.  title: in tables.  what: in words, with the unit.  value: of a video, or None.

    more: whether more is better; None where neither is and it counts for nothing.  digits: shown after the point.
    """

    key: str
    title: str
    what: str
    value: Callable[[Measured], float | None]
    more: bool | None
    digits: int


def _like(kind: str) -> Callable[[Measured], float | None]:
    def value(one: Measured) -> float | None:
        found = one.likeness.get(kind)
        return sum(found) / len(found) if found else None

    return value


def _lag(one: Measured) -> float | None:
    return None if one.lips is None or one.lips.lag is None else float(abs(one.lips.lag))


def _confidence(one: Measured) -> float | None:
    return None if one.lips is None else one.lips.confidence


MEASURES = (
    Measure(
        "cut_faults",
        "cut faults",
        "cuts of the script that are missing, and cuts that nobody asked for",
        lambda one: one.faults,
        False,
        0,
    ),
    Measure("clip", "CLIP-I", "likeness to the references by CLIP, up to 1", _like(CLIP), True, 3),
    Measure("dino", "DINO-I", "likeness to the references by DINO, up to 1", _like(DINO), True, 3),
    Measure(
        "speech",
        "speech",
        "how surely something follows the speech (SyncNet: its confidence, LSE-C)",
        _confidence,
        True,
        2,
    ),
    Measure("lag", "lag", "frames by which the mouth is early or late", _lag, False, 0),
    Measure(
        "seam",
        "seam",
        "worst jump from roll to roll beyond the motion, in steps of 8 bits",
        lambda one: one.seam,
        False,
        1,
    ),
    Measure(
        "drift",
        "drift",
        "farthest walk of a shot's colours, in Lab; 2.3 can just be seen",
        lambda one: one.drift,
        False,
        1,
    ),
    Measure(
        "smoothness",
        "smoothness",
        "share of the change that steady motion explains, up to 1",
        lambda one: one.smoothness,
        True,
        2,
    ),
    Measure("motion", "motion", "mean change from frame to frame, in steps of 8 bits", lambda one: one.motion, None, 1),
)


def ranked(videos: Sequence[Measured]) -> list[tuple[Measured, float]]:
    """The best first, each with its mean place over all measures that count, from 1.

    Faults of cuts decide before all else. In every other measure the videos have places, equal ones the mean of theirs,
    and one without a value where others have one the last; all measures count the same.
    """
    places: list[list[float]] = [[] for _ in videos]
    for measure in MEASURES:
        values = [measure.value(one) for one in videos]
        if measure.more is None or all(value is None for value in values):
            continue
        shown = [_worth(value, measure) for value in values]
        for own, mine in zip(places, shown):
            better, equal = sum(one > mine for one in shown), sum(one == mine for one in shown)
            own.append(better + (equal + 1) / 2)
    means = [sum(own) / len(own) if own else 1.0 for own in places]
    order = sorted(range(len(videos)), key=lambda index: (videos[index].faults or 0, means[index]))
    return [(videos[index], means[index]) for index in order]


def _worth(value: float | None, measure: Measure) -> float:
    """As it is shown, so that what nobody can tell apart has the same place."""
    if value is None:
        return float("-inf")
    return round(value, measure.digits) * (1 if measure.more else -1)


def in_groups(videos: Sequence[Measured]) -> Groups:
    """Videos of one group ranked among themselves, the groups in the order in which they come."""
    names = dict.fromkeys(one.task.group for one in videos)
    return [ranked([one for one in videos if one.task.group == name]) for name in names]


def shown_measures(groups: Groups) -> list[Measure]:
    """Those that at least one video has a value of."""
    return [m for m in MEASURES if any(m.value(one) is not None for group in groups for one, _ in group)]


def is_best(measure: Measure, one: Measured, group: Sequence[Measured]) -> bool:
    """Whether no other video of the group has a better value, and one a worse."""
    worth = [_worth(measure.value(other), measure) for other in group]
    return measure.more is not None and _worth(measure.value(one), measure) == max(worth) != min(worth)


def text_of(measure: Measure, one: Measured) -> str:
    """A value as it is shown; nothing where there is none."""
    value = measure.value(one)
    return "" if value is None or math.isnan(value) else f"{value:.{measure.digits}f}"
