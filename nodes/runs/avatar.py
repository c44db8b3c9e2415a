"""What Talking Avatar runs: ComfyUI's models lent to the passes, and a folder that remembers them."""

import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import av
import torch
from PIL import Image

from ...skyreels_v3.digest import chain_keys, digest
from ...skyreels_v3.jobs.avatar.passes import (
    Pass,
    Portrait,
    Settings,
    Start,
    Tools,
    finish,
    run_key_pass,
    run_single,
    run_window,
)
from ...skyreels_v3.jobs.avatar.plan import AvatarPlan, Timing, plan_avatar
from ...skyreels_v3.recipes import Job
from ...skyreels_v3.resume.folder import JobFolder, prune
from ...skyreels_v3.resume.windows import LongJob
from ...skyreels_v3.sampling.guidance import avatar_branches
from ...skyreels_v3.sampling.schedule import job_sigmas
from ...skyreels_v3.speech.encoder import check_features
from ...skyreels_v3.speech.masks import speaker_masks
from ...skyreels_v3.speech.recording import FPS
from ...skyreels_v3.video.source import Sound
from .. import versions
from ..encoders.clip_vision import image_tokens
from ..encoders.prompts import Prompts
from ..encoders.vae import LATENT_FORMAT, decoder, encoder
from ..network.condition import JobCondition, attach
from ..network.forecast import ahead
from ..network.machine import machine_of
from ..sampling.guider import BranchGuider
from ..sampling.samplers import avatar_sampler
from .contact_sheet import contact_sheet, thumbnail, window_numbers
from .identity import jobs_folder, leave_playable, model_stamps, result_path
from .progress import JobProgress

KEY_FRAMES = "key-frames"


class Sampling:
    """How a window is sampled, as the artist set it."""

    def __init__(self, steps: int, shift: float, text_guidance: float, audio_guidance: float):
        self.values = (steps, shift, text_guidance, audio_guidance)
        self.steps = steps
        self.sigmas = job_sigmas(Job.AVATAR, steps, shift)
        self.branches = avatar_branches(text_guidance, audio_guidance)
        self.needs_negative = any(not branch.uses_prompt for branch in self.branches)


@dataclass(frozen=True)
class Texts:
    """prompt: of the key frames.  connection: of the windows between them.  negative: for guidance."""

    prompt: str
    connection: str
    negative: str


