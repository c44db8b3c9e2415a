"""A talking avatar: which windows are made for a recording, on which frames each ends, and what each hears.

Speech as long as a window or longer takes two passes. The key-frame pass makes one window with the user's prompt and
the first seconds of speech; frames picked from it, spread over the whole length, become the end of one window each.
Every window then goes from the last frames of the one before towards its key frame. Shorter speech is the first pass
alone, cut to length.
Source: talking_avatar_pipeline.py of the official code.
"""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from ...errors import InputError
from ...images.sizes import video_size
from ...recipes import (
    FRAMES_PER_LATENT,
    LATENT_CHANNELS,
    MAX_PEOPLE,
    PIXELS_PER_LATENT,
    RECIPES,
    Job,
    latent_frames,
    tokens,
)
from ...speech.features import AROUND, around_frames, mirrored
from ...speech.recording import FPS, MAX_SECONDS, check_people, too_long
from ..table import seconds, table

KEY_COPIES = 5  # of the key frame at a window's end: its last latent frame and the frame before
SHOWN_QUIETLY = 0.9  # of the portrait; where less of it is shown, the plan says so


@dataclass(frozen=True)
class Timing:
    """Frames of a window, as the checkpoint was distilled.

    window: frames the model makes at once, 4n + 1.  motion: of them, those it is shown of the window before, 4n + 1.
    drop: last frames that are thrown away, because they stand still on the key frame.
    """

    window: int = 81
    motion: int = 5
    drop: int = 12

    @property
    def step(self) -> int:
        """New frames of a window in the middle."""
        return self.window - self.motion - self.drop

    @property
    def latents(self) -> int:
        return latent_frames(self.window)


DEFAULT_TIMING = Timing()


@dataclass(frozen=True)
class WindowPlan:
    """One sampling.

    start, stop: frames of the (continued) speech that it is made for.  key_frame: the frame of the key-frame pass it
    ends on, None for that pass itself.  motion: frames it is shown first, 1 where that is the portrait.
    new_start, new_stop: which of its frames go into the video.
    """

    start: int
    stop: int
    key_frame: int | None
    motion: int
    new_start: int
    new_stop: int

    @property
    def new_frames(self) -> int:
        return self.new_stop - self.new_start

    @property
    def is_key_pass(self) -> bool:
        """Made with the user's prompt; the windows after it are made with the connection prompt."""
        return self.key_frame is None

    @property
    def ends_on(self) -> int:
        """`key_frame` of a window. Raises ValueError for the key-frame pass."""
        if self.key_frame is None:
            raise ValueError("the key-frame pass ends on no key frame")
        return self.key_frame

    @property
    def motion_latents(self) -> int:
        return latent_frames(self.motion)


@dataclass(frozen=True)
class AvatarPlan:
    """What a run will make of a portrait and speech.

    width, height: pixels.  frames: of the video.  people: who speak.  key_pass: made first; it is the video where
    there are no windows.  padded: frames of speech once its reversed tail fills the last window.
    steps_per_window: of the solver.  notes: what an artist should know, one sentence each.  who: names of those who
    speak in each window of a dialogue.
    """

    width: int
    height: int
    frames: int
    timing: Timing
    key_pass: WindowPlan
    windows: tuple[WindowPlan, ...]
    padded: int
    people: int = 1
    steps_per_window: int = RECIPES[Job.AVATAR].steps
    notes: tuple[str, ...] = ()
    who: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Speech shorter than a window: the first pass alone."""
        return not self.windows

    @property
    def shown(self) -> tuple[tuple[int, int], ...]:
        """Of each window, or of the pass that is the whole video, the frames of the video from and to."""
        stops = list(accumulate(window.new_frames for window in self.windows or (self.key_pass,)))
        return tuple(zip([0, *stops], stops))

    @property
    def passes(self) -> tuple[WindowPlan, ...]:
        """Every sampling, in order."""
        return (self.key_pass, *self.windows)

    @property
    def seconds(self) -> float:
        return self.frames / FPS

    @property
    def steps(self) -> int:
        """Solver steps of the whole run."""
        return self.steps_per_window * len(self.passes)

    @property
    def tokens(self) -> int:
        """Transformer tokens of a window: what its memory follows."""
        return tokens(self.timing.latents, self.height, self.width)

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """Of a window's latent, [1, 16, T, h, w]."""
        return (
            1,
            LATENT_CHANNELS,
            self.timing.latents,
            self.height // PIXELS_PER_LATENT,
            self.width // PIXELS_PER_LATENT,
        )

    def speech_indices(self, window: WindowPlan, around: int = AROUND) -> torch.Tensor:
        """Which frames of speech each frame of a window hears, [window frames, around]; all below `frames`."""
        return mirrored(around_frames(window.start, window.stop, self.padded, around), self.frames)

    def describe(self) -> str:
        """The plan as a table to read before it starts."""
        people = "" if self.people == 1 else f", {self.people} people"
        head = (
            f"{self.width} x {self.height} pixels, {self.frames} frames "
            f"({seconds(self.frames, FPS)} s at {FPS} a second){people}, "
            f"{self._counted()} of {self.steps_per_window} steps"
        )
        if self.single:
            return "\n".join([head, *[f"Who speaks: {names}." for names in self.who], *self.notes])
        rows: list[tuple[Any, ...]] = [("window", "from s", "to s", "frames", "ends on key frame")]
        for index, (window, (start, stop)) in enumerate(zip(self.windows, self.shown), start=1):
            rows.append((index, seconds(start, FPS), seconds(stop, FPS), window.new_frames, window.key_frame))
        if self.who:
            rows = [(*row, names) for row, names in zip(rows, ("who speaks", *self.who), strict=True)]
        return "\n".join([head, *table(rows), *self.notes])

    def _counted(self) -> str:
        if self.single:
            return "one window"
        return f"a key-frame pass and {len(self.windows)} window{'s' if len(self.windows) > 1 else ''}"


