"""The transformer's forward in a form that can be trained: many samples at once, and gradients.

It borrows the weights of the pack's own network (skyreels_v3/model/transformer.py), so that what is trained is what is
run; a test holds the two to the same numbers. The pack's forward overwrites its tensors to save memory and takes one
prompt of 512 tokens; here nothing is overwritten, and the padding of a prompt, whose tokens are all alike, is one key
that counts as many times as there are of them.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ... import kernels
from ...skyreels_v3.model.audio_attention import AudioAttention, position_table
from ...skyreels_v3.model.block import Attention, Block
from ...skyreels_v3.model.memory import TEXT_TOKENS
from ...skyreels_v3.model.rope import rotary_table
from ...skyreels_v3.model.sequence import Layout, Segment, layout_of
from ...skyreels_v3.model.speaker_map import SpeakerMap
from ...skyreels_v3.model.transformer import SkyReelsTransformer, sinusoidal_embedding


@dataclass(frozen=True)
class Text:
    """Prompts of a batch. features: [B, N + 1, width], the last one zero: the padding.

    counts: [B, 1, 1, N + 1], the logarithm of how many tokens each feature stands for; minus infinity for none.
    """

    features: Tensor
    counts: Tensor


def text_of(prompts: Sequence[Tensor]) -> Text:
    """Prompts [n, width] of several lengths as one batch."""
    longest = max(map(len, prompts))
    features = torch.zeros(len(prompts), longest + 1, prompts[0].shape[1])
    counts = torch.full((len(prompts), 1, 1, longest + 1), -math.inf)
    for i, prompt in enumerate(prompts):
        features[i, : len(prompt)] = prompt
        counts[i, ..., : len(prompt)] = 0
        counts[i, ..., -1] = math.log(TEXT_TOKENS - len(prompt))
    return Text(features, counts)


@dataclass(frozen=True)
class Speech:
    """What is heard. windows: [B * people, video frames, window, layers, width].

    masks: [B, people + 1, h, w], where each person is and the background; None for one person.
    """

    windows: Tensor
    people: int = 1
    masks: Tensor | None = None


@dataclass(frozen=True)
class _Step:
    """What every block needs of one forward.

    noisy, clean: modulation at the samples' timesteps [B, 6, D] and at timestep 0 [1, 6, D].  is_clean: [L, 1], which
    tokens are at timestep 0.  table: rotary (cos, sin) [1, L, 1, d / 2, 2].
    """

    noisy: Tensor
    clean: Tensor
    is_clean: Tensor
    table: Tensor
    text: Tensor
    counts: Tensor


@dataclass(frozen=True)
class _Avatar:
    """What the avatar's blocks need besides. audio: [B, frames, M, dim]."""

    layout: Layout
    image: Tensor
    audio: Tensor
    speech: Speech


def forward(
    model: SkyReelsTransformer,
    segments: Sequence[Segment],
    timestep: Tensor,
    text: Text,
    image: Tensor | None = None,
    speech: Speech | None = None,
) -> Tensor:
    """The network's output for the predicted segment [B, out_dim, T, H, W] float32.

    segments: latents [B, in_dim, frames, H, W] each.  timestep: [B], 0 to 1000.  image: CLIP tokens [B, 257, width].
    """
    params = model.params
    layout = layout_of(segments, params.patch_size)
    x = torch.cat([_patches(model, segment.latents) for segment in segments], dim=1).float()
    embedding = model.time_embedding(
        sinusoidal_embedding(torch.cat([timestep, timestep.new_zeros(1)]), params.freq_dim)
    )
    rows = model.time_projection(embedding).unflatten(-1, (6, -1)).float()
    table, is_clean = _tokens(layout, params.head_dim)
    step = _Step(rows[:-1], rows[-1:], is_clean, table, model.text_embedding(text.features), text.counts)
    avatar = None
    if speech is not None:  # audio tokens come as [1, frames, B * people * tokens, dim]
        audio = model.audio_proj(speech.windows)[0].unflatten(1, (len(timestep), -1)).transpose(0, 1)
        avatar = _Avatar(layout, model.img_emb(image), audio, speech)
    for block in model.blocks:
        x = _block(block, x, step) if avatar is None else _avatar_block(block, x, step, avatar)
    span = layout.predicted
    shift, scale = (model.head.modulation + embedding[:-1, None].float()).unbind(1)
    x = model.head.head(_modulated(x[:, span.start : span.stop], shift[:, None], scale[:, None], params.eps))
    return model._unpatchify(x, layout, span.frames).float()


