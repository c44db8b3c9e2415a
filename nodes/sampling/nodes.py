"""Sigmas, UniPC Sampler, Guider: the official sampling as nodes."""

from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.spec import SPECS
from ...skyreels_v3.recipes import RECIPES, Job
from ...skyreels_v3.sampling.schedule import job_sigmas
from .. import versions
from ..inputs.sampling import guidance_input, shift_input, steps_input
from ..network.model import skyreels_model
from .guider import BranchGuider
from .samplers import unipc_sampler

WITHOUT = {"image": "has no reference images", "audio": "hears no speech"}  # of jobs that such a guidance is not for


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
        avatar = RECIPES[Job.AVATAR]
        return versions.schema(
            node_id="SkyReelsSigmas",
            display_name="SkyReels-V3 Sigmas",
            description="The noise schedule that a SkyReels-V3 model was distilled for.",
            search_aliases=["scheduler", "flow shift", "skyreels sigmas"],
            inputs=[
                io.Model.Input("model", tooltip="A model from SkyReels-V3 Load Model; its job decides the schedule."),
                steps_input(
                    None, f"0: as the model was distilled ({RECIPES[Job.EXTENSION].steps}; avatar {avatar.steps})."
                ),
                shift_input(
                    None,
                    "Above 1 spends more of the steps on layout and motion. 0: as the model was distilled (reference "
                    f"{RECIPES[Job.REFERENCE].shift:g}, extension and shot {RECIPES[Job.EXTENSION].shift:g}, avatar "
                    f"{avatar.shift:g}).",
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
                guidance_input(
                    "text_guidance",
                    "Above 1 follows the prompt harder; needs negative, and two or three forwards a step.",
                ),
                guidance_input("image_guidance", "Above 1 follows the reference images harder; reference job only."),
                io.Conditioning.Input("negative", optional=True, tooltip="Needed where text_guidance is above 1."),
                guidance_input("audio_guidance", "Above 1 moves the mouth more; avatar job only.", optional=True),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls, model, positive, text_guidance=1.0, image_guidance=1.0, negative=None, audio_guidance=1.0
    ) -> io.NodeOutput:
        job = skyreels_model(model).job
        spec, others = SPECS[job], {"image": image_guidance, "audio": audio_guidance}
        for what, guidance in others.items():
            if guidance > 1 and what != spec.guided_by:
                raise InputError(
                    f"{what.capitalize()} guidance is {guidance:g}, but the model does the {job.value} job, which "
                    f"{WITHOUT[what]}: set it to 1."
                )
        branches = spec.branches(text_guidance, others.get(spec.guided_by, 1.0))
        if negative is None and any(not branch.uses_prompt for branch in branches):
            raise InputError(
                f"Text guidance is {text_guidance:g}, which needs a negative prompt: connect negative, or set it to 1."
            )
        guider = BranchGuider(model)
        guider.set_branches(positive, negative, branches)
        return io.NodeOutput(guider)
