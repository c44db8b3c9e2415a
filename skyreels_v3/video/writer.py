"""Frames into a video file, one at a time. A file appears under its name when it is complete, else not at all.

h264: 4:2:0, BT.709, limited range, quality 16: plays everywhere. lossless: RGB as it is, in H.264's lossless mode:
the pixels come back exactly; Chromium plays it and ComfyUI reads it, phones do not. Both are MP4, into which ComfyUI's
Save Video can copy them without encoding again.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.codec
import av.container
import numpy as np
import torch

from ..errors import InputError
from .sound import SoundTrack
from .sources.pixels import BT601, BT709, EXACT, FULL, LIMITED
from .sources.source import Sound

WHITE = 255
# x264's macroblock tree reads uninitialised memory: without it the same frames give the same file in any process.
X264 = {"crf": "16", "preset": "medium", "mbtree": "0"}
# x264's frames depend on its count of threads: a fixed one gives the same file on any machine.
THREADS = 4
TICKS = 10_000  # a second, at least, of a file's clock: that of the sound is as fine
KEY_FRAMES = 2  # seconds between two: seeking in the result stays quick
CODECS = {
    "h264": (
        ("libx264", "yuv420p", X264),
        ("h264", "yuv420p", {"b": "12M"}),  # where av comes without x264: what the system has
        ("mpeg4", "yuv420p", {"q:v": "2"}),
    ),
    "lossless": (("libx264rgb", "rgb24", {"qp": "0", "preset": "fast"}),),
}
DEFAULT_CODEC = "h264"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class VideoWriter:
    """A context manager that writes one video. The file appears under its name when the block ends without an error.

    path: ends in .mp4.  width, height: in pixels, even.  frame_rate: frames a second.  codec: h264 or lossless.
    audio: sound to write beside the frames, padded with silence or cut to the video's length.
    The same frames give the same file. Memory does not grow with the length.
    Raises InputError for a full disk, a codec that av does not have, and NaN or infinite frames.
    """

    def __init__(
        self,
        path: Path | str,
        width: int,
        height: int,
        frame_rate: Fraction | int,
        codec: str = DEFAULT_CODEC,
        audio: Sound | None = None,
    ):
        if codec not in CODECS:
            raise InputError(f"The codec is {codec!r}, but it must be one of {', '.join(CODECS)}.")
        if width < 2 or height < 2 or width % 2 or height % 2:
            raise InputError(f"The video is {width} x {height}, but H.264 needs even sides of at least 2 pixels.")
        self.path, self.frames = Path(path), 0
        self._size, self._rate = (width, height), Fraction(frame_rate)
        self._codec, self._audio = codec, audio

    def __enter__(self) -> VideoWriter:
        name, self._format, options = _encoder(self._codec)
        self._output = new_file(self.path, self._rate)
        container = self._container = self._output.__enter__()
        try:
            added = container.add_stream(name, rate=self._rate, options=dict(options))
            stream = self._stream = cast("av.VideoStream", added)
            stream.width, stream.height = self._size
            stream.pix_fmt = self._format
            context = stream.codec_context
            context.thread_count = THREADS
            context.gop_size = max(1, round(KEY_FRAMES * self._rate))
            context.time_base = 1 / self._rate
            context.color_primaries = context.color_trc = BT709
            if self._format != "rgb24":
                context.colorspace, context.color_range = BT709, LIMITED
            self._track = None if self._audio is None else SoundTrack(container, self._audio)
        except BaseException as error:
            self._output.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, frames: torch.Tensor | np.ndarray) -> None:
        """Add frames, uint8 or floating point 0 to 1 (what lies outside is clipped), [n, H, W, 3] or [H, W, 3]."""
        if isinstance(frames, np.ndarray) and not frames.flags.writeable:
            frames = frames.copy()  # torch warns of arrays that it could not write to
        frames = torch.as_tensor(frames)
        frames = frames[None] if frames.ndim == 3 else frames
        width, height = self._size
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (height, width, 3):
            shape = " x ".join(str(side) for side in frames.shape)
            raise InputError(f"The frames are {shape}, but n x {height} x {width} x 3 is needed for this video.")
        for pixels in frames:
            frame = _frame(_eight_bit(pixels), self._format)
            frame.pts, frame.time_base = self.frames, 1 / self._rate
            self._container.mux(self._stream.encode(frame))
            self.frames += 1
            if self._track is not None:
                self._track.write_until(self.frames / self._rate)

    def __exit__(self, kind, error, trace) -> bool | None:
        if kind is not None:
            return self._output.__exit__(kind, error, trace)
        try:
            if not self.frames:
                raise InputError(f"{self.path.name} has no frames: at least one is needed.")
            self._container.mux(self._stream.encode(None))
            if self._track is not None:
                self._track.finish(self.frames / self._rate)
        except BaseException as problem:
            if not self._output.__exit__(type(problem), problem, problem.__traceback__):
                raise
            return None
        return self._output.__exit__(None, None, None)


@contextmanager
def new_file(path: Path, frame_rate: Fraction) -> Generator[av.container.OutputContainer]:
    """An MP4 container that becomes `path` when the block ends without an error; else nothing is left of it.

    frame_rate: the file's clock has whole ticks for each frame.
    The index is put in front, so that browsers start playing at once. Raises InputError for a full disk.
    """
    unfinished = path.with_name(f"{path.name}.part")
    try:
        ticks = frame_rate.numerator * math.ceil(TICKS / frame_rate.numerator)
        options = {"movflags": "+faststart", "video_track_timescale": str(ticks)}
        container = av.open(str(unfinished), "w", format="mp4", options=options)
        try:
            yield container
        except BaseException:
            _close_quietly(container)
            raise
        container.close()
        with open(unfinished, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise InputError(
                f"The disk is full: {path.name} could not be written to {path.parent}; make room there and queue the "
                "job again, which goes on with what is finished."
            ) from error
        raise


def _close_quietly(container: av.container.OutputContainer) -> None:
    """Close a file that is thrown away; an error in closing it matters less than the one before."""
    try:
        container.close()
    except (av.FFmpegError, OSError, ValueError):
        pass


def _encoder(codec: str) -> tuple[str, str, dict[str, str]]:
    """(name, pixel format, options) of the first encoder of this kind that av has."""
    for name, pixel_format, options in CODECS[codec]:
        try:
            av.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return name, pixel_format, options
    raise InputError(f"This av has no encoder for {codec} video (libx264rgb): choose h264, or reinstall av from PyPI.")


def _eight_bit(pixels: torch.Tensor) -> np.ndarray:
    """uint8 [H, W, 3], contiguous, of one frame."""
    if pixels.dtype != torch.uint8:
        pixels = pixels.detach().to("cpu", torch.float32)
        if not torch.isfinite(pixels).all():
            raise InputError(
                "A frame holds pixels that are no numbers (NaN or infinity): look at the node that made it, often a "
                "VAE decode in half precision."
            )
        pixels = (pixels.clamp(0, 1) * WHITE).round().to(torch.uint8)
    return np.ascontiguousarray(pixels.cpu().numpy())


def _frame(pixels: np.ndarray, pixel_format: str) -> av.VideoFrame:
    """What the encoder takes: RGB as it is, or 4:2:0 in BT.709 and limited range."""
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    if pixel_format == "rgb24":
        return frame
    full = frame.reformat(
        format="yuv444p",
        interpolation=EXACT,
        src_colorspace=BT601,  # means nothing for RGB, but see Converter
        dst_colorspace=BT709,
        src_color_range=FULL,
        dst_color_range=LIMITED,
    ).to_ndarray()
    height, width = pixels.shape[:2]
    planes = [full[0].reshape(-1), *(_half(plane).reshape(-1) for plane in full[1:])]
    return av.VideoFrame.from_ndarray(np.concatenate(planes).reshape(height * 3 // 2, width), format="yuv420p")


def _half(plane: np.ndarray) -> np.ndarray:
    """Colour at half the size, as H.264 places it: on the left pixel of a pair, between the two rows.

    swscale places it between the columns, which newer av undoes by the rule when reading: colours would walk to the
    side with every generation.
    """
    rows = plane[0::2].astype(np.uint16) + plane[1::2]
    left = np.concatenate([rows[:, :1], rows[:, 1:-1:2]], axis=1)
    return ((left + 2 * rows[:, 0::2] + rows[:, 1::2] + 4) // 8).astype(np.uint8)
