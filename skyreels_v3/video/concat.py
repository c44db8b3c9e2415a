"""Videos of any kind one after the other in one file, each with its own sound: the cut of a film.

Frames are encoded anew, because a film's parts come from different places: sizes, rates and codecs differ. Pieces that
one job made fit together as they are: see video_join.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..images.resize import DEFAULT_FIT, fit_frame
from .sound import LAYOUTS, Resampler
from .source import Sound, Source, frames
from .writer import DEFAULT_CODEC, VideoWriter

STEREO = 2
Shown = Callable[[int, np.ndarray], None]  # number of the part, a frame of it: called for every frame


def write_film(
    parts: Sequence[Source], out: Path, fit: str = DEFAULT_FIT, codec: str = DEFAULT_CODEC, shown: Shown | None = None
) -> int:
    """Write `out`, all of `parts` in order, and return its count of frames.

    Size and frame rate are those of the first part (a side of odd pixels loses one); the others are brought to them:
    `fit` as in fit.fit_frame, frames by time. A part without sound is silent; sound takes the highest rate among them.
    Streams: memory does not grow with the length.
    Raises InputError for no parts, a part that is no video, and a full disk.
    """
    if not parts:
        raise InputError("There is nothing to join: at least one video is needed.")
    first = parts[0].info
    width, height = (max(2, side // 2 * 2) for side in (first.width, first.height))
    lengths: list[int | None] = [None] * len(parts)  # in frames, known when a part is written
    count = 0

    def position(part: int) -> tuple[int, bool]:
        """Frames from the start of a part that are written so far, and whether that is all of it."""
        before = sum(length or 0 for length in lengths[:part])
        length = lengths[part]
        return (count - before, False) if length is None else (length, True)

    sound = _film_sound(parts, first.frame_rate, position)
    with VideoWriter(out, width, height, first.frame_rate, codec, sound) as writer:
        for number, part in enumerate(parts):
            start = count
            for pixels in frames(part, first.frame_rate):
                pixels = fit_frame(pixels, width, height, fit)
                count += 1  # before the frame is written, because its sound is asked for then
                writer.write(pixels)
                if shown is not None:
                    shown(number, pixels)
            lengths[number] = count - start
    return count


def _film_sound(parts: Sequence[Source], frame_rate: Fraction, position: Callable) -> Sound | None:
    """The sound of all parts, made as the frames are written: no part's length is known before; None without any."""
    heard = [part.info for part in parts if part.info.has_audio]
    if not heard:
        return None
    rate = max(info.audio_rate for info in heard)
    counts = {info.audio_channels for info in heard}
    channels = counts.pop() if len(counts) == 1 and counts <= LAYOUTS.keys() else STEREO

    def blocks() -> Iterator[np.ndarray]:
        frames_before = 0
        for number, part in enumerate(parts):
            begin = round(frames_before / frame_rate * rate)
            given, rest = 0, np.zeros((channels, 0), dtype=np.float32)
            with closing(_resampled(part.sound(), rate, channels)) as samples:
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
