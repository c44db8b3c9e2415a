"""Interlaced frames as whole pictures: the lines between those of the first field are made by FFmpeg's bwdif."""

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import cast

import av
import av.filter

Timed = tuple[Fraction, av.VideoFrame]


def whole_pictures(frames: Iterable[Timed]) -> Iterator[Timed]:
    """(time, frame) after (time, frame) as given, those that are marked as interlaced without combs."""
    fields, times = None, deque[Fraction]()
    for time, frame in frames:
        if fields is None:
            if not frame.interlaced_frame:
                yield time, frame
                continue
            fields = _Fields(frame)
        times.append(time)
        for made in fields.push(frame):
            yield times.popleft(), made
    for made in fields.push(None) if fields else ():
        yield times.popleft(), made


class _Fields:
    """The filter, which holds a frame until it knows the one behind it."""

    def __init__(self, first: av.VideoFrame):
        self._graph, self._given = av.filter.Graph(), 0
        start = self._graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=Fraction(1, 25)
        )
        filtered = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        end = self._graph.add("buffersink")
        start.link_to(filtered)
        filtered.link_to(end)
        self._graph.configure()
        self._colours = first.colorspace, first.color_range

    def push(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        if frame is not None:
            frame.pts, frame.time_base = self._given, Fraction(1, 25)
            self._given += 1
        self._graph.push(frame)
        while True:
            try:
                made = cast("av.VideoFrame", self._graph.pull())
            except (av.BlockingIOError, av.EOFError):
                return
            made.colorspace, made.color_range = self._colours
            yield made
