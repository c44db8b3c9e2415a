"""How many tokens of a sequence, and how many of its heads, are computed at once, so that a forward fits."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Chunking:
    """Limits of one forward. Smaller ones need less memory and change no result but for rounding."""

    long: int = 16384  # tokens; above, the attention is chunked too. From there memory is over a per mille of the time
    tokens: int = 8192  # at once in all that treats tokens one by one; far above what fills a graphics card
    head_groups: int = 4  # one after the other in a long sequence's attention
    key_groups: int = 1  # of heads whose keys and values live at once: each group projects all of them again


USUAL = Chunking()
TIGHT = Chunking(long=4096, tokens=2048, head_groups=10, key_groups=2)  # 3 instead of 4 tensors as large as the stream
SMALL = Chunking(long=0, tokens=1024, head_groups=40, key_groups=4)  # 2.5 of them: some per cent slower
LEVELS = (USUAL, TIGHT, SMALL)  # each needs less memory than the one before


def next_smaller(than: Chunking) -> Chunking | None:
    """The next level that needs less memory; None below the smallest."""
    return next((level for level in LEVELS if level.tokens < than.tokens), None)


def chunks_of(x: torch.Tensor, chunking: Chunking) -> list[slice]:
    """The sequences of a batch [B, L, D] as ranges of tokens, in all of them together at most `chunking.tokens`."""
    step, tokens = max(1, chunking.tokens // len(x)), x.shape[1]
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def is_long(x: torch.Tensor, chunking: Chunking) -> bool:
    """Whether the sequences of a batch [B, L, ...] pass the attention in chunks, too."""
    return x.shape[0] * x.shape[1] > chunking.long
