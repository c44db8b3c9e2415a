"""What Talking Avatar runs: ComfyUI's models lent to the passes of an avatar."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ...skyreels_v3.images.convert import to_image
from ...skyreels_v3.jobs.avatar.passes import AvatarPasses, Pass, Portrait, Settings, Start, Tools, finish
from ...skyreels_v3.jobs.avatar.plan import AvatarPlan, Timing, WindowPlan, plan_avatar
from ...skyreels_v3.model.speaker_map import PositionMap
from ...skyreels_v3.recipes import Job
from ...skyreels_v3.resume.folder import RunFolder
from ...skyreels_v3.sampling.guidance import avatar_branches
from ...skyreels_v3.sampling.schedule import job_sigmas
from ...skyreels_v3.speech.encoder import check_features
from ...skyreels_v3.speech.masks import shared_places, speaker_masks
from ...skyreels_v3.speech.recording import FPS
from ...skyreels_v3.speech.timeline import COLOURS
from ...skyreels_v3.units import gb
from ...skyreels_v3.video.sources.source import Sound
from .. import versions
from ..encoders.clip_vision import image_tokens
from ..encoders.prompts import Prompts
from ..encoders.speech import Speech
from ..encoders.vae import LATENT_FORMAT, decoder, encoder
from ..network.condition import JobCondition, attach
from ..network.forecast import ahead
from ..network.machine import machine_of
from ..network.shared.patcher import group_sharing
from ..sampling.guider import BranchGuider
from ..sampling.samplers import avatar_sampler
from .contact_sheet import contact_sheet, thumbnail, window_numbers
from .identity import Node, model_stamps
from .progress import RunProgress
from .resumable import ResumableRun, VideoFile

KEY_FRAMES = "key-frames"
SHEET = f"{KEY_FRAMES}.png"


class Sampling:
    """How a window is sampled, as the artist set it."""

    def __init__(self, steps: int, shift: float, text_guidance: float, audio_guidance: float):
        self.values = (steps, shift, text_guidance, audio_guidance)
        self.steps = steps
        self.sigmas = job_sigmas(Job.AVATAR, steps, shift)
        self.branches = avatar_branches(text_guidance, audio_guidance)
        self.needs_negative = any(not branch.uses_prompt for branch in self.branches)

    def guider(self, model: Any, prompts: Prompts, prompt: str, negative: str, condition: JobCondition) -> BranchGuider:
        """What samples a window. prompts: in which both texts are prepared, the negative one where it is needed."""
        unwanted = attach(prompts[negative], condition) if self.needs_negative else None
        guider = BranchGuider(model)
        guider.set_branches(attach(prompts[prompt], condition), unwanted, self.branches)
        return guider


@dataclass(frozen=True)
class Texts:  # its name is part of a run's keys, as those of Settings and Timing are
    """What the windows are made with."""

    prompt: str  # of the key frames
    connection: str  # of the windows between them
    negative: str  # for guidance


@dataclass(frozen=True)
class AvatarModels:
    """What ComfyUI's loaders and Load Model give."""

    model: Any
    clip: Any
    vae: Any
    clip_vision: Any


@dataclass(frozen=True)
class AvatarRequest:
    """What the artist asks for."""

    portrait: torch.Tensor  # IMAGE
    speech: Speech
    texts: Texts
    masks: Sequence[torch.Tensor | None]  # of each person, of two at least, see `speaker_masks`
    boxes: Sequence[str]
    position_map: PositionMap
    size: dict[str, Any]  # see `inputs.size.chosen_size`
    timing: Timing
    settings: Settings
    sampling: Sampling
    codec: str


