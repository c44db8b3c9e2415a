"""A dub: which frames of the footage are made anew, in which windows, and which are copied.

Windows are those of the avatar, but what the model is given are frames of the footage: before what is spoken, and
behind it, where a window ends. So the picture goes over into the footage on both sides. A window in the middle ends on
frames in which the old words are spoken; its last frames are thrown away, as the avatar's are.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from typing import Any

import torch

from ...errors import InputError
from ...recipes import LATENT_CHANNELS, PIXELS_PER_LATENT, RECIPES, Job, latent_frames, tokens
from ...speech.features import AROUND, around_frames
from ...speech.recording import FPS
from ..avatar.plan import DEFAULT_TIMING, KEY_COPIES, Timing, check_timing
from ..table import table
from .clock import Clock

COPIED = 20  # seconds of a piece of footage that is copied: what a stop loses at most
MOST_ROWS = 20  # of the table
AS_IT_IS = "as it is"


@dataclass(frozen=True)
class Shot:
    """What lies between two hard cuts of the footage. first, stop: shown frames.  made, made_stop: made ones."""

    first: int
    stop: int
    made: int
    made_stop: int

    def within(self, made: int) -> int:
        """A made frame, where it lies outside mirrored into the shot."""
        length = self.made_stop - self.made
        place = (made - self.made) % (2 * length)
        return self.made + min(place, 2 * length - 1 - place)


@dataclass(frozen=True)
class DubWindow:
    """One sampling.

    start: the made frame that it begins with, maybe below 0.  motion: frames it is shown first.  fresh: they are the
    footage's, not those of the window before.  given: its frames from this one on are the footage's too.
    new_start, new_stop: which of its frames go into the video.  first, stop: the footage's frames that they are put
    into.  shot: its number among the plan's.
    """

    start: int
    motion: int
    fresh: bool
    given: int
    new_start: int
    new_stop: int
    first: int
    stop: int
    shot: int

    @property
    def new_frames(self) -> int:
        return self.stop - self.first

    @property
    def motion_latents(self) -> int:
        return latent_frames(self.motion)


@dataclass(frozen=True)
class Copied:
    """Frames first to stop of the footage, as they are."""

    first: int
    stop: int

    @property
    def new_frames(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True)
class DubPlan:
    """What a run will make of footage and speech.

    width, height: pixels that the model makes.  frames: of the footage, at clock.rate.  speech: frames of it, of which
    `spoken` fit into the footage.  parts: windows and what is copied, in order.  level: of noise that windows start
    from, with `steps` of the solver from there on.  notes: what an artist should know, one sentence each.
    """

    width: int
    height: int
    frames: int
    clock: Clock
    timing: Timing
    speech: int
    spoken: int
    shots: tuple[Shot, ...]
    parts: tuple[DubWindow | Copied, ...]
    steps: int = RECIPES[Job.AVATAR].steps
    level: float = 1.0
    notes: tuple[str, ...] = ()

    @property
    def windows(self) -> tuple[DubWindow, ...]:
        return tuple(part for part in self.parts if isinstance(part, DubWindow))

    @property
    def tokens(self) -> int:
        """Transformer tokens of a window: what its memory follows."""
        return tokens(self.timing.latents, self.height, self.width)

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """Of a window's latent, [1, 16, T, h, w]."""
        sides = self.height // PIXELS_PER_LATENT, self.width // PIXELS_PER_LATENT
        return 1, LATENT_CHANNELS, self.timing.latents, *sides

    def speech_indices(self, window: DubWindow, around: int = AROUND) -> torch.Tensor:
        """Which frames of speech each frame of a window hears, [window frames, around]; outside, it is mirrored."""
        indices = around_frames(0, self.timing.window, self.timing.window, around) + window.start
        place = indices % (2 * self.speech)
        return torch.minimum(place, 2 * self.speech - 1 - place)

    def made_of(self, window: DubWindow, shown: int) -> int:
        """The made frame of a window that is put into frame `shown` of the footage."""
        first, stop = window.start + window.new_start, window.start + window.new_stop
        return min(max(self.clock.made(shown), first), stop - 1)

    def describe(self) -> str:
        """The plan as a table to read before it starts."""
        rate, windows = self.clock.rate, self.windows
        many = "one window" if len(windows) == 1 else f"{len(windows)} windows"
        level = "" if self.level >= 1 else f" from the footage under {self.level:.2f} of noise"
        spoken = (self.clock.start, self.clock.start + Fraction(self.spoken, FPS))
        head = (
            f"{self.frames} frames at {float(rate):.4g} a second, of which {float(spoken[0]):.2f} to "
            f"{float(spoken[1]):.2f} s are spoken anew, the head at {self.width} x {self.height} pixels, {many} of "
            f"{self.steps} step{'s' if self.steps > 1 else ''}{level}"
        )
        rows: list[tuple[Any, ...]] = [("part", "from s", "to s", "frames", "what")]
        for kind, group in groupby(enumerate(self.parts, start=1), key=lambda one: _what(one[1])):
            these = list(group)
            for many in [these] if kind == AS_IT_IS else [[one] for one in these]:
                (number, first), (last, part) = many[0], many[-1]
                times = (f"{float(frame / rate):.2f}" for frame in (first.first, part.stop))
                numbers = f"{number}" if number == last else f"{number}-{last}"
                rows.append((numbers, *times, part.stop - first.first, kind))
        if len(rows) > MOST_ROWS:
            rows[MOST_ROWS:-1] = [("...",) * len(rows[0])]
        return "\n".join([head, *table(rows), *self.notes])


