"""One block of the transformer: self-attention, cross-attention, the avatar's audio attention, feed-forward.

Sources: those of transformer.py. What runs between the matrix products is in kernels/, fused where a card can.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ... import kernels
from ...distributed.ranks import ALONE, Ranks, Share, overlap, split
from ..recipes import TimeStep
from .audio_attention import AudioAttention
from .chunking import USUAL, Chunking, chunks_of, is_long
from .memory import LayerCopies, attention_numbers, by_token_numbers
from .params import TransformerParams
from .rope import AS_TRAINED, Rope
from .sequence import Layout
from .speaker_map import SpeakerMap
from .step_cache import Cached, StepCache, uncached


def stored_affine(norm: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A norm's weight and, where it has one, bias as float32 on `device`."""
    bias = getattr(norm, "bias", None)
    return norm.weight.to(device, torch.float32), None if bias is None else bias.to(device, torch.float32)


def stored_linear(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """A linear layer on x [..., columns], in x's dtype; its weights may be kept in any floating dtype."""
    return F.linear(x, layer.weight.to(x), layer.bias.to(x))


def plain_block(index: int, block: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Runs a block with nothing around it."""
    return block(x)


@dataclass(frozen=True)
class Runtime:
    """How a forward runs. Inside ComfyUI its own hooks, attention and weights take the place of the defaults."""

    attention: Callable[..., torch.Tensor] = kernels.attention  # q, k, v [B, L, heads, d] -> [B, L, heads * d]
    # (norm layer, device) -> its weight and its bias (None where there is none), float32
    affine: Callable[[nn.Module, torch.device], tuple[torch.Tensor, torch.Tensor | None]] = stored_affine
    # (linear layer, x) -> its output in x's dtype, whatever its weights are kept in
    linear: Callable[[nn.Module, torch.Tensor], torch.Tensor] = stored_linear
    float32_time: frozenset[TimeStep] = frozenset(TimeStep)  # see recipes.Recipe
    run_block: Callable[..., torch.Tensor] = plain_block  # (index, block, x) -> output; block(x) may overwrite x
    step_cache: StepCache | None = None  # of the projections that are the same in every step; None makes them in each
    conditioning: Hashable = None  # name of text, image and audio for step_cache, where they have one
    chunking: Chunking = USUAL  # of a long sequence
    ranks: Ranks = ALONE  # the processes that share the sequence
    rope: Rope = AS_TRAINED
    # ComfyUI's transformer_options where another node has replaced a cross-attention, which then needs the whole prompt
    # and plain tensors; else None.
    foreign_options: dict | None = None


Modulation = list[tuple[slice, torch.Tensor]]  # (token range, shift, scale and gate of both halves [B or 1, 6, D])


@dataclass(frozen=True)
class BlockInputs:
    """What every block needs of one forward."""

    layout: Layout
    share: Share  # what of the sequence is this process's; L are its tokens
    noisy: torch.Tensor  # modulation at the sampler's timestep [B or 1, 6, D] float32
    clean: torch.Tensor | None  # modulation at timestep 0 [1, 6, D] float32, where there are clean segments
    cos_sin: torch.Tensor  # rotary (cos, sin) [L, d / 2, 2]
    text: torch.Tensor  # [B, M, D]
    key_bias: torch.Tensor | None  # of the text's keys, see kernels.attention
    image: torch.Tensor | None  # CLIP tokens [B, 257, D]
    audio: torch.Tensor | None  # [B or 1, frames, people * tokens, width]
    speakers: SpeakerMap | None  # where the people are; None for one
    runtime: Runtime
    cached: Cached = uncached  # for what is made of text, image and audio alone

    def modulation(self, own: torch.Tensor) -> Modulation:
        """The modulation of the tokens held, segment by segment, with a block's `own` [1, 6, D] added."""
        own = own.to(device=self.noisy.device, dtype=torch.float32)
        noisy, held = self.noisy + own, self.share.held
        if self.clean is None:
            return [(slice(0, held.stop - held.start), noisy)]
        clean = self.clean + own
        rows = [(slice(span.start, span.stop), clean if span.clean else noisy) for span in self.layout.spans]
        return within(rows, held)


def within(modulation: Modulation, wanted: slice) -> Modulation:
    """The part of a modulation that lies in `wanted`, counted from the start of `wanted`."""
    inner = [(overlap(span, wanted), row) for span, row in modulation]
    return [(span, row) for span, row in inner if span.start < span.stop]


def norm_modulate(x: torch.Tensor, modulation: Modulation, eps: float, how: kernels.Quantisation | None):
    """Layer norm of x, shifted and scaled for the self-attention by token range; as 8-bit rows with `how`."""
    shift, scale = 0, 1
    if len(modulation) == 1:  # all tokens: the result need not be allocated beforehand
        row = modulation[0][1]
        return kernels.norm_modulate(x, row[:, shift], row[:, scale], eps, how)
    out = kernels.rows_like(x, how)
    for span, row in modulation:
        kernels.norm_modulate(x[:, span], row[:, shift], row[:, scale], eps, how, out=out[:, span])
    return out


def _ranges(x: torch.Tensor, modulation: Modulation) -> list[torch.Tensor]:
    """Views of x [B, n, D], one for each token range."""
    return [x[:, span] for span, _ in modulation]


def shared_quantisation(device: torch.device, *layers: nn.Module | None) -> kernels.Quantisation | None:
    """How the common input of `layers` is quantised, once for all; None where they take none in 8 bits, or differ."""
    takers = [getattr(layer, "quantised_input", None) for layer in layers]
    wanted = {None if taker is None else taker(device) for taker in takers}
    return wanted.pop() if len(wanted) == 1 else None


def unpacks(layer: nn.Module, x: torch.Tensor) -> bool:
    """Whether a layer makes a copy of its weight at each call, in the dtype of its input x."""
    own = getattr(layer, "unpacks", None)
    return own is not None and own(x.device, x.dtype)


def prepared(x: torch.Tensor, *layers: nn.Module) -> AbstractContextManager[None]:
    """While it is open, layers do once what they do with their weights at each call: unpack, copy to the device.

    Nothing in a graph of torch.compile, which would break there.
    """
    return nullcontext() if torch.compiler.is_compiling() else _prepared(x, layers)


@contextmanager
def _prepared(x: torch.Tensor, layers: tuple[nn.Module, ...]):
    with ExitStack() as opened:
        for layer in layers:
            own = getattr(layer, "prepared", None)
            if own is not None:
                opened.enter_context(own(x))
        yield


def fitting_layers(room: int, layers: list) -> list:
    """The first of the layers that can be `prepared` and whose weights together have at most `room` numbers.

    What another node put into a layer's place may be anything that can be called.
    """
    fit = []
    for layer in (one for one in layers if hasattr(one, "prepared")):
        room -= layer.in_features * layer.out_features
        if room < 0:
            break
        fit.append(layer)
    return fit


class Attention(nn.Module):
    """Projections of an attention and the norms of its queries and keys."""

    def __init__(self, dim: int, heads: int, eps: float, operations, **options):
        super().__init__()
        self.heads = self.num_heads = heads  # the second is the host's name, as are the next two
        self.dim = dim
        self.head_dim = dim // heads
        self.eps = eps
        self.q = operations.Linear(dim, dim, **options)
        self.k = operations.Linear(dim, dim, **options)
        self.v = operations.Linear(dim, dim, **options)
        self.o = operations.Linear(dim, dim, **options)
        self.norm_q = operations.RMSNorm(dim, eps=eps, **options)
        self.norm_k = operations.RMSNorm(dim, eps=eps, **options)


class SelfAttention(Attention):
    """Attention among all tokens of the sequence, without its output projection `o`."""

    def forward(self, x: torch.Tensor, modulation: Modulation, inputs: BlockInputs, wanted: slice):
        """x [B, L, D] -> (output of the tokens `wanted` that are held [B, n, D], `SpeakerMap.positions` or None).

        wanted: in the sequence.
        """
        chunking, share, speakers = inputs.runtime.chunking, inputs.share, inputs.speakers
        # By the longest share, not by one's own: all processes exchange alike.
        long = len(x) * share.longest > chunking.long
        if long and chunking.key_groups > 1 and share.ranks.size == 1:
            return self._by_heads(x, modulation, inputs, wanted)
        q, k, v = self._qkv(x, modulation, inputs, overlap(wanted, share.held))
        groups = chunking.head_groups if long else 1
        positions = None if speakers is None else speakers.positions(q, k, groups, share)
        return share.attend(q, k, v, wanted, inputs.runtime.attention, groups), positions

    def _by_heads(self, x: torch.Tensor, modulation: Modulation, inputs: BlockInputs, wanted: slice):
        """As forward, with the keys and values of a group of heads at a time."""
        chunking, share, speakers = inputs.runtime.chunking, inputs.share, inputs.speakers
        every, heads, positions = slice(0, x.shape[1]), slice(0, self.heads), None
        q = Projection.of(x, self.q, self.norm_q, wanted, heads, self.head_dim)
        groups = split(heads, min(chunking.key_groups, self.heads))
        for group in groups:
            k = Projection.of(x, self.k, self.norm_k, every, group, self.head_dim)
            v = Projection.of(x, self.v, None, every, group, self.head_dim)
            self._project(x, modulation, inputs, [q, k, v] if group.start == 0 else [k, v])
            if speakers is not None and group.start == 0:  # before an output is written over its queries
                frame = slice(0, speakers.tokens)
                first = Projection.of(x, self.k, self.norm_k, frame, heads, self.head_dim)
                self._project(x[:, frame], within(modulation, frame), inputs, [first])
                positions = speakers.positions(q.made, first.made, chunking.head_groups, share)
                del first
            some = max(2, chunking.head_groups // len(groups))  # of one the output would not be written over them
            share.attend(q.made[:, :, group], k.made, v.made, wanted, inputs.runtime.attention, some)
            del k, v  # before the next group's
        return q.made.flatten(2), positions

    def _qkv(self, x: torch.Tensor, modulation: Modulation, inputs: BlockInputs, wanted: slice) -> list[torch.Tensor]:
        """x [B, L, D] normed, modulated and projected to q [B, n, heads, d] of the tokens `wanted`, k and v, with norms
        and places.

        wanted: of the L tokens. Where there are none, as in a process that shares a sequence, no layer is called.
        """
        heads, every = slice(0, self.heads), slice(0, x.shape[1])
        if not x.shape[1]:
            return [x.unflatten(-1, (self.heads, -1))] * 3
        if is_long(x, inputs.runtime.chunking):
            # Norms and places later, of all at once: fewer launches.
            layers = (self.q, None, wanted), (self.k, None, every), (self.v, None, every)
            all_three = [Projection.of(x, *layer, heads, self.head_dim) for layer in layers]
            self._project(x, modulation, inputs, all_three)
            q, k, v = (one.made for one in all_three)
            q, k = q.flatten(2), k.flatten(2)
        else:
            normed = norm_modulate(x, modulation, self.eps, self._how(x))
            q = self.q(normed[:, wanted]) if wanted.start < wanted.stop else x[:, wanted]
            k, v = self.k(normed), self.v(normed).unflatten(-1, (self.heads, -1))
            del normed
        q = self._norm_rope(q, self.norm_q, inputs.cos_sin[wanted], inputs.runtime)
        return [q, self._norm_rope(k, self.norm_k, inputs.cos_sin, inputs.runtime), v]

    def _how(self, x: torch.Tensor) -> kernels.Quantisation | None:
        return shared_quantisation(x.device, self.q, self.k, self.v)

    def _project(self, x: torch.Tensor, modulation: Modulation, inputs: BlockInputs, wanted: list["Projection"]):
        """Makes projections of x [B, L, D], normed and modulated chunk by chunk.

        The normed stream of a long sequence never exists as a whole: it would be one tensor in five. Nor do several
        unpacked weights at once, which costs little more than norming the stream again.
        """
        alone = any(unpacks(one.layer, x) for one in wanted)
        for together in [[one] for one in wanted] if alone else [wanted]:
            with prepared(x, *(one.layer for one in together)):
                for chunk in chunks_of(x, inputs.runtime.chunking):
                    normed = norm_modulate(x[:, chunk], within(modulation, chunk), self.eps, self._how(x))
                    for one in together:
                        tokens = overlap(one.tokens, chunk)
                        if tokens.start < tokens.stop:
                            y, place = one.layer(normed[:, tokens]), overlap(chunk, one.tokens)
                            if one.norm is None:
                                y = y.unflatten(-1, (self.heads, -1))
                            else:
                                y = self._norm_rope(y, one.norm, inputs.cos_sin[one.tokens][place], inputs.runtime)
                            one.made[:, place] = y[:, :, one.heads]
                            del y
                    del normed  # before the next chunk is normed

    def _norm_rope(self, x: torch.Tensor, norm: nn.Module, cos_sin: torch.Tensor, runtime: Runtime) -> torch.Tensor:
        """x [B, n, D] normed and rotated to its tokens' positions, [B, n, heads, d]; written into x."""
        weight, _ = runtime.affine(norm, x.device)
        return kernels.rms_norm_rope_(x, weight, cos_sin, self.heads, self.eps)


@dataclass(frozen=True)
class Projection:
    """Queries, keys or values of some heads and tokens. norm: of queries and keys, which have a place too.

    made: [B, tokens, heads, d], filled by `SelfAttention._project`.
    """

    layer: nn.Module
    norm: nn.Module | None
    tokens: slice
    heads: slice
    made: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor, layer, norm, tokens: slice, heads: slice, head_dim: int) -> "Projection":
        """With room for the projection of x [B, L, D]."""
        size = tokens.stop - tokens.start, heads.stop - heads.start, head_dim
        return cls(layer, norm, tokens, heads, x.new_empty(len(x), *size))


class CrossAttention(Attention):
    """Attention from the video to the prompt and, where the network takes them, to the CLIP image tokens."""

    def __init__(self, dim: int, heads: int, eps: float, image: bool, operations, **options):
        super().__init__(dim, heads, eps, operations, **options)
        if image:
            self.k_img = operations.Linear(dim, dim, **options)
            self.v_img = operations.Linear(dim, dim, **options)
            self.norm_k_img = operations.RMSNorm(dim, eps=eps, **options)

    def forward(self, x: torch.Tensor, keys: list, inputs: BlockInputs) -> torch.Tensor:
        """x [B, n, D], keys and values as `keys` makes them -> [B, n, D]."""
        q = self._normed(self.q(x), self.norm_q, inputs.runtime)
        prompt, *others = keys
        if inputs.key_bias is None:
            out = inputs.runtime.attention(q, *prompt, precise=True)
        else:
            out = kernels.attention(q, *prompt, key_bias=inputs.key_bias)
        for other in others:
            out += inputs.runtime.attention(q, *other, precise=True)
        return self.o(out)

    def keys(self, inputs: BlockInputs) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values [B, M, heads, d] of the prompt and of the image, where the network takes one."""
        made = [inputs.cached((self, "text"), lambda: self._keys(inputs.text, self.k, self.v, self.norm_k, inputs))]
        image = inputs.image
        if image is not None:
            own = self.k_img, self.v_img, self.norm_k_img
            made.append(inputs.cached((self, "image"), lambda: self._keys(image, *own, inputs)))
        return made

    def _keys(self, tokens: torch.Tensor, k: nn.Module, v: nn.Module, norm: nn.Module, inputs: BlockInputs):
        return self._normed(k(tokens), norm, inputs.runtime), v(tokens).unflatten(-1, (self.heads, -1))

    def _normed(self, x: torch.Tensor, norm: nn.Module, runtime: Runtime) -> torch.Tensor:
        weight, _ = runtime.affine(norm, x.device)
        return kernels.rms_norm_(x, weight, self.eps).unflatten(-1, (self.heads, -1))


class Block(nn.Module):
    """Self-attention, cross-attention, audio attention (avatar only), feed-forward; each added to the stream."""

    def __init__(self, params: TransformerParams, operations, **options):
        super().__init__()
        dim, eps = params.dim, params.eps
        self.dim, self.ffn_dim, self.eps = dim, params.ffn_dim, eps
        self.self_attn = SelfAttention(dim, params.num_heads, eps, operations, **options)
        self.norm3 = operations.LayerNorm(dim, eps=eps, **options)
        image = params.image_dim is not None
        self.cross_attn = CrossAttention(dim, params.num_heads, eps, image, operations, **options)
        self.ffn = nn.Sequential(
            operations.Linear(dim, params.ffn_dim, **options),
            nn.GELU(approximate="tanh"),
            operations.Linear(params.ffn_dim, dim, **options),
        )
        self.modulation = nn.Parameter(torch.empty(1, 6, dim, **options))
        if params.audio is not None:
            self.norm_x = operations.LayerNorm(dim, eps=eps, **options)
            self.audio_cross_attn = AudioAttention(dim, params.num_heads, params.audio.dim, operations, **options)

    def forward(self, x: torch.Tensor, inputs: BlockInputs, wanted: slice | None = None) -> torch.Tensor:
        """x [B, L, D] -> [B, L, D], written into x.

        wanted: the tokens of the sequence whose output is used, None for all. Of the others only keys and values are
        made; they stay as they were.
        """
        stream, modulation, runtime = x, inputs.modulation(self.modulation), inputs.runtime
        wanted = wanted or slice(0, inputs.layout.tokens)
        attended, positions = self.self_attn(x, modulation, inputs, wanted)
        prompt = self.cross_attn.keys(inputs)
        speech = None
        if inputs.audio is not None:
            speech = self.audio_cross_attn.keys(inputs.audio, positions, inputs.layout, inputs.cached)

        # From here on tokens do not depend on each other: a long sequence passes in chunks.
        held = inputs.share.held
        mine = overlap(wanted, held)
        x, modulation = x[:, mine], within(modulation, mine)
        chunks = chunks_of(x, runtime.chunking)
        with prepared(x, *self._called_repeatedly(stream, runtime.chunking, chunks, len(modulation))):
            for chunk in chunks:
                own, rows = x[:, chunk], within(modulation, chunk)
                # Unbound only behind the last chunk, which pyright does not see.
                y = self.self_attn.o(attended[:, chunk])  # pyright: ignore[reportPossiblyUnboundVariable]
                if chunk.stop == x.shape[1]:
                    del attended  # pyright: ignore[reportPossiblyUnboundVariable]
                gates = [(span, row[:, 2]) for span, row in rows]
                queries = self.cross_attn.q if runtime.foreign_options is None else None
                y = self._add_norm(own, y, gates, self.norm3, queries, runtime)
                y = self.cross_attn(y, prompt, inputs)
                if speech is not None:
                    ungated, layer = [(slice(None), None)], self.audio_cross_attn.q_linear
                    y = self._add_norm(own, y, ungated, self.norm_x, layer, runtime)
                    first = held.start + mine.start
                    place = slice(first + chunk.start, first + chunk.stop)
                    y = self.audio_cross_attn(y, speech, place, runtime.attention)

                how, addends = shared_quantisation(x.device, self.ffn[0]), _ranges(y, rows)
                del y
                for span, row in rows:
                    affine = row[:, 3], row[:, 4], self.eps, how
                    # No names for what is made: they would live on beside what comes next.
                    kernels.add_gated_(
                        own[:, span],
                        self.ffn[2](
                            self._ffn_hidden(
                                kernels.add_gated_norm_modulate_(own[:, span], addends.pop(0), None, *affine)
                            )
                        ),
                        row[:, 5],
                    )
        return stream

    def _called_repeatedly(self, stream: torch.Tensor, chunking: Chunking, chunks: list, spans: int) -> list:
        """Layers that are called several times for a sequence: for each chunk of it, the feed-forward for each range of
        tokens with a modulation of its own. As many as fit where keys and values were, so that the peak stays theirs.
        """
        # With room for a weight that does not fit, too.
        sizes = self.dim, self.ffn_dim, stream.shape[0] * stream.shape[1], chunking, LayerCopies(weight=True)
        speech = hasattr(self, "audio_cross_attn")
        room = attention_numbers(*sizes) - by_token_numbers(*sizes, speech=speech)
        layers = [self.ffn[0], self.ffn[2]] if len(chunks) > 1 or spans > 1 else []
        if len(chunks) > 1:
            layers += [self.self_attn.o, self.cross_attn.q, self.cross_attn.o]
            if speech:
                layers += [self.audio_cross_attn.q_linear, self.audio_cross_attn.proj]
        return fitting_layers(room, layers)

    def _add_norm(self, x, y, gates: list, norm: nn.Module, layer: nn.Module | None, runtime: Runtime):
        """x += y with the gate of each token range, then the norm of x as the input of `layer`. May write into y.

        layer: None for other code, which takes no 8-bit rows.
        """
        weight, bias = runtime.affine(norm, x.device)
        how = shared_quantisation(x.device, layer)
        shift = torch.zeros_like(weight) if bias is None else bias
        affine = shift[None], weight[None] - 1, self.eps, how
        if len(gates) == 1:
            return kernels.add_gated_norm_modulate_(x, y, gates[0][1], *affine)
        out = y if how is None else kernels.rows_like(x, how)
        for span, gate in gates:
            kernels.add_gated_norm_modulate_(x[:, span], y[:, span], gate, *affine, out=out[:, span])
        return out

    def _ffn_hidden(self, x: torch.Tensor) -> torch.Tensor:
        """GELU of the feed-forward's first layer, [B, n, ffn_dim]."""
        layer = self.ffn[0]
        if getattr(layer, "takes_gelu", False):
            return layer(x, gelu=True)
        return kernels.gelu_(layer(x))