def _patches(model: SkyReelsTransformer, latents: Tensor) -> Tensor:
    """Tokens [B, L, D]: the patch embedding as one product, which is faster than a convolution on a processor."""
    (pt, ph, pw), (batch, _, frames, height, width) = model.params.patch_size, latents.shape
    x = latents.unflatten(4, (width // pw, pw)).unflatten(3, (height // ph, ph)).unflatten(2, (frames // pt, pt))
    x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, -1, latents.shape[1] * pt * ph * pw)
    return F.linear(x, model.patch_embedding.weight.flatten(1), model.patch_embedding.bias)


@functools.lru_cache(maxsize=64)
def _tokens(layout: Layout, head_dim: int) -> tuple[Tensor, Tensor]:
    """Rotary table [1, L, 1, d / 2, 2] and which tokens are clean [L, 1]."""
    clean = torch.cat([torch.full((span.stop - span.start, 1), span.clean) for span in layout.spans])
    return rotary_table(layout, head_dim)[None, :, None], clean


def _modulated(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


def _turned(x: Tensor, table: Tensor) -> Tensor:
    """x [B, L, heads, d] turned by (cos, sin) [B or 1, L, heads or 1, d / 2, 2]."""
    cos, sin = table.unbind(-1)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def _attended(q: Tensor, k: Tensor, v: Tensor, counts: Tensor | None = None) -> Tensor:
    """q [B, L, heads, d], k, v [B, M, heads, d] -> [B, L, heads * d]."""
    # Written out: the gradient of torch's own is several times slower on a processor at these lengths.
    q, k, v = (x.transpose(1, 2).to(v.dtype) for x in (q * q.shape[-1] ** -0.5, k, v))
    scores = q @ k.transpose(2, 3)
    if counts is not None:
        scores = scores + counts.to(scores.dtype)
    return (scores.softmax(dim=-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


def _joined(x: Tensor, *layers: torch.nn.Linear) -> tuple[Tensor, ...]:
    """Several layers of one input as one product."""
    weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).chunk(len(layers), dim=-1)


def _normed(x: Tensor, norm: torch.nn.Module, heads: int, eps: float) -> Tensor:
    return F.rms_norm(x.float(), x.shape[-1:], norm.weight, eps).unflatten(-1, (heads, -1))


def _rows(block: Block, step: _Step) -> list[Tensor]:
    """A block's six modulations, each [B, L, D]."""
    own = block.modulation.float()
    noisy, clean = (step.noisy + own).unbind(1), (step.clean + own).unbind(1)
    return [torch.where(step.is_clean, one[:, None], other[:, None]) for one, other in zip(clean, noisy, strict=True)]


def _queried(own: Attention, x: Tensor, step: _Step) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [B, L, heads, d] of normed tokens."""
    q, k, v = _joined(x, own.q, own.k, own.v)
    q = _turned(_normed(q, own.norm_q, own.heads, own.eps), step.table)
    k = _turned(_normed(k, own.norm_k, own.heads, own.eps), step.table)
    return q, k, v.unflatten(-1, (own.heads, -1))


def _block(block: Block, x: Tensor, step: _Step) -> Tensor:
    shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = _rows(block, step)
    x = (
        x
        + block.self_attn.o(_attended(*_queried(block.self_attn, _modulated(x, shift, scale, block.eps), step))) * gate
    )
    x = x + block.cross_attn.o(_read(block.cross_attn, _affine(x, block.norm3, block.eps), step)[0])
    return x + block.ffn(_modulated(x, shift_ffn, scale_ffn, block.eps)) * gate_ffn


def _avatar_block(block: Block, x: Tensor, step: _Step, avatar: _Avatar) -> Tensor:
    shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = _rows(block, step)
    q, k, v = _queried(block.self_attn, _modulated(x, shift, scale, block.eps), step)
    positions = _speaker_positions(q, k, avatar)
    x = x + block.self_attn.o(_attended(q, k, v)) * gate
    cross = block.cross_attn
    read, q = _read(cross, _affine(x, block.norm3, block.eps), step)
    k, v = _joined(avatar.image, cross.k_img, cross.v_img)
    seen = _attended(q, _normed(k, cross.norm_k_img, cross.heads, cross.eps), v.unflatten(-1, (cross.heads, -1)))
    x = x + cross.o(read + seen)
    x = x + _heard(block.audio_cross_attn, _affine(x, block.norm_x, block.eps), positions, avatar.audio)
    return x + block.ffn(_modulated(x, shift_ffn, scale_ffn, block.eps)) * gate_ffn


def _affine(x: Tensor, norm: torch.nn.Module, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps)


def _read(cross: Attention, x: Tensor, step: _Step) -> tuple[Tensor, Tensor]:
    """What tokens find in the prompt [B, L, D], and their queries."""
    q = _normed(cross.q(x), cross.norm_q, cross.heads, cross.eps)
    k, v = _joined(step.text, cross.k, cross.v)
    k = _normed(k, cross.norm_k, cross.heads, cross.eps)
    return _attended(q, k, v.unflatten(-1, (cross.heads, -1)), step.counts), q


@torch.compiler.disable
def _speaker_positions(q: Tensor, k: Tensor, avatar: _Avatar) -> Tensor | None:
    """Rotary positions [B, L, 1] of the video's tokens where two people speak, None for one."""
    speech = avatar.speech
    if speech.people == 1:
        return None
    with torch.no_grad():
        maps = [
            SpeakerMap.of(avatar.layout, speech.windows[: speech.people], masks, kernels.attention)
            for masks in speech.masks
        ]
        return torch.cat([one.positions(q[i : i + 1].detach(), k[i : i + 1].detach()) for i, one in enumerate(maps)])


def _heard(attention: AudioAttention, x: Tensor, positions: Tensor | None, audio: Tensor) -> Tensor:
    """x [B, L, D]: every latent frame's tokens hear that frame's audio [B, frames, M, dim]."""
    batch, frames = audio.shape[:2]
    heads = attention.heads
    q = attention.q_linear(x).unflatten(-1, (heads, -1))
    k, v = attention.kv_linear(audio.flatten(0, 1)).unflatten(-1, (2, heads, -1)).unbind(2)
    if positions is not None:
        q = _turned(q, position_table(positions, q.shape[-1]))
        k = _turned(k, position_table(attention._person_positions(k), k.shape[-1]))
    q = q.unflatten(1, (frames, -1)).flatten(0, 1)
    return attention.proj(_attended(q, k, v).unflatten(0, (batch, frames)).flatten(1, 2))
