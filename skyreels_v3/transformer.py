"""The SkyReels-V3 diffusion transformer: one network for reference, extension, shot switching and avatar.

Sources: Wan 2.1 (arXiv 2503.20314) for the backbone; InfiniteTalk and MultiTalk (arXiv 2508.14033, 2505.22647) for
the audio branch; the official code (SkyworkAI/SkyReels-V3 at 28c771e) for names, order and precision.
Weight names are Wan's. `operations` supplies the layers: torch.nn, or ComfyUI's, which cast and stream their weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .. import kernels
from .audio_condition import AudioAttention, AudioProjection, SpeakerMap
from .context import Layout, Segment, layout_of
from .errors import InputError
from .kept import Keep, Kept, compute
from .params import TransformerParams
from .rope import RotaryTables
from .slices import USUAL, Slices


def stored_weight(module: nn.Module, device: torch.device) -> torch.Tensor:
    """A norm's weight as float32 on `device`."""
    return module.weight.to(device=device, dtype=torch.float32)


def plain_block(index: int, block: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Runs a block with nothing around it."""
    return block(x)


@dataclass(frozen=True)
class Runtime:
    """What the host lends to a forward.

    attention: q, k, v [B, L, heads, d] -> [B, L, heads * d], see kernels.attention.
    weight: the float32 weight of a norm layer on a device.
    around_block: called as (index, block, x) and returns the block's output; block(x) may overwrite x.
    kept: where what is the same in every step is kept, None to compute it in each.
    slices: how a long sequence is parted.
    """

    attention: Callable[..., torch.Tensor] = kernels.attention
    weight: Callable[[nn.Module, torch.device], torch.Tensor] = stored_weight
    around_block: Callable[..., torch.Tensor] = plain_block
    kept: Kept | None = None
    slices: Slices = USUAL


@dataclass(frozen=True)
class Step:
    """What every block needs of one forward.

    noisy, clean: modulation at the sampler's timestep [B or 1, 6, D] and at timestep 0 [1, 6, D] or None, float32.
    table: rotary (cos, sin) [L, d / 2, 2].  text: [B, 512, D].  image: [B, 257, D] or None.
    audio: [B or 1, frames, people * tokens, width] or None.  speakers: where the people are, None for one.
    keep: for what is made of text, image and audio alone.
    """

    layout: Layout
    noisy: torch.Tensor
    clean: torch.Tensor | None
    table: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor | None
    audio: torch.Tensor | None
    speakers: SpeakerMap | None
    runtime: Runtime
    keep: Keep = compute

    def rows(self, modulation: torch.Tensor) -> list[tuple[slice, torch.Tensor]]:
        """(token range, modulation rows [B or 1, 6, D] float32) for every segment, a block's own part added."""
        own = modulation.to(device=self.noisy.device, dtype=torch.float32)
        noisy = self.noisy + own
        if self.clean is None:
            return [(slice(0, self.layout.tokens), noisy)]
        clean = self.clean + own
        return [(slice(span.start, span.stop), clean if span.clean else noisy) for span in self.layout.spans]


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
    wanted = {layer.quantised_input(device) if hasattr(layer, "quantised_input") else None for layer in layers}
    return wanted.pop() if len(wanted) == 1 else None


def sinusoidal_embedding(timestep: torch.Tensor, dim: int) -> torch.Tensor:
    """cos and sin of timestep [B] at `dim` / 2 rates, [B, dim] float32; source: arXiv 1706.03762."""
    # Apple GPUs have no float64; float32 is right to 1e-4 of a turn at timestep 1000.
    precise = torch.float32 if timestep.device.type == "mps" else torch.float64
    exponents = torch.arange(dim // 2, device=timestep.device, dtype=precise) / (dim // 2)
    angles = torch.outer(timestep.to(precise), 10000.0**-exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(torch.float32)


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
    """Attention among all tokens of the sequence."""

    def forward(self, x: torch.Tensor, rows: list, step: Step) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [B, L, D], modulation rows -> (output [B, L, D], speaker positions [B, L] or None)."""
        weight = step.runtime.weight
        q, k, v = self._projected(x, rows, step.runtime.slices)
        q = kernels.rms_norm_rope_(q, weight(self.norm_q, x.device), step.table, self.heads, self.eps)
        k = kernels.rms_norm_rope_(k, weight(self.norm_k, x.device), step.table, self.heads, self.eps)
        v = v.unflatten(-1, (self.heads, -1))
        positions = None if step.speakers is None else step.speakers.positions(q, k)
        out = self._attended(q, k, v, step.runtime)
        del q, k, v
        return self.o(out), positions

    def _projected(self, x: torch.Tensor, rows: list, slices: Slices) -> tuple[torch.Tensor, ...]:
        """x [B, L, D] normed, modulated and projected to q, k and v [B, L, D] each."""
        how = shared_input(x.device, self.q, self.k, self.v)
        if x.shape[1] <= slices.long:
            x = modulated(x, rows, 0, 1, self.eps, how)
            return self.q(x), self.k(x), self.v(x)
        # Of a long sequence the normed stream never exists as a whole: it would be one tensor in five.
        q, k, v = (torch.empty_like(x) for _ in "qkv")
        for span, row in rows:
            for start in range(span.start, span.stop, slices.tokens):
                part = slice(start, min(start + slices.tokens, span.stop))
                normed = kernels.norm_modulate(x[:, part], row[:, 0], row[:, 1], self.eps, how)
                for out, layer in ((q, self.q), (k, self.k), (v, self.v)):
                    out[:, part] = layer(normed)
        return q, k, v

    def _attended(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, runtime: Runtime) -> torch.Tensor:
        """Attention of all heads [B, L, D]; of a long sequence by groups of heads, written over their queries."""
        if q.shape[1] <= runtime.slices.long:
            return runtime.attention(q, k, v)
        for heads in torch.arange(self.heads).chunk(runtime.slices.head_groups):
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

    def forward(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """x [B, L, D] -> [B, L, D]."""
        q = self._normed(self.q(x), self.norm_q, step)
        del x
        k, v = step.keep((self, "text"), lambda: self._keys(step.text, self.k, self.v, self.norm_k, step))
        out = step.runtime.attention(q, k, v)
        if step.image is not None:
            own = self.k_img, self.v_img, self.norm_k_img
            k, v = step.keep((self, "image"), lambda: self._keys(step.image, *own, step))
            out += step.runtime.attention(q, k, v, precise=True)
        del q, k, v
        return self.o(out)

    def _keys(self, tokens: torch.Tensor, k: nn.Module, v: nn.Module, norm: nn.Module, step: Step):
        """Keys and values [B, M, heads, d] of the prompt or the image."""
        return self._normed(k(tokens), norm, step), v(tokens).unflatten(-1, (self.heads, -1))

    def _normed(self, x: torch.Tensor, norm: nn.Module, step: Step) -> torch.Tensor:
        return kernels.rms_norm_(x, step.runtime.weight(norm, x.device), self.eps).unflatten(-1, (self.heads, -1))


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

    def forward(self, x: torch.Tensor, step: Step) -> torch.Tensor:
        """x [B, L, D] -> [B, L, D], written into x."""
        rows = step.rows(self.modulation)

        y, positions = self.self_attn(x, rows, step)
        for span, row in rows:
            kernels.add_gated_(x[:, span], y[:, span], row[:, 2])
        del y

        x += self.cross_attn(self.norm3(x), step)
        if step.audio is not None:
            x += self.audio_cross_attn(self.norm_x(x), step.audio, step.runtime.attention, positions, step.keep)

        how = shared_input(x.device, self.ffn[0])
        for span, row in rows:
            for part in x[:, span].split(step.runtime.slices.tokens, dim=1):
                h = self.ffn[0](kernels.norm_modulate(part, row[:, 3], row[:, 4], self.eps, how))
                h = self.ffn[2](torch.ops.aten.gelu_(h, approximate="tanh"))
                kernels.add_gated_(part, h, row[:, 5])
        return x


class Head(nn.Module):
    """Tokens to latent patches."""

    def __init__(self, params: TransformerParams, operations, **options):
        super().__init__()
        self.eps = params.eps
        self.head = operations.Linear(params.dim, params.out_dim * math.prod(params.patch_size), **options)
        self.modulation = nn.Parameter(torch.empty(1, 2, params.dim, **options))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """x [B, L, D], time embedding [B or 1, D] float32 -> [B, L, patch * out_dim]."""
        shift, scale = (self.modulation.to(embedding) + embedding[:, None]).unbind(1)
        return self.head(kernels.norm_modulate(x, shift, scale, self.eps))


class ImageEmbedding(nn.Module):
    """CLIP tokens to the model's width."""

    def __init__(self, image_dim: int, dim: int, operations, **options):
        super().__init__()
        self.proj = nn.Sequential(
            operations.LayerNorm(image_dim, **options),
            operations.Linear(image_dim, image_dim, **options),
            nn.GELU(),
            operations.Linear(image_dim, dim, **options),
            operations.LayerNorm(dim, **options),
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, 257, image_dim] -> [B, 257, D]."""
        return self.proj(tokens)


class SkyReelsTransformer(nn.Module):
    """The network of all four jobs. Which job it does is decided by the segments it is given.

    operations: namespace with Linear, Conv3d, LayerNorm and RMSNorm.  device, dtype: of the weights; build on the
    meta device and load with assign=True to take them straight from a mapped file.
    """

    def __init__(self, params: TransformerParams, operations=nn, device=None, dtype=None):
        super().__init__()
        options = {"device": device, "dtype": dtype}
        self.params = params
        dim = params.dim
        self.patch_embedding = operations.Conv3d(
            params.in_dim, dim, kernel_size=params.patch_size, stride=params.patch_size, **options
        )
        self.text_embedding = nn.Sequential(
            operations.Linear(params.text_dim, dim, **options),
            nn.GELU(approximate="tanh"),
            operations.Linear(dim, dim, **options),
        )
        self.time_embedding = nn.Sequential(
            operations.Linear(params.freq_dim, dim, **options),
            nn.SiLU(),
            operations.Linear(dim, dim, **options),
        )
        self.time_projection = nn.Sequential(nn.SiLU(), operations.Linear(dim, dim * 6, **options))
        self.blocks = nn.ModuleList(Block(params, operations, **options) for _ in range(params.num_layers))
        self.head = Head(params, operations, **options)
        if params.image_dim is not None:
            self.img_emb = ImageEmbedding(params.image_dim, dim, operations, **options)
        if params.audio is not None:
            self.audio_proj = AudioProjection(params.audio, operations, **options)
        self.rotary = RotaryTables(params.head_dim)

    def forward(
        self,
        segments: Sequence[Segment],
        timestep: torch.Tensor,
        text: torch.Tensor,
        *,
        image: torch.Tensor | None = None,
        audio: torch.Tensor | None = None,
        speaker_masks: torch.Tensor | None = None,
        runtime: Runtime | None = None,
    ) -> torch.Tensor:
        """Network output for the predicted segment, [B, out_dim, T, H, W] in the latents' dtype.

        segments: latents [B, in_dim, frames, H, W] each.  timestep: [B], 0 to 1000.  text: [B, 512, text_dim].
        image: CLIP tokens [B, 257, image_dim].  audio: windows [people, video frames, window, layers, width].
        speaker_masks: [people + 1, h, w], the last one the background; needed for two people.
        The output is the flow's velocity, noise minus clean, of every job.
        Raises InputError where inputs do not belong together or to this network.
        """
        self._check(segments, text, image, audio)
        runtime = runtime or Runtime()
        layout = layout_of(segments, self.params.patch_size)
        x = [self.patch_embedding(segment.latents).flatten(2).transpose(1, 2) for segment in segments]
        x = torch.cat(x, dim=1)

        keep = compute if runtime.kept is None else runtime.kept.of(text, image, audio)
        embedding, noisy, clean = self._time(timestep, layout.has_clean, x.dtype)
        step = Step(
            layout=layout,
            noisy=noisy,
            clean=clean,
            table=self.rotary.get(layout, x.device),
            text=keep("text", lambda: self.text_embedding(text)),
            image=None if image is None else keep("image", lambda: self.img_emb(image)),
            audio=None if audio is None else keep("audio", lambda: self.audio_proj(audio)),
            speakers=SpeakerMap.of(layout, audio, speaker_masks, runtime.attention),
            runtime=runtime,
            keep=keep,
        )
        for index, block in enumerate(self.blocks):
            x = runtime.around_block(index, lambda x, block=block: block(x, step), x)

        span = layout.predicted
        return self._unpatchify(self.head(x[:, span.start : span.stop], embedding), layout, span.frames)

    def _time(self, timestep: torch.Tensor, has_clean: bool, dtype: torch.dtype):
        """Time embedding [B or 1, D] and modulation rows [B or 1, 6, D], clean ones or None; all float32."""
        if has_clean:
            timestep = torch.cat([timestep, timestep.new_zeros(1)])
        embedding = self.time_embedding(sinusoidal_embedding(timestep, self.params.freq_dim).to(dtype))
        rows = self.time_projection(embedding).unflatten(-1, (6, -1)).float()
        embedding = embedding.float()
        if has_clean:
            return embedding[:-1], rows[:-1], rows[-1:]
        return embedding, rows, None

    def _unpatchify(self, x: torch.Tensor, layout: Layout, frames: int) -> torch.Tensor:
        pt, ph, pw = self.params.patch_size
        x = x.unflatten(-1, (pt, ph, pw, self.params.out_dim))
        x = x.unflatten(1, (frames, layout.height, layout.width))
        return x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _check(self, segments, text, image, audio) -> None:
        params = self.params
        for segment in segments:
            if segment.latents.shape[1] != params.in_dim:
                raise InputError(
                    f"The model takes {params.in_dim} latent channels, but was given {segment.latents.shape[1]}: "
                    "use the conditioning node of the job the model was made for."
                )
        if text.shape[-1] != params.text_dim:
            raise InputError(
                f"The prompt's encoding is {text.shape[-1]} wide, but the model needs {params.text_dim}: "
                "encode it with umt5_xxl (CLIPLoader, type wan)."
            )
        for name, given, needed in (("image", image, params.image_dim), ("audio", audio, params.audio)):
            if (given is None) != (needed is None):
                state = "needs" if given is None else "takes no"
                raise InputError(f"This model {state} {name} conditioning: use the node of the model's own job.")
