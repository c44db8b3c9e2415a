"""A video in a file, read through PyAV: any size, any length, one frame at a time.

What a file holds is found from the times of its packets, which are read but not decoded. Its end is decoded from
the key frame before what is wanted. Times count from the first frame that can be decoded, wherever that is.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar, cast

import av
import av.codec
import av.container
import numpy as np

from ...errors import InputError
from ..rates import likely_rate, spacing
from .clocks import RESTARTING, Clocks, Steady
from .fields import whole_pictures
from .pixels import Converter
from .source import Pixels, Sound, Source, SourceInfo

SCAN_BYTES = 256 << 20  # of video packets that are read for an exact count of frames
THREADS = 4  # of a decoder: each one holds frames, whatever the machine has
MOST_REORDERED = 16  # frames by which decoding and showing differ, at most: H.264's limit
TEXT_CODECS = ("ansi", "bintext", "xbin", "idf")  # FFmpeg draws text files as videos
GAP = 0.02  # seconds without sound that are the file's rounding, no pause
EARLIER = Fraction(1)  # second: first step back where a seek landed too late
DEFAULT_RATE = Fraction(25)
WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
ADVICE = "give a video such as MP4 (H.264), MOV, WebM or MKV"

S = TypeVar("S", "av.VideoStream", "av.AudioStream")
Timed = Generator[tuple[Fraction, av.VideoFrame]]


@dataclass(frozen=True)
class _Scan:
    """What is found from the packets; times in seconds of the file's clock."""

    frames: int
    last: Fraction  # when the last frame starts
    last_duration: Fraction
    variable: bool  # frames are not evenly spaced
    complete: bool  # all packets were read
    rate: Fraction  # frames a second; where they are not evenly spaced, the nominal one


