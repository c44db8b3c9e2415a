"""Where each of the people is in the picture, found from how its tokens attend to each other.

Sources: MultiTalk (arXiv 2505.22647); the official transformer_a2v.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import torch
import torch.nn.functional as F
from einops import rearrange

from ...distributed.ranks import ALONE, Share, overlap
from ..errors import InputError
from .sequence import Layout

PERSON_POSITIONS = ((0.0, 4.0), (20.0, 24.0))  # range of rotary positions of each person's pixels
BACKGROUND_POSITION = 12.0
# Where a person of a larger company is in a frame: in one of the ranges, or, beside two who speak, as the background.
BACKGROUND = len(PERSON_POSITIONS)
_SPANS = (*PERSON_POSITIONS, (BACKGROUND_POSITION, BACKGROUND_POSITION))


class PositionMap(str, Enum):
    """Which frame's map a head of the attention to speech goes by. The value is what artists choose.

    MultiTalk and InfiniteTalk, whose network this is, let every head go by its own frame. The official code reshapes
    its queries where those permute them, and it still permutes the keys: head h of frame t goes by frame
    (t * heads + h) mod frames, so that of 40 heads in 21 frames two go by their own. Its pipeline refuses two people,
    so that nothing is known to have been trained or made with that.
    """

    OWN_FRAME = "own frame"
    OFFICIAL = "official"


@dataclass(frozen=True)
class SpeakerMap:
    """Which video tokens belong to whom, found from how they attend to each person in the first frame."""

    weights: torch.Tensor  # [classes, tokens per frame], each person's mask (and the background's) over its size
    attention: Callable[..., torch.Tensor]  # see kernels.attention
    position_map: PositionMap = PositionMap.OWN_FRAME
    # Of more than two people: which of _SPANS each has in each latent frame, int64 [frames, people].
    ranges: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        layout: Layout,
        audio: torch.Tensor | None,
        masks: torch.Tensor | None,
        attention: Callable[..., torch.Tensor],
        position_map: PositionMap = PositionMap.OWN_FRAME,
        ranges: torch.Tensor | None = None,
    ) -> "SpeakerMap | None":
        """The map for the people in `audio` [people, ...]; None where one person or none speaks.

        masks: [people + 1, h, w] of any size, the last one the background.
        ranges: of more than two people, of whom `audio` has what the two ranges hear: which one each person has in
        each latent frame, int64 [frames, people], BACKGROUND for none. A person is as far from what it hears in one
        range as in the other, and of rotary positions only their difference counts: who has a range may change.
        Raises InputError for more than two people without ranges, or two without masks.
        """
        people = 0 if audio is None else audio.shape[0]
        if people < 2:
            return None
        if ranges is not None:
            people = _checked(ranges, layout, position_map)
        elif people > len(PERSON_POSITIONS):
            raise InputError(f"The model can drive two people, but was given speech for {people}: leave some out.")
        if masks is None or masks.shape[0] != people + 1:
            given = 0 if masks is None else masks.shape[0]
            raise InputError(
                f"Speech for {people} people needs {people} masks and one for the background, "
                f"but {given} were given: say where each person is."
            )
        size, masks = (layout.height, layout.width), masks.float()
        tokens = F.interpolate(masks[None], size=size, mode="nearest")[0].flatten(1)
        # A mask so small that nearest sampling misses it gets every token that it touches.
        touched = F.adaptive_max_pool2d(masks, size).flatten(1)
        masks = (torch.where(tokens.amax(dim=1, keepdim=True) > 0, tokens, touched) > 0).float()
        # A mask may be empty: its weights are zero, not zero over zero.
        return cls(masks / masks.sum(dim=1, keepdim=True).clamp(min=1), attention, position_map, ranges)

    @property
    def tokens(self) -> int:
        """Of a frame: those of the first one are the keys of `positions`."""
        return self.weights.shape[1]

    def positions(self, q: torch.Tensor, k: torch.Tensor, groups: int = 1, share: Share | None = None) -> torch.Tensor:
        """Rotary position of every video token [B, L, heads or 1] float32, from q and k [B, n, heads, d] after rotary.

        groups: of heads, one after the other.  share: whose n tokens q and k are of the L, which are whole frames; None
        for all of them.
        """
        share = share or Share(ALONE, q.shape[1])
        classes, tokens = self.weights.shape
        # The official code averages two halves of the heads, so that an odd head out is left out.
        heads, dim = q.shape[2] // 2 * 2 or q.shape[2], q.shape[3]
        # How much a token attends to each mask is an attention whose values are the masks.
        values = F.pad(self.weights.T, (0, dim - classes)).to(q)
        values = values[None, :, None].expand(q.shape[0], tokens, heads, dim)
        shares = q.new_zeros(*q.shape[:2], classes, dtype=torch.float32)
        first = slice(0, tokens)
        own = overlap(first, share.held)
        keys = share.gathered(k[:, own, :heads], first)
        for some in torch.arange(heads).chunk(groups) if q.shape[1] else ():
            group = slice(int(some[0]), int(some[-1]) + 1)
            out = self.attention(q[:, :, group], keys[:, :, group], values[:, :, group], precise=True)
            shares += out.unflatten(-1, (len(some), dim))[..., :classes].float().sum(dim=2)
            del out
        shares /= heads
        people = torch.stack(
            [spread(shares[..., i], low, high, share) for i, (low, high) in enumerate(self._spans(share.held))]
            + [torch.full_like(shares[..., 0], BACKGROUND_POSITION)],
            dim=-1,
        )
        positions = people.gather(-1, shares.argmax(dim=-1, keepdim=True))
        positions = share.gathered(positions, slice(0, share.tokens))
        return _reshaped(positions, tokens, q.shape[2]) if self.position_map is PositionMap.OFFICIAL else positions

    def _spans(self, held: slice) -> Sequence[Sequence[float | torch.Tensor]]:
        """Each person's (low, high): numbers, or one for each of the tokens `held` of the sequence, [n] float32."""
        if self.ranges is None:
            return PERSON_POSITIONS
        device = self.weights.device
        frames = torch.arange(held.start, held.stop, device=device) // self.tokens
        spans = torch.tensor(_SPANS, device=device)[self.ranges.to(device)[frames]]
        return [person.unbind(-1) for person in spans.unbind(1)]


