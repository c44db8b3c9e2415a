"""Videos of any kind one after the other in one file, each with its own sound.

Frames are encoded anew, because the videos come from different places: sizes, rates and codecs differ. Pieces of one
run fit together as they are: see join.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..images.resize import DEFAULT_FIT, fit_frame
from .rates import written_rate
from .sound import LAYOUTS, Resampler
from .sources.source import Sound, Source, frames
from .writer import DEFAULT_CODEC, VideoWriter

STEREO = 2
SMOOTH = 24  # frames a second: no video that moves as smoothly as a film loses frames to a slower first one
OnFrame = Callable[[int, np.ndarray], None]  # number of the video, a frame of it


def concat(
    videos: Sequence[Source],
    out: Path,
    fit: str = DEFAULT_FIT,
    codec: str = DEFAULT_CODEC,
    on_frame: OnFrame | None = None,
) -> int:
    """Write `out`, all of `videos` in order, and return its count of frames.

    Size and frame rate are those of the first video (a side of odd pixels loses one; see `film_rate`); the others are
    brought to them: `fit` as in resize.fit_frame, frames by time. A video without sound is silent; sound takes the
    highest rate of all.
    Streams: memory does not grow with the length.
    on_frame: called for every frame.
    Raises InputError for no videos, what is no video, and a full disk.
    """
    if not videos:
        raise InputError("There is nothing to join: at least one video is needed.")
    first = videos[0].info
    width, height = (max(2, side // 2 * 2) for side in (first.width, first.height))
    lengths: list[int | None] = [None] * len(videos)  # in frames, known when a video is written
    count = 0

    def position(number: int) -> tuple[int, bool]:
        """Frames from the start of a video that are written so far, and whether that is all of it."""
        before = sum(length or 0 for length in lengths[:number])
        length = lengths[number]
        return (count - before, False) if length is None else (length, True)

    rate = film_rate(videos)
    sound = joined_sound(videos, rate, position)
    with VideoWriter(out, width, height, rate, codec, sound) as writer:
        for number, video in enumerate(videos):
            start = count
            for pixels in frames(video, rate):
                pixels = fit_frame(pixels, width, height, fit)
                count += 1  # before the frame is written, because its sound is read then
                writer.write(pixels)
                if on_frame is not None:
                    on_frame(number, pixels)
            lengths[number] = count - start
    return count


def film_rate(videos: Sequence[Source]) -> Fraction:
    """Frames a second of `videos` in one: those of the first, or a multiple where that is a slide show."""
    rates = [video.info.frame_rate for video in videos]
    return written_rate(rates[0], least=min(SMOOTH, max(rates)))


def joined_sound(
    videos: Sequence[Source | None], frame_rate: Fraction, position: Callable[[int], tuple[int, bool]]
) -> Sound | None:
    """The sound of all videos, made as the frames are written; None without any.

    None among the videos is one without sound.  position: of a video, by its place, the frames from its start that are
    written so far, and whether that is all of it: its length need not be known before.
    """
    with_sound = [video.info for video in videos if video is not None and video.info.has_audio]
    if not with_sound:
        return None
    rate = max(info.audio_rate for info in with_sound)
    counts = {info.audio_channels for info in with_sound}
    channels = counts.pop() if len(counts) == 1 and counts <= LAYOUTS.keys() else STEREO

    def blocks() -> Iterator[np.ndarray]:
        frames_before = 0
        for number, video in enumerate(videos):
            begin = round(frames_before / frame_rate * rate)
            given, rest = 0, np.zeros((channels, 0), dtype=np.float32)
            with closing(_resampled(None if video is None else video.sound(), rate, channels)) as samples:
                while True:
                    length, whole = position(number)
                    due = round((frames_before + length) / frame_rate * rate) - begin - given
                    if not due and whole:
                        break
                    if not rest.shape[1]:
                        rest = next(samples, np.zeros((channels, due), dtype=np.float32))
                    block, rest = rest[:, :due], rest[:, due:]
                    given += block.shape[1]
                    yield block
            frames_before += length

    return Sound(rate, channels, blocks())


def _resampled(sound: Sound | None, rate: int, channels: int) -> Generator[np.ndarray]:
    """float32 [channels, n] at `rate`; nothing for no sound."""
    if sound is None:
        return
    blocks = (_in_channels(np.asarray(block, dtype=np.float32), channels) for block in sound.blocks)
    if sound.rate == rate:
        yield from blocks
        return
    resampler = Resampler(channels, sound.rate, rate)
    for block in blocks:
        for frame in resampler.frames(block):
            yield frame.to_ndarray()
    for frame in resampler.rest():
        yield frame.to_ndarray()


def _in_channels(block: np.ndarray, channels: int) -> np.ndarray:
    """The same sound on another count of channels: a mono sound on all, any other as its mean on all."""
    if len(block) == channels:
        return block
    return np.repeat(block.mean(axis=0, keepdims=True), channels, axis=0)
