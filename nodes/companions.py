"""The other models a job needs, which ComfyUI's own loaders open: which of them are not there."""

from dataclasses import dataclass

import folder_paths

from ..skyreels_v3.recipes import Job

WAN = "Comfy-Org/Wan_2.1_ComfyUI_repackaged"


@dataclass(frozen=True)
class Companion:
    """kind: what it is.  folder: below ComfyUI's models.  mark: part of every name it goes by.  file, source: which to
    get and the Hugging Face repository that has it."""

    kind: str
    folder: str
    mark: str
    file: str
    source: str


TEXT_ENCODER = Companion("a text encoder", "text_encoders", "umt5", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", WAN)
VAE = Companion("a VAE", "vae", "wan", "wan_2.1_vae.safetensors", WAN)
CLIP_VISION = Companion("a CLIP vision model", "clip_vision", "clip_vision_h", "clip_vision_h.safetensors", WAN)
SPEECH_ENCODER = Companion(
    "a speech encoder",
    "audio_encoders",
    "wav2vec2",
    "wav2vec2-chinese-base_fp16.safetensors",
    "Kijai/wav2vec2_safetensors",
)


def missing_companions(job: Job) -> list[str]:
    """A sentence for each model that the job needs and none of ComfyUI's folders has."""
    needed = [TEXT_ENCODER, VAE, *((CLIP_VISION, SPEECH_ENCODER) if job is Job.AVATAR else ())]
    return [
        f"This model also needs {one.kind}, and none is there: put {one.file} of huggingface.co/{one.source} into "
        f"models/{one.folder}."
        for one in needed
        if not any(one.mark in name.lower().replace("-", "_") for name in _names(one.folder))
    ]


def _names(folder: str) -> list[str]:
    return folder_paths.get_filename_list(folder) if folder in folder_paths.folder_names_and_paths else []
