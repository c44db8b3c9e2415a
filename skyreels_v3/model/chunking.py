"""How many tokens of a sequence, and how many of its heads, are computed at once, so that a forward fits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Chunking:
    """Limits of one forward. Smaller ones need less memory and change no result but for rounding."""

    long: int = 16384  # tokens; above, the attention is chunked too. From there memory is over a per mille of the time
    tokens: int = 8192  # at once in all that treats tokens one by one; far above what fills a graphics card
    head_groups: int = 4  # one after the other in a long sequence's attention


USUAL = Chunking()
TIGHT = Chunking(long=4096, tokens=2048, head_groups=10)
SMALL = Chunking(long=0, tokens=1024, head_groups=40)  # a head at a time: some per cent slower
LEVELS = (USUAL, TIGHT, SMALL)  # each needs less memory than the one before


def next_smaller(than: Chunking) -> Chunking | None:
    """The next level that needs less memory; None below the smallest."""
    return next((level for level in LEVELS if level.tokens < than.tokens), None)
