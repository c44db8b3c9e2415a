"""A part of a video, read from the whole: nothing of it is written anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np

from ...digest import digest
from ...errors import InputError
from .source import Pixels, Sound, Source, SourceInfo

ROUNDING = Fraction(1, 1000)  # second: of a frame's time in the file
FINEST = 1_000_000  # of a second


class TrimmedSource(Source):
    """The frames of a source that start in a span of time, and the sound from the first of them on."""

    def __init__(self, whole: Source, start: float, seconds: float = 0):
        """start: in seconds from the whole's first frame, below 0 from its end.  seconds: 0 for all that follow.

        Raises InputError where no frame starts in there.
        """
        length = whole.info.duration
        begin, span = (Fraction(value).limit_denominator(FINEST) for value in (start, seconds))
        begin = begin if begin >= 0 else max(begin + length, Fraction(0))
        self._whole, self._given = whole, (begin, span)
        self._begin, self._end = begin - ROUNDING, begin + span - ROUNDING if span else None
        first = next(self._within(begin), None)
        if first is None:
            part = f"{float(span):g} s from {float(begin):g} s on" if span else f"what follows {float(begin):g} s"
            raise InputError(
                f"The video is trimmed to {part}, where no frame of it starts: it is {float(length):.2f} s long. Trim "
                "it to another part."
            )
        self._first = first[0]
        self._last = Fraction(-1), Fraction(0)  # of the whole, then of this

    @property
    def info(self) -> SourceInfo:
        info = self._whole.info
        if not info.variable:
            count = round(self.last_time() * info.frame_rate) + 1
            return replace(info, frames=count, duration=count / info.frame_rate)
        until = info.duration if self._end is None else min(info.duration, self._end + ROUNDING)
        duration = until - self._first
        return replace(info, frames=max(1, round(duration * info.frame_rate)), duration=duration, exact=False)

    def last_time(self) -> Fraction:
        whole = self._whole.last_time()
        if self._end is None or whole < self._end:
            return whole - self._first
        if self._last[0] != whole:
            near = max(self._first, self._end - 2 / self._whole.info.frame_rate)
            self._last = whole, max(time for time, _ in self._within(near)) - self._first
        return self._last[1]

    def timed(self, start: Fraction) -> Iterator[tuple[Fraction, Pixels]]:
        for time, pixels in self._within(self._first + max(start, Fraction(0))):
            yield time - self._first, pixels

    def check(self) -> None:
        self._whole.check()

    def content(self) -> str:
        return digest(self._whole.content(), self._given)

    def sound(self) -> Sound | None:
        sound = self._whole.sound()
        return None if sound is None else replace(sound, blocks=self._cut(sound))

    def _within(self, position: Fraction) -> Iterator[tuple[Fraction, Pixels]]:
        """Frames of the whole that belong to this, by the whole's time, from one at or before `position` on."""
        for time, pixels in self._whole.timed(position):
            if self._end is not None and time >= self._end:
                return
            if time >= self._begin:
                yield time, pixels

    def _cut(self, sound: Sound) -> Iterator[np.ndarray]:
        skip, left = round(self._first * sound.rate), round(self.info.duration * sound.rate)
        for block in sound.blocks:
            part = block[:, skip : skip + left]
            skip, left = max(0, skip - block.shape[1]), left - part.shape[1]
            if part.shape[1]:
                yield part
            if not left:
                return
