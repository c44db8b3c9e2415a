"""The other models a job needs, which ComfyUI's own loaders open. Free of torch and of ComfyUI."""

from dataclasses import dataclass

from ...skyreels_v3.recipes import RECIPES, Job

WAN = "Comfy-Org/Wan_2.1_ComfyUI_repackaged"


@dataclass(frozen=True)
class Companion:
    """kind: what it is.  folder: below ComfyUI's models.  loader: ComfyUI's node for it.  mark: part of every name it
    goes by.  file, source: which to get and the Hugging Face repository that has it."""

    kind: str
    folder: str
    loader: str
    mark: str
    file: str
    source: str

    @property
    def place(self) -> str:
        """What to do with it, for the end of a sentence."""
        return f"put {self.file} of huggingface.co/{self.source} into models/{self.folder}"


TEXT_ENCODER = Companion(
    "a text encoder",
    "text_encoders",
    "CLIPLoader, type wan",
    "umt5",
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    WAN,
)
VAE = Companion("a VAE", "vae", "VAELoader", "wan", "wan_2.1_vae.safetensors", WAN)
CLIP_VISION = Companion(
    "a CLIP vision model", "clip_vision", "CLIPVisionLoader", "clip_vision_h", "clip_vision_h.safetensors", WAN
)
SPEECH_ENCODER = Companion(
    "a speech encoder",
    "audio_encoders",
    "AudioEncoderLoader",
    "wav2vec2",
    "wav2vec2-chinese-base_fp16.safetensors",
    "Kijai/wav2vec2_safetensors",
)


def companions(job: Job) -> tuple[Companion, ...]:
    """What a job needs beside its transformer."""
    known = {one.folder: one for one in (TEXT_ENCODER, VAE, CLIP_VISION, SPEECH_ENCODER)}
    return tuple(known[folder] for folder in RECIPES[job].companions)
