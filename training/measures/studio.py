"""Where the nano models are filmed: a real ComfyUI in this process, its loaders and nodes, and those of this pack.

Nothing is made ready for the occasion but the small encoders, which the stock loaders open beside the development pack
of dev/comfyui.
"""

import importlib
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from ...skyreels_v3.recipes import Job
from ..models.shipped import FILES, MODELS, NANO, missing_files
from ..world.render import SIZE
from ..world.voices import RATE
from .company import NAMES, WINDOW, Conversation
from .dubbing import DubTrial
from .films import FilmTrial
from .trials import CUT_SECONDS, ROLL, AvatarTrial, ExtensionTrial, ReferenceTrial, ShotTrial, Trial

ENCODERS_PACK = "pack.dev.comfyui.small_encoders"
# Kind of ComfyUI's model folders -> the loader, its method's other inputs.
LOADERS = {
    "text_encoders": ("CLIPLoader", ("wan",)),
    "vae": ("VAELoader", ()),
    "clip_vision": ("CLIPVisionLoader", ()),
    "audio_encoders": ("AudioEncoderLoader", ()),
}
FRAME = {"resolution": "custom", "width": SIZE[0], "height": SIZE[1]}
AVATAR_TIMING = {"motion": 5, "drop": 4}  # the nano windows are short: fewer frames stand still on the key frame

TOOLS = {"clip": "text_encoders", "vae": "vae", "clip_vision": "clip_vision"}  # inputs of nodes -> their loaders' kind
DUB = {  # the defaults of Dub Video, and no loss
    "strength": 0.85,
    "context": 2.0,
    "feather": 0.1,
    "original_sound": 0.0,
    "text_guidance": 1.0,
    "audio_guidance": 1.0,
    "negative": "",
    "window": 81,
    "motion": 5,
    "drop": 12,
    "codec": "lossless",
    "frame_rate": 25.0,
}


@dataclass(frozen=True)
class Settings:
    """What is varied. precision: of Load Model.  steps: None as the job's recipe says.

    official: rolls handed on in 8 bits, as in the official code.  colour_anchor: 0 to 1, of Extend Video; None as the
    trial asks.  colour_match: 0 to 1, of Talking Avatar.  last: whether a film's last scene shows the frame before it.
    """

    precision: str = "auto"
    steps: int | None = None
    official: bool = False
    colour_anchor: float | None = None
    colour_match: float = 1.0
    last: bool = True


