"""What a job is, once: whoever asks which job it is reads it here.

What can be said without torch (sampling, companions) is in `recipes`, because tools read it on a bare Python.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..model.sequence import Segment, avatar_segments, extension_segments, reference_segments, shot_segments
from ..recipes import PIXELS_PER_LATENT, RECIPES, Job, Recipe, tokens
from ..sampling.guidance import Branch, avatar_branches, reference_branches, text_branches
from . import reference
from .avatar.plan import DEFAULT_TIMING
from .extension.plan import ROLL_FRAMES

Shape = Sequence[int]


@dataclass(frozen=True)
class JobSpec:
    """What one job is: its sampling, sequence and guidance, and the node that prepares it."""

    recipe: Recipe
    node: str  # which prepares the conditioning of one forward
    segments: Callable[[torch.Tensor, torch.Tensor], list[Segment]]  # noisy video, condition -> the sequence
    frames: int  # of video in one forward, where none are asked for
    condition: str = ""  # what stands beside the video in time, in a word for artists
    condition_in_channels: bool = False  # it lies below the video's channels instead
    guided_by: str = ""  # what has a guidance of its own beside the prompt: "image" or "audio"
    branches: Callable[[float, float], dict[Branch, float]] = lambda text, _: text_branches(text)  # of both guidances

    def tokens(self, video: Shape, *conditions: Shape) -> int:
        """Tokens of one forward of one video. Shapes of latents, [B, C, T, h, w]."""
        beside = 0 if self.condition_in_channels else sum(shape[2] for shape in conditions)
        return tokens(video[2] + beside, *(PIXELS_PER_LATENT * side for side in video[3:]))


SPECS: dict[Job, JobSpec] = {
    Job.REFERENCE: JobSpec(
        RECIPES[Job.REFERENCE],
        node="Reference to Video",
        segments=reference_segments,
        frames=int(reference.DEFAULT_SECONDS * RECIPES[Job.REFERENCE].fps) + 1,
        condition="references",
        guided_by="image",
        branches=reference_branches,
    ),
    Job.EXTENSION: JobSpec(
        RECIPES[Job.EXTENSION],
        node="Extension Window (continue)",
        segments=extension_segments,
        frames=ROLL_FRAMES,
        condition="past",
    ),
    Job.SHOT: JobSpec(
        RECIPES[Job.SHOT],
        node="Extension Window (cut)",
        segments=shot_segments,
        frames=ROLL_FRAMES,
        condition="past",
    ),
    Job.AVATAR: JobSpec(
        RECIPES[Job.AVATAR],
        node="Avatar Window",
        segments=avatar_segments,
        frames=DEFAULT_TIMING.window,
        condition_in_channels=True,
        guided_by="audio",
        branches=avatar_branches,
    ),
}
