"""How a sequence is parted so that its forward fits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slices:
    """long: sequences of more tokens than this are parted in the attention as well.  tokens: that pass at once what
    knows one token at a time (all but the attention; of a long sequence the projections before it too).
    head_groups: in which a long sequence's attention is computed.
    """

    long: int = 16384  # from there memory counts for more than a per mille of time
    tokens: int = 8192  # bounds the output of a wide layer, far above what fills a graphics card
    head_groups: int = 4


USUAL = Slices()
TIGHT = Slices(long=4096, tokens=2048, head_groups=10)
SMALL = Slices(long=0, tokens=1024, head_groups=40)  # a head at a time: some per cent slower
LEVELS = (USUAL, TIGHT, SMALL)  # each needs less memory than the one before
