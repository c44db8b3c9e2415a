"""One to four reference images to video: what will be made, and the references as the model takes them.

Source: reference_to_video_pipeline.py of the official code. The sequence is `model.sequence.reference_segments`, the
schedule `schedule.job_sigmas`, the solver `solver.unipc`, guidance `guidance.reference_branches`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..images.convert import picture_to_signed, to_rgb8
from ..images.resize import letterbox
from ..images.sizes import snap_frames, video_size
from ..recipes import LATENT_CHANNELS, PIXELS_PER_LATENT, RECIPES, Job, latent_frames

SLOTS = 4  # the model was trained with four reference slots, always; empty ones are zero
DEFAULT_SECONDS = 5.0
# The model is made for 5 s. Far beyond, motion repeats and memory grows: the official extension stops at 30 s too.
MAX_SECONDS = 30.0
MAX_FRAMES = int(MAX_SECONDS * RECIPES[Job.REFERENCE].fps) + 1


@dataclass(frozen=True)
class ReferencePlan:
    """What a reference job will make.

    width, height: pixels.  frames: of video.  latent_frames: of the video's latent.  references: images used.
    notes: what was changed of what was asked for, one sentence each.
    """

    width: int
    height: int
    frames: int
    latent_frames: int
    references: int
    notes: tuple[str, ...] = ()

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """Of the video's latent, [1, 16, T, h, w]."""
        return 1, LATENT_CHANNELS, self.latent_frames, self.height // PIXELS_PER_LATENT, self.width // PIXELS_PER_LATENT


def plan_reference(
    image_sizes: Sequence[tuple[int, int]],
    resolution: str | None = None,
    width: int | None = None,
    height: int | None = None,
    seconds: float | None = None,
    frames: int | None = None,
) -> ReferencePlan:
    """The plan for references of these (width, height); pure.

    Size: `video_size` of the first image's shape.
    Length: seconds x 24 + 1 frames, or `frames`, snapped to 4n + 1; 5 s where neither is given.
    Raises InputError for no or more than four images, and for sizes and lengths that make no video.
    """
    count = len(image_sizes)
    if not 1 <= count <= SLOTS:
        raise InputError(
            f"{count} reference images were given, but the model takes 1 to {SLOTS}: "
            f"{'connect at least one' if count == 0 else 'leave some out, or join them into one image'}."
        )
    width, height, size_notes = video_size(image_sizes[0], resolution, width, height, Job.REFERENCE)
    if seconds is None and frames is None:
        seconds = DEFAULT_SECONDS
    count_of_frames, frame_notes = snap_frames(RECIPES[Job.REFERENCE].fps, MAX_SECONDS, seconds, frames)
    return ReferencePlan(
        width=width,
        height=height,
        frames=count_of_frames,
        latent_frames=latent_frames(count_of_frames),
        references=count,
        notes=size_notes + frame_notes,
    )


def encode_references(
    images: Sequence[torch.Tensor], plan: ReferencePlan, encode: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The reference slots [1, 16, 4, h, w] in model space, on the device and in the dtype `encode` answers in.

    images: ComfyUI IMAGEs (see `to_rgb8`), as many as planned.  encode: pixels [1, 3, 1, H, W] in [-1, 1] ->
    latents [1, 16, 1, h, w] in model space; it is called once for each image, because the VAE compresses time.
    Raises InputError for another number of images than planned, and for latents of another shape.
    """
    if len(images) != plan.references:
        raise InputError(
            f"The plan is for {plan.references} reference images, but {len(images)} were given: plan again."
        )
    shape = (1, LATENT_CHANNELS, 1, *plan.latent_shape[3:])
    slots = []
    for image in images:
        latents = encode(picture_to_signed(letterbox(to_rgb8(image), plan.width, plan.height)))
        if tuple(latents.shape) != shape:
            raise InputError(
                f"The VAE made a latent of {' x '.join(map(str, latents.shape))} from a reference image, but "
                f"{' x '.join(map(str, shape))} is needed: load wan_2.1_vae."
            )
        slots.append(latents)
    slots += [torch.zeros_like(slots[0])] * (SLOTS - len(slots))
    return torch.cat(slots, dim=2)
