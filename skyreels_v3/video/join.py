"""Finished pieces of one video put one after the other, with a sound, without encoding a frame again."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.container

from ..errors import InputError
from .sound import SoundTrack
from .sources.file import MOST_REORDERED
from .sources.source import Sound
from .writer import new_file


def join(
    pieces: Sequence[Path],
    out: Path,
    frame_rate: Fraction | int,
    audio: Sound | None = None,
    on_frame: Callable[[int], object] | None = None,
) -> int:
    """Write `out`, the frames of all `pieces` in order, and return their count.

    pieces: files of VideoWriter with the same size, codec and frame rate.  frame_rate: of the result, constant.
    audio: from the first frame on; padded with silence or cut to the video's length, to the sample.
    on_frame: told how many frames are written, after each one; may raise to stop.
    Streams: memory does not grow with the length. `out` appears when it is complete.
    Raises InputError for no pieces, pieces that do not fit together or are damaged, and a full disk.
    """
    if not pieces:
        raise InputError(f"{out.name} has no pieces to be joined from: at least one is needed.")
    rate = Fraction(frame_rate)
    delay = _reordering(pieces, rate)
    with new_file(out, rate) as container:
        stream, track, key, frames = None, None, None, 0
        for piece in pieces:
            with _opened(piece) as given:
                source = given.streams.video[0]
                if stream is None:
                    key = _settings(source)
                    # opaque: otherwise av 14 opens an encoder, whose header takes the place of the pieces'.
                    stream = container.add_stream_from_template(source, opaque=True)
                    track = None if audio is None else SoundTrack(container, audio)
                elif _settings(source) != key:
                    raise _unfit(piece)
                before = frames
                for packet, shown in _numbered(given, source):
                    # By number, not by the piece's clock: nothing adds up over the pieces.
                    packet.stream, packet.time_base = stream, 1 / rate
                    packet.pts, packet.dts, packet.duration = before + shown, frames - delay, 1
                    if track is not None:
                        track.write_until(max(0, frames - delay) / rate)
                    container.mux(packet)
                    frames += 1
                    if on_frame is not None:
                        on_frame(frames)
        if track is not None:
            track.finish(frames / rate)
    return frames


def count_frames(piece: Path) -> int:
    """How many frames a piece has; none is decoded."""
    with _opened(piece) as given:
        source = given.streams.video[0]
        return source.frames or sum(1 for _ in _guarded(given, source))


def fits(path: Path, piece: Path, frame_rate: Fraction | int) -> bool:
    """Whether any file can be joined to `piece` as it is: encoded alike, and from a key frame on at one rate.

    Reads its packets, of which none is decoded.
    """
    rate, times = Fraction(frame_rate), []
    with _opened(piece) as like:
        wanted = _settings(like.streams.video[0])
    try:
        with _opened(path) as given:
            source = given.streams.video[0]
            if _settings(source) != wanted:
                return False
            for packet in _guarded(given, source):
                if packet.is_discard or (not times and (packet.dts is None or not packet.is_keyframe)):
                    return False
                times.append(packet.pts)
            ticks = 1 / (rate * Fraction(source.time_base or 1))  # of a frame
    except InputError:
        return False
    even = all(abs(time - times[0] - number * ticks) <= 1 for number, time in enumerate(sorted(times)))
    return bool(times) and even


def _numbered(given: av.container.InputContainer, source: av.VideoStream) -> Iterator[tuple[av.Packet, int]]:
    """The packets in the order of decoding, each with the number of its frame in the order of showing.

    Numbers come from sorting times. Only as many packets wait as H.264 can put out of order.
    """
    waiting, heap, numbers, count = [], [], {}, 0
    for packet in chain(_guarded(given, source), [None]):
        if packet is not None and packet.pts is not None:
            waiting.append(packet)
            heapq.heappush(heap, packet.pts)
        while heap and (packet is None or len(heap) > MOST_REORDERED):
            numbers[heapq.heappop(heap)] = count
            count += 1
        while waiting and waiting[0].pts in numbers:
            first = waiting.pop(0)
            yield first, numbers.pop(first.pts)


def _guarded(given: av.container.InputContainer, source: av.VideoStream) -> Iterator[av.Packet]:
    try:
        for packet in given.demux(source):
            if packet.size:
                if packet.pts is None or packet.is_corrupt:
                    raise _unfit(Path(given.name))
                yield packet
    except av.FFmpegError as error:
        raise _unfit(Path(given.name)) from error


def _reordering(pieces: Sequence[Path], rate: Fraction) -> int:
    """How many frames decoding must run ahead of showing: what the encoder left before the first frame, at most."""
    delay = 0
    for piece in pieces:
        with _opened(piece) as given:
            source = given.streams.video[0]
            first = next(_guarded(given, source), None)
            if first is None or first.pts is None or first.dts is None:
                raise _unfit(piece)
            delay = max(delay, round((first.pts - first.dts) * first.time_base * rate))
    return delay


def _settings(stream: av.VideoStream) -> tuple:
    context = stream.codec_context
    return context.name, context.width, context.height, context.pix_fmt, bytes(context.extradata or b"")


def _opened(piece: Path) -> av.container.InputContainer:
    try:
        opened = av.open(str(piece))
    except (av.FFmpegError, OSError) as error:
        raise _unfit(piece) from error
    if not opened.streams.video:
        opened.close()
        raise _unfit(piece)
    return opened


def _unfit(piece: Path) -> InputError:
    return InputError(
        f"The piece {piece.name} is damaged or was made with other settings than those before it: delete it and "
        "queue the job again."
    )
