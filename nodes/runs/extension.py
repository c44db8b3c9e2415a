"""What Extend Video runs: ComfyUI's models lent to the rolls of an extension."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.samplers
import torch

from ...skyreels_v3.digest import digest
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.images.resize import fit_frame
from ...skyreels_v3.jobs.extension.plan import FPS, LONGEST_PREFIX, ExtensionPlan, PlanSource, RollPlan, plan_extension
from ...skyreels_v3.jobs.extension.roll import Settings, Tail, Tools, run_roll
from ...skyreels_v3.jobs.extension.script import Line
from ...skyreels_v3.recipes import Job
from ...skyreels_v3.sampling.guidance import text_branches
from ...skyreels_v3.sampling.schedule import job_sigmas
from ...skyreels_v3.units import gb
from ...skyreels_v3.video.cuts import last_cut
from ...skyreels_v3.video.rates import written_rate
from ...skyreels_v3.video.sources.source import Sound, Source, last_frames
from .. import versions
from ..encoders.prompts import Prompts
from ..encoders.vae import LATENT_FORMAT, decoder, encoder
from ..inputs.source import remarks
from ..network.condition import KEY, JobCondition, attach
from ..network.forecast import ahead
from ..network.machine import machine_of
from ..network.model import skyreels_model
from ..network.shared.patcher import group_sharing
from ..sampling.guider import BranchGuider
from ..sampling.samplers import unipc_sampler
from .identity import Node, model_stamps
from .lead import Lead
from .progress import RunProgress
from .resumable import ResumableRun, VideoFile

UNIPC = "unipc (official)"
ENTRIES = {Job.EXTENSION: "model", Job.SHOT: "shot_model"}


class Sampling:
    """How a roll is sampled, as the artist set it."""

    def __init__(self, steps: int, shift: float, sampler: str, guidance: float, negative: str):
        self.steps = steps
        self.shift = shift
        self.branches = text_branches(guidance)
        self.negative = negative if len(self.branches) > 1 else None
        self.values = (steps, shift, sampler, guidance, self.negative)
        official = sampler == UNIPC
        self.sampler = unipc_sampler() if official else comfy.samplers.sampler_object(sampler)


@dataclass(frozen=True)
class ExtensionModels:
    """What ComfyUI's loaders give."""

    clip: Any
    vae: Any
    by_job: dict[Job, Any]  # MODELs of Load Model; None where none is connected


@dataclass(frozen=True)
class ExtensionRequest:
    """What the artist asks for."""

    source: Source
    lines: Sequence[Line]
    size: dict[str, Any]  # see `inputs.size.chosen_size`
    fit: str
    settings: Settings
    sampling: Sampling
    joined: bool  # the source before the new frames
    rate: Fraction | None  # frames a second of the file; None for the source's
    codec: str


