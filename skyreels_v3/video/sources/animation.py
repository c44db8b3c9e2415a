"""Animated WebP, of which FFmpeg knows only the still kind, and AVIF with alpha: read through Pillow."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ...errors import InputError
from ...images.convert import WHITE, to_rgb8
from ..rates import COMMON, spacing
from .file import ADVICE, DEFAULT_RATE, FileSource
from .source import Pixels, Sound, SourceInfo

TICK = Fraction(1, 1000)  # second: of a WebP's clock
UNSHOWN, SHOWN = 10, 100  # ticks: browsers show for the second what is to be shown for the first or shorter
SIGNATURE = slice(0, 4), slice(8, 12)  # of the file's first bytes


class Animation(FileSource):
    """A WebP of one picture or many: a path, or its bytes in a BytesIO."""

    format = "WEBP"  # Pillow's name

    @property
    def plain(self) -> Path | None:
        return None

    def sound(self) -> Sound | None:
        return None

    def timed(self, start: Fraction) -> Iterator[tuple[Fraction, Pixels]]:
        _ = self.info
        first = max(0, bisect_right(self._times, start) - 1)
        for time, (pixels, _) in zip(self._times[first:], self._pictures(first), strict=True):
            yield time, lambda pixels=pixels: to_rgb8(pixels)

    def _probe(self) -> SourceInfo:
        shape, lengths, transparent = (0, 0), [], False
        for pixels, length in self._pictures(0):
            shape = pixels.shape
            transparent = transparent or (shape[2] == 4 and bool((pixels[..., 3] < WHITE).any()))
            lengths.append(length if length > UNSHOWN else SHOWN)
        rate = min((rate for rate in COMMON if rate.denominator == 1), key=lambda rate: _strayed(lengths, rate))
        variable = False
        if len(lengths) == 1:
            rate = DEFAULT_RATE  # as of any other picture
        if len(lengths) == 1 or _strayed(lengths, rate) < 1:
            self._times = [shown / rate for shown in range(len(lengths))]  # whole ticks stand for a usual rate
        else:
            stamps = [0, *accumulate(lengths)]
            rate, variable = spacing(np.array(stamps), TICK, ())
            self._times = [stamp * TICK for stamp in stamps[:-1]]
        self._first, self._last = Fraction(0), self._times[-1]
        duration = self._last + lengths[-1] * TICK if variable else len(lengths) / rate
        return SourceInfo(shape[1], shape[0], rate, len(lengths), duration, variable=variable, transparent=transparent)

    def _pictures(self, first: int) -> Iterator[tuple[np.ndarray, int]]:
        """(uint8 [H, W, 3 or 4], ticks for which it is shown) of each picture from number `first` on."""
        self.check()
        try:
            with Image.open(
                self._file if self._data is None else io.BytesIO(self._data), formats=(self.format,)
            ) as image:
                for number in range(first, getattr(image, "n_frames", 1)):
                    image.seek(number)
                    pixels = np.array(ImageOps.exif_transpose(image))
                    yield pixels, round(image.info.get("duration", 0))
        except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{self.name} can't be opened as a video; it is cut off or damaged: {ADVICE}.") from error


class TransparentAvif(Animation):
    """An AVIF with an alpha, which FFmpeg gives as a video of its own."""

    format = "AVIF"


def file_source(file: str | Path | io.BytesIO) -> FileSource:
    """A video file, by what is in it and not by its name."""
    try:
        start = file.getbuffer()[:12] if isinstance(file, io.BytesIO) else _start(Path(file))
    except OSError:
        start = b""  # not there: FileSource says so
    riff, kind = (bytes(start[part]) for part in SIGNATURE)
    if (riff, kind) == (b"RIFF", b"WEBP"):
        return Animation(file)
    return (TransparentAvif if kind in (b"avif", b"avis") and _has_alpha(file) else FileSource)(file)


def _has_alpha(file: str | Path | io.BytesIO) -> bool:
    """Of an AVIF; False where Pillow is too old to read it."""
    Image.init()
    if TransparentAvif.format not in Image.OPEN:
        return False
    opened = io.BytesIO(file.getbuffer()) if isinstance(file, io.BytesIO) else file
    try:
        with Image.open(opened, formats=(TransparentAvif.format,)) as image:
            return "A" in image.getbands()
    except (OSError, EOFError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False  # damaged, which FileSource tells


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(12)


def _strayed(lengths: list[int], rate: Fraction) -> Fraction:
    """By how many ticks the length of a picture is off that of `rate`, at most."""
    return max(abs(length - 1 / (rate * TICK)) for length in lengths)
