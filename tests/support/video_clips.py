"""Small videos made on the spot, in the flavours that artists bring. Every frame carries its number as bright bars."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pack.skyreels_v3.video.sources.source import Source, SourceInfo

BITS = 10  # of the number in each frame
WIDTH, HEIGHT = 160, 64
SOUNDS = {".webm": "libopus", ".vob": "ac3"}


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 [height, width, 3]: BITS upright bars, most significant first, side by side."""
    bars = [224 if number >> bit & 1 else 32 for bit in reversed(range(BITS))]
    row = np.asarray(bars, dtype=np.uint8)[np.arange(width) * BITS // width]
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


def number_of(pixels) -> int:
    """The number that a frame carries."""
    pixels = np.asarray(pixels)
    width = pixels.shape[1]
    columns = [(2 * bar + 1) * width // (2 * BITS) for bar in range(BITS)]
    grey = pixels[pixels.shape[0] // 2, columns].mean(axis=-1)
    return int("".join("1" if value > 128 else "0" for value in grey), 2)


def numbers_of(frames) -> list[int]:
    return [number_of(frame) for frame in frames]


def clip(
    path: Path | str,
    frames: int | Sequence[np.ndarray] = 48,
    rate: Fraction | int | str = 24,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    times: Sequence[Fraction] | None = None,
    gop: int = 12,
    sound: tuple[np.ndarray, int] | None = None,
    sound_start: float = 0,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    format: str | None = None,
):
    """A video file. times: of the frames, in seconds.  sound: (float32 [C, N], rate).  tags: of colour."""
    rate = Fraction(rate)
    with av.open(str(path), "w", format=format, options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.gop_size = gop
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 90000)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        heard = None
        if sound is not None:
            waveform, sound_rate = sound
            heard = out.add_stream(SOUNDS.get(Path(path).suffix, "aac"), rate=sound_rate)
            heard.layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(waveform)]
        count = frames if isinstance(frames, int) else len(frames)
        for index in range(count):
            pixels = numbered(index, *size) if isinstance(frames, int) else frames[index]
            kind = {3: "rgb24", 4: "rgba"}[pixels.shape[2]]
            frame = av.VideoFrame.from_ndarray(pixels, format=kind).reformat(format=pix_fmt)
            if times is None:
                frame.pts, frame.time_base = index, 1 / rate
            else:
                frame.pts, frame.time_base = round(times[index] * 90000), Fraction(1, 90000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if heard is not None:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(waveform, dtype=np.float32), format="fltp", layout=heard.layout.name
            )
            frame.sample_rate, frame.pts = sound_rate, round(sound_start * sound_rate)
            frame.time_base = Fraction(1, sound_rate)
            out.mux(heard.encode(frame))
            out.mux(heard.encode(None))
    return path


MATRICES = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0), "mirrored": (-1, 0, 0, 1)}


def turn(path: Path, how: int | str) -> None:
    """Write a rotation flag into an MP4 file, as phones do."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    a, b, c, d = MATRICES[how]
    at = start + (36 if data[start] == 0 else 48) + 4  # version 1 has longer times
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def probe(source: Source) -> SourceInfo:
    """What a video is, without decoding more than its first frame. Raises InputError where it is no video."""
    return source.info
