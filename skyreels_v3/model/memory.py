"""How many bytes a forward and the weights need: from sizes alone, never by running out of memory."""

from dataclasses import dataclass
from enum import Enum

from ...kernels.quantised_rows import CHUNK
from ..recipes import TimeStep
from .chunking import LEVELS, USUAL, Chunking
from .params import TransformerParams

TEXT_TOKENS = 512
IMAGE_TOKENS = 257
BLOCKS_AHEAD = 2  # blocks on the card at once where all weights are streamed: the one that runs and the next
FLOAT32 = 4
# Numbers of the time's weights, of which float32 makes a copy, as multiples of dim^2.
TIME_SQUARES = {TimeStep.EMBEDDING: 1, TimeStep.PROJECTION: 6}
ALL_FLOAT32 = frozenset(TimeStep)
BYTES_BESIDE = 512  # a token's latents as they come and go, and its place in time
PROMPT, SPEECH = 8 * 2**20, 20 * 2**20  # bytes of the prompt, and of image and speech, on their way through a forward
SHARED_STREAMS, SHARED_GROUPS = 4.4, 4.4  # see _shared_bytes
CACHE_SHARE = 32  # the cache of a sampling may take one in so many of a device's bytes


@dataclass(frozen=True)
class LayerCopies:
    """What linear layers make beside their output, by how their weights are stored and what the device can do.

    weight: the weight in the stream's dtype.  codes: their input in 8 bits.  floats: float32 copies of a part of their
    output, for lack of a kernel.
    """

    weight: bool = False
    codes: bool = False
    floats: bool = False

    def parts(self, itemsize: int) -> int:
        """Float32 copies as numbers of the stream: the sums and what becomes of them."""
        return 7 * CHUNK // itemsize if self.floats else 0


PLAIN = LayerCopies()


