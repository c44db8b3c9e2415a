"""The transformer as a native ComfyUI model: what samplers, patchers, wrappers and previews talk to."""

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Sequence

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.patcher_extension
import comfy.supported_models_base
import torch

from ... import kernels
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.forecast import Forward
from ...skyreels_v3.model.chunking import SMALL, USUAL, Slices
from ...skyreels_v3.model.lora import applied
from ...skyreels_v3.model.memory import TEXT_TOKENS, kept_limit, needed_bytes
from ...skyreels_v3.model.params import TransformerParams
from ...skyreels_v3.model.sequence import (
    Segment,
    avatar_segments,
    extension_segments,
    reference_segments,
    shot_segments,
)
from ...skyreels_v3.model.step_cache import Kept
from ...skyreels_v3.model.transformer import Runtime, SkyReelsTransformer
from ...skyreels_v3.recipes import RECIPES, Job
from ...skyreels_v3.speech.encoder import check_features
from .. import versions
from ..encoders.clip_vision import check_tokens
from .attention import choose, distrust
from .condition import KEY, NODE_OF_JOB, JobCondition, RefusedCondition, SharedCondition
from .layers import branching
from .lora_branches import attached
from .machine import slices_here
from .streaming import block_stream

log = logging.getLogger(__name__)

SEGMENTS = {
    Job.REFERENCE: reference_segments,
    Job.EXTENSION: extension_segments,
    Job.SHOT: shot_segments,
    Job.AVATAR: avatar_segments,
}
# What the avatar is given beside its latents: keyword of the transformer -> name among the conditions.
AVATAR_INPUTS = {"image": "skyreels_image", "audio": "skyreels_speech", "speaker_masks": "skyreels_speakers"}
UNSUPPORTED_PATCHES = {"attn1_patch", "attn2_patch", "attn1_output_patch", "attn2_output_patch", "noise_refiner"}


