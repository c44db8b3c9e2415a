"""How a take of each kind of shot is made, window by window, by the job that it belongs to.

All end in the same state: the last frames, from which the shots after it go on.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, TypeVar

import comfy.model_management
import torch

from ....skyreels_v3.images.convert import tail_to_signed, to_image, to_uint8
from ....skyreels_v3.jobs.extension.plan import FPS, LONGEST_PREFIX, PlanSource, plan_extension
from ....skyreels_v3.jobs.extension.roll import Settings, Tail
from ....skyreels_v3.jobs.extension.script import DEFAULT_SECONDS, Line
from ....skyreels_v3.jobs.film.grammar.line import FilmLine
from ....skyreels_v3.jobs.film.look import Look, TakeSettings
from ....skyreels_v3.jobs.reference import ReferencePlan, encode_references
from ....skyreels_v3.recipes import FRAMES_PER_LATENT, LATENT_CHANNELS, PIXELS_PER_LATENT, Job, latent_frames
from ....skyreels_v3.resume.folder import RunFolder
from ....skyreels_v3.sampling.guidance import reference_branches
from ....skyreels_v3.sampling.schedule import job_sigmas
from ....skyreels_v3.vae.frames import decoded
from ....skyreels_v3.video.sources.source import FramesSource
from ...encoders.prompts import Prompts
from ...encoders.vae import LATENT_FORMAT, decoder, encoder
from ...network.condition import KEY, JobCondition, attach
from ...network.machine import machine_of
from ...network.shared.patcher import group_sharing
from ...sampling.guider import BranchGuider
from ...sampling.samplers import unipc_sampler
from ..extension import UNIPC, ExtensionModels, ExtensionRequest, ExtensionRun, Sampling
from ..identity import Node
from ..resumable import Planned, WindowState

State = TypeVar("State", bound=WindowState)
Write = Callable[[torch.Tensor], object]


@dataclass(frozen=True)
class FilmModels:
    """What ComfyUI's loaders and Load Model give; None where none is connected."""

    clip: Any
    vae: Any
    by_job: dict[Job, Any]
    clip_vision: Any = None
    audio_encoder: Any = None


@dataclass(frozen=True)
class TakeRequest:
    """What every take is made from, whatever its shot is."""

    node: Node
    models: FilmModels
    prompts: Prompts
    look: Look
    line: FilmLine
    settings: TakeSettings


class ShotRun(ABC, Generic[State]):
    """The windows of one take. made_rate: frames a second.  passes: runs of the sampler, more than windows at times."""

    made_rate: Fraction | int = FPS
    windows: Sequence[Planned]
    state_type: type[State]
    progress: Any  # see `RunProgress`

    @property
    def passes(self) -> int:
        return len(self.windows)

    @abstractmethod
    def prepare(self, folder: RunFolder, done: int) -> State:
        """Gets ready for the windows from number `done` on, and says what the very first one starts from."""

    @abstractmethod
    def make(self, index: int, start: State, folder: RunFolder, write: Write) -> State:
        """Makes a window, hands its frames, uint8 [n, H, W, 3], to `write`, and says what the next one starts from."""

    @abstractmethod
    def tail(self, state: State) -> Tail:
        """Of the whole take, from the state after its last window."""


@dataclass(frozen=True)
class SceneWindow:
    """The one window of a scene. prompt: of its line."""

    new_frames: int
    latent_frames: int
    prompt: str


class SceneRun(ShotRun[Tail]):
    """A scene: a video of its references, cut to exactly the length of its line."""

    state_type = Tail

    def __init__(self, take: TakeRequest, pictures: Sequence[torch.Tensor]):
        """pictures: IMAGEs of the references, in order."""
        self.model, self.prompts, self.settings = take.models.by_job[Job.REFERENCE], take.prompts, take.settings
        self.encode, self.decode = encoder(take.models.vae), decoder(take.models.vae, group_sharing([self.model]))
        self.pictures = pictures
        self.window = scene_window(take.line)
        latents, size = self.window.latent_frames, (take.look.width, take.look.height)
        self.plan = ReferencePlan(*size, FRAMES_PER_LATENT * (latents - 1) + 1, latents, len(pictures))
        self.windows = (self.window,)

    def prepare(self, folder: RunFolder, done: int) -> Tail:
        negative = self.settings.negative
        self.prompts.prepare([self.window.prompt, *([] if negative is None else [negative])])
        empty = torch.empty(1, 3, 0, self.plan.height, self.plan.width)
        return Tail(empty, empty)

    def make(self, index: int, start: Tail, folder: RunFolder, write: Write) -> Tail:
        self.progress.start(index, self.window.prompt[:60])
        condition = JobCondition(Job.REFERENCE, encode_references(self.pictures, self.plan, self.encode))
        settings = self.settings
        guider = BranchGuider(self.model)
        guider.set_branches(
            attach(self.prompts[self.window.prompt], condition),
            None if settings.negative is None else attach(self.prompts[settings.negative], condition),
            reference_branches(settings.guidance, 1.0),
        )
        noise = torch.randn(self.plan.latent_shape, generator=torch.Generator().manual_seed(settings.seed))
        sigmas = job_sigmas(Job.REFERENCE, settings.steps, settings.shift)
        callback = self.progress.sampling_callback(self.model)
        empty, seed = torch.zeros_like(noise), settings.seed
        latents = guider.sample(noise, empty, unipc_sampler(), sigmas, callback=callback, seed=seed)
        latents = LATENT_FORMAT.process_in(latents)
        last: list[torch.Tensor] = []
        anchor = None
        for pixels in decoded(self.decode, latents, 0, self.window.new_frames, "scene"):
            kept = pixels.half()
            write(to_uint8(kept.float()).cpu())
            kept = kept.cpu()
            anchor = kept[:, :, :1].clone() if anchor is None else anchor
            last = [torch.cat([*last, kept], dim=2)[:, :, -LONGEST_PREFIX:]]
        return Tail(last[0].clone(), last[0][:, :, :1].clone() if anchor is None else anchor)

    def tail(self, state: Tail) -> Tail:
        return state


