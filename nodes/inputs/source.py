"""The clip that an artist connects, VIDEO or IMAGE, as the jobs read it."""

from fractions import Fraction

import torch
from comfy_api.latest import InputImpl, io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.images.resize import DEFAULT_FIT, FITS
from ...skyreels_v3.jobs.extension.plan import FPS
from ...skyreels_v3.video.sources.animation import file_source
from ...skyreels_v3.video.sources.source import FramesSource, Source, SourceInfo
from ...skyreels_v3.video.sources.trimmed import TrimmedSource
from .. import versions


def source_of(clip, frame_rate: float) -> Source:
    """clip: VIDEO, or IMAGE [F, H, W, C] with its frames a second. Raises InputError for what is no video."""
    if isinstance(clip, torch.Tensor):
        if not len(clip):
            raise InputError("The source has no frames, but at least one is needed: connect a video or an image.")
        return FramesSource(clip, frame_rate)
    if isinstance(clip, InputImpl.VideoFromFile):
        source = file_source(clip.get_stream_source())
        start, seconds = versions.trim_of(clip)
        return TrimmedSource(source, start, seconds) if start or seconds else source
    parts = clip.get_components()
    sound = None if parts.audio is None else (parts.audio["waveform"], parts.audio["sample_rate"])
    return FramesSource(parts.images, parts.frame_rate, sound)


def remarks(info: SourceInfo, rate: Fraction | None = None) -> list[str]:
    """What is done with a clip that is not as the model knows it, in sentences for the artist.

    rate: frames a second of a video that is written at that of the clip.
    """
    said, own = [], f"{float(info.frame_rate):.4g}"
    if rate is not None and rate != info.frame_rate:
        many = "few" if rate > info.frame_rate else "many"
        said.append(f"{float(rate):.4g} frames a second are written: the source's {own} are too {many}.")
    if info.variable:
        said.append(f"The source's frames are unevenly spaced: they are taken by their times, as {own} a second.")
    if info.hdr:
        said.append(f"The source is {info.hdr}: it is brought to SDR, which the model knows.")
    if info.interlaced:
        said.append("The source is interlaced: its combs are taken out.")
    if info.transparent:
        said.append("The source is transparent in places: it is laid over white.")
    if info.cut_off:
        said.append("The source's file is cut off: what is there is used.")
    return said


def fit_input() -> io.Input:
    """How the source is brought to the video's size."""
    return io.Combo.Input(
        "fit",
        options=list(FITS),
        default=DEFAULT_FIT,
        tooltip="How the source fills that size: crop cuts its edges, letterbox adds black bars, stretch distorts it "
        "as the official code does.",
    )


def source_input() -> io.Input:
    """The video to go on from."""
    return io.MultiType.Input(
        "source",
        types=[io.Video, io.Image],
        tooltip="The video to go on from: a VIDEO, or frames as IMAGE. Any size, rate and length; a single image "
        "works too.",
    )


def frame_rate_input() -> io.Input:
    """Last of the widgets: most sources are a VIDEO."""
    return io.Float.Input(
        "frame_rate",
        default=float(FPS),
        min=1.0,
        max=240.0,
        step=0.001,
        tooltip="Frames a second of a source that is IMAGE. A VIDEO knows its own: then this is not used.",
    )
