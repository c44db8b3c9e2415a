"""What a script says of its video: where each of its shots and rolls lies, and where the picture is to cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.avatar.plan import Timing, plan_windows
from ...skyreels_v3.jobs.extension.plan import FPS, continue_rolls, cut_roll
from ...skyreels_v3.jobs.extension.script import CONTINUE, CUT
from ...skyreels_v3.jobs.film.grammar.line import CLIP, SCENE, SPEAK, FilmLine
from ...skyreels_v3.jobs.film.grammar.script import parse_film, read_film

SOURCE, UNPLACED, SHOT = "source", "unplaced", "shot"
GIVEN = (SOURCE, CLIP)  # footage: what it does is nobody's fault
CUTTING = (CUT, SCENE, CLIP)


@dataclass(frozen=True)
class Stretch:
    """Frames from `start` to before `stop`. line: of the script, 0 for none.  part: of its rolls, from 1.

    kind: that of a script's line, or SOURCE before it, UNPLACED for lines whose lengths are not known, SHOT without a
    script; windows of a talking avatar are rolls of a SPEAK.
    """

    kind: str
    line: int
    part: int
    start: int
    stop: int

    @property
    def made(self) -> bool:
        return self.kind not in GIVEN

    @property
    def begins_with_cut(self) -> bool:
        return self.kind in CUTTING and self.part == 1

    @property
    def label(self) -> str:
        of = f"line {self.line}, " if self.line else ""
        return f"{of}{self.kind}" + (f", roll {self.part}" if self.part > 1 else "")


def stretches_of(
    script: str, frames: int, fps: Fraction, official: bool = False, sourced: bool = False
) -> list[Stretch]:
    """In order and without gaps. frames, fps: of the video.  official: frame counts as in the official code.

    sourced: footage is connected; a first line that goes on from something has some in any case.

    Raises InputError for a wrong script, and for one that makes more than the video has.
    """
    lines = parse_film(script)  # whose grammar holds that of Extend Video
    parts: list[tuple[str, int, int, Fraction | None]] = []
    if sourced or lines[0].kind in (CONTINUE, CUT):
        parts.append((SOURCE, 0, 1, None))
    for line in lines:
        parts += [(line.kind, line.number, part, length) for part, length in enumerate(_lengths(line, official), 1)]
    total = frames / fps
    open_ones = [index for index, part in enumerate(parts) if part[3] is None]
    known = sum((part[3] for part in parts if part[3] is not None), Fraction(0))
    rest = total - known
    if rest < -2 / fps or (not open_ones and rest > 2 / fps):
        raise InputError(
            f"The script makes {float(known):.2f} s, but the video has {float(total):.2f} s: it is another script's."
        )
    if open_ones:
        first, last = open_ones[0], open_ones[-1]
        kind, line, part = parts[first][:3] if first == last else (UNPLACED, parts[first][1], 1)
        inside = sum((part[3] for part in parts[first : last + 1] if part[3] is not None), Fraction(0))
        parts[first : last + 1] = [(kind, line, part, rest + inside)]
    placed, end = [], Fraction(0)
    for kind, line, part, length in parts:
        start, end = end, end + (length or 0)
        first, last = round(start * fps), min(round(end * fps), frames)
        if last > first:
            placed.append(Stretch(kind, line, part, first, last))
    return placed


def speaks_in(script: str) -> bool:
    """Whether somebody speaks in a film of this script."""
    return any(line.kind == SPEAK for line in read_film(script)[0])


def windows_of(frames: int, timing: Timing) -> list[Stretch]:
    """The windows of a talking avatar's video, none where there is but one. Raises InputError for a wrong timing."""
    stops = accumulate(window.new_frames for window in plan_windows(frames, timing).windows)
    return [Stretch(SPEAK, 0, part, *pair) for part, pair in enumerate(pairwise([0, *stops]), 1)]


def shots_of(cuts: Sequence[int], frames: int) -> list[Stretch]:
    """The shots of a video without a script, by where it cuts."""
    ends = [0, *cuts, frames]
    return [Stretch(SHOT, 0, 1, start, stop) for start, stop in pairwise(ends)]


def _lengths(line: FilmLine, official: bool) -> list[Fraction | None]:
    """Seconds of each roll of a line."""
    if line.kind == CLIP:
        return [None if line.stop is None else line.stop - line.start]
    if line.seconds is None:
        return [None]
    if line.kind == CONTINUE:
        return [Fraction(roll.new_frames, FPS) for roll in continue_rolls(line.seconds, official)]
    if line.kind == CUT:
        return [Fraction(cut_roll(line.seconds, official).new_frames, FPS)]
    return [Fraction(max(1, round(line.seconds * FPS)), FPS)]
