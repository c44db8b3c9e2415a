"""What a script says of its video: where each of its shots and rolls lies, and where the picture is to cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.avatar.plan import DEFAULT_TIMING, Timing, plan_windows
from ...skyreels_v3.jobs.extension.plan import FPS, continue_rolls, cut_roll
from ...skyreels_v3.jobs.extension.script import CONTINUE, CUT
from ...skyreels_v3.jobs.film.grammar.line import CLIP, SCENE, SPEAK, FilmLine
from ...skyreels_v3.jobs.film.grammar.script import parse_film, read_film
from ...skyreels_v3.speech.recording import FPS as SPOKEN_FPS
from ...skyreels_v3.speech.recording import video_frames
from ...skyreels_v3.video.rates import resample_indices
from ...skyreels_v3.video.sources.file import FileSource
from .inputs import input_file
from .lips import read_sound

SOURCE, UNPLACED, SHOT = "source", "unplaced", "shot"
GIVEN = (SOURCE, CLIP)  # footage: what it does is nobody's fault
CUTTING = (CUT, SCENE, CLIP)


@dataclass(frozen=True)
class Stretch:
    """Frames from `start` to before `stop`. line: of the script, 0 for none.  part: of its rolls, from 1.

    kind: that of a script's line, or SOURCE before it, UNPLACED for lines whose lengths are not known, SHOT without a
    script; the windows of a SPEAK are its rolls.
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
    script: str,
    frames: int,
    fps: Fraction,
    official: bool = False,
    footage: str | None = None,
    near: Path | None = None,
) -> list[Stretch]:
    """In order and without gaps. frames, fps: of the video.  official: frame counts as in the official code.

    footage: that is connected, as of Carried; a first line that goes on from something has some in any case.
    near: the video, by which files are found where the script leaves more than one length open.

    Raises InputError for a wrong script, and for one that makes more than the video has.
    """
    lines = parse_film(script)  # whose grammar holds that of Extend Video
    if footage is not None or lines[0].kind in (CONTINUE, CUT):
        lines = (FilmLine(0, CLIP, file=footage or ""), *lines)
    total = frames / fps
    lengths = [_lengths(line, official) for line in lines]
    if near is not None:
        _fill_in(lengths, lines, total, fps, near)
    parts: list[tuple[str, int, int, Fraction | None]] = []
    for line, rolls in zip(lines, lengths):
        kind = line.kind if line.number else SOURCE
        parts += [(kind, line.number, part, length) for part, length in enumerate(rolls, 1)]
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
            stretch = Stretch(kind, line, part, first, last)
            placed += windows_of(stretch, fps) if kind == SPEAK else [stretch]
    return placed


def speaks_in(script: str) -> bool:
    """Whether somebody speaks in a film of this script."""
    return any(line.kind == SPEAK for line in read_film(script)[0])


def windows_of(speaking: Stretch, fps: Fraction, timing: Timing = DEFAULT_TIMING) -> list[Stretch]:
    """Who speaks window by window; itself alone where there is but one. Raises InputError for a wrong timing."""
    frames = speaking.stop - speaking.start
    windows = plan_windows(max(1, round(frames * SPOKEN_FPS / fps)), timing).windows
    made = accumulate(window.new_frames for window in windows[:-1])
    begins = [speaking.start + len(resample_indices(first, SPOKEN_FPS, fps)) for first in made]
    ends = [speaking.start, *(begin for begin in begins if begin < speaking.stop), speaking.stop]
    return [
        replace(speaking, part=part, start=start, stop=stop) for part, (start, stop) in enumerate(pairwise(ends), 1)
    ]


def shots_of(cuts: Sequence[int], frames: int) -> list[Stretch]:
    """The shots of a video without a script, by where it cuts."""
    ends = [0, *cuts, frames]
    return [Stretch(SHOT, 0, 1, start, stop) for start, stop in pairwise(ends)]


def _fill_in(
    lengths: list[list[Fraction | None]], lines: Sequence[FilmLine], total: Fraction, fps: Fraction, near: Path
) -> None:
    """Takes all open lengths but one from the files, where these fit into the video: they may be other ones by now."""
    open_ones = [index for index, rolls in enumerate(lengths) if rolls == [None]]
    if len(open_ones) < 2:
        return
    told = {index: length for index in open_ones if (length := _of_files(lines[index], near))}
    known = sum((length for rolls in lengths for length in rolls if length is not None), Fraction(0))
    rest, few = total - known - sum(told.values()), 2 * len(open_ones) / fps
    if len(told) == len(open_ones):
        if abs(rest) > few:
            return
        told.pop(open_ones[-1])  # it takes what all roundings come to
    elif rest < 1 / fps:
        return
    for index, length in told.items():
        lengths[index] = [length]


def _of_files(line: FilmLine, near: Path) -> Fraction | None:
    """Seconds of footage or of who speaks, by the files; None where one of them is not found."""
    names = [line.file] if line.kind == CLIP else [voice.file or "" for voice in line.voices]
    paths = [input_file(name, near) for name in names]
    try:
        if line.kind == CLIP and paths[0] is not None:
            return FileSource(paths[0]).info.duration - line.start
        spoken = [sum(block.shape[-1] for block in read_sound(path).blocks) for path in paths if path is not None]
    except InputError:
        return None
    if not spoken or len(spoken) < len(paths):
        return None
    samples = max(spoken) if line.options.together else sum(spoken)
    return Fraction(video_frames(samples), SPOKEN_FPS)


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
