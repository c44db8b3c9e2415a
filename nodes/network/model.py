"""The transformer as a native ComfyUI model: what samplers, patchers, wrappers and previews talk to."""

import logging
from collections.abc import Sequence

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.supported_models_base
import torch

from ...model_loaders.files.stamps import FileStamp
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.spec import SPECS
from ...skyreels_v3.model.memory import TEXT_TOKENS
from ...skyreels_v3.model.params import TransformerParams
from ...skyreels_v3.recipes import PIXELS_PER_LATENT, Job
from ...skyreels_v3.speech.encoder import check_features
from ..encoders.clip_vision import check_tokens
from ..weights.layers import branching
from .condition import KEY, JobCondition, RefusedCondition, SharedCondition
from .network import AVATAR_INPUTS, Called, Network
from .shared.network import SharedNetwork

log = logging.getLogger(__name__)


class Config(comfy.supported_models_base.BASE):
    """What ComfyUI asks about a model family; one per checkpoint, because the job decides the shift."""

    unet_extra_config = {}
    latent_format = comfy.latent_formats.Wan21
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    def __init__(self, params: TransformerParams, job: Job, shared: bool = False):
        # The names are those by which other packs recognise a Wan network.
        # FreeU reads the width of a UNet before it sets its patch, which is then refused in a sentence.
        wan = {"image_model": "wan2.1", "model_type": "t2v", "dim": params.dim}
        super().__init__({**wan, "model_channels": params.dim})
        self.params = params
        self.job = job
        self.shared = shared  # whether other processes have the weights
        self.sampling_settings = {"shift": SPECS[job].recipe.shift}

    def network(self, device=None, operations=None, dtype=None, **_) -> Called:
        """The network on the meta device: its weights are assigned from the file, none is ever filled at random."""
        if self.shared:
            return SharedNetwork(self.params, self.job, dtype)
        return Network(self.params, self.job, branching(operations), device="meta", dtype=dtype)


class Model(comfy.model_base.BaseModel):
    """A SkyReels-V3 checkpoint as a native model. notes: sentences on how it was loaded.  files: those it lies in."""

    def __init__(self, config: Config, notes: Sequence[str] = (), files: Sequence[FileStamp] = ()):
        super().__init__(config, model_type=comfy.model_base.ModelType.FLOW, unet_model=config.network)
        self.params = config.params
        self.job = config.job
        self.notes = tuple(notes)
        self.files = tuple(files)

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
            shared = {
                "audio": condition.speech,
                "speaker_masks": condition.speakers,
                "speaker_ranges": condition.speaker_ranges,
            }
            for keyword, tensor in shared.items():
                if tensor is not None:
                    out[AVATAR_INPUTS[keyword]] = SharedCondition(tensor.to(device))
            if condition.speakers is not None:
                out[AVATAR_INPUTS["position_map"]] = comfy.conds.CONDConstant(condition.position_map)
        return out

    def extra_conds_shapes(self, **kwargs):
        condition = kwargs.get(KEY)
        return {} if condition is None else {KEY: list(condition.latents.shape)}

    def memory_required(self, input_shape, cond_shapes=None):
        """Bytes that a forward of `input_shape` needs beside the weights."""
        dtype = self.get_dtype() if self.manual_cast_dtype is None else self.manual_cast_dtype
        tokens = input_shape[0] * SPECS[self.job].tokens(input_shape, *(cond_shapes or {}).get(KEY, []))
        return self.diffusion_model.needed_bytes(tokens, dtype)

    def _text(self, text: torch.Tensor) -> torch.Tensor:
        """The encoding at the 512 tokens that the models know, padded with zeros; officially longer ones are cut."""
        self.params.check_prompt(text.shape[-1])
        if text.shape[1] > TEXT_TOKENS:
            log.warning(
                "SkyReels-V3: the prompt has %d tokens; the model reads the first %d.", text.shape[1], TEXT_TOKENS
            )
        return torch.nn.functional.pad(text[:, :TEXT_TOKENS], (0, 0, 0, max(0, TEXT_TOKENS - text.shape[1])))

    def _problem(self, condition: JobCondition | None, noise: torch.Tensor) -> str | None:
        """Why a conditioning cannot be used with this model and these latents; None where it can."""
        spec = SPECS[self.job]
        node = spec.node
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
        if spec.condition_in_channels and noise.shape[2] != condition.latents.shape[2]:
            return (
                f"The latent has {noise.shape[2]} frames, but {node} prepared {condition.latents.shape[2]}: sample the "
                "latent that it puts out."
            )
        if noise.shape[-2:] != (height, width):
            wide, high = (PIXELS_PER_LATENT * side for side in (noise.shape[-1], noise.shape[-2]))
            return (
                f"The latent is {wide} x {high} pixels, but {node} prepared {PIXELS_PER_LATENT * width} x "
                f"{PIXELS_PER_LATENT * height}: sample the latent that it puts out."
            )
        image, audio = self.params.image_dim, self.params.audio
        if condition.image is not None and condition.speech is not None and image is not None and audio is not None:
            try:
                check_tokens(condition.image.shape, image)
                layers, features = condition.speech.shape[-2:]
                check_features(layers, features, audio)
            except InputError as error:
                return str(error)
        return None


def skyreels_model(model) -> Model:
    """The SkyReels-V3 model in a MODEL. Raises InputError for a model of another loader."""
    if not isinstance(model.model, Model):
        raise InputError(
            f"The model is {type(model.model).__name__}, but this node needs a SkyReels-V3 model: "
            "load the checkpoint with SkyReels-V3 Load Model."
        )
    return model.model