def scene_window(line: FilmLine) -> SceneWindow:
    """Exactly 24 frames a second of a scene's length; what the VAE makes beyond that is left out."""
    frames = max(1, round((line.seconds or 0) * FPS))
    return SceneWindow(frames, latent_frames(frames + FRAMES_PER_LATENT - 1), line.prompt)


class OneLine(ExtensionRun):
    """One line of Extend Video, which goes on from another shot's last frames."""

    def __init__(self, take: TakeRequest, before: Tail):
        self._before, self._line = before, take.line
        look, settings, models = take.look, take.settings, take.models
        request = ExtensionRequest(
            source=FramesSource(torch.zeros(1, look.height, look.width, 3, dtype=torch.uint8), FPS),
            lines=[],
            size={"width": look.width, "height": look.height},
            fit="crop",
            settings=Settings(settings.seed, False, look.colour_anchor),
            sampling=Sampling(settings.steps, settings.shift, UNIPC, settings.guidance, settings.negative or ""),
            joined=False,
            rate=None,
            codec=look.codec,
        )
        by_job = {job: models.by_job.get(job) for job in (Job.EXTENSION, Job.SHOT)}
        super().__init__(take.node, ExtensionModels(models.clip, models.vae, by_job), request)
        self.prompts = take.prompts

    def prepare(self, folder: RunFolder, done: int) -> Tail:
        negative = self.request.sampling.negative
        self.prompts.prepare([self._line.prompt, *([] if negative is None else [negative])])
        return self._before

    def _planned(self):
        available = self._before.frames.shape[2]
        size = self.request.size
        line = roll_line(self._line)
        source = PlanSource(size["width"], size["height"], available)
        plan = plan_extension([line], source, **size, steps=self.request.sampling.steps)
        return plan, self._before.frames


class RollRun(ShotRun[Tail]):
    """A continue or a cut: the rolls of its line."""

    state_type = Tail

    def __init__(self, run: OneLine):
        self.run, self.windows = run, run.windows

    def prepare(self, folder: RunFolder, done: int) -> Tail:
        self.run.progress = self.progress
        return self.run.prepare(folder, done)

    def make(self, index: int, start: Tail, folder: RunFolder, write: Write) -> Tail:
        return self.run.make(index, start, folder, write)

    def tail(self, state: Tail) -> Tail:
        return state


def roll_line(line: FilmLine) -> Line:
    """As Extend Video's script has it."""
    return Line(line.number, line.kind, line.seconds or DEFAULT_SECONDS, line.prompt)


def last_picture(tail: Tail) -> torch.Tensor:
    """IMAGE [1, H, W, 3] of a tail's last frame."""
    return to_image(tail_to_signed(tail.frames[:, :, -1:]))


def check_memory(models: FilmModels, size: tuple[int, int], job: Job, latents: int, beside: int) -> int:
    """Bytes that the largest forward of a job takes beside its weights.

    size: (width, height) in pixels.  latents: frames of the video's latent.  beside: those of references or past.
    Raises InputError where no card like this can hold it.
    """
    model = models.by_job[job]
    side = PIXELS_PER_LATENT
    shape = [1, LATENT_CHANNELS, latents, size[1] // side, size[0] // side]
    condition = {KEY: [[*shape[:2], beside, *shape[3:]]]} if beside else {}
    need = model.model.memory_required(shape, condition)
    machine_of(comfy.model_management.get_torch_device()).check_forward(need)
    return need
