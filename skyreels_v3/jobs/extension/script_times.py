"""Times as scripts have them: 1:02.5 and 3s-8s. Needs no torch."""

import re
from fractions import Fraction

_MOMENT = r"(?:\d{1,2}:){0,2}(?:\d{1,4}(?:[.,]\d{1,6})?|[.,]\d{1,6})"
_UNIT = r"\s*(?:s|sec\.?|secs|seconds?|秒钟?)?"
SPAN = re.compile(
    rf"(?:^|\s)(?P<start>{_MOMENT}){_UNIT}(?:\s*(?P<to>-|~|–|to)\s*(?:(?P<stop>{_MOMENT}){_UNIT})?)?$", re.I
)
SHORTEST = Fraction(1, 24)  # a frame


def moment(written: str) -> Fraction:
    """1:02.5 in seconds."""
    total = Fraction(0)
    for part in written.split(":"):
        total = 60 * total + Fraction(part.replace(",", "."))
    return total


def span_times(span: re.Match | None) -> tuple[Fraction, Fraction | None]:
    """From when to when, of a match of SPAN; None stands for the end. `3s` alone are the first 3 seconds.

    Raises ValueError where the second time is not the later one, by a frame at least.
    """
    if span is None:
        return Fraction(0), None
    first, stop = moment(span["start"]), moment(span["stop"]) if span["stop"] else None
    if not span["to"]:
        first, stop = Fraction(0), first
    if stop is not None and stop - first < SHORTEST:
        raise ValueError("the second time is not the later one")
    return first, stop