class AvatarRun(ResumableRun[WindowPlan, Start]):
    """One run of Talking Avatar."""

    name, unit, beside, state_type = "avatar", "window", (KEY_FRAMES,), Start
    key_frames = KEY_FRAMES  # the part that they are; in a folder with other runs each has its own
    avatar: AvatarPasses  # from `prepare`: the portrait is encoded only where there is something to make

    def __init__(self, node: Node, models: AvatarModels, request: AvatarRequest):
        self.node = node
        speech = request.speech.placed(request.masks, request.boxes)
        self.request = replace(request, speech=speech)
        self.model = models.model
        self.prompts = Prompts(models.clip)
        params = self.model.model.params
        sampling = request.sampling
        check_features(speech.features.layers, speech.features.width, params.audio)
        tokens = image_tokens(models.clip_vision, params.image_dim)
        self.tools = Tools(encoder(models.vae), decoder(models.vae, group_sharing([self.model])), tokens, self._denoise)
        height, width = request.portrait.shape[1:3]
        self.plan: AvatarPlan = plan_avatar(
            (width, height),
            speech.frames,
            **request.size,
            people=speech.people,
            timing=request.timing,
            steps=sampling.steps,
            max_seconds=speech.max_seconds,
        )
        if speech.turns:
            self.plan = replace(self.plan, who=tuple(speech.named(speech.who(*shown)) for shown in self.plan.shown))
        self.windows = self.plan.windows or (self.plan.key_pass,)
        self.file = VideoFile(self.plan.width, self.plan.height, FPS, FPS, request.codec)
        self.speakers = None
        if speech.people > 1:
            size = self.plan.width, self.plan.height
            given = request.masks, (width, height), *size, request.boxes, speech.silent, speech.names
            self.speakers = speaker_masks(*given)
            shared = shared_places(list(self.speakers[:-1]), speech.names or ("person 1", "person 2"))
            notes = (*self.plan.notes, *(f"{told}: who is who may go wrong." for told in shared))
            self.plan = replace(self.plan, notes=notes)
        forwards = self.model, self.plan.tokens, sampling.steps * len(sampling.branches)
        passes = len(self.plan.passes)
        self.progress = RunProgress(node.id, self.unit, passes, sampling.steps, ahead([forwards] * passes))

    def run(self) -> tuple[Path, torch.Tensor, str]:
        """Makes what is not made yet. Returns the video's path, its last frames [n, H, W, 3] and a report."""
        finished = self.resume()
        count, sheet = finished.frames, finished.folder.path(SHEET)
        report = self.report(
            finished,
            *self.request.speech.notes,
            *([f"Key frames: {sheet}"] if sheet.exists() else []),
            f"Video: {count} frames at {FPS} a second, {self.file.codec}, with the recording.",
        )
        versions.tell(
            self.node.id,
            f"{count} frames, {count / FPS:.2f} s, in {finished.seconds:.0f} s",
            *self.plan.notes,
            *self.request.speech.notes,
        )
        return finished.path, to_image(finished.state.motion), report

    def memory(self) -> str:
        need = self.model.model.memory_required(list(self.plan.latent_shape))
        machine_of(self.model.load_device).check_forward(need)
        return f"about {gb(need)} for a window beside the weights"

    def identity(self, by_time: bool) -> tuple:
        plan, asked, models = self.plan, self.request, model_stamps([self.model], by_time)
        texts, timing = asked.texts, plan.timing
        if plan.single:  # nothing comes between key frames
            texts, timing = replace(texts, connection=""), replace(timing, drop=0)
        settings = texts, asked.settings, asked.sampling.values
        # Runs from before there was a choice went by the official map.
        by_frame = self.speakers is not None and asked.position_map is not PositionMap.OFFICIAL
        speakers = (self.speakers, asked.position_map.value) if by_frame else self.speakers
        if asked.speech.company is not None:
            speakers = (self.speakers, asked.position_map.value, asked.speech.company.speaking)
        return (
            (dict(self.node.inputs), models, asked.portrait[:1], asked.speech.features.key, speakers),
            (plan.width, plan.height, timing, *settings, asked.codec),
        )

    def sound_key(self) -> tuple:
        return self.request.speech.waveform, self.request.speech.rate

    def sound(self, so_far: bool) -> Sound:
        """The recording."""
        return Sound.of(self.request.speech.waveform, self.request.speech.rate)

    def prepare(self, folder: RunFolder, done: int) -> Start:
        self.prompts.prepare(self._texts_to_come(done))
        portrait = Portrait.of(self.request.portrait, self.plan, self.tools)
        speech = self.request.speech
        given = self.plan, portrait, speech.features, self.tools, self.request.settings, speech.company
        self.avatar = AvatarPasses(*given)
        return self.avatar.first() if self.plan.single else self._key_frames(folder, self.avatar)

    def make(self, index: int, start: Start, folder: RunFolder, write) -> Start:
        if self.plan.single:
            self.progress.start(0, "the only one")
            return self.avatar.single(write)
        window = self.windows[index]
        before = sum(one.new_frames for one in self.windows[:index])
        self.progress.start(index + 1, f"{before / FPS:.1f} s to {(before + window.new_frames) / FPS:.1f} s")
        key_frame = folder.get_tensors(self._key_name(window.ends_on))["frame"].clone()
        return self.avatar.window(window, start, key_frame, write)

    def _texts_to_come(self, done: int) -> list[str]:
        """What the passes that are not done are told; done: windows."""
        texts = self.request.texts
        to_come = [] if done else [texts.prompt]
        to_come += [] if self.plan.single else [texts.connection]
        return to_come + ([texts.negative] if self.request.sampling.needs_negative else [])

    def _key_frames(self, folder: RunFolder, avatar: AvatarPasses) -> Start:
        """Makes the key frames once a run, one file each; several of its windows may end on the same one."""
        start, sheet = f"{self.key_frames}.safetensors", f"{self.key_frames}.png"
        if not folder.done(self.key_frames):
            self.progress.start(0, "key frames")
            frames, first = avatar.key_pass()
            files = [start, sheet]
            folder.put_tensors(start, first.tensors())
            pictures, labels, speakers = [], [], []
            for number, group in groupby(range(len(self.windows)), lambda i: self.windows[i].ends_on):
                frame, windows = frames[number], list(group)
                folder.put_tensors(self._key_name(number), {"frame": frame})
                files.append(self._key_name(number))
                pictures.append(thumbnail(finish(frame, self.request.settings)[0]))
                labels.append(window_numbers(windows))
                speakers.append(self._speakers_in(windows))
            with folder.writing(folder.path(sheet)):
                contact_sheet(pictures, labels, speakers).save(folder.path(sheet))
            folder.commit(self.key_frames, files)
            versions.tell(self.node.id, f"Key frames: {folder.path(sheet)}")
            with Image.open(folder.path(sheet)) as picture:
                self.progress.show_image(picture.convert("RGB"))
        return Start(**{name: tensor.clone() for name, tensor in folder.get_tensors(start).items()})

    def _speakers_in(self, windows: Sequence[int]) -> list[tuple[str, str]]:
        """The (name, colour) of those who speak in windows that follow each other; of a dialogue alone."""
        speech, (first, _), (_, last) = self.request.speech, self.plan.shown[windows[0]], self.plan.shown[windows[-1]]
        return [(speech.names[person], COLOURS[person]) for person in speech.who(first, last)]

    def _denoise(self, one: Pass, noise: torch.Tensor) -> torch.Tensor:
        texts = self.request.texts
        given = one.condition, one.tokens, one.speech, self.speakers, self.request.position_map, one.speaker_ranges
        condition = JobCondition(Job.AVATAR, *given)
        prompt = texts.prompt if one.plan.is_key_pass else texts.connection
        guider = self.request.sampling.guider(self.model, self.prompts, prompt, texts.negative, condition)
        callback = self.progress.sampling_callback(self.model)
        empty, seed = torch.zeros_like(noise), self.request.settings.seed
        sigmas = self.request.sampling.sigmas
        latents = guider.sample(noise, empty, avatar_sampler(one.pin), sigmas, callback=callback, seed=seed)
        return LATENT_FORMAT.process_in(latents)

    def _key_name(self, number: int) -> str:
        """The file of a key frame, a frame of the key-frame pass."""
        return f"{self.key_frames}-{number:04d}.safetensors"
