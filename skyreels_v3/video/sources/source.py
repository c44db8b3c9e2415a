"""A video as the jobs read it: what it is, its last frames, all frames at a constant rate, its sound.

Two kinds: a file (file.py) and frames in memory (here). Both show their frames with the time of each;
everything else is picked from those by time, one frame at a time, so that memory does not grow with the video.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...digest import digest
from ...errors import InputError
from ...images.convert import to_rgb8
from ..rates import frames_at

Pixels = Callable[[], np.ndarray]  # converts a frame to uint8 [H, W, 3] when it is needed
Fit = Callable[[np.ndarray], np.ndarray]  # uint8 [H, W, 3] -> uint8 [h, w, 3], for example resize.cover_crop

MAX_RATE_DENOMINATOR = 1001
MAX_CORRECTIONS = 3  # of the end of a damaged file
SLACK = Fraction(1, 10)  # of a frame: how far before the first frame the grid of last_frames may reach


@dataclass(frozen=True)
class SourceInfo:
    """What a video is. Sizes in pixels as displayed, times in seconds from the first frame."""

    width: int
    height: int
    frame_rate: Fraction  # where frames are not evenly spaced, the usual rate that they are nearest to
    frames: int  # their count
    duration: Fraction  # until the end of the last frame
    exact: bool = True  # False where the count of frames is an estimate (large files)
    variable: bool = False  # frames are not evenly spaced
    rotation: int = 0  # clockwise degrees in the file, already applied to width, height and all frames
    has_audio: bool = False
    audio_rate: int = 0  # samples a second, 0 without sound
    audio_channels: int = 0
    hdr: str = ""  # which HDR its frames are stored in; they are given as SDR
    interlaced: bool = False  # frames are stored as two fields; they are given without combs
    transparent: bool = False  # somewhere; frames are laid over white
    cut_off: bool = False  # the file ends before its header says so; what is there is used

    def frames_at(self, rate: Fraction | int) -> int:
        """How many frames `frames(source, rate)` gives, where `exact` is True."""
        return frames_at(self.duration, rate)


@dataclass(frozen=True)
class Sound:
    """Samples on their way to a file. Can be read once."""

    rate: int  # samples a second
    channels: int  # 1 or more
    blocks: Iterable[np.ndarray]  # float32 [channels, samples of any count], -1 to 1

    @classmethod
    def of(cls, waveform: torch.Tensor, rate: int) -> Sound:
        """From ComfyUI's AUDIO: [1, C, N] or [C, N] (the first of a batch counts), in blocks of a second."""
        samples = waveform[0] if waveform.ndim == 3 else waveform
        if samples.ndim != 2 or samples.shape[0] < 1 or rate < 1:
            shape = " x ".join(str(side) for side in waveform.shape)
            raise InputError(f"The sound is {shape} at {rate} Hz, but batch x channels x samples is needed.")
        blocks = (part.detach().to("cpu", torch.float32).numpy() for part in samples.split(int(rate), dim=1))
        return cls(int(rate), int(samples.shape[0]), blocks)


class Source(ABC):
    """A video. Frames come with their time in seconds from the first frame."""

    @property
    @abstractmethod
    def info(self) -> SourceInfo:
        """What it is; found once. Raises InputError where it is no video."""

    @abstractmethod
    def last_time(self) -> Fraction:
        """When the last frame starts, in seconds. Reading up to the end may correct it."""

    @abstractmethod
    def timed(self, start: Fraction) -> Iterator[tuple[Fraction, Pixels]]:
        """(time, pixels) in rising order from a frame at or before `start` to the end."""

    @property
    def plain(self) -> Path | None:
        """The file, where its packets hold the frames just as they are shown; how they are spaced is not looked at."""
        return None

    @abstractmethod
    def check(self) -> None:
        """Raises InputError where a file that it is read from is no longer what it was."""

    @abstractmethod
    def content(self) -> str:
        """32 hex digits that follow from all that it shows and sounds, not from its name."""

    @abstractmethod
    def sound(self) -> Sound | None:
        """All of its sound from the time of the first frame on, gaps filled with silence; None without any."""