class FileSource(Source):
    """A video file: a path, or its bytes in a BytesIO. Opened anew for every reading, so that readings can overlap."""

    def __init__(self, file: str | Path | io.BytesIO):
        if isinstance(file, io.BytesIO):
            self._data, self.name = file.getvalue(), "The video"  # shared with the BytesIO, not copied
        else:
            self._data, self.name = None, f"The video {Path(file).name}"
        self._file = file
        self._info: SourceInfo | None = None
        self._state: tuple[int, int] | None = None  # of the file: size, time of change (ns)

    @property
    def path(self) -> Path | None:
        """Where the file lies; None for bytes."""
        return None if isinstance(self._file, io.BytesIO) else Path(self._file)

    @property
    def info(self) -> SourceInfo:
        if self._info is None:
            self._info = self._probe()
        return self._info

    @property
    def plain(self) -> Path | None:
        info = self.info
        changed = info.interlaced or info.cut_off or not self._converter.plain or self._clocks.several
        return None if changed else self.path

    def last_time(self) -> Fraction:
        return self.info and self._last - self._first

    def timed(self, start: Fraction) -> Iterator[tuple[Fraction, Pixels]]:
        _ = self.info
        with closing(self._from(self._first + max(start, Fraction(0)))) as decoded:
            time = None
            for time, frame in whole_pictures(decoded):
                yield time - self._first, lambda frame=frame: self._converter(frame)
        if time is not None:
            self._last = time  # packets promise more than can be decoded where a file is damaged

    def content(self) -> str:
        self.check()
        if isinstance(self._file, io.BytesIO):
            return hashlib.blake2b(self._file.getbuffer(), digest_size=16).hexdigest()
        state = os.stat(self._file)
        return _content(str(self._file), state.st_size, state.st_mtime_ns)

    def sound(self) -> Sound | None:
        info = self.info
        return Sound(info.audio_rate, info.audio_channels, self._samples()) if info.has_audio else None

    def _probe(self) -> SourceInfo:
        with self._opened() as (container, stream):
            clock = _clock(stream)
            stated = (stream.average_rate, stream.guessed_rate)
            self._rate = Fraction(next((rate for rate in stated if rate), DEFAULT_RATE))
            promised = stream.duration * clock if stream.duration else None
            until = (container.duration or 0) / Fraction(av.time_base)
            counted = stream.frames
            sound = _sound_stream(container)
            audio: dict[str, Any] = {}
            if sound is not None:
                audio = {"has_audio": True, "audio_rate": sound.rate, "audio_channels": sound.channels}
            aspect = stream.sample_aspect_ratio
            silent = sound is None  # otherwise the file's length may be that of its sound
            # AVI has no times to show frames at, only an order in which to decode them; av makes up the others.
            self._by_dts = container.format.name == "avi"
            self._restarts = container.format.name in RESTARTING
            self._clocks = Clocks()
        self._seeks = False  # until it is known that frames have times
        with closing(self._decoded(None)) as decoded:
            first = next(decoded, None)
        if first is None:
            raise InputError(f"{self.name} has no frame that can be decoded: {ADVICE}.")
        self._first, frame = first
        self._seeks = self._stamp(frame) is not None
        if promised is None and silent:
            promised = until - self._first
        self._converter = Converter(frame, aspect)
        scan = self._scan(clock, stated)
        if not scan.complete:
            self._last = scan.last
            scan = replace(scan, last=max(scan.last, self._end_of_packets(self._first + until)))
        self._last = scan.last
        seconds = scan.last - self._first
        rate, count = scan.rate, scan.frames
        if not scan.complete:
            count = counted or round(seconds * self._rate) + 1
        duration = seconds + (scan.last_duration or 1 / rate) if scan.variable else count / rate
        return SourceInfo(
            self._converter.width,
            self._converter.height,
            rate,
            count,
            duration,
            exact=scan.complete,
            variable=scan.variable,
            rotation=self._converter.rotation,
            hdr=self._converter.hdr,
            interlaced=bool(frame.interlaced_frame),
            transparent=self._converter.transparent,
            cut_off=promised is not None and promised > duration + max(1, duration / 50),
            **audio,
        )

    def _scan(self, clock: Fraction, stated: tuple[Fraction | None, ...]) -> _Scan:
        """Read packets from the start, all of them or SCAN_BYTES. stated: rates in the file's header.

        All of a stream whose clock may start again: nothing else tells that it does.
        """
        times, doubtful, size, last, length, complete = [], [], 0, None, 0, True
        with self._opened() as (container, stream):
            for packet in _packets(container, stream, Steady(self._clocks, learns=self._restarts), damaged=True):
                size += packet.size
                time = self._stamp(packet) if self._seeks else len(times)
                if time is None or (self._seeks and not self._by_dts and time * clock < self._first):
                    continue
                if packet.is_corrupt:
                    doubtful.append(time)
                    continue
                times.append(time)
                if last is None or time > last:
                    last, length = time, packet.duration or 0
                if size > SCAN_BYTES and not self._restarts:
                    complete = False
                    break
        if self._clocks.several:
            times += doubtful  # where one stream ends and the next begins FFmpeg misses what was never there
        if not self._seeks:
            count = max(1, len(times))
            last = self._first + (count - 1) / self._rate
            rate = likely_rate(count, last - self._first, clock, stated)
            return _Scan(count, last, 1 / self._rate, False, complete, rate)
        stamps = np.unique(np.array(times, dtype=np.int64))
        if len(stamps) < 2:
            return _Scan(1, self._first, Fraction(0), False, complete, likely_rate(1, Fraction(0), clock, stated))
        rate, uneven = spacing(stamps, clock, stated)
        # Frames come out of the decoder later than packets go in: only the time between is the same by decoding times.
        end = self._first + int(stamps[-1] - stamps[0]) * clock if self._by_dts else int(stamps[-1]) * clock
        return _Scan(len(stamps), end, length * clock, uneven, complete, rate)

    def _end_of_packets(self, until: Fraction) -> Fraction:
        """The time of the last packet of a large file. until: where its header says that it ends."""
        back = Fraction(0)
        while until - back > self._last:
            with self._opened() as (container, stream):
                clock = _clock(stream)
                if not _seek(container, stream, until - back):
                    return self._last
                times = [packet.pts for packet in _packets(container, stream) if packet.pts is not None]
            if len(times) > MOST_REORDERED:
                return max(times) * clock
            # A truncated file has nothing there; and the frame shown last may be decoded before the others.
            back = max(2 * back, EARLIER)
        return self._last

    def _from(self, start: Fraction) -> Timed:
        """Decoded frames, the first at or before `start`: a seek may land later, or where frames are missing."""
        back = Fraction(0)
        while self._seeks and start - back > self._first:
            decoded = self._decoded(start - back)
            first = next(decoded, None)
            if first is not None and first[0] <= start:
                yield first
                yield from decoded
                return
            decoded.close()
            back = max(2 * back, EARLIER)
        yield from self._decoded(None)

    def _decoded(self, position: Fraction | None) -> Timed:
        """(time, frame) in rising order from the key frame before `position` in seconds, or from the start."""
        with self._opened() as (container, stream):
            clock, before = _clock(stream), None
            packets = _packets(container, stream, Steady(self._clocks), flush=True)
            if position is not None and self._clocks.several:
                packets = _from_key_frame(packets, position / clock)  # a seek would find one of several such times
            elif position is not None and not _seek(container, stream, position):
                self._seeks = False
                return
            decoder = _decoder(stream)
            for packet in packets:
                try:
                    decoded = decoder.decode(packet if packet.size else None)
                except EOFError:
                    break
                except av.FFmpegError:
                    continue  # one broken packet; the frame before stays on screen
                for frame in decoded:
                    if frame.is_corrupt and not self._clocks.several:
                        continue
                    stamp = self._stamp(frame)
                    time = None if stamp is None else stamp * Fraction(frame.time_base or clock)
                    if before is None:
                        time = Fraction(0) if time is None else time
                    elif time is None or time <= before:
                        time = before + 1 / self._rate
                    before = time
                    yield time, frame

    def _stamp(self, frame: av.VideoFrame | av.Packet) -> int | None:
        """When a frame is shown, in ticks; where a file does not say, when it is decoded."""
        return frame.dts if self._by_dts or frame.pts is None else frame.pts

    def _samples(self) -> Iterator[np.ndarray]:
        """float32 [channels, samples] from the first frame's time on."""
        rate, channels = self.info.audio_rate, self.info.audio_channels
        with self._opened() as (container, _):
            stream = _sound_stream(container)
            if stream is None:
                return
            layout = stream.codec_context.layout
            resampler, shape, made = None, None, 0
            for packet in _packets(container, stream, Steady(self._clocks), flush=True):
                try:
                    decoded = packet.decode()
                except EOFError:
                    break
                except av.FFmpegError:
                    continue
                for frame in decoded:
                    own = frame.format.name, frame.layout.name, frame.sample_rate
                    if resampler is None or own != shape:
                        resampler, shape = av.AudioResampler(format="fltp", layout=layout, rate=rate), own
                    at = made
                    if frame.pts is not None and frame.time_base is not None:
                        at = round((frame.pts * frame.time_base - self._first) * rate)
                    block = np.concatenate(
                        [part.to_ndarray() for part in resampler.resample(frame)] or [EMPTY], axis=-1
                    )
                    if not block.size:
                        continue
                    if abs(at - made) <= GAP * rate:
                        at = made
                    while at > made:
                        pause = min(at - made, rate)
                        made += pause
                        yield np.zeros((channels, pause), dtype=np.float32)
                    block = block[:, made - at :]
                    made += block.shape[1]
                    if block.shape[1]:
                        yield block

    @contextmanager
    def _opened(self) -> Generator[tuple[av.container.InputContainer, av.VideoStream]]:
        """The file and its video stream. Raises InputError of one sentence where there is none."""
        self.check()
        try:
            container = av.open(str(self._file) if self._data is None else io.BytesIO(self._data), mode="r")
        except (av.FFmpegError, OSError, UnicodeError) as error:
            raise InputError(
                f"{self.name} can't be opened as a video; it is cut off, damaged or something else: {ADVICE}."
            ) from error
        with container:
            videos = [stream for stream in container.streams.video if not _is_cover(stream)]
            # Without a decoder a stream has no codec context, which av's types leave out.
            usable = [stream for stream in videos if cast(object, stream.codec_context) is not None]
            if usable and usable[0].codec_context.name in TEXT_CODECS:
                raise InputError(f"{self.name} is a text file: {ADVICE}.")
            if not usable and videos:
                raise InputError(f"{self.name} is in a format that can't be decoded here: {ADVICE}.")
            if not videos:
                what = "has sound but no picture" if container.streams.audio else "has no picture"
                raise InputError(f"{self.name} {what}: {ADVICE}.")
            # A still before what moves is its poster, as in an animated AVIF.
            stream = next((stream for stream in usable if stream.frames != 1), usable[0])
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = min(THREADS, os.cpu_count() or 1)
            yield container, stream

    def check(self) -> None:
        path, changed = self.path, 0
        if path is not None:
            if not path.is_file():
                raise InputError(f"{self.name} {'is a folder' if path.is_dir() else 'is not there'}: {ADVICE}.")
            state = path.stat()
            size, changed = state.st_size, state.st_mtime_ns
        else:
            size = len(self._data or b"")
        if not size:
            raise InputError(f"{self.name} is empty (0 bytes): {ADVICE}.")
        self._state = self._state or (size, changed)
        if self._state != (size, changed):
            raise InputError(
                f"{self.name} was changed while it was in use: put the file that it was back and queue it again, which "
                "goes on with what is made, or queue it for the file that is there now."
            )