class Studio:
    """Makes the clips of trials. models: a folder with MODELS and FILES, as `nano/`. One a process."""

    def __init__(self, models: Path = NANO):
        if missing := missing_files(models):
            raise FileNotFoundError(f"{models} lacks {', '.join(missing)}.")
        self.comfyui, self.pack, _ = _host()
        self._models = models
        for kind in FILES:
            self.comfyui.folder_paths.add_model_folder_path(kind, str(models), is_default=True)
        self.comfyui.folder_paths.filename_list_cache.clear()
        self._load = lru_cache(maxsize=8)(self._load_model)
        self._tools = {kind: self.run(loader, FILES[kind], *rest)[0] for kind, (loader, rest) in LOADERS.items()}

    def make(self, trial: Trial | Conversation, settings: Settings = Settings()) -> np.ndarray:
        """The new frames, uint8 [F, H, W, 3]."""
        kinds = {ReferenceTrial: self._reference, ExtensionTrial: self._extend, ShotTrial: self._extend}
        kinds |= {FilmTrial: self._film}
        # Folders of its own: a job that was made before would otherwise be taken from there.
        with tempfile.TemporaryDirectory(dir=self.comfyui.base) as folder, torch.inference_mode():  # as ComfyUI does
            self.comfyui.folder_paths.set_output_directory(f"{folder}/output")
            self.comfyui.folder_paths.set_temp_directory(f"{folder}/temp")
            spoken = {AvatarTrial: self._talk, Conversation: self._converse}
            return {**kinds, **spoken}[type(trial)](trial, settings)

    def run(self, node_id: str, *values, **inputs) -> Sequence:
        """A node's outputs. Nodes of the old kind take their inputs in order too."""
        node = self.comfyui.nodes.NODE_CLASS_MAPPINGS[node_id]
        if hasattr(node, "PREPARE_CLASS_CLONE"):
            hidden = {"unique_id": "1", "prompt": None}
            clone = node.PREPARE_CLASS_CLONE({"hidden": hidden, "hidden_inputs": hidden})  # of 0.3.75 and of newer ones
            return clone.execute(*values, **inputs).args
        return getattr(node(), node.FUNCTION)(*values, **inputs)

    def _load_model(self, job: Job, precision: str):
        load = self.pack.module("nodes.models.load").load_patcher
        return load(str(self._models / MODELS[job]), job.value, precision)

    def _reference(self, trial: ReferenceTrial, settings: Settings) -> np.ndarray:
        model, vae = self._load(Job.REFERENCE, settings.precision), self._tools["vae"]
        (text,) = self.run("CLIPTextEncode", self._tools["text_encoders"], trial.prompt)
        images = {f"image_{i}": image(given.image) for i, given in enumerate(trial.references, start=1)}
        length = {"seconds": 1.0, "frames": trial.frames, "batch_size": 1}
        positive, _, latent = self.run("SkyReelsReferenceToVideo", text, vae, **FRAME, **length, **images)
        (noise,) = self.run("RandomNoise", trial.seed)
        (guider,) = self.run("SkyReelsGuider", model, positive)
        (sampler,) = self.run("SkyReelsUniPCSampler")
        (sigmas,) = self.run("SkyReelsSigmas", model, settings.steps or 0)
        sampled, _ = self.run("SamplerCustomAdvanced", noise, guider, sampler, sigmas, latent)
        return self._decoded(sampled["samples"])

    def _decoded(self, latents: torch.Tensor) -> np.ndarray:
        """VAEDecode's frames, but by this pack's way through the VAE, in 0.4 of its time on a processor."""
        vae = self.pack.module("nodes.encoders.vae")
        pieces = vae.decoder(self._tools["vae"])(vae.LATENT_FORMAT.process_in(latents))
        return to_bytes(torch.cat(list(pieces), dim=2)[0].movedim(0, -1) / 2 + 0.5)

    def _extend(self, trial: ExtensionTrial | ShotTrial, settings: Settings) -> np.ndarray:
        cut = isinstance(trial, ShotTrial)
        job = Job.SHOT if cut else Job.EXTENSION
        recipe = self._recipe(job)
        anchor = 0.0 if cut else trial.colour_anchor
        lines = [f"cut {CUT_SECONDS}s: {trial.prompt}"] if cut else [f"continue 1s: {trial.prompt}"] * trial.rolls
        video, *_ = self.run(
            "SkyReelsExtendVideo",
            clip=self._tools["text_encoders"],
            vae=self._tools["vae"],
            source=image(trial.prefix),
            script="\n".join(lines),
            **FRAME,
            fit="crop",
            seed=trial.seed,
            steps=settings.steps or recipe.steps,
            shift=recipe.shift,
            sampler="unipc (official)",
            guidance=1.0,
            negative="",
            colour_anchor=anchor if settings.colour_anchor is None else settings.colour_anchor,
            output="new only",
            output_rate="as the source",
            codec="lossless",
            official=settings.official,
            frame_rate=24.0,
            **{"shot_model" if cut else "model": self._load(job, settings.precision)},
        )
        frames = video_frames(video)
        return frames if cut else frames[: trial.rolls * ROLL]  # official rolls are longer than asked for

    def _film(self, trial: FilmTrial, settings: Settings) -> np.ndarray:
        (cast,) = self.run("SkyReelsCast", "hero", image(trial.hero.image))
        jobs = {"reference_model": Job.REFERENCE, "model": Job.EXTENSION, "shot_model": Job.SHOT}
        video, *_ = self.run(
            "SkyReelsFilm",
            clip=self._tools["text_encoders"],
            vae=self._tools["vae"],
            script=trial.script(settings.last),
            **FRAME,
            fit="crop",
            rate="24",
            seed=trial.seed,
            steps=settings.steps or 0,
            shift=0.0,
            guidance=1.0,
            negative="",
            colour_anchor=settings.colour_anchor or 0.0,
            codec="lossless",
            frame_rate=24.0,
            cast=cast,
            **{name: self._load(job, settings.precision) for name, job in jobs.items()},
        )
        return video_frames(video)

    def _talk(self, trial: AvatarTrial, settings: Settings) -> np.ndarray:
        names = ("audio", "audio_2")
        sound = {
            name: {"waveform": torch.from_numpy(one.wave)[None, None], "sample_rate": RATE}
            for name, one in zip(names, trial.speech, strict=False)
        }
        (speech, _) = self.run(
            "SkyReelsSpeech", self._tools["audio_encoders"], **sound, speakers="together", delay=0.0, max_seconds=60.0
        )
        people = len(trial.speech)
        masks = {f"mask_{i + 1}": torch.from_numpy(trial.masks[i])[None] for i in range(people if people > 1 else 0)}
        return self._spoken(speech, trial.portrait, trial.prompt, trial.seed, trial.window, settings, **masks)

    def _converse(self, trial: Conversation, settings: Settings) -> np.ndarray:
        sounds = {
            f"audio_{number}": {"waveform": torch.from_numpy(line.speech.wave)[None, None], "sample_rate": RATE}
            for number, line in enumerate(trial.lines, start=1)
        }
        encoder = self._tools["audio_encoders"]
        speech, *_ = self.run("SkyReelsDialogue", encoder, trial.script, 60.0, **sounds)
        masks = torch.from_numpy(trial.masks[[NAMES.index(name) for name in speech.names]])
        return self._spoken(speech, trial.portrait, trial.prompt, trial.seed, WINDOW, settings, masks=masks)

    def _spoken(
        self, speech, portrait: np.ndarray, prompt: str, seed: int, window: int, settings: Settings, **places
    ) -> np.ndarray:
        """The frames of Talking Avatar, in the portrait's size."""
        recipe = self._recipe(Job.AVATAR)
        video, *_ = self.run(
            "SkyReelsTalkingAvatar",
            model=self._load(Job.AVATAR, settings.precision),
            clip=self._tools["text_encoders"],
            vae=self._tools["vae"],
            clip_vision=self._tools["clip_vision"],
            portrait=image(portrait),
            speech=speech,
            prompt=prompt,
            connection_prompt=prompt,
            resolution="custom",
            width=portrait.shape[1],
            height=portrait.shape[0],
            seed=seed,
            steps=settings.steps or recipe.steps,
            shift=recipe.shift,
            text_guidance=1.0,
            audio_guidance=1.0,
            negative="",
            colour_match=settings.colour_match,
            window=window,
            **AVATAR_TIMING,
            codec="lossless",
            **places,
        )
        return video_frames(video)

    def dub(self, trial: DubTrial, **inputs) -> np.ndarray:
        """All frames of a dub, uint8 [F, H, W, 3]. inputs: see `dubbed`."""
        with self.dubbed(trial, **inputs) as video:
            return video_frames(video)

    @contextmanager
    def dubbed(self, trial: DubTrial, **inputs) -> Generator:
        """The VIDEO of a dub, as long as the context is open. inputs: of Dub Video, other than the trial says."""
        with tempfile.TemporaryDirectory(dir=self.comfyui.base) as folder, torch.inference_mode():
            self.comfyui.folder_paths.set_output_directory(f"{folder}/output")
            self.comfyui.folder_paths.set_temp_directory(f"{folder}/temp")
            heard = {"waveform": torch.from_numpy(trial.speech.wave)[None, None], "sample_rate": RATE}
            encoder, recipe = self._tools["audio_encoders"], self._recipe(Job.AVATAR)
            given = {"audio": heard, "speakers": "together", "delay": 0.0, "max_seconds": 600.0}
            (speech, _) = self.run("SkyReelsSpeech", encoder, **given)
            asked = {name: self._tools[kind] for name, kind in TOOLS.items()}
            asked |= {"model": self._load(Job.AVATAR, "auto"), "source": image(trial.frames), "speech": speech}
            asked |= {"mask": torch.from_numpy(trial.heads), "start": trial.start}
            asked |= {"prompt": trial.prompt, "seed": trial.seed, **FRAME}
            asked |= {"steps": recipe.steps, "shift": recipe.shift, **DUB, **inputs}
            yield self.run("SkyReelsDubVideo", **asked)[0]

    def _recipe(self, job: Job):
        recipes = self.pack.module("skyreels_v3.recipes")
        return recipes.RECIPES[recipes.Job(job.value)]


@lru_cache(maxsize=1)
def _host():
    """ComfyUI with this pack and the one that lets it open small encoders; its folder goes when the process ends."""
    from pack.dev.comfyui.process import load_pack, open_comfyui

    folder = tempfile.TemporaryDirectory(prefix="skyreels-nano-", ignore_cleanup_errors=True)
    comfyui = open_comfyui(Path(folder.name))
    importlib.import_module(ENCODERS_PACK)
    return comfyui, load_pack(comfyui), folder


def image(pixels: np.ndarray) -> torch.Tensor:
    """IMAGE [F, H, W, 3] float32 of uint8 [H, W, 3] or [F, H, W, 3]."""
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    return torch.from_numpy(pixels.astype(np.float32) / 255)


def to_bytes(frames: torch.Tensor) -> np.ndarray:
    """uint8 [F, H, W, 3] of an IMAGE."""
    return (frames.float() * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def video_frames(video) -> np.ndarray:
    """uint8 [F, H, W, 3] of a VIDEO."""
    return to_bytes(video.get_components().images)