def forward_bytes(
    params: TransformerParams,
    tokens: int,
    itemsize: int,
    chunking: Chunking = USUAL,
    cards: int = 1,
    copies: LayerCopies = PLAIN,
    float32_time: frozenset[TimeStep] = ALL_FLOAT32,
) -> int:
    """Peak of the activations of one forward.

    tokens: of all segments and the whole batch.  itemsize: bytes of a number of the stream.  cards: that share it.
    float32_time: of the job's recipe.
    """
    held = -(-tokens // cards)
    # The time comes before the blocks, and counts where sequences are short.
    squares = max((TIME_SQUARES.get(step, 0) for step in float32_time), default=0)
    start = held * params.dim * itemsize + FLOAT32 * squares * params.dim**2
    if cards > 1:
        return max(start, _shared_bytes(params, held, itemsize, chunking, cards))
    sizes = params.dim, params.ffn_dim, tokens, chunking, copies, itemsize
    beside = BYTES_BESIDE * tokens + FLOAT32 * tokens * params.dim // params.num_heads
    beside += PROMPT + (SPEECH if params.audio else 0)
    return max(start, max(attention_numbers(*sizes), by_token_numbers(*sizes, bool(params.audio))) * itemsize + beside)


def _shared_bytes(params: TransformerParams, held: int, itemsize: int, chunking: Chunking, cards: int) -> int:
    """The peak on one of the cards that share a forward. held: tokens on it.

    Beside x, q, k and v live, of a group of heads, what has come of q, k and v, and what is sent or the output: four of
    each, and a tenth for what allocators lose. gloo holds more of what was exchanged, for a while; cards have NCCL.
    """
    groups = 1 if held <= chunking.long else max(1, min(chunking.head_groups, params.num_heads // cards))
    attention = int(held * params.dim * (SHARED_STREAMS + SHARED_GROUPS / groups))
    after = by_token_numbers(params.dim, params.ffn_dim, held, chunking, speech=bool(params.audio))
    return max(attention, after) * itemsize + BYTES_BESIDE * held + FLOAT32 * held * params.dim // params.num_heads


def attention_numbers(
    dim: int, ffn_dim: int, tokens: int, chunking: Chunking, copies: LayerCopies = PLAIN, itemsize: int = 2
) -> int:
    """Numbers that live at once until the attention is done: the stream, q, k, v and its output; of a long sequence the
    output of a group of heads only, or a chunk that is normed and what is made of it.
    """
    stream, weight, parts = tokens * dim, copies.weight * dim**2, copies.parts(itemsize)
    if tokens <= chunking.long:
        return max(5 * stream + weight, 9 * stream // 2 + parts)
    chunk = 2 * min(tokens, chunking.tokens) * dim + weight + parts
    return 2 * stream + 2 * -(-stream // chunking.key_groups) + max(-(-stream // chunking.head_groups), chunk)


def by_token_numbers(
    dim: int,
    ffn_dim: int,
    tokens: int,
    chunking: Chunking,
    copies: LayerCopies = PLAIN,
    itemsize: int = 2,
    speech: bool = False,
) -> int:
    """Numbers that live at once after it: the stream, of several chunks the attention's output, and what a chunk passes
    through: the attention to the prompt, or to the speech, whose whole frames are cut to chunks, or the feed-forward.
    """
    several = tokens > chunking.tokens
    chunk, parts = min(tokens, chunking.tokens), copies.parts(itemsize)
    codes = ffn_dim // 2 if copies.codes and not copies.floats else 0
    prompt = chunk * (4 + (several and speech)) * dim + copies.weight * dim**2
    hidden = chunk * (ffn_dim + dim + codes) + copies.weight * dim * ffn_dim
    return (1 + several) * tokens * dim + max(prompt, hidden) + parts


def cache_bytes(params: TransformerParams, itemsize: int) -> int:
    """The cache of one prompt: keys and values of the text and the image in every block."""
    tokens = TEXT_TOKENS + (0 if params.image_dim is None else IMAGE_TOKENS)
    return 2 * tokens * params.dim * params.num_layers * itemsize


def cache_limit(memory: int) -> int:
    """Bytes of the cache at most. memory: bytes of the device in all."""
    return memory // CACHE_SHARE


def needed_bytes(
    params: TransformerParams,
    tokens: int,
    itemsize: int,
    memory: int,
    chunking: Chunking = USUAL,
    cards: int = 1,
    copies: LayerCopies = PLAIN,
    float32_time: frozenset[TimeStep] = ALL_FLOAT32,
) -> int:
    """What a forward needs beside the weights, its cache included. memory: bytes of the device in all.

    cards: that share it; what one of them needs.  float32_time: of the job's recipe.
    """
    forward = forward_bytes(params, tokens, itemsize, chunking, cards, copies, float32_time)
    return forward + min(cache_bytes(params, itemsize), cache_limit(memory))


def chunking_for(
    params: TransformerParams,
    tokens: int,
    itemsize: int,
    memory: int,
    room: int,
    cards: int = 1,
    copies: LayerCopies = PLAIN,
    float32_time: frozenset[TimeStep] = ALL_FLOAT32,
) -> Chunking:
    """The largest chunks with which a forward fits into `room`, the smallest where none do.

    memory: bytes of the device in all.  room: bytes of it that the weights leave.  cards: that share it.
    float32_time: of the job's recipe.
    """
    for each in LEVELS:
        if needed_bytes(params, tokens, itemsize, memory, each, cards, copies, float32_time) <= room:
            return each
    return LEVELS[-1]


def streamed_bytes(weights: int, layers: int) -> int:
    """What the weights need at least, where they are streamed. weights: bytes of all of them.  layers: blocks."""
    return min(weights, BLOCKS_AHEAD * weights // layers)


class Keeping(Enum):
    """Where cards that share a model keep its blocks, which come together when they run unless each card has all."""

    WHOLE = "whole"  # on each card
    SPLIT = "split"  # on each card a part
    IN_RAM = "in RAM"  # each card's part in RAM: the model once in all

    def bytes(self, weights: int, layers: int, cards: int) -> int:
        """What a card holds of the weights. weights: bytes of all of them.  layers: blocks."""
        part = -(-weights // cards) if self is Keeping.SPLIT else 0
        return weights if self is Keeping.WHOLE else min(weights, part + streamed_bytes(weights, layers))


def keeping_for(
    params: TransformerParams,
    weights: int,
    tokens: int,
    itemsize: int,
    memory: int,
    room: int,
    cards: int,
    float32_time: frozenset[TimeStep] = ALL_FLOAT32,
) -> Keeping:
    """All weights on each card where a forward fits beside them, else a part where one in the smallest chunks does.

    weights: bytes of all of them.  tokens, itemsize: see `forward_bytes`.  memory: bytes of a card in all.
    room: those of it that the model may take.
    """
    for keeping, chunking in ((Keeping.WHOLE, USUAL), (Keeping.SPLIT, LEVELS[-1])):
        forward = needed_bytes(params, tokens, itemsize, memory, chunking, cards, float32_time=float32_time)
        if keeping.bytes(weights, params.num_layers, cards) + forward <= room:
            return keeping
    return Keeping.IN_RAM


def block_numbers(params: TransformerParams) -> int:
    """Numbers in the matrices of one block; all blocks together are 98 % of a model."""
    dim = params.dim
    numbers = 8 * dim**2 + 2 * dim * params.ffn_dim
    if params.image_dim is not None:
        numbers += 2 * dim**2
    if params.audio is not None:
        numbers += 2 * dim**2 + 2 * dim * params.audio.dim
    return numbers
