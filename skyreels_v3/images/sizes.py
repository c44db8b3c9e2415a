"""Sizes and lengths a video can have, and the nearest to a wanted one.

Source of the tables: config.py and avatar_util.py of the official code. A bucket is a height and width with the height
/ width ratio under which it is picked; the nearest ratio wins, the first of equals.
"""

import math

from ..errors import InputError
from ..recipes import FRAMES_PER_LATENT, PIXELS_PER_TOKEN, Job

Bucket = tuple[float, int, int]  # ratio, height, width

RESOLUTIONS = ("480P", "540P", "720P")
DEFAULT_RESOLUTION = "480P"
DEFAULT_SIZE = 832, 480  # width and height in pixels where no picture gives a shape
MAX_SIDE = 4096  # pixels; the largest side of any bucket is 2048

BUCKETS: dict[str, tuple[Bucket, ...]] = {
    "480P": (
        (0.38, 392, 1046), (0.43, 420, 980), (0.48, 444, 925), (0.50, 452, 904), (0.53, 466, 880),
        (0.54, 470, 870), (0.56, 480, 854), (0.62, 506, 810), (0.67, 522, 784), (0.75, 554, 738),
        (1.00, 640, 640), (1.33, 740, 555), (1.50, 784, 522), (1.78, 854, 480), (1.89, 880, 466),
        (2.00, 906, 454), (2.08, 924, 444),
    ),
    "540P": (
        (0.34, 416, 1216), (0.38, 464, 1216), (0.40, 464, 1152), (0.43, 496, 1152), (0.48, 496, 1024),
        (0.50, 512, 1024), (0.53, 512, 960), (0.57, 544, 960), (0.60, 544, 912), (0.63, 576, 912),
        (0.67, 576, 864), (0.72, 624, 864), (0.75, 624, 832), (0.79, 656, 832), (0.84, 656, 784),
        (0.92, 720, 784), (1.00, 720, 720), (1.09, 784, 720), (1.26, 784, 624), (1.33, 832, 624),
        (1.40, 832, 592), (1.49, 880, 592), (1.62, 880, 544), (1.78, 960, 544), (1.88, 960, 512),
        (2.00, 1024, 512), (2.13, 1024, 480),
    ),
    "720P": (
        (0.38, 588, 1568), (0.43, 628, 1466), (0.48, 666, 1388), (0.50, 678, 1356), (0.53, 698, 1318),
        (0.54, 706, 1306), (0.56, 720, 1280), (0.62, 758, 1212), (0.67, 784, 1176), (0.75, 832, 1110),
        (1.00, 960, 960), (1.33, 1108, 832), (1.50, 1176, 784), (1.78, 1280, 720), (1.89, 1320, 698),
        (2.00, 1358, 680), (2.08, 1386, 666),
    ),
}  # fmt: skip

AVATAR_BUCKETS: dict[str, tuple[Bucket, ...]] = {
    "480P": (
        (0.26, 320, 1216), (0.38, 384, 1024), (0.50, 448, 896), (0.577, 480, 832), (0.67, 512, 768),
        (0.82, 576, 704), (1.00, 640, 640), (1.22, 704, 576), (1.50, 768, 512), (1.86, 832, 448),
        (1.73, 832, 480), (2.00, 896, 448), (2.50, 960, 384), (2.83, 1088, 384), (3.60, 1152, 320),
        (3.80, 1216, 320), (4.00, 1280, 320),
    ),
    # The official code has no avatar table for 540P and stops; the other jobs' table is the one that fits.
    "540P": BUCKETS["540P"],
    "720P": (
        (0.22, 448, 2048), (0.29, 512, 1792), (0.36, 576, 1600), (0.45, 640, 1408), (0.55, 704, 1280),
        (0.56, 720, 1280), (0.63, 768, 1216), (0.76, 832, 1088), (0.88, 896, 1024), (1.00, 960, 960),
        (1.14, 1024, 896), (1.31, 1088, 832), (1.50, 1152, 768), (1.58, 1216, 768), (1.82, 1280, 704),
        (1.78, 1280, 720), (1.91, 1344, 704), (2.20, 1408, 640), (2.30, 1472, 640), (2.67, 1536, 576),
        (2.89, 1664, 576), (3.62, 1856, 512), (3.75, 1920, 512),
    ),
}  # fmt: skip


