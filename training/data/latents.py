"""The drawn clips as a model is given them: latents, features of speech and pictures, masks. Made once, into files.

Each chunk of clips.py becomes one file of tensors whose first axis is the sample:

    world, reference, object
            video [n, 16, 13 or 7, h, w], references [n, 4, 16, h, w] (empty slots zero)
    shot    video [n, 16, 13, h, w] and the prefix [n, 16, p, h, w] of the shot before
    talk    video [n, 16, T, h, w], condition [n, 20, T, h, w], image [n, 257, 64], speech [n, people, F, 12, 32],
            masks [n, people + 1, H, W]

and beside them, as a list, what the prompts are written from: scenes and cuts.
"""

from pathlib import Path

import numpy as np
import torch

from ...kernels.half_precision import in_hardware
from ...skyreels_v3.jobs.avatar.condition import clip_pixels, window_condition
from ...skyreels_v3.jobs.avatar.plan import WindowPlan
from ...skyreels_v3.jobs.reference import SLOTS
from ..models import image_encoder, speech_encoder
from ..models.autoencoder import Autoencoder
from ..world.references import Reference
from ..world.samples import AvatarSample, ReferenceSample, ShotSample, signed
from ..world.scenes import Scene
from .clips import WorldSample, read_chunk
from .files import whole

TOGETHER = 4  # clips that are encoded at once


@torch.inference_mode()
def encoded(vae: Autoencoder, pixels: torch.Tensor) -> torch.Tensor:
    """Latents bfloat16 of pixels [n, 3, F, H, W]."""
    with torch.autocast("cpu", torch.bfloat16, enabled=in_hardware(torch.bfloat16)):
        return torch.cat([vae.encode(part).bfloat16() for part in pixels.split(TOGETHER)])


def _pixels(clips: list[np.ndarray]) -> torch.Tensor:
    return torch.cat([signed(clip) for clip in clips])


def world_latents(vae: Autoencoder, samples: list[WorldSample]) -> dict:
    clips = [np.concatenate([s.clip.prefix, s.clip.frames]) for s in samples]
    return _referenced(vae, clips, [s.clip.scene for s in samples], [s.references for s in samples])


def reference_latents(vae: Autoencoder, samples: list[ReferenceSample]) -> dict:
    clips, scenes = [s.frames for s in samples], [s.scene for s in samples]
    return _referenced(vae, clips, scenes, [s.references for s in samples])


def _referenced(
    vae: Autoencoder, clips: list[np.ndarray], scenes: list[Scene], references: list[tuple[Reference, ...]]
) -> dict:
    video = encoded(vae, _pixels(clips))
    slots = video.new_zeros(len(clips), SLOTS, video.shape[1], *video.shape[3:])
    for slot, shown in zip(slots, references):
        images = encoded(vae, _pixels([one.image[None] for one in shown]))
        slot[: len(images)] = images[:, :, 0]
    told = [(scene, tuple((one.kind, one.name) for one in shown)) for scene, shown in zip(scenes, references)]
    return {"video": video, "references": slots, "told": told}


def shot_latents(vae: Autoencoder, samples: list[ShotSample]) -> dict:
    return {
        "video": encoded(vae, _pixels([s.frames for s in samples])),
        "prefix": encoded(vae, _pixels([s.prefix for s in samples])),
        "told": [(s.scene, s.cut) for s in samples],
    }


def talk_latents(vae: Autoencoder, samples: list[AvatarSample]) -> dict:
    frames = len(samples[0].frames)
    conditions, images = [], []
    for sample in samples:
        motion = signed(sample.portrait[None] if sample.motion == 1 else sample.frames[: sample.motion])
        key_frame = None if sample.key_frame is None else signed(sample.key_frame[None])
        # Of a plan's window only these two are asked for here.
        window = WindowPlan(0, frames, None if key_frame is None else 0, sample.motion, 0, frames)
        conditions.append(window_condition(window, frames, motion, key_frame, lambda clip: encoded(vae, clip)))
        images.append(image_encoder.encode(clip_pixels(motion[:, :, :1])).reshape(257, -1))
    return {
        "video": encoded(vae, _pixels([s.frames for s in samples])),
        "condition": torch.cat(conditions).bfloat16(),
        "image": torch.stack(images).bfloat16(),
        "speech": torch.stack([torch.stack([_heard(one.wave, frames) for one in s.speech]) for s in samples]),
        "masks": torch.stack([torch.from_numpy(s.masks) for s in samples]).byte(),
        "told": [(s.scene, None) for s in samples],
    }


def _heard(wave: np.ndarray, frames: int) -> torch.Tensor:
    """[frames, 12, 32]: the recording may end a fraction of a frame early."""
    features = speech_encoder.encode(wave)[:frames]
    return torch.cat([features, features[-1:].expand(frames - len(features), -1, -1)]).bfloat16()


MAKERS = {
    "world": world_latents,
    "reference": reference_latents,
    "object": reference_latents,
    "shot": shot_latents,
    "talk": talk_latents,
}


def write_latents(vae: Autoencoder, clips: Path, folder: Path, kind: str, number: int) -> Path:
    """Encode a chunk, unless it is there."""
    path = folder / f"{kind}-{number:03}.pt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with whole(path) as unfinished:
            torch.save(MAKERS[kind](vae, read_chunk(clips, kind, number)), unfinished)
    return path
