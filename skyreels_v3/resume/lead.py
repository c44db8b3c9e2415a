"""A long video in pieces, in a RunFolder of its own: any run takes it over, and a stop loses only the last piece."""

from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path

import numpy as np

from ..video.writer import VideoWriter
from .folder import RunFolder


def write_pieces(
    folder: RunFolder,
    length: int,
    frames: Callable[[int], Iterable[np.ndarray]],
    opened: Callable[[Path], VideoWriter],
    on_frame: Callable[[int], object],
    check: Callable[[], object],
) -> list[Path]:
    """Writes what is missing of a video, and returns its pieces in order.

    length: frames of a piece; the last one may be shorter.  frames: those from a number on, uint8 [H, W, 3] each.
    opened: the writer of a piece.  on_frame: told how many frames there are, after each one; may raise to stop.  check:
    called before a piece counts as made; raises where its frames may be others.
    """
    number = made = 0
    while folder.done(_part(number)):
        made += folder.info(_part(number))["frames"]
        number += 1
    if not folder.finished:  # otherwise a piece is damaged or missing
        rest = iter(frames(made))
        while (first := next(rest, None)) is not None:
            path = folder.path(f"{_part(number)}.mp4")
            with opened(path) as writer:
                for pixels in chain([first], islice(rest, length - 1)):
                    writer.write(pixels)
                    made += 1
                    on_frame(made)
                check()
            folder.commit(_part(number), [path.name], {"frames": writer.frames})
            number += 1
    folder.finish()  # again where it was: what is used stays
    return [folder.path(f"{_part(one)}.mp4") for one in range(number)]


def _part(number: int) -> str:
    return f"piece-{number:05d}"