def check_map(position_map: PositionMap, people: int) -> None:
    """Raises InputError for more people than the official map knows: it mixes frames in which others speak."""
    if position_map is PositionMap.OFFICIAL and people > len(PERSON_POSITIONS):
        raise InputError(
            f"The position_map is official, which knows two people, but {people} were given: choose own frame."
        )


def _checked(ranges: torch.Tensor, layout: Layout, position_map: PositionMap) -> int:
    """How many people `ranges` are of. Raises InputError where they belong to other frames or to the official map."""
    frames = layout.tokens // (layout.height * layout.width)
    if len(ranges) != frames:
        raise InputError(f"The speakers are told for {len(ranges)} latent frames, but the video has {frames}.")
    check_map(position_map, ranges.shape[1])
    return ranges.shape[1]


def _reshaped(positions: torch.Tensor, tokens: int, heads: int) -> torch.Tensor:
    """Positions [B, L, 1] of frames of so many tokens, as PositionMap.OFFICIAL gives them to heads: [B, L, heads]."""
    maps = rearrange(positions, "b (t n) 1 -> b t n", n=tokens)
    frames = maps.shape[1]
    frame, head = torch.arange(frames, device=maps.device), torch.arange(heads, device=maps.device)
    source = (frame[:, None] * heads + head) % frames
    return rearrange(maps[:, source], "b t h n -> b (t n) h")


def spread(x: torch.Tensor, low: float | torch.Tensor, high: float | torch.Tensor, share: Share) -> torch.Tensor:
    """x [B, n] mapped so that of each row of the whole sequence the least value becomes `low`, the largest `high`.

    low, high: numbers, or one for each column, [n].
    """
    least, most = share.extremes(x)
    return (x - least) / (most - least + 1e-8) * (high - low) + low
