"""What Dub Video runs: ComfyUI's models lent to the windows of a dub, and the footage between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from PIL import Image

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.avatar.passes import Start
from ...skyreels_v3.jobs.dub.footage import Footage
from ...skyreels_v3.jobs.dub.passes import DubPass, DubPasses, DubTools
from ...skyreels_v3.jobs.dub.plan import Copied, DubPlan, DubWindow
from ...skyreels_v3.jobs.dub.prepare import RECIPE, Asked, plan_dub, sigmas_from, turned_unseen
from ...skyreels_v3.jobs.dub.sound import dubbed
from ...skyreels_v3.recipes import Job
from ...skyreels_v3.resume.folder import RunFolder
from ...skyreels_v3.speech.encoder import check_features
from ...skyreels_v3.units import gb
from ...skyreels_v3.video.sources.animation import file_source
from ...skyreels_v3.video.sources.source import Sound, Source, last_frames
from .. import versions
from ..encoders.clip_vision import image_tokens
from ..encoders.prompts import Prompts
from ..encoders.speech import Speech
from ..encoders.vae import LATENT_FORMAT, decoder, encoder
from ..inputs.source import remarks
from ..network.condition import JobCondition
from ..network.forecast import ahead
from ..network.machine import machine_of
from ..network.shared.patcher import group_sharing
from ..sampling.samplers import avatar_sampler
from .avatar import AvatarModels, Sampling
from .contact_sheet import contact_sheet, thumbnail, window_numbers
from .identity import Node, model_stamps
from .progress import RunProgress
from .resumable import ResumableRun, VideoFile

HEADS = "heads"
SHEET = f"{HEADS}.png"
SHOWN = 25  # windows on the sheet
DIMMED = 0.35  # of the light is left of what stays as it is


@dataclass(frozen=True)
class DubRequest:
    """What the artist asks for."""

    source: Source
    speech: Speech
    asked: Asked
    prompt: str
    negative: str
    strength: float  # 0 to 1, the noise level that windows start from
    under: float  # 0 to 1, how loud the footage's own sound stays under the recording
    seed: int
    sampling: Sampling
    codec: str


@dataclass(frozen=True)
class KnownDub:
    """What is known of a dub before it is made."""

    plan: DubPlan
    footage: Footage
    sigmas: torch.Tensor  # of each window


def look_through(
    node_id: str | None, source: Source, frames: int, asked: Asked, sampling: Sampling, strength: float
) -> KnownDub:
    """Of so many frames of speech in the footage. Raises InputError as `plan_dub` does."""

    def watched(pictures: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
        versions.tell(node_id, "Looking through the footage for cuts")
        bar = comfy.utils.ProgressBar(count, node_id=node_id)
        for number, pixels in enumerate(pictures, start=1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update_absolute(number)
            yield pixels

    sigmas = sigmas_from(sampling.sigmas, strength)
    return KnownDub(*plan_dub(source, frames, asked, len(sigmas) - 1, float(sigmas[0]), watched), sigmas)


class DubRun(ResumableRun[DubWindow | Copied, Start]):
    """One run of Dub Video. known: where that is known already."""

    name, unit, beside, state_type = "dub", "part", (HEADS,), Start
    heads = HEADS  # the part that the sheet is; in a folder with other runs each has its own
    dub: DubPasses

    def __init__(self, node: Node, models: AvatarModels, request: DubRequest, known: KnownDub | None = None):
        speech, sampling = request.speech, request.sampling
        if speech.people != 1:
            raise InputError(
                f"The speech is of {speech.people} people, but Dub Video gives one person another recording: use it "
                "once for each of them, the second on the video of the first, whose codec is lossless."
            )
        self.node, self.request, self.model = node, request, models.model
        self.prompts = Prompts(models.clip)
        params = self.model.model.params
        check_features(speech.features.layers, speech.features.width, params.audio)
        tokens = image_tokens(models.clip_vision, params.image_dim)
        decode = decoder(models.vae, group_sharing([self.model]))
        tools = DubTools(encoder(models.vae), decode, tokens, self._denoise)
        known = known or look_through(node.id, request.source, speech.frames, request.asked, sampling, request.strength)
        self.plan, self.footage, self.sigmas = known.plan, known.footage, known.sigmas
        self.dub = DubPasses(self.plan, self.footage, speech.features, tools, request.seed)
        self.windows = self.plan.parts
        rate, heads = self.plan.clock.rate, self.footage.heads
        self.notes = [*speech.notes, *remarks(request.source.info, rate)]
        self.file = VideoFile(heads.width, heads.height, rate, rate, request.codec)
        steps = self.plan.steps
        forwards = self.model, self.plan.tokens, steps * len(sampling.branches)
        each = ahead([forwards])
        seconds = each and [each[0] if isinstance(part, DubWindow) else 1.0 for part in self.windows]
        self.progress = RunProgress(node.id, self.unit, len(self.windows), steps, seconds)

    def run(self) -> tuple[Path, torch.Tensor, str]:
        """Makes what is not made yet. Returns the video's path, its last frames [n, H, W, 3] and a report."""
        finished, rate = self.resume(), self.plan.clock.rate
        sheet = finished.folder.path(SHEET)
        report = self.report(
            finished,
            *self.notes,
            *([f"Where the head is: {sheet}"] if sheet.exists() else []),
            f"Video: {finished.frames} frames at {float(rate):.4g} a second, {self.file.codec}, with the recording.",
        )
        versions.tell(
            self.node.id,
            f"{finished.frames} frames, {float(finished.frames / rate):.2f} s, in {finished.seconds:.0f} s",
            *self.plan.notes,
            *self.notes,
        )
        last = last_frames(file_source(str(finished.path)), self.plan.timing.motion, rate)
        return finished.path, last.float() / 255, report

    def memory(self) -> str:
        need = self.model.model.memory_required(list(self.plan.latent_shape))
        machine_of(self.model.load_device).check_forward(need)
        return f"about {gb(need)} for a window beside the weights"

    def identity(self, by_time: bool) -> tuple:
        plan, asked = self.plan, self.request
        where: Any = asked.asked.box.strip()
        if asked.asked.mask is not None:
            stored = asked.asked.as_stored and turned_unseen(asked.source.info)
            where = (asked.asked.mask, "as stored") if stored else asked.asked.mask
        return (
            RECIPE,
            (dict(self.node.inputs), model_stamps([self.model], by_time), asked.source.content()),
            (asked.speech.features.key, where, asked.asked.feather, asked.asked.context),
            (plan.width, plan.height, plan.timing, plan.level, asked.sampling.values),
            (asked.prompt, asked.negative, asked.seed, plan.clock, asked.codec),
        )

    def sound_key(self) -> tuple:
        speech = self.request.speech
        return speech.waveform, speech.rate, self.request.under

    def sound(self, so_far: bool) -> Sound:
        """The footage's own, and the recording."""
        speech, clock = self.request.speech, self.plan.clock
        seconds = float(self.plan.frames / clock.rate)
        own = self.request.source.sound()
        return dubbed(own, speech.waveform, speech.rate, float(clock.start), seconds, self.request.under)

    def prepare(self, folder: RunFolder, done: int) -> Start:
        needs_negative = self.request.sampling.needs_negative
        self.prompts.prepare([self.request.prompt, *([self.request.negative] if needs_negative else [])])
        self._show_heads(folder)
        return self.dub.first()

    def make(self, index: int, start: Start, folder: RunFolder, write) -> Start:
        part, rate = self.windows[index], self.plan.clock.rate
        times = f"{float(part.first / rate):.1f} s to {float(part.stop / rate):.1f} s"
        self.request.source.check()
        if isinstance(part, DubWindow):
            self.progress.start(index, times)
            return self.dub.window(part, start, write)
        self.progress.start(index, f"{times}, as it is")
        for frame in self.dub.copied(part):
            comfy.model_management.throw_exception_if_processing_interrupted()
            write(frame)
        return start

    def _show_heads(self, folder: RunFolder) -> None:
        """One picture of what each window makes anew, bright, in the middle of it: is that the head?"""
        sheet = folder.path(f"{self.heads}.png")
        if folder.done(self.heads):
            return
        windows = list(enumerate(self.plan.windows))
        every = -(-len(windows) // SHOWN)
        pictures, labels = [], []
        for first in range(0, len(windows), every):
            number, window = windows[first]
            made = window.start + (window.new_start + window.new_stop) // 2
            taken = self.footage.taken_in_crop(window.shot, made)[..., None]
            crop = self.footage.crops(window.shot, [made])[0]
            pictures.append(thumbnail((crop * (DIMMED + (1 - DIMMED) * taken)).to(torch.uint8)))
            labels.append(window_numbers([number, min(number + every, len(windows)) - 1]))
        with folder.writing(sheet):
            contact_sheet(pictures, labels).save(sheet)
        folder.commit(self.heads, [sheet.name])
        versions.tell(self.node.id, f"Where the head is: {sheet}")
        with Image.open(sheet) as picture:
            self.progress.show_image(picture.convert("RGB"))

    def _denoise(self, one: DubPass, noise: torch.Tensor) -> torch.Tensor:
        asked = self.request
        condition = JobCondition(Job.AVATAR, one.condition, one.tokens, one.speech)
        guider = asked.sampling.guider(self.model, self.prompts, asked.prompt, asked.negative, condition)
        callback = self.progress.sampling_callback(self.model)
        footage = torch.zeros_like(noise) if self.plan.level >= 1 else LATENT_FORMAT.process_out(one.latents)
        sampler = avatar_sampler(one.pin)
        latents = guider.sample(noise, footage, sampler, self.sigmas, callback=callback, seed=asked.seed)
        return LATENT_FORMAT.process_in(latents)