def video_size(
    shape: tuple[int, int], resolution: str | None, width: int | None, height: int | None, job: Job
) -> tuple[int, int, tuple[str, ...]]:
    """(width, height, notes) of a video: a resolution's bucket nearest to `shape`, or width and height snapped to 16.

    shape: (width, height) of the picture that the video takes its shape from.  resolution: 480P, 540P or 720P; where
    neither it nor a side is given, DEFAULT_RESOLUTION.  notes: what was changed in words.
    Raises InputError for a resolution beside a width or height, for one of these alone, and for sizes that make no
    video.
    """
    if width is None and height is None:
        return *bucket_size(*shape, resolution or DEFAULT_RESOLUTION, job), ()
    if width is None or height is None or resolution is not None:
        raise InputError(
            f"The size is given as resolution {resolution}, width {width} and height {height}: "
            "give the resolution alone, or width and height together."
        )
    return snap_size(width, height)


def bucket_size(width: int, height: int, resolution: str, job: Job = Job.REFERENCE) -> tuple[int, int]:
    """(width, height) in pixels, multiples of 16, of the bucket whose shape is nearest to width x height.

    resolution: 480P, 540P or 720P.  job: the avatar has tables of its own.
    Raises InputError for a side below 1 or an unknown resolution.
    """
    _check_sides(width, height)
    tables = AVATAR_BUCKETS if job == Job.AVATAR else BUCKETS
    if resolution not in tables:
        raise InputError(f"The resolution is {resolution!r}, but it must be one of {', '.join(RESOLUTIONS)}.")
    ratio = height / width
    _, high, wide = min(tables[resolution], key=lambda bucket: abs(bucket[0] - ratio))
    return wide // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN, high // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN


def snap_size(width: int, height: int) -> tuple[int, int, tuple[str, ...]]:
    """(width, height, notes): the nearest multiples of 16 (at least 16), and what was changed in words.

    Raises InputError for a side below 1 or above MAX_SIDE.
    """
    _check_sides(width, height)
    if max(width, height) > MAX_SIDE:
        raise InputError(f"The size is {width} x {height}, but a side may have {MAX_SIDE} pixels: make it smaller.")
    wide, high = (_nearest(side, PIXELS_PER_TOKEN) for side in (width, height))
    if (wide, high) == (width, height):
        return wide, high, ()
    return (
        wide,
        high,
        (f"Size {width} x {height} became {wide} x {high}: sides come in {PIXELS_PER_TOKEN} pixels.",),
    )


def snap_frames(
    fps: int, limit: float, seconds: float | None = None, frames: int | None = None
) -> tuple[int, tuple[str, ...]]:
    """(frames, notes): the nearest count of 4n + 1 frames, and what was changed in words.

    Give `frames`, or `seconds`, which stand for seconds x fps + 1 frames.  limit: in seconds.
    Raises InputError for no length or both, and one that is not finite, not above 0 or beyond the limit.
    """
    if seconds is not None and frames is None:
        given, length, wanted = f"{seconds:g} s", seconds, seconds * fps
    elif frames is not None and seconds is None:
        given, length, wanted = f"{frames} frames", frames, frames - 1
    else:
        raise InputError("The video's length is given as seconds or as frames: give one of the two.")
    if not math.isfinite(wanted) or length <= 0:
        raise InputError(f"The video's length is {given}, but it must be above 0: the model is made for 5 s.")
    if wanted > limit * fps:
        raise InputError(
            f"The video's length is {given}, but at most {limit:g} s ({int(limit * fps) + 1} frames) are made "
            "in one go: ask for less, and go on with Extend Video."
        )
    snapped = math.floor(wanted / FRAMES_PER_LATENT + 0.5) * FRAMES_PER_LATENT + 1
    if snapped == wanted + 1:
        return snapped, ()
    return snapped, (f"{given} became {snapped} frames ({snapped / fps:.2f} s): frames come as 4n + 1.",)


def _nearest(side: int, step: int) -> int:
    """The multiple of `step` nearest to `side`, at least one."""
    return max(1, (side + step // 2) // step) * step


def _check_sides(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise InputError(f"The size is {width} x {height}, but both sides must be at least 1 pixel.")
