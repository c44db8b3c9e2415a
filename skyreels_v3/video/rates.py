"""From one frame rate to another by time, in exact arithmetic, so that nothing drifts over any length."""

import math
from fractions import Fraction

COMMON = tuple(
    Fraction(rate)
    for rate in ("24000/1001", 24, 25, "30000/1001", 30, 48, 50, "60000/1001", 60, 12, 15, 16, 10, 20, 8, 100, 120)
)
MAX_DENOMINATOR = 1001


def resample_indices(frames: int, from_rate: Fraction | int, to_rate: Fraction | int, start: int = 0) -> list[int]:
    """Which of `frames` new frames at `from_rate` to show at each frame of `to_rate`: rising indices below `frames`.

    Every shown frame takes the one on screen at the middle of its own time. start: how many frames at `from_rate`
    came before these in the same clip. The parts of a clip, each resampled by itself with its start, put one after
    the other are the clip resampled whole, so that rolls can be converted one by one.
    Equal rates give 0, 1, 2, ... A short part may have no frame at a lower rate.
    """
    step = Fraction(from_rate) / Fraction(to_rate)
    first, end = (_first_shown(frame, step) for frame in (start, start + frames))
    return [math.floor((shown + Fraction(1, 2)) * step) - start for shown in range(first, end)]


def frames_at(duration: Fraction, rate: Fraction | int) -> int:
    """How many frames at `rate` stand for `duration` seconds: the nearest count, at least one."""
    return max(1, math.ceil(duration * Fraction(rate) - Fraction(1, 2)))


def likely_rate(frames: int, seconds: Fraction, tick: Fraction, stated: tuple[Fraction | None, ...]) -> Fraction:
    """The frame rate of a clip whose first and last of `frames` frames are `seconds` apart.

    tick: the step of the file's clock in seconds, to which `seconds` is rounded.  stated: rates in the file's header.
    A header's rate, then a usual one, is taken where it explains `seconds`; otherwise the average.
    """
    stated = tuple(Fraction(rate) for rate in stated if rate)
    if frames < 2 or seconds <= 0:
        return stated[0] if stated else Fraction(24)
    usual = sorted(COMMON, key=lambda rate: abs((frames - 1) / rate - seconds))
    for rate in (*(rate for rate in stated if rate in COMMON), *usual, *stated):
        if abs((frames - 1) / rate - seconds) <= 2 * tick:
            return rate
    return Fraction((frames - 1) / seconds).limit_denominator(MAX_DENOMINATOR)


def _first_shown(frame: int, step: Fraction) -> int:
    """The first shown frame k whose middle, (k + 1/2) step, is not before `frame`."""
    return max(0, math.ceil(frame / step - Fraction(1, 2)))
