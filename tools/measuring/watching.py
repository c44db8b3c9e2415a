"""One look at every frame of a video: what all measures are made from, small enough for videos of any length."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from PIL import Image

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.measures.colours import colour_row
from ...skyreels_v3.measures.seams import EVERY
from ...skyreels_v3.video.cuts import Look, look
from ...skyreels_v3.video.sources.source import Source, frames

SMALL = (48, 27)  # pixels across and down that cuts and mouths are found in; those of TransNetV2
GREY = (64, 36)  # that smoothness is measured in
PICTURE = 224  # height of the frames that are kept to be shown and compared with references
BETWEEN = Fraction(1, 2)  # seconds between two of them, at the least
MOST = 240  # of them


@dataclass(frozen=True)
class Watched:
    """small: uint8 [F, 27, 48, 3].  grey: uint8 [F, 36, 64].  looks: by which cuts are found.

    colours: mean and deviation in Lab, [F, 6].  means: of red, green and blue, 0 to 255, [F, 3].
    changes: mean difference to the frame before, in steps of 8 bits, [F]; 0 for the first.
    pictures: some of the frames, by their numbers.
    """

    width: int
    height: int
    fps: Fraction
    small: np.ndarray
    grey: torch.Tensor
    looks: list[Look]
    colours: torch.Tensor
    means: torch.Tensor
    changes: np.ndarray
    pictures: dict[int, Image.Image]

    @property
    def frames(self) -> int:
        return len(self.changes)

    @property
    def seconds(self) -> float:
        return float(self.frames / self.fps)

    def picture(self, frame: int) -> Image.Image:
        """The kept one that is nearest."""
        return self.pictures[min(self.pictures, key=lambda number: abs(number - frame))]


@contextmanager
def one_thread() -> Generator[None]:
    """For many small computations, on which torch's threads would wait for each other most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def watch(source: Source) -> Watched:
    """Raises InputError for what is no video."""
    info = source.info
    step = max(1, round(max(BETWEEN, info.duration / MOST) * info.frame_rate))
    rows: list[tuple] = []
    pictures: dict[int, Image.Image] = {}
    before = None
    for number, pixels in enumerate(frames(source)):
        image = Image.fromarray(pixels)
        grid = torch.from_numpy(np.ascontiguousarray(pixels[::EVERY, ::EVERY])).float()
        change = 0.0 if before is None else float((grid - before).abs().mean())
        before = grid
        small = image.resize(SMALL, Image.Resampling.BICUBIC, reducing_gap=3.0)
        grey = image.convert("L").resize(GREY, Image.Resampling.BOX)
        colour = colour_row(grid.permute(2, 0, 1) / 255)
        rows.append((np.asarray(small), np.asarray(grey), look(pixels), colour, grid.mean(dim=(0, 1)), change))
        if number % step == 0:
            pictures[number] = image.resize((max(1, round(PICTURE * image.width / image.height)), PICTURE))
    if not rows:
        raise InputError("No frame of the video can be decoded: save it again as MP4 (H.264).")
    small, grey, looks, colours, means, changes = zip(*rows)
    return Watched(
        info.width,
        info.height,
        info.frame_rate,
        np.stack(small),
        torch.from_numpy(np.stack(grey)),
        list(looks),
        torch.stack(colours),
        torch.stack(means),
        np.array(changes, np.float64),
        pictures,
    )
