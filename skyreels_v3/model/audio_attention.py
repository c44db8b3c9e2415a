"""Attention of the avatar's transformer to speech: projection to audio tokens, attention per latent frame.

Sources: InfiniteTalk and MultiTalk (arXiv 2508.14033, 2505.22647); the official transformer_a2v.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ... import kernels
from ..recipes import FRAMES_PER_LATENT
from .params import AudioParams
from .rope import rotary_angles
from .sequence import Layout
from .speaker_map import PERSON_POSITIONS
from .step_cache import Cached, uncached


class AudioProjection(nn.Module):
    """Windows of speech features to audio tokens, one set per latent frame."""

    def __init__(self, params: AudioParams, operations, **options):
        super().__init__()
        self.params = params
        per_frame = params.layers * params.width
        self.proj1 = operations.Linear(params.window * per_frame, params.hidden, **options)
        self.proj1_vf = operations.Linear((params.window + FRAMES_PER_LATENT - 1) * per_frame, params.hidden, **options)
        self.proj2 = operations.Linear(params.hidden, params.hidden, **options)
        self.proj3 = operations.Linear(params.hidden, params.tokens * params.dim, **options)
        self.norm = operations.LayerNorm(params.dim, **options)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """[people, 4n + 1 frames, window, layers, width] -> [1, n + 1 latent frames, people * tokens, dim]."""
        middle = self.params.window // 2
        first = rearrange(windows[:, :1], "people n window layers width -> people n (window layers width)")
        groups = rearrange(windows[:, 1:], "people (n four) ... -> people n four ...", four=FRAMES_PER_LATENT)
        # A latent frame stands for four video frames: the window of the first gives its past half, that of the last
        # its coming half, those of the others their middle.
        later = [groups[:, :, 0, : middle + 1], groups[:, :, 1:-1, middle], groups[:, :, -1, middle:]]
        later = rearrange(torch.cat(later, dim=2), "people n window layers width -> people n (window layers width)")
        hidden = torch.cat([F.relu(self.proj1(first)), F.relu(self.proj1_vf(later))], dim=1)
        hidden = self.proj3(F.relu(self.proj2(hidden)))
        tokens = self.norm(rearrange(hidden, "people n (tokens dim) -> people n tokens dim", dim=self.params.dim))
        return rearrange(tokens, "people n tokens dim -> 1 n (people tokens) dim")


@dataclass(frozen=True)
class AudioKeys:
    """The audio tokens as keys and values of one block, and which video tokens attend to them."""

    k: torch.Tensor  # [frames, M, heads, d], of each latent frame's audio tokens
    v: torch.Tensor  # as k
    tokens: int  # of the video in a latent frame
    positions: torch.Tensor | None  # rotary, of every video token [B, L, heads or 1]; None for one speaker


class AudioAttention(nn.Module):
    """Attention from the pixels of a latent frame to that frame's audio tokens."""

    def __init__(self, dim: int, heads: int, audio_dim: int, operations, **options):
        super().__init__()
        self.heads = heads
        self.q_linear = operations.Linear(dim, dim, **options)
        self.kv_linear = operations.Linear(audio_dim, 2 * dim, **options)
        self.proj = operations.Linear(dim, dim, **options)

    def keys(
        self, audio: torch.Tensor, positions: torch.Tensor | None, layout: Layout, cached: Cached = uncached
    ) -> AudioKeys:
        """audio [1, frames, M, audio_dim] as this block's keys and values.

        positions: rotary position of every video token [B, L, heads or 1] where two people speak, else None.
        cached: for what follows from the audio alone.
        """
        k, v = cached(self, lambda: self._keys(audio[0], rotated=positions is not None))
        return AudioKeys(k, v, layout.height * layout.width, positions)

    def forward(
        self, x: torch.Tensor, keys: AudioKeys, chunk: slice, attention: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        """x [B, n, D], the tokens in the range `chunk` of the sequence -> [B, n, D]."""
        q = self.q_linear(x).unflatten(-1, (self.heads, -1))
        if keys.positions is not None:
            q = kernels.rotate_(q, position_table(keys.positions[:, chunk], q.shape[-1]))
        outs = []
        for span, frames in whole_frames(chunk, keys.tokens):
            k, v = (one[frames].repeat(len(q), 1, 1, 1) for one in (keys.k, keys.v))
            count = frames.stop - frames.start
            out = attention(rearrange(q[:, span], "b (t n) h d -> (b t) n h d", t=count), k, v, precise=True)
            outs.append(rearrange(out, "(b t) n d -> b (t n) d", b=len(q)))
        return self.proj(outs[0] if len(outs) == 1 else torch.cat(outs, dim=1))

    def _keys(self, audio: torch.Tensor, rotated: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [frames, tokens, heads, d]; rotated to their person's position where two speak."""
        k, v = self.kv_linear(audio).unflatten(-1, (2, self.heads, -1)).unbind(2)
        if rotated:
            k = kernels.rotate_(k, position_table(self._person_positions(k), k.shape[-1]))
        return k, v

    @staticmethod
    def _person_positions(k: torch.Tensor) -> torch.Tensor:
        """Rotary position of every audio token [1, tokens, 1]: the middle of its person's range."""
        tokens = k.shape[1] // len(PERSON_POSITIONS)
        centres = [sum(span) / 2 for span in PERSON_POSITIONS]
        return torch.tensor(centres, device=k.device).repeat_interleave(tokens)[None, :, None]


def whole_frames(chunk: slice, tokens: int) -> list[tuple[slice, slice]]:
    """A range of tokens cut where frames of `tokens` end, whole frames together: (tokens from its start, frames)."""
    first, last = -(-chunk.start // tokens) * tokens, chunk.stop // tokens * tokens
    edges = sorted({chunk.start, chunk.stop, *(edge for edge in (first, last) if chunk.start < edge < chunk.stop)})
    return [
        (slice(start - chunk.start, stop - chunk.start), slice(start // tokens, -(-stop // tokens)))
        for start, stop in pairwise(edges)
    ]


def position_table(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Rotary (cos, sin) [B, n, heads, dim / 2, 2] float32 for positions [B, n, heads or 1]."""
    angles = positions.float().unsqueeze(-1) * _rates(dim, positions.device)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


@cache
def _rates(dim: int, device: torch.device) -> torch.Tensor:
    return rotary_angles(torch.ones(1), dim)[0].to(device=device, dtype=torch.float32)
