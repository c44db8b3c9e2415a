"""From one frame rate to another by time, in exact arithmetic, so that nothing drifts over any length."""

import math
from fractions import Fraction

import numpy as np

COMMON = tuple(
    Fraction(rate)
    for rate in ("24000/1001", 24, 25, "30000/1001", 30, 48, 50, "60000/1001", 60, 12, 15, 16, 10, 20, 8, 100, 120)
)
MAX_DENOMINATOR = 1001
SLOWEST, FASTEST = 12, 120  # frames a second of a video that is written
STILL = 60  # frames a second that one frame may claim, at most
COARSE = (12, 15, 20, 24, 30, 48, 60, 100, 120)  # one of the usual rates is within a tenth of any of these
FITTING = 0.8  # of the steps between frames


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
    if frames < 2 or seconds <= 0:  # of a GIF the header has the clock's 100 a second
        return next((rate for rate in stated if rate <= STILL), Fraction(24))
    usual = sorted(COMMON, key=lambda rate: abs((frames - 1) / rate - seconds))
    for rate in (*(rate for rate in stated if rate in COMMON), *usual, *stated):
        if abs((frames - 1) / rate - seconds) <= 2 * tick:
            return rate
    return Fraction((frames - 1) / seconds).limit_denominator(MAX_DENOMINATOR)


def spacing(stamps: np.ndarray, tick: Fraction, stated: tuple[Fraction | None, ...]) -> tuple[Fraction, bool]:
    """(frames a second, whether frames are unevenly spaced) of a clip: then the rate is the nominal one.

    stamps: when its frames start, at least two, rising, in ticks of `tick` seconds.  stated: see `likely_rate`.
    """
    steps, span = np.diff(stamps), int(stamps[-1] - stamps[0])
    # A clock of whole milliseconds makes steps of 41 and 42: that is rounding.
    average, rounding = span / len(steps), 1.5
    shake = np.abs(steps - average).max()
    rate = likely_rate(len(stamps), span * tick, tick, stated)
    if shake > max(average / 10, rounding) or (shake > rounding and rate not in COMMON):
        return nominal_rate(steps * float(tick), float(tick)), True
    return rate, False


def nominal_rate(steps: np.ndarray, tick: float) -> Fraction:
    """The usual rate that a clip of unevenly spaced frames was made at: most steps are whole frames of it.

    steps: seconds between two frames each.  tick: the step of the file's clock.
    Without such a rate the usual one that is nearest to the average.
    """
    average = 1 / float(steps.mean())
    for rate in COARSE:
        frames = np.maximum(1, np.round(steps * rate))
        fits = np.abs(steps - frames / rate) <= np.maximum(1.5 * tick, frames.clip(max=2) * 0.1 / rate)
        if fits.mean() >= FITTING:
            average = float(frames[fits].sum() / steps[fits].sum())
            break
    return min(COMMON, key=lambda rate: abs(math.log(float(rate) / average)))


def written_rate(rate: Fraction | int, least: Fraction | int = SLOWEST) -> Fraction:
    """The rate to write a video of `rate` at, so that frames made at `least` a second (up to 24) are all in it.

    A rate from there to 120 stays (of 24, 23.976 is near enough). A slower one is multiplied, to a usual rate where
    one is a multiple, and a faster one divided: every frame stays on screen equally long.
    """
    rate, least = Fraction(rate), max(Fraction(least), Fraction(SLOWEST))
    if rate > FASTEST:
        return rate / math.ceil(rate / FASTEST)
    enough = least * Fraction(1000, 1001)
    if rate >= enough:
        return rate
    usual = [one for one in sorted(COMMON) if one >= enough and (one / rate).denominator == 1]
    return usual[0] if usual else rate * math.ceil(enough / rate)


def _first_shown(frame: int, step: Fraction) -> int:
    """The first shown frame k whose middle, (k + 1/2) step, is not before `frame`."""
    return max(0, math.ceil(frame / step - Fraction(1, 2)))
