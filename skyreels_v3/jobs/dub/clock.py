"""Two clocks of one dub: frames as the footage shows them, and frames as the model makes them."""

import math
from dataclasses import dataclass
from fractions import Fraction

from ...speech.recording import FPS

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Clock:
    """Frames are shown at `rate` a second and made at 25. Made frame 0 begins with the recording, `start` seconds into
    the footage; those before it have numbers below 0. Exact at any length: nothing adds up.
    """

    rate: Fraction
    start: Fraction

    def shown(self, made: int) -> int:
        """The frame of the footage that is on screen in the middle of a made frame's time."""
        return math.floor((self.start + (made + HALF) / FPS) * self.rate)

    def made(self, shown: int) -> int:
        """The made frame that is heard in the middle of a shown frame's time."""
        return math.floor(((shown + HALF) / self.rate - self.start) * FPS)

    def first_made(self, shown: int) -> int:
        """The first made frame at which the footage has come to frame `shown`."""
        return math.ceil((shown / self.rate - self.start) * FPS - HALF)

    def first_shown(self, made: int) -> int:
        """The first frame of the footage that belongs to made frame `made` or a later one."""
        return math.ceil((self.start + Fraction(made, FPS)) * self.rate - HALF)
