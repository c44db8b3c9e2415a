"""Files whose clock starts again: transport streams put one behind the other, the cells of a DVD.

Players show their parts one after the other. So do we: each clock gets one shift, found from the video's packets, which
the packets of the sound take too.
"""

from dataclasses import dataclass, field
from fractions import Fraction

import av

RESTARTING = ("mpegts", "mpeg")  # FFmpeg's names of containers that can be put one behind the other
BACK = Fraction(1, 10)  # second: decoding times of one clock rise
FORTH = Fraction(3600)  # seconds: FFmpeg takes a clock that starts far below the first one for an overflown one


@dataclass
class Clocks:
    """The clocks of a file, in order: seconds to add to each one's times, and the byte where it starts."""

    shifts: list[Fraction] = field(default_factory=lambda: [Fraction(0)])
    places: list[int] = field(default_factory=lambda: [0])

    @property
    def several(self) -> bool:
        return len(self.shifts) > 1


class Steady:
    """Sets right the times of one stream's packets, given in the file's order from its start on."""

    def __init__(self, clocks: Clocks, learns: bool = False):
        """learns: the packets are those of the video, and the clocks are found from them."""
        self._clocks, self._learns = clocks, learns
        self._clock: int | None = None
        self._before: Fraction | None = None  # when the packet before was decoded
        self._end = Fraction(0)  # of what was shown so far

    def __call__(self, packet: av.Packet) -> None:
        if not (self._learns or self._clocks.several) or packet.dts is None:
            return
        tick = Fraction(packet.time_base)
        time, shown = packet.dts * tick, (packet.dts if packet.pts is None else packet.pts) * tick
        step = Fraction(0) if self._before is None else time - self._before
        self._before = time
        if self._clock is None:
            self._clock = self._by_place(packet)
        elif not -BACK <= step <= FORTH:
            if self._learns:
                self._clocks.shifts.append(self._end - shown)
                self._clocks.places.append(packet.pos or 0)
            # A part without sound has its clock too.
            self._clock = min(max(self._clock + 1, self._by_place(packet)), len(self._clocks.shifts) - 1)
        shift = self._clocks.shifts[self._clock]
        self._end = max(self._end, shown + shift + (packet.duration or 0) * tick)
        if shift:
            packet.dts += round(shift / tick)
            packet.pts = None if packet.pts is None else packet.pts + round(shift / tick)

    def _by_place(self, packet: av.Packet) -> int:
        return sum(place <= (packet.pos or 0) for place in self._clocks.places[1:])
