"""The transformer behind the call that ComfyUI's samplers make, with what it keeps within a sampling."""

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import torch

from ... import kernels
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.estimates.forecast import Forward
from ...skyreels_v3.jobs.spec import SPECS
from ...skyreels_v3.model.chunking import USUAL, Chunking, next_smaller
from ...skyreels_v3.model.lora import applied
from ...skyreels_v3.model.memory import TEXT_TOKENS, cache_limit, needed_bytes
from ...skyreels_v3.model.params import TransformerParams
from ...skyreels_v3.model.sequence import Segment, layout_of
from ...skyreels_v3.model.step_cache import StepCache
from ...skyreels_v3.model.transformer import Runtime, SkyReelsTransformer
from ...skyreels_v3.recipes import Job, TimeStep
from .. import versions
from ..weights.lora_branches import AppliedLora, attached
from ..weights.streaming import block_stream
from .attention import AUTO, PYTORCH, Chosen, choose, disable
from .block_hooks import BlockHooks
from .condition import KEY
from .foreign import WanCrossAttention, rope_of
from .machine import chunking_here

log = logging.getLogger(__name__)

# What the avatar is given beside its latents: keyword of the transformer -> name among the conditions.
AVATAR_INPUTS = {
    "image": "skyreels_image",
    "audio": "skyreels_speech",
    "speaker_masks": "skyreels_speakers",
    "position_map": "skyreels_position_map",
    "speaker_ranges": "skyreels_speaker_ranges",
}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a forward is given."""

    latents: torch.Tensor  # as ComfyUI gives them
    segments: Sequence[Segment]
    timestep: torch.Tensor
    context: torch.Tensor
    given: Mapping[str, Any]  # the avatar's, by keyword of the transformer
    options: dict  # transformer_options


EXACT = Chosen(kernels.attention, PYTORCH, "since another one's numbers were not finite")


class Called(torch.nn.Module):
    """A network behind the call that ComfyUI makes, with its wrappers; `_compute` is what differs."""

    params: TransformerParams
    job: Job
    dtype: Any
    attention: str  # one of attention.CHOICES
    loras: Sequence[AppliedLora]  # within a sampling
    forwards: list[Forward]  # of this sampling

    def _called(self, params: TransformerParams, job: Job, dtype) -> None:
        """To be called once the module is made."""
        self.params = params
        self.job = job
        self.dtype = dtype
        self.attention = AUTO
        self.changes: tuple | None = None  # of its weights, within a sampling: see begin_sampling
        self.loras = ()
        self.forwards = []
        self.sufficed: dict[int, Chunking] = {}  # by tokens, where the planned one ran out of memory; stays
        # What nodes for Wan networks read, by ComfyUI's names, which are those of the sizes too.
        for field in dataclasses.fields(params):
            setattr(self, field.name, getattr(params, field.name))
        self.in_channels = params.out_dim  # of what is sampled
        self.text_len = TEXT_TOKENS
        self.model_type = "t2v"
        self.rope_embedder = None  # where nodes put theirs: RIFLEx does

    def forward(self, x, timestep, context, transformer_options=None, **conditions):
        """x [B, 16, T, H, W] -> velocity of the same shape; `conditions` holds the job's latents under KEY."""
        if x.requires_grad:  # Train LoRA; operations in place save memory, and cannot be gone back through
            raise InputError(
                "SkyReels-V3 models make videos and cannot be trained, which would undo their few steps too: train "
                "the LoRA on the Wan 2.1 14B model that this one comes from (text to video, for avatars image to "
                "video), and load it with SkyReels-V3 LoRA."
            )
        options = {} if transformer_options is None else transformer_options
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._timed, self, wrappers)
        return executor.execute(x, timestep, context, transformer_options=options, **conditions)

    def _timed(self, x, timestep, context, transformer_options, **conditions):
        start = time.perf_counter()
        velocity = self._velocity(x, timestep, context, transformer_options, **conditions)
        # By now the device is done: its numbers were looked at.
        tokens = SPECS[self.job].tokens(x.shape, conditions[KEY].shape)
        self.forwards.append(Forward(tokens, x.shape[0], time.perf_counter() - start))
        return velocity

    def _velocity(self, x, timestep, context, transformer_options, **conditions):
        spec = SPECS[self.job]
        if "context_window" in transformer_options and self.job is not Job.REFERENCE:
            raise InputError(
                "Context Windows cuts the latents into windows, but what this model is given beside them (the past, "
                "the speech) is for all of them: remove that node. Extend Video and Talking Avatar make long videos "
                "in windows of their own."
            )
        if spec.recipe.integer_timesteps:
            timestep = timestep.floor()
        segments = spec.segments(x, conditions[KEY])
        chosen = choose(self.attention, x.device, transformer_options)
        given = {keyword: conditions[name] for keyword, name in AVATAR_INPUTS.items() if name in conditions}
        inputs = Inputs(x, segments, timestep, context, given, transformer_options)
        velocity, finite = self._looked_at(inputs, chosen)
        if not finite and chosen.backend is not None:
            velocity, finite = self._looked_at(inputs, EXACT)
            if finite:
                disable(chosen, x.device)
        if not finite:
            raise InputError(
                "The model's output is not finite, because its file holds broken numbers, a LoRA is too strong or fp16 "
                "is too narrow: try the precision bf16 without LoRAs, then another file."
            )
        return velocity

    def _looked_at(self, inputs: Inputs, chosen: Chosen) -> tuple[torch.Tensor, bool]:
        """The velocity, and whether it is finite: what goes on from what is not is hours of black frames.

        The CPU looks at the card once a forward, which takes seconds there.
        """
        velocity = self._compute(inputs, chosen)
        return velocity, bool(torch.isfinite(velocity).all())

    def begin(self, patcher) -> None:
        """A sampling of a patcher begins."""
        raise NotImplementedError

    def end(self) -> None:
        """It has ended."""
        raise NotImplementedError

    def _compute(self, inputs: Inputs, chosen: Chosen) -> torch.Tensor:
        raise NotImplementedError

    @property
    def forward_orig(self):
        """Asked for by nodes that write the forward of ComfyUI's Wan network anew. Raises InputError."""
        raise InputError(
            "A node replaces forward_orig of ComfyUI's Wan network (TeaCache and MagCache do), which SkyReels-V3 "
            "models do not have: remove that node. ComfyUI's EasyCache has the same purpose and works."
        )

    @property
    def float32_time(self) -> frozenset[TimeStep]:
        return SPECS[self.job].recipe.float32_time

    def tokens_of(self, segments: Sequence[Segment]) -> int:
        """Of all segments and the whole batch."""
        return len(segments[0].latents) * layout_of(segments, self.params.patch_size).tokens