class ExtensionRun(ResumableRun[RollPlan, Tail]):
    """One run of Extend Video."""

    name, unit, state_type = "extension", "roll", Tail

    def __init__(self, node: Node, models: ExtensionModels, request: ExtensionRequest):
        self.node = node
        self.request = request
        self.prompts = Prompts(models.clip)
        self.models = {job: model for job, model in models.by_job.items() if model is not None}
        cards = group_sharing(self.models.values())
        self.tools = Tools(encoder(models.vae), decoder(models.vae, cards), self._denoise)
        for job, model in self.models.items():
            check_job(model, job)
        self.plan, self.past = self._planned()
        self.windows = self.plan.rolls
        info = request.source.info
        rate = request.rate or written_rate(info.frame_rate, least=FPS)
        self.notes = remarks(info, None if request.rate else rate)
        self.file = VideoFile(self.plan.width, self.plan.height, FPS, rate, request.codec)
        steps = request.sampling.steps
        self.progress = RunProgress(node.id, self.unit, len(self.windows), steps, self._ahead())

    def run(self) -> tuple[Path, Tail, str]:
        """Makes what is not made yet. Returns the video's path, the tail and a report."""
        finished, rate = self.resume(), self.file.rate
        report = self.report(
            finished, *self.notes, f"Video: {finished.frames} frames at {float(rate):g} a second, {self.file.codec}."
        )
        versions.tell(self.node.id, f"{finished.frames} frames, {float(finished.frames / rate):.2f} s", *self.notes)
        return finished.path, finished.state, report

    def memory(self) -> str:
        needs = []
        for roll in self.windows:
            shape = list(self.plan.latent_shape(roll))
            prefix = [*shape[:2], roll.prefix_latents, *shape[3:]]
            needs.append(self.models[roll.job].model.memory_required(shape, {KEY: [prefix]}))
        machine_of(comfy.model_management.get_torch_device()).check_forward(max(needs))
        return f"about {gb(max(needs))} for the largest roll beside the weights"

    def identity(self, by_time: bool) -> tuple:
        settings, sampling, inputs = self.request.settings, self.request.sampling, self.node.inputs
        return (
            (inputs["clip"], inputs["vae"], self.past, settings, sampling.values),
            (self.file.rate, self.file.codec),
        )

    def identity_of(self, window: RollPlan, by_time: bool) -> list:
        """Not its line's number, which an added comment changes, and of the models the one that makes it."""
        lengths = window.prefix_frames, window.latent_frames, window.new_frames
        model = digest(self.node.inputs[ENTRIES[window.job]], model_stamps([self.models[window.job]], by_time))
        return [window.kind, window.prompt, lengths, model]

    def lead(self) -> Lead | None:
        """The source."""
        asked, file = self.request, self.file
        if not asked.joined:
            return None
        return Lead(asked.source, file.width, file.height, asked.fit, Fraction(file.rate), file.codec)

    def sound(self, so_far: bool) -> Sound | None:
        """The source's; without the source's frames, which may be missing so far, it would be out of step."""
        return self.request.source.sound() if self.request.joined and not so_far else None

    def prepare(self, folder, done: int) -> Tail:
        negative = self.request.sampling.negative
        texts = [roll.prompt for roll in self.windows[done:]]
        self.prompts.prepare(texts if negative is None else [*texts, negative])
        return Tail.of_source(self.past)

    def make(self, index: int, start: Tail, folder, write) -> Tail:
        roll = self.windows[index]
        self.progress.start(index, f"{roll.kind}, {roll.prompt[:60]}\n{self.plan.describe().splitlines()[0]}")
        return run_roll(roll, start, self.tools, self.request.settings, write)

    def keeps_state(self, window: RollPlan) -> bool:
        """A line's last: the lines after it may be written anew."""
        return window.part == window.parts

    def _planned(self) -> tuple[ExtensionPlan, torch.Tensor]:
        """The plan, and the source's last frames at its size, uint8 [n, H, W, 3]. A wrong script is told first."""
        request = self.request
        options: dict[str, Any] = {
            **request.size,
            "official": request.settings.official,
            "has_model": Job.EXTENSION in self.models,
            "has_shot_model": Job.SHOT in self.models,
            "steps": request.sampling.steps,
        }
        info = request.source.info
        sized = plan_extension(request.lines, PlanSource(info.width, info.height, LONGEST_PREFIX), **options)

        def fitted(pixels):
            return fit_frame(pixels, sized.width, sized.height, request.fit)

        past = last_frames(request.source, LONGEST_PREFIX, FPS, fit=fitted)
        cut = last_cut(past)
        shot = None if cut is None else len(past) - cut
        plan = plan_extension(request.lines, PlanSource(info.width, info.height, len(past), shot), **options)
        # What the plan does not show to the first roll must not reach it: the frames before a hard cut.
        return plan, past[-plan.past :]

    def _ahead(self) -> list[float] | None:
        """Seconds that each roll's forwards take by what this machine measured before."""
        forwards = self.request.sampling.steps * len(self.request.sampling.branches)
        return ahead((self.models[roll.job], self.plan.tokens_of(roll), forwards) for roll in self.windows)

    def _denoise(self, roll: RollPlan, prefix: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        model, condition, sampling = self.models[roll.job], JobCondition(roll.job, prefix), self.request.sampling
        guider = BranchGuider(model)
        guider.set_branches(
            attach(self.prompts[roll.prompt], condition),
            None if sampling.negative is None else attach(self.prompts[sampling.negative], condition),
            sampling.branches,
        )
        sigmas = job_sigmas(roll.job, sampling.steps, sampling.shift)
        callback = self.progress.sampling_callback(model)
        empty, seed = torch.zeros_like(noise), self.request.settings.seed
        latents = guider.sample(noise, empty, sampling.sampler, sigmas, callback=callback, seed=seed)
        return LATENT_FORMAT.process_in(latents)


def check_job(model, job: Job) -> None:
    """Raises InputError where a model is of another loader, or made for another job than its input."""
    found = skyreels_model(model).job
    if found is not job:
        swapped = " (the two are swapped)" if found in ENTRIES else ""
        raise InputError(
            f"The model at {ENTRIES[job]} does the {found.value} job, but {job.value} is needed there{swapped}: "
            f"connect the {job.value} checkpoint, or set its job in Load Model if the file's name misled it."
        )
