"""One sequence over the processes of a group: each holds a range of its tokens and attends with a share of the heads.

Source: DeepSpeed-Ulysses (arXiv 2309.14509). Ranges and shares need not be equal and nothing is padded, so that what is
attended to are exactly the tokens that one process would have. The group is one of torch.distributed.

Every process makes the same exchanges in the same order: what is exchanged is decided by what all of them know, never
by a process's own range, and one without tokens or heads takes part too. Else the others wait for ever.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist

Attention = Callable[..., torch.Tensor]  # q, k, v [B, L, heads, d] -> [B, L, heads * d]


def overlap(span: slice, wanted: slice) -> slice:
    """The range of `span` that lies in `wanted`, counted from the start of `wanted`; may be empty."""
    start, stop = (min(max(edge, wanted.start), wanted.stop) - wanted.start for edge in (span.start, span.stop))
    return slice(start, stop)


def split(span: slice, parts: int) -> list[slice]:
    """A range in parts as even as they go; the first ones are longer by one, the last ones may be empty."""
    size, longer = divmod(span.stop - span.start, parts)
    edges = [span.start + part * size + min(part, longer) for part in range(parts + 1)]
    return [slice(*edge) for edge in pairwise(edges)]


class Ranks:
    """The processes of a group, this one among them; without a group this one alone."""

    def __init__(self, group: Any = None):
        self.group = group
        self.rank, self.size = (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))

    def gathered(self, x: torch.Tensor, counts: Sequence[int], dim: int = 1) -> torch.Tensor:
        """The parts of all processes one after the other along `dim`, so many of each; x is this one's."""
        if self.size == 1:
            return x
        shapes = [[*x.shape[:dim], count, *x.shape[dim + 1 :]] for count in counts]
        parts = [x.contiguous() if rank == self.rank else x.new_empty(shape) for rank, shape in enumerate(shapes)]
        for rank, part in enumerate(parts):
            if part.numel():
                dist.broadcast(part, dist.get_global_rank(self.group, rank), group=self.group)
        return torch.cat(parts, dim=dim)

    def largest(self, x: torch.Tensor) -> torch.Tensor:
        """x [...] with the largest number of all processes in each place; written into x."""
        if self.size > 1:
            dist.all_reduce(x, dist.ReduceOp.MAX, group=self.group)
        return x

    def exchanged(self, given: torch.Tensor, gives: Sequence[int], takes: Sequence[int]) -> torch.Tensor:
        """`given` [n] has so many numbers for each process, in order -> those that each has for this one [m]."""
        taken = given.new_empty(sum(takes))
        dist.all_to_all_single(taken, given, list(takes), list(gives), group=self.group)
        return taken


ALONE = Ranks()


class Share:
    """A process's share of one sequence: a range of its tokens, and in attention a range of the heads."""

    def __init__(self, ranks: Ranks, tokens: int):
        self.ranks = ranks
        self.tokens = tokens  # of the whole sequence
        self.ranges = split(slice(0, tokens), ranks.size)  # of every process
        self.held = self.ranges[ranks.rank]
        self.longest = max(held.stop - held.start for held in self.ranges)  # the same in every process

    def counts(self, wanted: slice) -> list[int]:
        """How many of the `wanted` tokens of the sequence each process holds."""
        parts = (overlap(wanted, held) for held in self.ranges)
        return [part.stop - part.start for part in parts]

    def gathered(self, x: torch.Tensor, wanted: slice) -> torch.Tensor:
        """All `wanted` tokens of the sequence, [B, n, ...], of those that this process holds, x [B, m, ...]."""
        return self.ranks.gathered(x, self.counts(wanted))

    def extremes(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The smallest and the largest number of each row, [B, 1], of x [B, n] in all processes."""
        if self.ranks.size == 1:
            return x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
        ends = torch.cat([-x, x])
        ends = ends.amax(dim=1) if x.shape[1] else ends.new_full(ends.shape[:1], -torch.inf)
        least, most = self.ranks.largest(ends).chunk(2)
        return -least[:, None], most[:, None]

    def attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, wanted: slice, attention: Attention, groups: int
    ) -> torch.Tensor:
        """Attention of this process's queries among the `wanted` tokens to the keys of all, [B, n, heads * d].

        q: [B, n, heads, d]; may be written over.  k, v: [B, m, heads, d], of the tokens it holds.
        groups: of heads, one after the other.
        """
        if self.ranks.size == groups == 1:
            return attention(q, k, v)
        heads, size = q.shape[2], self.ranks.size
        groups = max(1, min(groups, heads // size))
        shares = [split(share, groups) for share in split(slice(0, heads), size)]
        asked, held = self.counts(wanted), self.counts(slice(0, self.tokens))
        for group in zip(*shares):
            # No name for the output: it would live on beside the next group's.
            self._to_tokens(self._of_heads((q, k, v), group, (asked, held, held), attention), q, group, asked)
        return q.flatten(2)

    def _of_heads(self, qkv: tuple, heads: Sequence[slice], counts: tuple, attention: Attention) -> torch.Tensor:
        """The attention of this process's own of `heads` (of each one's), [B, all asked tokens, own heads, d]."""
        own = heads[self.ranks.rank]
        # A list: each is exchanged whether or not this process has a head to use it for.
        parts = [self._to_heads(x, heads, numbers) for x, numbers in zip(qkv, counts)]
        if not parts[0].numel():
            return parts[0]
        return attention(*parts).unflatten(-1, (own.stop - own.start, -1))

    def _to_heads(self, x: torch.Tensor, heads: Sequence[slice], counts: Sequence[int]) -> torch.Tensor:
        """x [B, own tokens, heads, d] -> [B, all tokens, own heads, d]."""
        own = heads[self.ranks.rank]
        if self.ranks.size == 1:
            return x[:, :, own]
        batch, tokens, _, dim = x.shape
        sizes = [tokens * batch * (share.stop - share.start) * dim for share in heads]
        given = x.new_empty(sum(sizes))
        for share, part in zip(heads, given.split(sizes)):
            # Tokens first: what comes from one process after the other is the sequence, without another copy.
            part.view(tokens, batch, share.stop - share.start, dim).copy_(x[:, :, share].transpose(0, 1))
        width = batch * (own.stop - own.start) * dim
        taken = self.ranks.exchanged(given, sizes, [count * width for count in counts])
        return taken.view(sum(counts), batch, own.stop - own.start, dim).transpose(0, 1)

    def _to_tokens(self, out: torch.Tensor, q: torch.Tensor, heads: Sequence[slice], counts: Sequence[int]) -> None:
        """Writes what every process made of its heads, here `out` [B, all tokens, own heads, d], over its queries."""
        if self.ranks.size == 1:
            q[:, :, heads[0]] = out
            return
        batch, tokens, _, dim = q.shape
        width = batch * out.shape[2] * dim
        sizes = [tokens * batch * (share.stop - share.start) * dim for share in heads]
        given = out.transpose(0, 1).reshape(-1)
        taken = self.ranks.exchanged(given, [count * width for count in counts], sizes)
        for share, part in zip(heads, taken.split(sizes)):
            q[:, :, share] = part.view(tokens, batch, share.stop - share.start, dim).transpose(0, 1)