class Network(SkyReelsTransformer):
    """SkyReelsTransformer behind the call that ComfyUI makes, with its wrappers and hooks."""

    def __init__(self, params: TransformerParams, job: Job, operations, device=None, dtype=None):
        super().__init__(params, operations=operations, device=device, dtype=dtype)
        self.job = job
        self.dtype = dtype
        self.kept: Kept | None = None  # only within a sampling: between two, weights and LoRAs may change
        self.slices: Callable[[int, int], Slices] | None = None  # of tokens and their bytes, within a sampling
        self.forwards: list[Forward] = []  # of this sampling
        self.requires_grad_(False)

    def forward(self, x, timestep, context, transformer_options=None, **conditions):
        """x [B, 16, T, H, W] -> velocity of the same shape; `conditions` holds the job's latents under KEY."""
        options = {} if transformer_options is None else transformer_options
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._timed, self, wrappers)
        return executor.execute(x, timestep, context, transformer_options=options, **conditions)

    def _timed(self, x, timestep, context, transformer_options, **conditions):
        start = time.perf_counter()
        velocity = self._velocity(x, timestep, context, transformer_options, **conditions)
        # By now the device is done: its numbers were looked at.
        beside = 0 if self.job is Job.AVATAR else conditions[KEY].shape[2]
        tokens = (x.shape[2] + beside) * math.prod(x.shape[3:]) // 4
        self.forwards.append(Forward(tokens, x.shape[0], time.perf_counter() - start))
        return velocity

    def _velocity(self, x, timestep, context, transformer_options, **conditions):
        if RECIPES[self.job].integer_timesteps:
            timestep = timestep.floor()
        segments = SEGMENTS[self.job](x, conditions[KEY])
        chosen = choose(transformer_options, x.device)
        runtime = Runtime(
            attention=chosen.run,
            affine=versions.resident_affine,
            around_block=BlockHooks(transformer_options, len(self.blocks), x, context),
            kept=self.kept,
            slices=self._slices(segments),
        )
        given = {keyword: conditions.get(name) for keyword, name in AVATAR_INPUTS.items()}
        with applied(self, ((one.lora, one.strength) for one in attached(transformer_options))):
            velocity = self._in_memory(runtime, segments, timestep, context, **given)
            # One look per forward, which takes seconds on the card: what goes on from here is hours of black frames.
            finite = bool(torch.isfinite(velocity).all())
            if not finite and chosen.culprit is not None:
                exact = dataclasses.replace(runtime, attention=kernels.attention)
                velocity = self._in_memory(exact, segments, timestep, context, **given)
                finite = bool(torch.isfinite(velocity).all())
                if finite:
                    distrust(chosen, x.device)
        if not finite:
            raise InputError(
                "The model's output is not finite, because its file holds broken numbers, a LoRA is too strong or fp16 "
                "is too narrow: try the precision bf16 without LoRAs, then another file."
            )
        return velocity

    def _slices(self, segments: Sequence[Segment]) -> Slices:
        if self.slices is None:
            return USUAL
        latents = [segment.latents for segment in segments]
        return self.slices(sum(each[:, 0].numel() for each in latents) // 4, latents[0].itemsize)

    def _in_memory(self, runtime: Runtime, segments, timestep, context, **given) -> torch.Tensor:
        """The network's velocity; out of memory, it is computed once more in smaller parts."""
        try:
            return self._streamed(runtime, segments, timestep, context, **given)
        except torch.cuda.OutOfMemoryError as error:
            log.warning("SkyReels-V3: out of memory (%s); this step again in smaller parts.", error)
        # Outside of the handler, whose error holds on to every tensor of the first try.
        self.kept = None
        comfy.model_management.soft_empty_cache(True)
        runtime = dataclasses.replace(runtime, kept=None, slices=SMALL)
        return self._streamed(runtime, segments, timestep, context, **given)

    def _streamed(self, runtime: Runtime, segments, timestep, context, **given) -> torch.Tensor:
        """The network's velocity; what of its blocks waits in RAM comes to the card ahead of them."""
        if torch.compiler.is_compiling():  # a graph swaps no weights: they come layer by layer, ComfyUI's way
            return super().forward(segments, timestep, context, runtime=runtime, **given)
        hooks = runtime.around_block
        with block_stream(self.blocks, segments[0].latents.device, hooks.options) as stream:
            runtime = dataclasses.replace(runtime, around_block=stream.around(hooks))
            return super().forward(segments, timestep, context, runtime=runtime, **given)


def begin_sampling(patcher) -> None:
    """Lets the network keep what is the same in every step, unless hooks change its weights between steps."""
    network, device = patcher.model.diffusion_model, patcher.load_device
    memory = comfy.model_management.get_total_memory(device)
    network.kept = None if patcher.hook_patches else Kept(kept_limit(memory))
    # Once for a sampling: what is free changes from step to step, and the parts with it would change the last bits.
    network.slices = functools.cache(functools.partial(slices_here, network.params, patcher.model_size(), device))


def end_sampling(patcher) -> None:
    patcher.model.diffusion_model.kept = None
    patcher.model.diffusion_model.slices = None


class BlockHooks:
    """Runs a block with ComfyUI's hooks around it: interrupt, block replace and double_block patches."""

    def __init__(self, transformer_options: dict, blocks: int, latents: torch.Tensor, text: torch.Tensor):
        self.options = transformer_options
        self.replace = transformer_options.get("patches_replace", {}).get("dit", {})
        self.patches = transformer_options.get("patches", {})
        self.latents = latents
        self.text = text
        transformer_options["total_blocks"] = blocks
        transformer_options["block_type"] = "double"
        ignored = sorted(UNSUPPORTED_PATCHES.intersection(self.patches))
        if ignored:
            raise InputError(
                f"A node patched the model with {', '.join(ignored)}, which SkyReels-V3 models do not have: remove "
                "that node, or use one that replaces blocks or attention."
            )

    def __call__(self, index, block, x):
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.options["block_index"] = index
        if ("double_block", index) in self.replace:
            # A hook may keep what it was given, and a block writes into its input.
            original = {"original_block": lambda given: {**given, "img": block(given["img"].clone())}}
            given = {"img": x, "txt": self.text, "vec": None, "pe": None, "transformer_options": self.options}
            x = self.replace[("double_block", index)](given, original)["img"]
        else:
            x = block(x)
        for patch in self.patches.get("double_block", ()):
            given = {"img": x, "x": self.latents, "block_index": index, "transformer_options": self.options}
            x = patch(given)["img"]
        return x


class Config(comfy.supported_models_base.BASE):
    """What ComfyUI asks about a model family; one per checkpoint, because the job decides the shift."""

    unet_extra_config = {}
    latent_format = comfy.latent_formats.Wan21
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    def __init__(self, params: TransformerParams, job: Job):
        # The names are those by which other packs recognise a Wan network.
        super().__init__({"image_model": "wan2.1", "model_type": "t2v", "dim": params.dim})
        self.params = params
        self.job = job
        self.sampling_settings = {"shift": RECIPES[job].shift}

    def network(self, device=None, operations=None, dtype=None, **_) -> Network:
        """The network on the meta device: its weights are assigned from the file, none is ever filled at random."""
        return Network(self.params, self.job, branching(operations), device="meta", dtype=dtype)


class Model(comfy.model_base.BaseModel):
    """A SkyReels-V3 checkpoint as a native model. notes: sentences on how it was loaded."""

    def __init__(self, config: Config, notes: Sequence[str] = ()):
        super().__init__(config, model_type=comfy.model_base.ModelType.FLOW, unet_model=config.network)
        self.params = config.params
        self.job = config.job
        self.notes = tuple(notes)

    def extra_conds(self, **kwargs):
        """Checks and shapes what the conditioning brings; called once per conditioning before sampling."""
        out = super().extra_conds(**kwargs)
        text = kwargs.get("cross_attn")
        if text is not None:
            out["c_crossattn"] = comfy.conds.CONDRegular(self._text(text))
        problem = self._problem(kwargs.get(KEY), kwargs["noise"])
        if problem is not None:
            out[KEY] = RefusedCondition(problem)
        else:
            condition, device = kwargs[KEY], kwargs["device"]
            out[KEY] = comfy.conds.CONDRegular(condition.latents.to(device))
            if condition.image is not None:
                out[AVATAR_INPUTS["image"]] = comfy.conds.CONDRegular(condition.image.to(device))
            for keyword, tensor in (("audio", condition.speech), ("speaker_masks", condition.speakers)):
                if tensor is not None:
                    out[AVATAR_INPUTS[keyword]] = SharedCondition(tensor.to(device))
        return out

    def extra_conds_shapes(self, **kwargs):
        condition = kwargs.get(KEY)
        return {} if condition is None else {KEY: list(condition.latents.shape)}

    def memory_required(self, input_shape, cond_shapes=None):
        """Bytes that a forward of `input_shape` needs beside the weights."""
        dtype = self.get_dtype() if self.manual_cast_dtype is None else self.manual_cast_dtype
        # The avatar's condition lies in more channels, that of the other jobs in more frames.
        beside = [] if self.job is Job.AVATAR else (cond_shapes or {}).get(KEY, [])
        frames = sum(shape[2] for shape in [input_shape, *beside])
        tokens = input_shape[0] * frames * math.prod(input_shape[3:]) // 4
        device = comfy.model_management.get_torch_device()
        weights = comfy.model_management.module_size(self.diffusion_model)
        slices = slices_here(self.params, weights, device, tokens, dtype.itemsize)
        memory = comfy.model_management.get_total_memory(device)
        return needed_bytes(self.params, tokens, dtype.itemsize, memory, slices)

    def _text(self, text: torch.Tensor) -> torch.Tensor:
        """The encoding at the 512 tokens that the models know, padded with zeros; officially longer ones are cut."""
        if text.shape[-1] != self.params.text_dim:
            raise InputError(
                f"The prompt's encoding is {text.shape[-1]} wide, but this model needs {self.params.text_dim}: "
                "encode it with umt5_xxl (CLIPLoader, type wan)."
            )
        if text.shape[1] > TEXT_TOKENS:
            log.warning(
                "SkyReels-V3: the prompt has %d tokens; the model reads the first %d.", text.shape[1], TEXT_TOKENS
            )
        return torch.nn.functional.pad(text[:, :TEXT_TOKENS], (0, 0, 0, max(0, TEXT_TOKENS - text.shape[1])))

    def _problem(self, condition: JobCondition | None, noise: torch.Tensor) -> str | None:
        """Why a conditioning cannot be used with this model and these latents; None where it can."""
        node = NODE_OF_JOB[self.job]
        if condition is None:
            return (
                f"This SkyReels-V3 model does the {self.job.value} job, but its conditioning did not come through "
                f"{node}: connect the prompt to {node} and sample with its positive and negative outputs."
            )
        if condition.job is not self.job:
            return (
                f"This conditioning was made for the {condition.job.value} job, but the model does the "
                f"{self.job.value} job: use {node}, or load the {condition.job.value} checkpoint."
            )
        if noise.ndim != 5 or noise.shape[1] != self.params.out_dim:
            return (
                f"The latent has the shape {list(noise.shape)}, but the model makes video latents of "
                f"{self.params.out_dim} channels: sample the latent that {node} puts out."
            )
        height, width = condition.latents.shape[-2:]
        if self.job is Job.AVATAR and noise.shape[2] != condition.latents.shape[2]:
            return (
                f"The latent has {noise.shape[2]} frames, but {node} prepared {condition.latents.shape[2]}: sample the "
                "latent that it puts out."
            )
        if noise.shape[-2:] != (height, width):
            return (
                f"The latent is {noise.shape[-1] * 8} x {noise.shape[-2] * 8} pixels, but {node} prepared "
                f"{width * 8} x {height * 8}: sample the latent that it puts out."
            )
        if condition.image is not None and condition.speech is not None:
            try:
                check_tokens(condition.image.shape, self.params.image_dim)
                check_features(*condition.speech.shape[-2:], self.params.audio)
            except InputError as error:
                return str(error)
        return None
