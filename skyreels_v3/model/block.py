"""One block of the transformer: self-attention, cross-attention, the avatar's audio attention, feed-forward.

Sources: those of transformer.py. What runs between the matrix products is in kernels/, fused where a card can.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ... import kernels
from .audio_attention import AudioAttention
from .chunking import USUAL, Chunking
from .params import TransformerParams
from .sequence import Layout
from .speaker_map import SpeakerMap
from .step_cache import Cached, StepCache, uncached


def stored_affine(norm: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A norm's weight and, where it has one, bias as float32 on `device`."""
    bias = getattr(norm, "bias", None)
    return norm.weight.to(device, torch.float32), None if bias is None else bias.to(device, torch.float32)


def plain_block(index: int, block: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Runs a block with nothing around it."""
    return block(x)


@dataclass(frozen=True)
class Runtime:
    """What the host lends to a forward.

    attention: q, k, v [B, L, heads, d] -> [B, L, heads * d], see kernels.attention.
    affine: the float32 weight and bias (None where there is none) of a norm layer on a device.
    around_block: called as (index, block, x) and returns the block's output; block(x) may overwrite x.
    step_cache: of the projections that are the same in every step, None to compute them in each.
    chunking: of a long sequence.
    """

    attention: Callable[..., torch.Tensor] = kernels.attention
    affine: Callable[[nn.Module, torch.device], tuple[torch.Tensor, torch.Tensor | None]] = stored_affine
    around_block: Callable[..., torch.Tensor] = plain_block
    step_cache: StepCache | None = None
    chunking: Chunking = USUAL


@dataclass(frozen=True)
class Step:
    """What every block needs of one forward.

    noisy, clean: modulation at the sampler's timestep [B or 1, 6, D] and at timestep 0 [1, 6, D] or None, float32.
    table: rotary (cos, sin) [L, d / 2, 2].  text: [B, M, D].  key_bias: of its keys, see kernels.attention, or None.
    image: [B, 257, D] or None.
    audio: [B or 1, frames, people * tokens, width] or None.  speakers: where the people are, None for one.
    cached: for what is made of text, image and audio alone.
    """

    layout: Layout
    noisy: torch.Tensor
    clean: torch.Tensor | None
    table: torch.Tensor
    text: torch.Tensor
    key_bias: torch.Tensor | None
    image: torch.Tensor | None
    audio: torch.Tensor | None
    speakers: SpeakerMap | None
    runtime: Runtime
    cached: Cached = uncached

    def rows(self, modulation: torch.Tensor) -> list[tuple[slice, torch.Tensor]]:
        """(token range, modulation rows [B or 1, 6, D] float32) for every segment, a block's own part added."""
        own = modulation.to(device=self.noisy.device, dtype=torch.float32)
        noisy = self.noisy + own
        if self.clean is None:
            return [(slice(0, self.layout.tokens), noisy)]
        clean = self.clean + own
        return [(slice(span.start, span.stop), clean if span.clean else noisy) for span in self.layout.spans]


def overlap(span: slice, wanted: slice) -> slice:
    """The part of `span` that lies in `wanted`, counted from the start of `wanted`; may be empty."""
    start, stop = (min(max(edge, wanted.start), wanted.stop) - wanted.start for edge in (span.start, span.stop))
    return slice(start, stop)


def within(rows: list, wanted: slice) -> list:
    """Of (token range, modulation rows) what lies in `wanted`, counted from its start."""
    inner = [(overlap(span, wanted), row) for span, row in rows]
    return [(span, row) for span, row in inner if span.start < span.stop]


def chunks_of(tokens: int, most: int) -> list[slice]:
    """A sequence as ranges of at most `most` tokens."""
    return [slice(start, min(start + most, tokens)) for start in range(0, tokens, most)]


def modulated(x: torch.Tensor, rows: list, shift: int, scale: int, eps: float, how: kernels.Quantisation | None):
    """Layer norm of x, shifted and scaled by the modulation rows of each token range; as 8-bit rows with `how`."""
    if len(rows) == 1:  # all tokens: the result needs no place of its own beforehand
        return kernels.norm_modulate(x, rows[0][1][:, shift], rows[0][1][:, scale], eps, how)
    out = kernels.rows_like(x, how)
    for span, row in rows:
        kernels.norm_modulate(x[:, span], row[:, shift], row[:, scale], eps, how, out=out[:, span])
    return out


def shared_input(device: torch.device, *layers: nn.Module) -> kernels.Quantisation | None:
    """How all of `layers` take their one input in 8 bits, so that it is quantised once; None where they do not."""
    takers = [getattr(layer, "quantised_input", None) for layer in layers]
    wanted = {None if taker is None else taker(device) for taker in takers}
    return wanted.pop() if len(wanted) == 1 else None


class Attention(nn.Module):
    """Projections of an attention and the norms of its queries and keys."""

    def __init__(self, dim: int, heads: int, eps: float, operations, **options):
        super().__init__()
        self.heads = heads
        self.eps = eps
        self.q = operations.Linear(dim, dim, **options)
        self.k = operations.Linear(dim, dim, **options)
        self.v = operations.Linear(dim, dim, **options)
        self.o = operations.Linear(dim, dim, **options)
        self.norm_q = operations.RMSNorm(dim, eps=eps, **options)
        self.norm_k = operations.RMSNorm(dim, eps=eps, **options)


class SelfAttention(Attention):
    """Attention among all tokens of the sequence. Its output is still to pass `o`."""

    def forward(self, x: torch.Tensor, rows: list, step: Step, wanted: slice):
        """x [B, L, D], modulation rows -> (output [B, wanted, D], speaker positions [B, wanted] or None)."""
        q, k, v = self._projected(x, rows, step.runtime.chunking, wanted)
        q = self._turned(q, self.norm_q, step.table[wanted], step.runtime)
        k = self._turned(k, self.norm_k, step.table, step.runtime)
        v = v.unflatten(-1, (self.heads, -1))
        positions = None if step.speakers is None else step.speakers.positions(q, k)
        return self._attended(q, k, v, step.runtime), positions

    def _projected(self, x: torch.Tensor, rows: list, chunking: Chunking, wanted: slice) -> tuple[torch.Tensor, ...]:
        """x [B, L, D] normed, modulated and projected to q [B, wanted, D], k and v [B, L, D]."""
        how = shared_input(x.device, self.q, self.k, self.v)
        if x.shape[1] <= chunking.long:
            x = modulated(x, rows, 0, 1, self.eps, how)
            return self.q(x[:, wanted]), self.k(x), self.v(x)
        # Of a long sequence the normed stream never exists as a whole: it would be one tensor in five.
        q, k, v = torch.empty_like(x[:, wanted]), torch.empty_like(x), torch.empty_like(x)
        for part in chunks_of(x.shape[1], chunking.tokens):
            normed = modulated(x[:, part], within(rows, part), 0, 1, self.eps, how)
            k[:, part], v[:, part] = self.k(normed), self.v(normed)
            asked = overlap(wanted, part)
            if asked.start < asked.stop:
                q[:, overlap(part, wanted)] = self.q(normed[:, asked])
        return q, k, v

    def _turned(self, x: torch.Tensor, norm: nn.Module, table: torch.Tensor, runtime: Runtime) -> torch.Tensor:
        """x [B, n, D] normed and turned by its tokens' rotary positions, [B, n, heads, d]; written into x."""
        weight, _ = runtime.affine(norm, x.device)
        return kernels.rms_norm_rope_(x, weight, table, self.heads, self.eps)

    def _attended(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, runtime: Runtime) -> torch.Tensor:
        """Attention of all heads [B, L, D]; of a long sequence by groups of heads, written over their queries."""
        if k.shape[1] <= runtime.chunking.long:
            return runtime.attention(q, k, v)
        for heads in torch.arange(self.heads).chunk(runtime.chunking.head_groups):
            group = slice(int(heads[0]), int(heads[-1]) + 1)
            parts = (part[:, :, group] for part in (q, k, v))
            # No name for the output: it would live on beside the next group's.
            q[:, :, group] = runtime.attention(*parts).unflatten(-1, (len(heads), -1))
        return q.flatten(2)


class CrossAttention(Attention):
    """Attention from the video to the prompt and, where the network takes them, to the CLIP image tokens."""

    def __init__(self, dim: int, heads: int, eps: float, image: bool, operations, **options):
        super().__init__(dim, heads, eps, operations, **options)
        if image:
            self.k_img = operations.Linear(dim, dim, **options)
            self.v_img = operations.Linear(dim, dim, **options)
            self.norm_k_img = operations.RMSNorm(dim, eps=eps, **options)

    def forward(self, x: torch.Tensor, keys: list, step: Step) -> torch.Tensor:
        """x [B, n, D], keys and values as `keys` makes them -> [B, n, D]."""
        q = self._normed(self.q(x), self.norm_q, step.runtime)
        prompt, *others = keys
        if step.key_bias is None:
            out = step.runtime.attention(q, *prompt, precise=True)
        else:
            out = kernels.attention(q, *prompt, key_bias=step.key_bias)
        for other in others:
            out += step.runtime.attention(q, *other, precise=True)
        return self.o(out)

    def keys(self, step: Step) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values [B, M, heads, d] of the prompt and of the image, where the network takes one."""
        made = [step.cached((self, "text"), lambda: self._keys(step.text, self.k, self.v, self.norm_k, step))]
        if step.image is not None:
            own = self.k_img, self.v_img, self.norm_k_img
            made.append(step.cached((self, "image"), lambda: self._keys(step.image, *own, step)))
        return made

    def _keys(self, tokens: torch.Tensor, k: nn.Module, v: nn.Module, norm: nn.Module, step: Step):
        return self._normed(k(tokens), norm, step.runtime), v(tokens).unflatten(-1, (self.heads, -1))

    def _normed(self, x: torch.Tensor, norm: nn.Module, runtime: Runtime) -> torch.Tensor:
        weight, _ = runtime.affine(norm, x.device)
        return kernels.rms_norm_(x, weight, self.eps).unflatten(-1, (self.heads, -1))


class Block(nn.Module):
    """Self-attention, cross-attention, audio attention (avatar only), feed-forward; each added to the stream."""

    def __init__(self, params: TransformerParams, operations, **options):
        super().__init__()
        dim, eps = params.dim, params.eps
        self.eps = eps
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

    def forward(self, x: torch.Tensor, step: Step, wanted: slice | None = None) -> torch.Tensor:
        """x [B, L, D] -> [B, L, D], written into x.

        wanted: the tokens whose output anybody reads, None for all. Of the others only keys and values are made, and
        they stay as they were.
        """
        stream, rows, runtime = x, step.rows(self.modulation), step.runtime
        wanted = wanted or slice(0, x.shape[1])
        attended, positions = self.self_attn(x, rows, step, wanted)
        prompt = self.cross_attn.keys(step)
        speech = None
        if step.audio is not None:
            speech = self.audio_cross_attn.keys(step.audio, positions, step.layout, step.cached)

        # From here on a token knows no other one: a long sequence passes in parts.
        x, rows = x[:, wanted], within(rows, wanted)
        for part in chunks_of(x.shape[1], runtime.chunking.tokens):
            own, inner = x[:, part], within(rows, part)
            # Unbound only behind the last part, which pyright does not see.
            y = self.self_attn.o(attended[:, part])  # pyright: ignore[reportPossiblyUnboundVariable]
            if part.stop == x.shape[1]:
                del attended  # pyright: ignore[reportPossiblyUnboundVariable]
            gates = [(span, row[:, 2]) for span, row in inner]
            y = self._added_and_normed(own, y, gates, self.norm3, self.cross_attn.q, runtime)
            y = self.cross_attn(y, prompt, step)
            if speech is not None:
                ungated, layer = [(slice(None), None)], self.audio_cross_attn.q_linear
                y = self._added_and_normed(own, y, ungated, self.norm_x, layer, runtime)
                y = self.audio_cross_attn(y, speech, part, runtime.attention)

            how, addends = shared_input(x.device, self.ffn[0]), [y[:, span] for span, _ in inner]
            del y
            for span, row in inner:
                modulation = row[:, 3], row[:, 4], self.eps, how
                h = self._widened(kernels.add_gated_norm_modulate_(own[:, span], addends.pop(0), None, *modulation))
                h = self.ffn[2](h)
                kernels.add_gated_(own[:, span], h, row[:, 5])
        return stream

    def _added_and_normed(self, x, y, gates: list, norm: nn.Module, layer: nn.Module, runtime: Runtime):
        """x += y with the gate of each token range, then the norm of x as the input of `layer`. May write into y."""
        weight, bias = runtime.affine(norm, x.device)
        how = shared_input(x.device, layer)
        shift = torch.zeros_like(weight) if bias is None else bias
        affine = shift[None], weight[None] - 1, self.eps, how
        if len(gates) == 1:
            return kernels.add_gated_norm_modulate_(x, y, gates[0][1], *affine)
        out = y if how is None else kernels.rows_like(x, how)
        for span, gate in gates:
            kernels.add_gated_norm_modulate_(x[:, span], y[:, span], gate, *affine, out=out[:, span])
        return out

    def _widened(self, x: torch.Tensor) -> torch.Tensor:
        """The feed-forward's inner activations [B, n, ffn_dim] of its normed input."""
        layer = self.ffn[0]
        if getattr(layer, "takes_gelu", False):
            return layer(x, gelu=True)
        return torch.ops.aten.gelu_(layer(x), approximate="tanh")
