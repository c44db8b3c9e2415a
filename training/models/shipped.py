"""The folder of the trained models, `nano/`, and the files in it."""

from pathlib import Path

from ...skyreels_v3.recipes import Job

NANO = Path(__file__).resolve().parents[2] / "nano"
MODELS = {job: f"{job.value}.safetensors" for job in Job}
# Kind of ComfyUI's model folders -> file.
FILES = {
    "text_encoders": "text_encoder.safetensors",
    "vae": "vae.safetensors",
    "clip_vision": "clip_vision.safetensors",
    "audio_encoders": "audio_encoder.safetensors",
}


def missing_files(folder: Path) -> list[str]:
    """What a folder of models lacks."""
    return [name for name in (*MODELS.values(), *FILES.values()) if not (folder / name).exists()]