def _names(options: dict) -> tuple | None:
    """ComfyUI's names of the prompts that a forward is for."""
    return tuple(options.get("uuids", ())) or None


# Its call is ComfyUI's, not the transformer's.
class Network(Called, SkyReelsTransformer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """SkyReelsTransformer behind the call that ComfyUI makes, with its hooks around blocks."""

    def __init__(self, params: TransformerParams, job: Job, operations, device=None, dtype=None):
        SkyReelsTransformer.__init__(self, params, operations=operations, device=device, dtype=dtype)
        self._called(params, job, dtype)
        # Within a sampling: between two, weights and LoRAs may change.
        self.step_cache: StepCache | None = None
        self.chunking: Callable[[int, int], Chunking] | None = None  # of tokens and their bytes
        time_layers: list[Any] = [self.time_embedding[0], self.time_embedding[2], self.time_projection[1]]
        for layer in time_layers:
            layer.comfy_cast_weights = True  # to the dtype of their input, which may be float32
        self.requires_grad_(False)

    def begin(self, patcher) -> None:
        loras, device = attached(patcher), patcher.load_device
        like = torch.empty(0, dtype=patcher.model.manual_cast_dtype or patcher.model.get_dtype(), device=device)
        self.loras = tuple(dataclasses.replace(one, gains=one.lora.gains(self, like)) for one in loras)
        memory = comfy.model_management.get_total_memory(device)
        self.step_cache = None if patcher.hook_patches else StepCache(cache_limit(memory))
        # Once for a sampling: what is free changes from step to step, and chunks of other sizes would change the last
        # bits.
        self.chunking = chunking_here(
            self.params, self.job, patcher.model_size(), device, self.copies(device, like.dtype)
        )

    def end(self) -> None:
        self.step_cache = self.chunking = None

    def needed_bytes(self, tokens: int, dtype: torch.dtype) -> int:
        """Bytes that a forward needs beside the weights on ComfyUI's device. tokens: of the whole batch.  dtype: of the
        stream."""
        device = comfy.model_management.get_torch_device()
        weights = comfy.model_management.module_size(self)
        copies = self.copies(device, dtype)
        chunking = chunking_here(self.params, self.job, weights, device, copies)(tokens, dtype.itemsize)
        memory = comfy.model_management.get_total_memory(device)
        sizes = self.params, tokens, dtype.itemsize, memory, chunking
        return needed_bytes(*sizes, copies=copies, float32_time=self.float32_time)

    def _looked_at(self, inputs: Inputs, chosen: Chosen) -> tuple[torch.Tensor, bool]:
        velocity = self._compute(inputs, chosen)
        finite = torch.isfinite(velocity).all()
        doubt = None if self.step_cache is None else self.step_cache.doubt
        if bool(finite if doubt is None else finite & doubt):
            return velocity, True
        if self.step_cache is None or doubt is None or bool(doubt):
            return velocity, False
        # A node has changed the prompt under its name: what was cached of it was another's.
        self.step_cache.mark_changing(_names(inputs.options))
        return self._looked_at(inputs, chosen)

    def _compute(self, inputs: Inputs, chosen: Chosen) -> torch.Tensor:
        options = inputs.options
        runtime = Runtime(
            attention=chosen.run,
            affine=versions.resident_affine,
            linear=lambda layer, x: layer(x),
            float32_time=self.float32_time,
            run_block=BlockHooks(options, len(self.blocks), inputs.latents, inputs.context),
            step_cache=self.step_cache,
            conditioning=_names(options),
            chunking=self._chunking(inputs.segments),
            rope=rope_of(options, self.rope_embedder),
            foreign_options=options if self._has_foreign_attention() else None,
        )
        with applied(self, ((one.lora, one.strength, one.gains) for one in self.loras)):
            return self._in_memory(runtime, inputs.segments, inputs.timestep, inputs.context, **inputs.given)

    def _has_foreign_attention(self) -> bool:
        attentions: list[Any] = [block.cross_attn for block in self.blocks]
        return any(isinstance(attention.forward, WanCrossAttention) for attention in attentions)

    def _chunking(self, segments: Sequence[Segment]) -> Chunking:
        if self.chunking is None:
            return USUAL
        tokens = self.tokens_of(segments)
        planned = self.chunking(tokens, segments[0].latents.itemsize)
        return min(planned, self.sufficed.get(tokens, planned), key=lambda one: one.tokens)

    def _in_memory(self, runtime: Runtime, segments, timestep, context, **given) -> torch.Tensor:
        """The network's velocity; out of memory, it is computed again in smaller chunks, as are the steps after it."""
        while True:
            try:
                return self._streamed(runtime, segments, timestep, context, **given)
            except Exception as error:
                smaller = next_smaller(runtime.chunking)
                if not versions.is_out_of_memory(error) or (smaller is None and runtime.step_cache is None):
                    raise
                log.warning("SkyReels-V3: out of memory (%s); from this step on in smaller parts.", error)
            # Outside of the handler, whose error holds on to every tensor of the try.
            self.step_cache = None
            chunking = smaller or runtime.chunking
            self.sufficed[self.tokens_of(segments)] = chunking
            runtime = dataclasses.replace(runtime, step_cache=None, chunking=chunking)
            comfy.model_management.soft_empty_cache(True)

    def _streamed(self, runtime: Runtime, segments, timestep, context, **given) -> torch.Tensor:
        """The network's velocity; what of its blocks waits in RAM comes to the card ahead of them."""
        if torch.compiler.is_compiling():  # a graph swaps no weights: they come layer by layer, ComfyUI's way
            return SkyReelsTransformer.forward(self, segments, timestep, context, runtime=runtime, **given)
        hooks: Any = runtime.run_block  # BlockHooks
        with block_stream(self.blocks, segments[0].latents.device, hooks.options) as stream:
            runtime = dataclasses.replace(runtime, run_block=stream.wrap(hooks))
            return SkyReelsTransformer.forward(self, segments, timestep, context, runtime=runtime, **given)


def begin_sampling(patcher) -> None:
    """Gives the network the patcher's LoRAs, and lets it keep what is the same in every step, unless hooks change its
    weights between steps.

    Raises InputError where another patcher of the same network is sampling with other weights.
    """
    network = patcher.model.diffusion_model
    changes = attached(patcher), patcher.patches_uuid
    if network.changes not in (None, changes):
        end_sampling(patcher)
        raise InputError(
            "Two models with different LoRAs in one guider come from the same Load Model, whose weights can be changed "
            "in one way at a time: load the checkpoint of one of them by a second SkyReels-V3 Load Model."
        )
    network.changes = changes
    network.begin(patcher)


def end_sampling(patcher) -> None:
    network = patcher.model.diffusion_model
    network.changes, network.loras = None, ()
    network.end()
