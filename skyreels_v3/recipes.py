"""The four jobs and the settings that the checkpoints were distilled for.

Source: the defaults of the official command line and pipelines (SkyworkAI/SkyReels-V3 at 28c771e).
"""

from dataclasses import dataclass
from enum import Enum


class Job(str, Enum):
    """What a checkpoint was trained to do. The value is the name artists choose in Load Model."""

    REFERENCE = "reference"
    EXTENSION = "extension"
    SHOT = "shot"
    AVATAR = "avatar"


class TimeStep(Enum):
    """A step on the way from a timestep to the modulation of the blocks, in their order."""

    SINUSOIDS = 0
    EMBEDDING = 1
    PROJECTION = 2


@dataclass(frozen=True)
class Recipe:
    """How a job is sampled, and what it needs for it. The rest of what a job is: `jobs/spec.py`."""

    steps: int  # of the solver
    shift: float  # of the sigmas, s' = shift s / (1 + (shift - 1) s)
    fps: int  # frames a second
    solver: str  # "unipc" or "euler"
    integer_timesteps: bool = True  # the network was distilled on sigma x 1000 cut down to a whole number
    # The steps that the official code computes in float32; the others are in 16 bits, as the weights are used to.
    float32_time: frozenset[TimeStep] = frozenset({TimeStep.EMBEDDING, TimeStep.PROJECTION})
    companions: tuple[str, ...] = ("text_encoders", "vae")  # ComfyUI's folders of the other models that it needs
    negative: str = ""  # the negative prompt where an artist gives none


# The setting of the official configs/talking_avatar_19B.py, to the letter: other words are another result.
AVATAR_NEGATIVE = (
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall "
    "gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, "
    "poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three "
    "legs, many people in the background, walking backwards"
)
AVATAR_COMPANIONS = ("text_encoders", "vae", "clip_vision", "audio_encoders")
RECIPES: dict[Job, Recipe] = {
    Job.REFERENCE: Recipe(
        steps=8,
        shift=5.0,
        fps=24,
        solver="unipc",
        float32_time=frozenset({TimeStep.SINUSOIDS, TimeStep.EMBEDDING}),
    ),
    Job.EXTENSION: Recipe(steps=8, shift=8.0, fps=24, solver="unipc"),
    Job.SHOT: Recipe(steps=8, shift=8.0, fps=24, solver="unipc"),
    Job.AVATAR: Recipe(
        steps=4,
        shift=11.0,
        fps=25,
        solver="euler",
        integer_timesteps=False,
        float32_time=frozenset(),
        companions=AVATAR_COMPANIONS,
        negative=AVATAR_NEGATIVE,
    ),
}

AT_ONCE = 2  # people that the avatar's network drives in one frame
MAX_PEOPLE = 8  # in one picture, who take turns

LATENT_CHANNELS = 16  # of the VAE of Wan 2.1
FRAMES_PER_LATENT = 4  # video frames per latent frame (the first latent frame is one video frame)
PIXELS_PER_LATENT = 8  # pixels per latent along height and width
PIXELS_PER_TOKEN = 16  # pixels per transformer token along height and width


def latent_frames(frames: int) -> int:
    """Latent frames of a clip of `frames` video frames (4n + 1)."""
    return (frames - 1) // FRAMES_PER_LATENT + 1


def tokens(latents: int, height: int, width: int) -> int:
    """Transformer tokens of so many latent frames of height x width pixels."""
    return latents * (height // PIXELS_PER_TOKEN) * (width // PIXELS_PER_TOKEN)
