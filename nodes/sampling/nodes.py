"""The official solver, schedules and guidance as native SAMPLER, SIGMAS and GUIDER."""

from functools import partial

import comfy.samplers
import torch
from comfy_api.latest import io
from tqdm.auto import tqdm

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.avatar.passes import pinned_euler
from ...skyreels_v3.recipes import RECIPES, Job
from ...skyreels_v3.sampling.guidance import Branch, avatar_branches, combine, reference_branches, text_branches
from ...skyreels_v3.sampling.schedule import MAX_STEPS, job_sigmas
from ...skyreels_v3.sampling.solver import unipc
from .. import versions
from ..network.condition import attach, condition_of
from ..network.model import Model

FULL_NOISE = 0.99  # a schedule that starts above this makes a video from noise alone


def skyreels_model(model) -> Model:
    """The SkyReels-V3 model in a MODEL. Raises InputError for a model of another loader."""
    if not isinstance(model.model, Model):
        raise InputError(
            f"The model is {type(model.model).__name__}, but this node needs a SkyReels-V3 model: "
            "load the checkpoint with SkyReels-V3 Load Model."
        )
    return model.model


@torch.no_grad()
def sample_with(solver, model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A solver of skyreels_v3, called as (denoise, x, sigmas, callback), in the form of ComfyUI's sampler functions."""
    batch = x.new_ones([x.shape[0]])
    if sigmas[0] >= FULL_NOISE:
        # ComfyUI scales the noise by the first sigma (0.9998); the official pipelines start from the noise itself.
        x = model.noise.to(x)
    bar = tqdm(total=len(sigmas) - 1, disable=disable)

    def denoise(x, sigma):
        return model(x, sigma * batch, **(extra_args or {}))

    def report(step, x, denoised):
        bar.update()
        if callback is not None:
            sigma = sigmas[step]
            callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})

    with bar:
        return solver(denoise, x, sigmas, callback=report)


def unipc_sampler() -> comfy.samplers.KSAMPLER:
    """The official solver of reference and extension as a SAMPLER."""
    return comfy.samplers.KSAMPLER(partial(sample_with, unipc))


def avatar_sampler(pin) -> comfy.samplers.KSAMPLER:
    """The avatar's solver as a SAMPLER. pin: holds the motion frames, see skyreels_v3.jobs.avatar.passes; or None."""

    def solver(denoise, x, sigmas, callback):
        return pinned_euler(denoise, x.clone(), sigmas, pin, callback)

    return comfy.samplers.KSAMPLER(partial(sample_with, solver))


class UniPCSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsUniPCSampler",
            display_name="SkyReels-V3 UniPC Sampler",
            description="The official solver of reference to video and of extension: UniPC, order 2.",
            search_aliases=["unipc", "flow unipc", "FlowUniPCMultistep", "skyreels sampler"],
            inputs=[],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustom and SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(unipc_sampler())


class Sigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsSigmas",
            display_name="SkyReels-V3 Sigmas",
            description="The noise schedule that a SkyReels-V3 model was distilled for.",
            search_aliases=["scheduler", "flow shift", "skyreels sigmas"],
            inputs=[
                io.Model.Input("model", tooltip="A model from SkyReels-V3 Load Model; its job decides the schedule."),
                io.Int.Input(
                    "steps", default=0, min=0, max=MAX_STEPS, tooltip="0: as the model was distilled (8; avatar 4)."
                ),
                io.Float.Input(
                    "shift",
                    default=0.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Above 1 spends more of the steps on layout and motion. 0: as the model was distilled "
                    "(reference 5, extension and shot 8, avatar 11).",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Below 1 keeps part of the latent that is sampled: only the last steps are taken.",
                ),
            ],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, model, steps=0, shift=0.0, denoise=1.0) -> io.NodeOutput:
        job = skyreels_model(model).job
        steps = steps or RECIPES[job].steps
        sigmas = job_sigmas(job, round(steps / denoise), shift or None)
        return io.NodeOutput(sigmas[-(steps + 1) :])


class BranchGuider(comfy.samplers.CFGGuider):
    """A guider that runs the branches of skyreels_v3.sampling.guidance and adds them up by their weights."""

    def set_branches(self, positive: list, negative: list | None, branches: dict[Branch, float]) -> None:
        """positive, negative: CONDITIONING from a SkyReels-V3 node.  branches: forwards and their weights."""
        condition = condition_of(positive)
        empty = None if condition is None else condition.emptied()
        self.branches = branches
        conditionings = {}
        for branch in branches:
            conditioning = positive if branch.uses_prompt else negative
            if not branch.uses_references and empty is not None:
                conditioning = attach(conditioning, empty)
            conditionings[branch.name.lower()] = conditioning
        self.inner_set_conds(conditionings)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        """The guided clean latent, [B, 16, T, H, W]."""
        options = {} if model_options is None else model_options
        conditionings = [self.conds[branch.name.lower()] for branch in self.branches]
        predictions = comfy.samplers.calc_cond_batch(self.inner_model, conditionings, x, timestep, options)
        return combine(predictions, list(self.branches.values()))


class Guider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsGuider",
            display_name="SkyReels-V3 Guider",
            description="Guidance as in the official pipelines: by the prompt, and by the reference images or the "
            "speech, apart. The models are distilled: with all at 1 each step is one forward.",
            search_aliases=["cfg", "dual guidance", "image guidance", "audio guidance", "skyreels guider"],
            inputs=[
                io.Model.Input("model", tooltip="A model from SkyReels-V3 Load Model."),
                io.Conditioning.Input("positive", tooltip="From the node of the model's job."),
                io.Float.Input(
                    "text_guidance",
                    default=1.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    tooltip="Above 1 follows the prompt harder; needs negative, and two or three forwards a step.",
                ),
                io.Float.Input(
                    "image_guidance",
                    default=1.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    tooltip="Above 1 follows the reference images harder; reference job only.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="Needed where text_guidance is above 1."),
                io.Float.Input(
                    "audio_guidance",
                    default=1.0,
                    min=1.0,
                    max=30.0,
                    step=0.1,
                    optional=True,
                    tooltip="Above 1 moves the mouth more; avatar job only.",
                ),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, model, positive, text_guidance=1.0, image_guidance=1.0, negative=None, audio_guidance=1.0
    ) -> io.NodeOutput:
        job = skyreels_model(model).job
        if image_guidance > 1 and job is not Job.REFERENCE:
            raise InputError(
                f"Image guidance is {image_guidance:g}, but the model does the {job.value} job, which has no reference "
                "images: set it to 1."
            )
        if audio_guidance > 1 and job is not Job.AVATAR:
            raise InputError(
                f"Audio guidance is {audio_guidance:g}, but the model does the {job.value} job, which hears no speech: "
                "set it to 1."
            )
        if job is Job.REFERENCE:
            branches = reference_branches(text_guidance, image_guidance)
        elif job is Job.AVATAR:
            branches = avatar_branches(text_guidance, audio_guidance)
        else:
            branches = text_branches(text_guidance)
        if negative is None and any(not branch.uses_prompt for branch in branches):
            raise InputError(
                f"Text guidance is {text_guidance:g}, which needs a negative prompt: connect negative, or set it to 1."
            )
        guider = BranchGuider(model)
        guider.set_branches(positive, negative, branches)
        return io.NodeOutput(guider)
