"""What Extend Video runs: ComfyUI's models lent to the rolls, and a folder that remembers what is done."""

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import comfy.model_management
import comfy.samplers
import torch

from ...skyreels_v3.digest import chain_keys, digest
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.images.resize import fit_frame
from ...skyreels_v3.jobs.extension.plan import FPS, LONGEST_PREFIX, ExtensionPlan, RollPlan, SourceInfo, plan_extension
from ...skyreels_v3.jobs.extension.roll import Settings, Tail, Tools, run_roll
from ...skyreels_v3.recipes import Job
from ...skyreels_v3.resume.folder import JobFolder, prune
from ...skyreels_v3.resume.windows import LongJob
from ...skyreels_v3.sampling.guidance import text_branches
from ...skyreels_v3.sampling.schedule import job_sigmas
from ...skyreels_v3.video.cuts import last_cut
from ...skyreels_v3.video.source import Source, frames, last_frames
from .. import versions
from ..encoders.prompts import Prompts
from ..encoders.vae import LATENT_FORMAT, decoder, encoder
from ..network.condition import KEY, JobCondition, attach
from ..network.forecast import ahead
from ..network.machine import machine_of
from ..network.model import skyreels_model
from ..sampling.guider import BranchGuider
from ..sampling.samplers import unipc_sampler
from .identity import file_stamps, jobs_folder, leave_playable, model_stamps, result_path
from .progress import JobProgress

UNIPC = "unipc (official)"
ENTRIES = {Job.EXTENSION: "model", Job.SHOT: "shot_model"}


class Sampling:
    """How a roll is sampled, as the artist set it."""

    def __init__(self, steps: int, shift: float, sampler: str, guidance: float, negative: str):
        self.values = (steps, shift, sampler, guidance, negative)
        self.steps = steps
        self.shift = shift
        self.branches = text_branches(guidance)
        self.negative = negative if len(self.branches) > 1 else None
        official = sampler == UNIPC
        self.sampler = unipc_sampler() if official else comfy.samplers.sampler_object(sampler)