def reach(clock: Clock, spoken: int, frames: int, timing: Timing = DEFAULT_TIMING) -> tuple[int, int]:
    """Frames first to stop of the footage that windows of `spoken` frames of speech may read."""
    # A window that goes on behind its shot is mirrored there: by less than itself.
    first, stop = clock.shown(-timing.motion - timing.window), clock.shown(spoken + timing.window) + 1
    return min(max(first, 0), frames - 1), max(min(stop, frames), 1)


def spoken_frames(clock: Clock, frames: int, speech: int) -> int:
    """How many of the speech's frames are heard before the footage ends. Raises InputError where none is."""
    spoken = min(speech, clock.made(frames - 1) + 1)
    if spoken < 1:
        raise InputError(
            f"The recording starts at {float(clock.start):g} s, but the footage is {float(frames / clock.rate):.2f} s "
            "long: set start to an earlier time."
        )
    return spoken


def plan_shots(clock: Clock, frames: int, cuts: Sequence[int] = ()) -> tuple[Shot, ...]:
    """The shots of footage of so many frames. cuts: rising first frames of its shots, besides 0."""
    bounds = [0, *cuts, frames]
    return tuple(Shot(*pair, *(clock.first_made(one) for one in pair)) for pair in pairwise(bounds))


def plan_parts(
    clock: Clock,
    shots: Sequence[Shot],
    spoken: int,
    timing: Timing = DEFAULT_TIMING,
    silent: Collection[int] = (),
) -> tuple[DubWindow | Copied, ...]:
    """The parts of footage of these shots, in order; pure.

    silent: numbers of shots that are copied, because who speaks is not in them.
    Raises InputError for a timing that makes no windows.
    """
    check_timing(timing)
    frames = shots[-1].stop
    first, stop = max(0, clock.first_shown(0)), min(frames, clock.first_shown(spoken))
    parts: list[DubWindow | Copied] = []
    done = 0
    for number, shot in enumerate(shots):
        begin, end = max(first, shot.first), min(stop, shot.stop)
        made = max(shot.made, 0), min(shot.made_stop, spoken)
        if number in silent or begin >= end or made[0] >= made[1]:  # the last: it lies between two frames of the model
            continue
        parts += _copied(done, begin, clock)
        windows = _shot_windows(shot, *made, timing)
        ends = [clock.first_shown(start + stop) for start, _, _, _, _, stop in windows[:-1]]
        ends = [min(max(one, begin), end) for one in ends] + [end]
        for window, one in zip(windows, ends):
            if begin < end:  # also one without a frame of its own: the next one goes on from it
                parts.append(DubWindow(*window, begin, max(begin, one), number))
            begin = max(begin, one)
        done = end
    return (*parts, *_copied(done, frames, clock))


def _shot_windows(shot: Shot, first: int, stop: int, timing: Timing) -> list[tuple[int, int, bool, int, int, int]]:
    """The fields of the windows that make frames first to stop of a shot, up to new_stop."""
    before = first - shot.made
    motion = timing.motion if before >= timing.motion else 1
    start = first - motion if before >= motion else first
    # Where the footage goes on behind the speech, the last window ends on just these frames.
    goes_on = stop < shot.made_stop
    behind = KEY_COPIES if goes_on else timing.drop
    last = max(stop + behind - timing.window, start)
    count = math.ceil((last - start) / timing.step) + 1
    starts = [start + round(Fraction(index * (last - start), max(count - 1, 1))) for index in range(count)]
    windows = []
    for index, begin in enumerate(starts):
        end = starts[index + 1] + timing.motion if index + 1 < count else stop
        new = timing.motion if index else first - begin
        given = timing.window - KEY_COPIES
        if index + 1 == count and goes_on:
            given = min(given, stop - begin)
        windows.append((begin, timing.motion if index else motion, not index, given, new, end - begin))
    return windows


def _what(part: DubWindow | Copied) -> str:
    return f"shot {part.shot + 1}" if isinstance(part, DubWindow) else AS_IT_IS


def _copied(first: int, stop: int, clock: Clock) -> list[Copied]:
    length = max(1, round(COPIED * clock.rate))
    return [Copied(begin, min(begin + length, stop)) for begin in range(first, stop, length)]