class FramesSource(Source):
    """Frames in memory: ComfyUI's IMAGE [F, H, W, C], floating point 0 to 1 or uint8, C as in convert.to_rgb8."""

    def __init__(
        self, images: torch.Tensor, frame_rate: Fraction | float, sound: tuple[torch.Tensor, int] | None = None
    ):
        """frame_rate: frames a second.  sound: (waveform [1, C, N], samples a second).

        Raises InputError for no frames or a rate of 0 or less.
        """
        rate = (
            Fraction(frame_rate).limit_denominator(MAX_RATE_DENOMINATOR) if math.isfinite(frame_rate) else Fraction(0)
        )
        if rate <= 0:
            raise InputError(f"The frame rate is {frame_rate}, but it must be above 0: 24 is usual.")
        to_rgb8(images[:1])  # raises InputError for another shape
        self._images, self._sound = images, sound
        count, height, width = images.shape[:3] if images.ndim == 4 else (1, *images.shape[:2])
        audio: dict[str, Any] = {}
        if sound is not None:
            audio = {"has_audio": True, "audio_rate": sound[1], "audio_channels": sound[0].shape[-2]}
        self._info = SourceInfo(width, height, rate, count, count / rate, **audio)

    @property
    def info(self) -> SourceInfo:
        return self._info

    def last_time(self) -> Fraction:
        return (self._info.frames - 1) / self._info.frame_rate

    def timed(self, start: Fraction) -> Iterator[tuple[Fraction, Pixels]]:
        images = self._images if self._images.ndim == 4 else self._images[None]
        first = min(max(0, math.floor(start * self._info.frame_rate)), self._info.frames - 1)
        for index in range(first, self._info.frames):
            yield index / self._info.frame_rate, lambda image=images[index]: to_rgb8(image)

    def check(self) -> None:
        """Frames in memory stay as they are."""

    def content(self) -> str:
        return digest(self._images, self._info.frame_rate, self._sound)

    def sound(self) -> Sound | None:
        return None if self._sound is None else Sound.of(*self._sound)


def read_at(source: Source, times: Sequence[Fraction | float], fit: Fit | None = None) -> torch.Tensor:
    """uint8 [n, H, W, 3]: for each of the rising `times`, in seconds, the frame that is nearest.

    fit: applied to each frame as it comes (several times share a frame: once).
    Raises InputError where nothing can be decoded.
    """
    wanted = [Fraction(time) for time in times]
    if not wanted:
        raise ValueError("read_at needs at least one time")
    return torch.from_numpy(np.stack(list(_nearest(source, wanted, fit))))


def last_frames(source: Source, count: int, fps: Fraction | int = 24, fit: Fit | None = None) -> torch.Tensor:
    """uint8 [n, H, W, 3]: the last `count` frames on a grid of `fps` that ends with the source's last frame.

    A shorter source gives the fewer that it has, at least one. Only the end of a file is decoded.
    fit: applied to each frame as it comes. Raises InputError where nothing can be decoded.
    """
    taken = torch.empty(0)
    for _ in range(MAX_CORRECTIONS):
        end = source.last_time()
        has = math.floor(end * fps + SLACK) + 1
        count = max(1, min(count, has))
        taken = read_at(source, [max(Fraction(0), end - Fraction(back) / fps) for back in reversed(range(count))], fit)
        if source.last_time() == end:
            break  # otherwise the last packets could not be decoded, and the video ends earlier
    return taken


def frames(source: Source, fps: Fraction | int | None = None, first: int = 0) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3] after uint8 [H, W, 3]: the video at a constant rate, by default its own.

    first: number of the frame to begin with; behind the last one there is none.
    Each takes what is on screen at the middle of its own time. Raises InputError where nothing can be decoded.
    """
    rate = Fraction(fps or source.info.frame_rate)
    shown, before, pixels, made = first, Fraction(0), None, None
    for time, later in source.timed((first + Fraction(1, 2)) / rate if first else Fraction(0)):
        while pixels is not None and (shown + Fraction(1, 2)) / rate < time:
            made = pixels() if made is None else made
            yield made
            shown += 1
        before, pixels, made = time, later, None
    if pixels is None:
        return
    made = pixels()
    tail = max(source.info.duration - source.last_time(), Fraction(0))
    for _ in range(shown, max(frames_at(before + tail, rate), shown, 1)):
        yield made


def _nearest(source: Source, times: list[Fraction], fit: Fit | None) -> Iterator[np.ndarray]:
    """The frame nearest to each of the rising times, the earlier one of two equally near."""
    position, before, pixels = 0, None, None
    for time, later in source.timed(times[0]):
        reach = position
        while before is not None and reach < len(times) and times[reach] <= (before + time) / 2:
            reach += 1
        if reach > position and pixels is not None:
            yield from [_made(pixels, fit)] * (reach - position)
            position = reach
            if position == len(times):
                return
        before, pixels = time, later
    if pixels is None:
        raise InputError("No frame of the video can be decoded at its end: save it again as MP4 (H.264).")
    yield from [_made(pixels, fit)] * (len(times) - position)


def _made(pixels: Pixels, fit: Fit | None) -> np.ndarray:
    return pixels() if fit is None else fit(pixels())