class AvatarJob:
    """One run of Talking Avatar."""

    def __init__(
        self,
        *,
        node_id,
        graph,
        model,
        clip,
        texts: Texts,
        vae,
        clip_vision,
        portrait,
        speech,
        masks,
        boxes,
        size,
        timing,
        settings: Settings,
        sampling: Sampling,
    ):
        self.node_id = node_id
        self.graph = graph
        self.model = model
        self.prompts = Prompts(clip)
        self.texts = texts
        params = model.model.params
        check_features(speech.features.layers, speech.features.width, params.audio)
        self.tools = Tools(encoder(vae), decoder(vae), image_tokens(clip_vision, params.image_dim), self._denoise)
        self.speech = speech
        self.settings = settings
        self.sampling = sampling
        height, width = portrait.shape[1:3]
        self.plan: AvatarPlan = plan_avatar(
            (width, height),
            speech.frames,
            **size,
            people=speech.people,
            timing=Timing(*timing),
            steps=sampling.steps,
            max_seconds=speech.max_seconds,
        )
        self.image = portrait
        self.speakers = None
        if speech.people > 1:
            self.speakers = speaker_masks(masks, (width, height), self.plan.width, self.plan.height, boxes)
        forwards = model, self.plan.tokens, sampling.steps * len(sampling.branches)
        passes = len(self.plan.passes)
        self.progress = JobProgress(node_id, "window", passes, sampling.steps, ahead([forwards] * passes))

    def run(self, codec: str) -> tuple[Path, torch.Tensor, str]:
        """Makes what is not made yet. Returns the video's path, its last frames [n, H, W, 3] and a report."""
        plan, started = self.plan, time.perf_counter()
        need = self.model.model.memory_required(list(plan.latent_shape))
        machine_of(self.model.load_device).check_forward(need)
        versions.tell(self.node_id, plan.describe(), f"about {need / 1024**3:.1f} GB for a window beside the weights")
        base = digest(
            ("avatar", 1, av.__version__),  # pieces of two versions of the encoder cannot be joined
            (self.graph, model_stamps([self.model]), self.image, self.speech.features.key, self.speakers),
            (plan.width, plan.height, plan.timing, self.texts, self.settings, self.sampling.values, codec),
        )
        keys = [f"window-{key}" for key in chain_keys(base, plan.windows or [plan.key_pass])]
        prune(jobs_folder())
        with JobFolder(jobs_folder(), f"avatar-{base}") as folder:
            job = LongJob(folder, plan.width, plan.height, FPS, codec=codec)
            folder.keep_only([KEY_FRAMES, *keys])
            done = job.finished(keys)
            if done:
                versions.tell(self.node_id, f"{done} of {len(keys)} windows are kept from before")
            try:
                motion = self._make(job, keys, done)
            except BaseException:
                leave_playable(job, keys, self.node_id, Sound.of(self.speech.waveform, self.speech.rate))
                raise
            path = result_path(digest(keys))
            count = job.join(keys, path, Sound.of(self.speech.waveform, self.speech.rate))
            folder.finish()
            sheet = folder.path(f"{KEY_FRAMES}.png")
        took = time.perf_counter() - started
        report = [
            *plan.describe().splitlines(),
            f"{done} of {len(keys)} windows were made before; this run took {took:.0f} s.",
        ]
        if sheet.exists():
            report.append(f"Key frames: {sheet}")
        report.append(f"Video: {count} frames at {FPS} a second, {codec}, with the recording.")
        versions.tell(self.node_id, f"{count} frames, {count / FPS:.2f} s, in {took:.0f} s", *plan.notes)
        # Two spaces: the page shows text as Markdown, which would otherwise make one line of all.
        return path, motion[0].add(1).div(2).permute(1, 2, 3, 0).contiguous(), "  \n".join(report)

    def _make(self, job: LongJob, keys: list[str], done: int) -> torch.Tensor:
        """Makes the passes that are not done. Returns the video's last frames, [1, 3, n, H, W] in [-1, 1]."""
        plan, folder = self.plan, job.folder
        if done == len(keys):
            return job.state(keys[-1])["motion"]
        self.prompts.prepare(self._texts_to_come(done))
        portrait = Portrait.of(self.image, plan, self.tools)
        if plan.single:
            self.progress.start(0, "the only one")
            with job.window(keys[0], plan.key_pass.new_frames, 0) as video:
                start = run_single(plan, portrait, self.speech.features, self.tools, self.settings, video.write)
                video.state = start.tensors()
            return start.motion
        start = self._key_frames(folder, portrait)
        if done:
            start = Start(**job.state(keys[done - 1]))
        before = sum(window.new_frames for window in plan.windows[:done])
        for index in range(done, len(keys)):
            window = plan.windows[index]
            self.progress.start(index + 1, f"{before / FPS:.1f} s to {(before + window.new_frames) / FPS:.1f} s")
            key_frame = folder.get_tensors(key_name(window.ends_on))["frame"].clone()
            with job.window(keys[index], window.new_frames, before) as video:
                start = run_window(
                    plan,
                    window,
                    start,
                    key_frame,
                    portrait,
                    self.speech.features,
                    self.tools,
                    self.settings,
                    video.write,
                )
                video.state = start.tensors()
            self.progress.show(video.last)
            before += window.new_frames
            if index:
                job.drop_state(keys[index - 1])
        return start.motion

    def _texts_to_come(self, done: int) -> list[str]:
        """What the passes that are not done are told; done: windows."""
        texts = [] if done else [self.texts.prompt]
        texts += [] if self.plan.single else [self.texts.connection]
        return texts + ([self.texts.negative] if self.sampling.needs_negative else [])

    def _key_frames(self, folder: JobFolder, portrait: Portrait) -> Start:
        """Makes the key frames once a job, one file each; several windows of a long job may end on the same one."""
        start, sheet = f"{KEY_FRAMES}.safetensors", f"{KEY_FRAMES}.png"
        if not folder.done(KEY_FRAMES):
            self.progress.start(0, "key frames")
            frames, first = run_key_pass(self.plan, portrait, self.speech.features, self.tools, self.settings)
            files = [start, sheet]
            folder.put_tensors(start, first.tensors())
            pictures, labels = [], []
            for number, windows in groupby(range(len(self.plan.windows)), lambda i: self.plan.windows[i].ends_on):
                frame = frames[number]
                folder.put_tensors(key_name(number), {"frame": frame})
                files.append(key_name(number))
                pictures.append(thumbnail(finish(frame, self.settings)[0]))
                labels.append(window_numbers(list(windows)))
            with folder.writing(folder.path(sheet)):
                contact_sheet(pictures, labels).save(folder.path(sheet))
            folder.commit(KEY_FRAMES, files)
            versions.tell(self.node_id, f"Key frames: {folder.path(sheet)}")
            with Image.open(folder.path(sheet)) as picture:
                self.progress.show_image(picture.convert("RGB"))
        return Start(**{name: tensor.clone() for name, tensor in folder.get_tensors(start).items()})

    def _denoise(self, one: Pass, noise: torch.Tensor) -> torch.Tensor:
        prompts, texts = self.prompts, self.texts
        condition = JobCondition(Job.AVATAR, one.condition, one.tokens, one.speech, self.speakers)
        positive = prompts[texts.prompt if one.plan.is_key_pass else texts.connection]
        negative = attach(prompts[texts.negative], condition) if self.sampling.needs_negative else None
        guider = BranchGuider(self.model)
        guider.set_branches(attach(positive, condition), negative, self.sampling.branches)
        callback = self.progress.sampling_callback(self.model)
        empty, seed = torch.zeros_like(noise), self.settings.seed
        latents = guider.sample(
            noise, empty, avatar_sampler(one.pin), self.sampling.sigmas, callback=callback, seed=seed
        )
        return LATENT_FORMAT.process_in(latents)


def key_name(number: int) -> str:
    """The file of a key frame, a frame of the key-frame pass."""
    return f"{KEY_FRAMES}-{number:04d}.safetensors"