EMPTY = np.zeros((1, 0), dtype=np.float32)


def _packets(
    container: av.container.InputContainer,
    stream: S,
    steady: Steady | None = None,
    flush: bool = False,
    damaged: bool = False,
) -> Iterator[av.Packet[S]]:
    """The packets of one stream up to the end or to where the file is broken; then, with `flush`, the empty one.

    steady: sets their times right.  damaged: those too of which something is missing.
    """
    packets = cast("Iterator[av.Packet[S]]", container.demux(stream))
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            packet = None
            if flush:
                packet = cast("av.Packet[S]", av.Packet())
                packet.stream = stream
        if packet is None:
            return
        if not packet.size:
            if flush:
                yield packet
            return
        if steady is not None:
            steady(packet)
        if flush or not (packet.is_discard or (packet.is_corrupt and not damaged)):
            yield packet


@functools.lru_cache(maxsize=64)
def _content(path: str, size: int, changed: int) -> str:
    """32 hex digits of a file's bytes, read once as long as its size and time of change (ns) stay."""
    state = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            state.update(block)
    return state.hexdigest()


def _from_key_frame(packets: Iterator[av.Packet[S]], position: Fraction) -> Iterator[av.Packet[S]]:
    """The packets from the last key frame on that is shown at or before `position` in ticks."""
    waiting: list[av.Packet[S]] = []
    for packet in packets:
        if packet.is_keyframe and packet.pts is not None and packet.pts <= position:
            waiting = []
        waiting.append(packet)
        if packet.dts is not None and packet.dts > position:
            break
    yield from waiting
    yield from packets


