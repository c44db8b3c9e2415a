"""How a sequence is parted so that its forward fits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slices:
    """long: sequences of more tokens than this are parted in the attention as well.  tokens: that pass a wide layer
    (the projections of a long sequence, the feed-forward) at once.  head_groups: in which its attention is computed.
    """

    long: int = 16384  # from there memory counts for more than a per mille of time
    tokens: int = 8192  # bounds the output of a wide layer, far above what fills a graphics card
    head_groups: int = 4


USUAL = Slices()
SMALL = Slices(long=0, tokens=1024, head_groups=40)  # a head at a time: some per cent slower