class ExtensionJob:
    """One run of Extend Video: ComfyUI's models lent to skyreels_v3's rolls, and a folder that remembers them."""

    def __init__(self, *, node_id, graph, clip, vae, source: Source, lines, size, fit, settings, sampling, models):
        self.node_id = node_id
        self.graph = graph
        self.prompts = Prompts(clip)
        self.encode, self.decode = encoder(vae), decoder(vae)
        self.source = source
        self.settings: Settings = settings
        self.sampling: Sampling = sampling
        self.models = {job: model for job, model in models.items() if model is not None}
        for job, model in self.models.items():
            check_job(model, job)
        self.fit = fit
        self.plan, self.past = self._plan(lines, size)

    def _plan(self, lines, size) -> tuple[ExtensionPlan, torch.Tensor]:
        """The plan, and the source's last frames at its size, uint8 [n, H, W, 3]. A wrong script is told first."""
        options: dict[str, Any] = {
            **size,
            "official": self.settings.official,
            "has_model": Job.EXTENSION in self.models,
            "has_shot_model": Job.SHOT in self.models,
            "steps": self.sampling.steps,
        }
        info = self.source.info
        sized = plan_extension(lines, SourceInfo(info.width, info.height, LONGEST_PREFIX), **options)

        def fitted(pixels):
            return fit_frame(pixels, sized.width, sized.height, self.fit)

        past = last_frames(self.source, LONGEST_PREFIX, FPS, fit=fitted)
        cut = last_cut(past)
        shot = None if cut is None else len(past) - cut
        plan = plan_extension(lines, SourceInfo(info.width, info.height, len(past), shot), **options)
        # What the plan does not show to the first roll must not reach it: the frames before a hard cut.
        return plan, past[-plan.past :]

    def run(self, joined: bool, rate: Fraction | None, codec: str) -> tuple[Path, Tail, str]:
        """Makes what is not made yet. Returns the video's path, the tail and a report."""
        plan, started = self.plan, time.perf_counter()
        versions.tell(self.node_id, plan.describe(), *self._memory())
        rate = rate or self.source.info.frame_rate
        base = digest(
            ("extension", 1, av.__version__),  # pieces of two versions of the encoder cannot be joined
            (self.graph, model_stamps(self.models.values()), self.past, self.settings, self.sampling.values),
            (rate, codec),
        )
        keys = [f"roll-{key}" for key in chain_keys(base, [self._roll_values(roll) for roll in plan.rolls])]
        lead = f"source-{digest(base, self._source_stamp())}"
        prune(jobs_folder())
        with JobFolder(jobs_folder(), f"extension-{base}") as folder:
            job = LongJob(folder, plan.width, plan.height, FPS, rate, codec)
            folder.keep_only([lead, *keys])
            pieces = [lead, *keys] if joined else keys
            done = job.finished(keys)
            if done:
                versions.tell(self.node_id, f"{done} of {len(keys)} rolls are kept from before")
            try:
                if joined and not folder.done(lead):
                    versions.tell(self.node_id, "Writing the source")
                    job.add_lead(lead, (self._fitted(frame) for frame in frames(self.source, rate)))
                tail = self._make(job, keys, done)
            except BaseException:
                leave_playable(job, pieces, self.node_id)
                raise
            path = result_path(digest(pieces, joined))
            count = job.join(pieces, path, self.source.sound() if joined else None)
            folder.finish()
        # Two spaces: the page shows text as Markdown, which would otherwise make one line of all.
        report = "  \n".join(
            [
                *plan.describe().splitlines(),
                f"{done} of {len(keys)} rolls were made before; this run took {time.perf_counter() - started:.0f} s.",
                f"Video: {count} frames at {float(rate):g} a second, {codec}.",
            ]
        )
        versions.tell(self.node_id, f"{count} frames, {float(count / rate):.2f} s")
        return path, tail, report

    def _make(self, job: LongJob, keys: list[str], done: int) -> Tail:
        """Makes the rolls from number `done` on, and returns the tail after the last one."""
        plan, rolls = self.plan, self.plan.rolls
        tail = Tail(**job.state(keys[done - 1])) if done else Tail.of_source(self.past)
        before = sum(roll.new_frames for roll in rolls[:done])
        progress = JobProgress(self.node_id, "roll", len(rolls), self.sampling.steps, self._ahead())
        negative = [] if self.sampling.negative is None or done == len(rolls) else [self.sampling.negative]
        self.prompts.prepare([*(roll.prompt for roll in rolls[done:]), *negative])
        for index in range(done, len(rolls)):
            roll = rolls[index]
            progress.start(index, f"{roll.kind}, {roll.prompt[:60]}\n{plan.describe().splitlines()[0]}")
            tools = Tools(self.encode, self.decode, self._denoiser(progress))
            with job.window(keys[index], roll.new_frames, before) as window:
                tail = run_roll(roll, tail, tools, self.settings, window.write)
                window.state = tail.tensors()
            progress.show(window.last)
            before += roll.new_frames
            # A line's last state stays: the lines after it may be written anew.
            if index and rolls[index - 1].part < rolls[index - 1].parts:
                job.drop_state(keys[index - 1])
        return tail

    def _ahead(self) -> list[float] | None:
        """Seconds that each roll's forwards take by what this machine measured before."""
        forwards = self.sampling.steps * len(self.sampling.branches)
        return ahead((self.models[roll.job], self.plan.tokens_of(roll), forwards) for roll in self.plan.rolls)

    def _denoiser(self, progress: JobProgress):
        def denoise(roll: RollPlan, prefix: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
            model, condition = self.models[roll.job], JobCondition(roll.job, prefix)
            guider = BranchGuider(model)
            negative = self.sampling.negative
            guider.set_branches(
                attach(self.prompts[roll.prompt], condition),
                None if negative is None else attach(self.prompts[negative], condition),
                self.sampling.branches,
            )
            sigmas = job_sigmas(roll.job, self.sampling.steps, self.sampling.shift)
            callback = progress.sampling_callback(model)
            empty, seed = torch.zeros_like(noise), self.settings.seed
            latents = guider.sample(noise, empty, self.sampling.sampler, sigmas, callback=callback, seed=seed)
            return LATENT_FORMAT.process_in(latents)

        return denoise

    def _fitted(self, pixels):
        comfy.model_management.throw_exception_if_processing_interrupted()
        return fit_frame(pixels, self.plan.width, self.plan.height, self.fit)

    def _memory(self) -> list[str]:
        """What the largest roll needs beside the weights. Raises InputError where no card like this can hold that."""
        needs = []
        for roll in self.plan.rolls:
            shape = list(self.plan.latent_shape(roll))
            prefix = [*shape[:2], roll.prefix_latents, *shape[3:]]
            needs.append(self.models[roll.job].model.memory_required(shape, {KEY: [prefix]}))
        machine_of(comfy.model_management.get_torch_device()).check_forward(max(needs))
        return [f"about {max(needs) / 1024**3:.1f} GB for the largest roll beside the weights"]

    def _source_stamp(self) -> list:
        info = self.source.info
        file = getattr(self.source, "path", None)
        return [str(info.duration), info.frames, *(file_stamps([file]) if file is not None else [])]

    @staticmethod
    def _roll_values(roll: RollPlan) -> list:
        """What a roll adds to those before it: not its line's number, which an added comment changes."""
        return [roll.kind, roll.prompt, roll.prefix_frames, roll.latent_frames, roll.new_frames]


def check_job(model, job: Job) -> None:
    """Raises InputError where a model is of another loader, or made for another job than its input."""
    found = skyreels_model(model).job
    if found is not job:
        swapped = " (the two are swapped)" if found in ENTRIES else ""
        raise InputError(
            f"The model at {ENTRIES[job]} does the {found.value} job, but {job.value} is needed there{swapped}: "
            f"connect the {job.value} checkpoint, or set its job in Load Model if the file's name misled it."
        )
