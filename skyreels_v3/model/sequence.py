"""The in-context sequence: every job is a list of segments along the time axis.

| job | segments (latent frames) | prediction for |
| --- | --- | --- |
| reference | video T at 0; references 4 at T, at the sampler's timestep too | the video |
| single-shot extension | prefix P at 0, clean; video T at P | the video |
| shot switching | video T at 0; prefix P at 1024, clean | the video |
| avatar | video at 0 with 20 more input channels | the video |
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError

SHOT_PREFIX_POSITION = 1024


@dataclass(frozen=True)
class Segment:
    """Latent frames that stand next to each other in time."""

    latents: torch.Tensor  # [B, C, T, H, W] in model space
    position: int  # of the first frame, in time
    clean: bool = False  # at timestep 0 instead of the sampler's
    predicted: bool = False  # the network's output is for this segment


@dataclass(frozen=True)
class Span:
    """Where a segment lies in the token sequence; the other fields are the segment's."""

    start: int  # tokens; start to stop are frames x height x width
    stop: int
    position: int
    frames: int
    clean: bool
    predicted: bool


@dataclass(frozen=True)
class Layout:
    """Token geometry of a sequence. Hashable: rotary tables are kept per layout."""

    spans: tuple[Span, ...]
    height: int  # tokens
    width: int  # tokens

    @property
    def tokens(self) -> int:
        return self.spans[-1].stop

    @property
    def has_clean(self) -> bool:
        return any(span.clean for span in self.spans)

    @property
    def predicted(self) -> Span:
        return next(span for span in self.spans if span.predicted)


def layout_of(segments: Sequence[Segment], patch: tuple[int, int, int] = (1, 2, 2)) -> Layout:
    """Token layout of `segments`; neighbours need one batch, height and width, multiples of the patch.

    Raises InputError where sizes disagree or no single segment is predicted.
    """
    predicted = sum(segment.predicted for segment in segments)
    if predicted != 1:
        raise InputError(f"A sequence needs exactly one predicted segment; of {len(segments)} given, {predicted} are.")
    _, _, _, height, width = segments[0].latents.shape
    if height % patch[1] or width % patch[2]:
        raise InputError(
            f"The latent is {width} x {height}, but the model works in steps of {patch[2]}: "
            "choose a width and height that are multiples of 16 pixels."
        )
    spans = []
    start = 0
    for segment in segments:
        _, _, frames, h, w = segment.latents.shape
        if (h, w) != (height, width):
            raise InputError(
                f"One part of the sequence is {w} x {h} latents and another {width} x {height}: "
                "make the video's size and the conditioning's size equal."
            )
        stop = start + frames * (height // patch[1]) * (width // patch[2])
        spans.append(Span(start, stop, segment.position, frames, segment.clean, segment.predicted))
        start = stop
    return Layout(tuple(spans), height // patch[1], width // patch[2])


def reference_segments(video: torch.Tensor, references: torch.Tensor) -> list[Segment]:
    """Video [B, C, T, H, W], then its reference slots [B, C, 4, H, W] right after it, both at the timestep."""
    return [
        Segment(video, position=0, predicted=True),
        Segment(references, position=video.shape[2]),
    ]


def extension_segments(video: torch.Tensor, prefix: torch.Tensor) -> list[Segment]:
    """Clean prefix [B, C, P, H, W] first, the video [B, C, T, H, W] goes on from it."""
    return [
        Segment(prefix, position=0, clean=True),
        Segment(video, position=prefix.shape[2], predicted=True),
    ]


def shot_segments(video: torch.Tensor, prefix: torch.Tensor) -> list[Segment]:
    """Video [B, C, T, H, W] first; the clean prefix [B, C, P, H, W] sits far away in time, as another shot."""
    return [
        Segment(video, position=0, predicted=True),
        Segment(prefix, position=SHOT_PREFIX_POSITION, clean=True),
    ]


def avatar_segments(video: torch.Tensor, condition: torch.Tensor) -> list[Segment]:
    """Video [B, 16, T, H, W] with mask and image channels [B, 20, T, H, W] stacked below it."""
    return [Segment(torch.cat([video, condition], dim=1), position=0, predicted=True)]