def _decoder(stream: av.VideoStream) -> av.VideoCodecContext:
    """The stream's own decoder; FFmpeg's for VP8 and VP9 leave out what is transparent, those of libvpx do not."""
    name = WITH_ALPHA.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) != "1":
        return stream.codec_context
    try:
        return cast("av.VideoCodecContext", av.CodecContext.create(name, "r"))
    except av.codec.codec.UnknownCodecError:
        return stream.codec_context


def _clock(stream: av.VideoStream) -> Fraction:
    """Seconds of a tick of a stream's times."""
    return Fraction(stream.time_base or Fraction(1, 90000))


def _seek(container: av.container.InputContainer, stream: av.VideoStream, time: Fraction) -> bool:
    """Go to the key frame before a time in seconds. False where the file can't be sought in."""
    try:
        container.seek(int(time / _clock(stream)), stream=stream)
    except av.FFmpegError:
        return False
    return True


def _is_cover(stream: av.VideoStream) -> bool:
    """Whether a video stream is the cover picture of a song."""
    # Asked as a flag: the enum's text is its number from Python 3.11 on.
    disposition = getattr(stream, "disposition", None)
    return disposition is not None and bool(disposition & type(disposition).attached_pic)


def _sound_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The first sound that can be decoded and has a rate and channels."""
    for stream in container.streams.audio:
        context = stream.codec_context
        if cast(object, context) is not None and context.sample_rate and context.layout.nb_channels:
            return stream
    return None
