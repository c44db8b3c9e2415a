"""The SkyReels-V3 diffusion transformer: one network for reference, extension, shot switching and avatar.

Sources: Wan 2.1 (arXiv 2503.20314) for the backbone; InfiniteTalk and MultiTalk (arXiv 2508.14033, 2505.22647) for
the audio branch; the official code (SkyworkAI/SkyReels-V3 at 28c771e) for names, order and precision.
Weight names are Wan's. `operations` supplies the layers: torch.nn, or ComfyUI's, which cast and stream their weights.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ... import kernels
from ...distributed.ranks import Share, overlap
from ..errors import InputError
from ..recipes import TimeStep
from .audio_attention import AudioProjection
from .block import Block, BlockInputs, Runtime
from .memory import LayerCopies
from .params import TransformerParams
from .prompt_padding import merge_padding
from .rope import RotaryTables
from .sequence import Layout, Segment, layout_of
from .speaker_map import PositionMap, SpeakerMap
from .step_cache import uncached


def sinusoidal_embedding(timestep: torch.Tensor, dim: int) -> torch.Tensor:
    """cos and sin of timestep [B] at `dim` / 2 rates, [B, dim] float32; source: arXiv 1706.03762."""
    # Apple GPUs and some of Intel's have no float64; float32 is right to 1e-4 of a turn at timestep 1000.
    precise = torch.float64 if timestep.device.type in ("cpu", "cuda") else torch.float32
    exponents = torch.arange(dim // 2, device=timestep.device, dtype=precise) / (dim // 2)
    angles = torch.outer(timestep.to(precise), 10000.0**-exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(torch.float32)


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
    """The network of all four jobs; the segments of the sequence decide which one it does.

    operations: namespace with Linear, Conv3d, LayerNorm and RMSNorm.  device, dtype: of the weights; build on the
    meta device and load with assign=True to take them straight from a mapped file.
    """

    def __init__(self, params: TransformerParams, operations: Any = nn, device=None, dtype=None):
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
        position_map: PositionMap = PositionMap.OWN_FRAME,
        speaker_ranges: torch.Tensor | None = None,
        runtime: Runtime | None = None,
    ) -> torch.Tensor:
        """Network output for the predicted segment, [B, out_dim, T, H, W] in the latents' dtype.

        segments: latents [B, in_dim, frames, H, W] each.  timestep: [B], 0 to 1000.  text: [B, 512, text_dim].
        image: CLIP tokens [B, 257, image_dim].  audio: windows [people, video frames, window, layers, width].
        speaker_masks: [people + 1, h, w], the last one the background; needed for two people.
        position_map: how heads go by them.  speaker_ranges: of more than two people, see `SpeakerMap.of`.
        The output is the flow's velocity, noise minus clean, of every job.
        Raises InputError where inputs do not belong together or to this network.
        """
        self._check(segments, text, image, audio)
        runtime = runtime or Runtime()
        layout = layout_of(segments, self.params.patch_size)
        share = Share(runtime.ranks, layout.tokens)
        x = self._embed(segments, layout, share.held)

        cached, step_cache = uncached, runtime.step_cache
        if step_cache is not None:
            cached = step_cache.for_inputs(text, image, audio, name=runtime.conditioning)
        embedding, noisy, clean = self._time(timestep, layout.has_clean, x.dtype, runtime)
        prompt = cached("text", lambda: self._prompt(text, runtime.foreign_options is None))
        inputs = BlockInputs(
            layout=layout,
            share=share,
            noisy=noisy,
            clean=clean,
            cos_sin=self.rotary.get(layout, x.device, runtime.rope)[share.held],
            text=prompt[0],
            key_bias=prompt[1] if len(prompt) > 1 else None,
            image=None if image is None else cached("image", lambda: self.img_emb(image)),
            audio=None if audio is None else cached("audio", lambda: self.audio_proj(audio)),
            speakers=SpeakerMap.of(layout, audio, speaker_masks, runtime.attention, position_map, speaker_ranges),
            runtime=runtime,
            cached=cached,
        )
        predicted = slice(layout.predicted.start, layout.predicted.stop)
        for index, block in enumerate(self.blocks):
            wanted = predicted if index == len(self.blocks) - 1 else None
            x = runtime.run_block(index, lambda x, block=block, wanted=wanted: block(x, inputs, wanted), x)

        x = share.gathered(self.head(x[:, overlap(predicted, share.held)], embedding), predicted)
        return self._unpatchify(x, layout, layout.predicted.frames)

    def _embed(self, segments: Sequence[Segment], layout: Layout, held: slice) -> torch.Tensor:
        """The tokens `held` of the sequence, [B, n, D]; of frames without one, nothing is made."""
        latents, size = segments[0].latents, layout.height * layout.width
        if held.start == held.stop:
            return latents.new_empty(len(latents), 0, self.params.dim)
        parts = []
        for segment, span in zip(segments, layout.spans):
            own = overlap(held, slice(span.start, span.stop))
            if own.start == own.stop:
                continue
            frames = slice(own.start // size, -(-own.stop // size))
            made = self.patch_embedding(segment.latents[:, :, frames]).flatten(2).transpose(1, 2)
            parts.append(made[:, own.start - frames.start * size : own.stop - frames.start * size])
        return torch.cat(parts, dim=1)

    def copies(self, device: torch.device, dtype: torch.dtype) -> LayerCopies:
        """What the layers of a block make beside their output, on a device and in the dtype of the stream."""
        layers: list[Any] = [layer for layer in self.blocks[0].modules() if hasattr(layer, "unpacks")]
        rounding = [one for one in layers if hasattr(one, "copies_floats") and not one.unpacks(device, dtype)]
        return LayerCopies(
            weight=any(layer.unpacks(device, dtype) for layer in layers),
            codes=bool(rounding),
            floats=any(layer.copies_floats(device) for layer in rounding),
        )

    def _prompt(self, text: torch.Tensor, merge: bool) -> tuple[torch.Tensor, ...]:
        """The prompt at the model's width, and the bias of its keys where one stands for many."""
        text, *key_bias = (merge_padding(text) if merge else None) or (text,)
        return self.text_embedding(text), *key_bias

    def _time(self, timestep: torch.Tensor, has_clean: bool, dtype: torch.dtype, runtime: Runtime):
        """Time embedding [B or 1, D], modulation [B or 1, 6, D] and that at timestep 0 or None; all float32.

        dtype: of the stream, and of the steps that are not computed in float32.
        """
        if has_clean:
            timestep = torch.cat([timestep, timestep.new_zeros(1)])
        own, linear = [torch.float32 if step in runtime.float32_time else dtype for step in TimeStep], runtime.linear
        embedding = sinusoidal_embedding(timestep, self.params.freq_dim).to(own[0]).to(own[1])
        embedding = linear(self.time_embedding[2], F.silu(linear(self.time_embedding[0], embedding))).to(own[2])
        modulation = linear(self.time_projection[1], F.silu(embedding)).unflatten(-1, (6, -1)).float()
        embedding = embedding.float()
        if has_clean:
            return embedding[:-1], modulation[:-1], modulation[-1:]
        return embedding, modulation, None

    def _unpatchify(self, x: torch.Tensor, layout: Layout, frames: int) -> torch.Tensor:
        pt, ph, pw = self.params.patch_size
        sizes = {"t": frames, "h": layout.height, "w": layout.width, "pt": pt, "ph": ph, "pw": pw}
        return rearrange(x, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", **sizes)

    def _check(self, segments, text, image, audio) -> None:
        params = self.params
        for segment in segments:
            if segment.latents.shape[1] != params.in_dim:
                raise InputError(
                    f"The model takes {params.in_dim} latent channels, but was given {segment.latents.shape[1]}: "
                    "use the conditioning node of the job the model was made for."
                )
        params.check_prompt(text.shape[-1])
        for name, given, needed in (("image", image, params.image_dim), ("audio", audio, params.audio)):
            if (given is None) != (needed is None):
                state = "needs" if given is None else "takes no"
                raise InputError(f"This model {state} {name} conditioning: use the node of the model's own job.")