class Windows(NamedTuple):
    """The runs of the sampler for a length, whatever the size; the fields are those of AvatarPlan."""

    frames: int
    key_pass: WindowPlan
    windows: tuple[WindowPlan, ...]
    padded: int


def plan_windows(frames: int, timing: Timing = DEFAULT_TIMING, limit: int | None = None) -> Windows:
    """The windows for `frames` frames of speech.

    limit: the official code takes no more frames than this, drops the rest, and spreads the key frames over no more.
    Raises InputError for no frames and for a timing that makes no windows.
    """
    check_timing(timing)
    if frames < 1:
        raise InputError("The speech has no frames, but at least one is needed: connect a recording.")
    frames = min(frames, limit or frames)
    key_pass = WindowPlan(0, timing.window, None, 1, 0, min(frames, timing.window))
    if frames < timing.window:
        return Windows(frames, key_pass, (), frames)
    count = math.ceil((frames - timing.window) / timing.step) + 1
    padded = timing.window + (count - 1) * timing.step
    windows = []
    for index, key_frame in enumerate(_key_frames(min(padded, limit or padded), count, timing)):
        start = index * timing.step
        stop = frames - start if index == count - 1 else timing.window - timing.drop
        # The portrait is the video's first frame; motion frames are those that the window before has shown.
        motion, new_start = (timing.motion, timing.motion) if index else (1, 0)
        windows.append(WindowPlan(start, start + timing.window, key_frame, motion, new_start, stop))
    return Windows(frames, key_pass, tuple(windows), padded)


def plan_avatar(
    portrait_size: tuple[int, int],
    frames: int,
    resolution: str | None = None,
    width: int | None = None,
    height: int | None = None,
    people: int = 1,
    timing: Timing = DEFAULT_TIMING,
    steps: int = RECIPES[Job.AVATAR].steps,
    max_seconds: float = MAX_SECONDS,
) -> AvatarPlan:
    """The plan for a portrait of this (width, height) and `frames` frames of speech; pure.

    Size: `video_size` of the portrait's shape.
    Raises InputError for no frames, more than max_seconds of them, more than MAX_PEOPLE, and sizes and timings that
    make no video.
    """
    check_people(people, MAX_PEOPLE)
    if frames > max_seconds * FPS:
        raise InputError(too_long(frames / FPS, max_seconds))
    width, height, notes = video_size(portrait_size, resolution, width, height, Job.AVATAR)
    notes += _crop_notes(portrait_size, width, height)
    frames, key_pass, windows, padded = plan_windows(frames, timing)
    if not windows:
        notes += (
            f"The speech is shorter than a window of {timing.window} frames: one pass makes it all, "
            "with the prompt alone.",
        )
    return AvatarPlan(width, height, frames, timing, key_pass, windows, padded, people, steps, notes)


def _key_frames(length: int, count: int, timing: Timing) -> list[int]:
    """Frames of the key-frame pass that the windows end on: their ends, squeezed from the whole length into one."""
    ends = [timing.window - 1 + index * timing.step for index in range(count - 1)] + [length - 1]
    # Halves to even, as numpy rounds in the official code.
    return [round(end * (timing.window - 1) / (length - 1)) for end in ends]


def _crop_notes(portrait: tuple[int, int], width: int, height: int) -> tuple[str, ...]:
    """A face near an edge is easily lost: say so where much is cut away."""
    ratio = portrait[0] * height / (portrait[1] * width)
    shown = min(ratio, 1 / ratio)
    if shown >= SHOWN_QUIETLY:
        return ()
    sides = "left and right" if ratio > 1 else "top and bottom"
    return (
        f"The portrait of {portrait[0]} x {portrait[1]} fills {width} x {height}: {round(100 * (1 - shown))} % of it "
        f"is cut away at the {sides}.",
    )


def check_timing(timing: Timing) -> None:
    """Raises InputError for a timing that makes no windows."""
    for name, count in (("window", timing.window), ("motion", timing.motion)):
        if count < 1 or count % FRAMES_PER_LATENT != 1:
            raise InputError(
                f"The {name} has {count} frames, but frames come as 4n + 1: the model is made for "
                f"{DEFAULT_TIMING.window} and {DEFAULT_TIMING.motion}."
            )
    if timing.drop < 0 or timing.step < 1 or timing.window < timing.motion + KEY_COPIES:
        raise InputError(
            f"A window of {timing.window} frames with {timing.motion} motion frames and {timing.drop} dropped ones "
            f"leaves no new frames: the model is made for {DEFAULT_TIMING.window}, {DEFAULT_TIMING.motion} and "
            f"{DEFAULT_TIMING.drop}."
        )
