"""From what the artist gives to the plan of a dub: the footage is looked through once, for cuts and for the head."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby, islice
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...images.sizes import video_size
from ...recipes import Job
from ...speech.recording import FPS
from ...video.cuts import hard_cuts, look
from ...video.rates import written_rate
from ...video.sources.source import Source, SourceInfo
from ..avatar.plan import DEFAULT_TIMING, Timing
from .clock import Clock
from .crops import follow, needed
from .footage import Followed, Footage, even, even_frames
from .heads import Heads, Rect
from .plan import DubPlan, DubWindow, plan_parts, plan_shots, reach, spoken_frames

RECIPE = 1  # of how heads are found, followed and put back: a kept dub goes on only with the one it was begun by
FINEST = 1_000_000  # of a second, for where the recording starts
TOLD_CUTS = 8  # times of cuts in the note
NEAR = 0.02  # of noise: as far as a strength is moved to a level of the schedule
STRENGTH = 0.85  # where nobody says another: of the levels that the model was made for, the one that keeps the most
LIKE = 0.01  # by which the count of masks may differ where that of the frames is an estimate


@dataclass(frozen=True)
class Asked:
    """What the artist sets.

    start: seconds into the footage at which the recording begins.  mask: a ComfyUI MASK, see `Heads`, as box.
    feather: width of the soft edge, as a share of the head's size.  context: how many times as wide as the head the
    crop is.  size: see `images.sizes.video_size`.  as_stored: the mask was made from frames as they
    are in the file, not yet turned; older ComfyUI gives such.  scale: how many times as large the footage is shown in
    the end.
    """

    start: float = 0.0
    mask: torch.Tensor | None = None
    box: str = ""
    feather: float = 0.1
    context: float = 2.0
    size: dict[str, Any] = field(default_factory=dict)
    timing: Timing = DEFAULT_TIMING
    as_stored: bool = False
    scale: float = 1.0


def sigmas_from(sigmas: torch.Tensor, strength: float) -> torch.Tensor:
    """A schedule from the noise level `strength` on. A level of its own that is near is taken instead, because the
    model was distilled for these.
    """
    nearest = int((sigmas[:-1] - strength).abs().argmin())
    if abs(float(sigmas[nearest]) - strength) <= NEAR:
        return sigmas[nearest:]
    return torch.cat([sigmas.new_tensor([strength]), sigmas[sigmas < strength]])


def plan_dub(
    source: Source,
    speech: int,
    asked: Asked,
    steps: int,
    level: float = 1.0,
    watched: Callable[[Iterator[np.ndarray], int], Iterator[np.ndarray]] = lambda frames, _: frames,
) -> tuple[DubPlan, Footage]:
    """The plan for `speech` frames of a recording, and the footage as its windows read it.

    steps: of the solver, in each window.  level: of noise that they start from.  watched: is given the frames that are
    looked through, and how many they are; may raise to stop.
    Raises InputError for footage, a start, masks, a box, a size or a timing that make no dub.
    """
    info, timing = source.info, asked.timing
    height, width = even(info.height, info.width)
    if min(height, width) < 2:
        raise InputError(f"The footage is {info.width} x {info.height} pixels, but at least 2 x 2 are needed.")
    clock = Clock(written_rate(info.frame_rate), Fraction(asked.start).limit_denominator(FINEST))
    frames = info.frames_at(clock.rate)
    spoken = spoken_frames(clock, frames, speech)
    first, stop = reach(clock, spoken, frames, timing)
    mask = upright(asked.mask, info, asked.as_stored)
    heads = Heads(width, height, mask, asked.box, mask_numbers(source, clock, mask, frames))
    looked = watched(islice(even_frames(source, clock, first), stop - first), stop - first)
    cuts = [first + cut for cut in hard_cuts(map(look, looked))]
    seen: list[Rect | None] = []  # in the frames that are looked through
    for shot in plan_shots(clock, frames, cuts):
        if shot.first < stop and shot.stop > first:
            seen += heads.look(max(shot.first, first), min(shot.stop, stop), float(clock.rate))
    # While the head is away for longer than a window, none is made: what is before and behind are shots of their own.
    edges = [first + edge for edge in absent(seen, math.ceil(timing.window * clock.rate / FPS)) if 0 < edge < len(seen)]
    shots = plan_shots(clock, frames, sorted({*cuts, *edges}))
    found: dict[int, list[Rect | None]] = {}
    for number, shot in enumerate(shots):
        if shot.first < stop and shot.stop > first:
            found[number] = seen[max(shot.first, first) - first : min(shot.stop, stop) - first]
    silent = {number for number, heads_of in found.items() if not any(heads_of)}
    heard = max(0, clock.first_shown(0)), min(frames, clock.first_shown(spoken))
    if heard[0] < heard[1] and not any(seen[heard[0] - first : heard[1] - first]):
        times = " to ".join(f"{float(frame / clock.rate):.2f}" for frame in heard)
        raise InputError(
            f"The mask shows no one from {times} s, where the recording is heard: paint over the head there, or let "
            "another node find it."
        )
    parts = plan_parts(clock, shots, spoken, timing, silent)
    dubbed = sorted({part.shot for part in parts if isinstance(part, DubWindow)})
    if not dubbed:
        raise InputError("The recording is heard in no frame of the footage: take a longer one, or another start.")
    wanted = needed([head for number in dubbed for head in found[number]], width, height, asked.context)
    size: dict[str, Any] = {"resolution": None, "width": None, "height": None, **asked.size}
    wide, high, notes = video_size((max(1, round(wanted[0])), max(1, round(wanted[1]))), **size, job=Job.AVATAR)
    followed = {}
    for number in dubbed:
        shot, heads_of = shots[number], found[number]
        path = follow(heads_of, max(shot.first, first), float(clock.rate), (width, height), wide / high, asked.context)
        smallest = max(min(head.width, head.height) for head in heads_of if head is not None)
        followed[number] = Followed(shot, path, round(asked.feather * smallest))
    footage = Footage(source, clock, heads, followed, wide, high)
    away = [frame for frame in heads.empty if heard[0] <= frame < heard[1]]
    if mask is not None and asked.as_stored and turned_unseen(info):
        turned = f"The footage is stored turned by {info.rotation} degrees, and so are its frames in this ComfyUI: "
        notes += (turned + "the mask, as made from these, is turned upright.",)
    notes += _notes(info, footage, cuts, away, speech - spoken, asked.scale)
    return DubPlan(wide, high, frames, clock, timing, speech, spoken, shots, parts, steps, level, notes), footage


def absent(seen: Sequence[Rect | None], least: int) -> list[int]:
    """Where each run of at least so many frames without a head begins and ends."""
    edges = []
    for away, run in groupby(range(len(seen)), key=lambda frame: seen[frame] is None):
        frames = list(run)
        if away and len(frames) >= least:
            edges += [frames[0], frames[-1] + 1]
    return edges


def upright(mask: torch.Tensor | None, info: SourceInfo, as_stored: bool = False) -> torch.Tensor | None:
    """A mask as the footage is shown: older ComfyUI gives frames of a phone as they are stored, on their side or head.

    Raises InputError for a mask of other footage that lies on its side.
    """
    if mask is None:
        return mask
    lies = info.width != info.height and mask.shape[-2:] == (info.width, info.height)
    if not lies and not (as_stored and turned_unseen(info)):
        return mask
    if lies and info.rotation % 180 == 0:
        raise InputError(
            f"The mask is {info.height} x {info.width} pixels, but the footage is {info.width} x {info.height}: turn "
            "the mask, or make it from this footage."
        )
    return mask.rot90(-info.rotation // 90, (-2, -1))


def turned_unseen(info: SourceInfo) -> bool:
    """Whether footage is turned, and a mask's shape does not tell whether it is, too."""
    return info.rotation == 180 or (info.rotation != 0 and info.width == info.height)


def mask_numbers(source: Source, clock: Clock, mask: torch.Tensor | None, frames: int) -> Callable[[int], int]:
    """Which of many masks is that of a shown frame. Raises InputError where they are not as many as the frames."""
    count = len(mask) if mask is not None and mask.ndim == 3 else 1
    info, has = source.info, source.info.frames
    if info.variable and count > 1:
        times = [time for time, _ in source.timed(Fraction(0))]
        has = len(times)  # of a part that is cut out, info has an estimate
        if count == has:
            return lambda shown: max(bisect_right(times, (shown + Fraction(1, 2)) / clock.rate) - 1, 0)
    if count in (1, frames):
        return lambda shown: shown
    if info.variable or (count != has and (info.exact or abs(count - has) > LIKE * has)):
        raise InputError(
            f"There are {count} masks, but the footage has {has} frames: give one mask for each frame, or a single one "
            "for all."
        )
    return lambda shown: min(int((shown + Fraction(1, 2)) / clock.rate * info.frame_rate), count - 1)


def _notes(
    info: SourceInfo, footage: Footage, cuts: list[int], away: list[int], unheard: int, scale: float
) -> tuple[str, ...]:
    said, rate, heads = [], footage.clock.rate, footage.heads
    if unheard > 1:  # one frame is what is begun of a frame
        said.append(f"The recording goes on for {unheard / FPS:.2f} s behind the end of the footage: that is cut off.")
    if (heads.width, heads.height) != (info.width, info.height):
        said.append(f"Of {info.width} x {info.height} pixels the last of an odd side are left out: H.264 has none.")
    if cuts:
        times = ", ".join(f"{float(cut / rate):.2f}" for cut in cuts[:TOLD_CUTS])
        said.append(f"Hard cuts at {times}{' ...' if len(cuts) > TOLD_CUTS else ''} s: no window reaches over them.")
    if heads.everywhere:
        said.append("Without a mask or a box the whole picture is made anew.")
    if away:
        many = "one frame" if len(away) == 1 else f"{len(away)} frames"
        first = float(away[0] / rate)
        said.append(f"The mask is empty in {many} of what is heard, from {first:.2f} s on: nothing is changed there.")
    largest = max((one.path for one in footage.shots.values()), key=lambda path: path.width)
    if scale * largest.width > footage.width or scale * largest.height > footage.height:
        closer = "a mask or box of the head" if heads.everywhere else "a smaller context"
        said.append(
            f"{round(largest.width)} x {round(largest.height)} pixels are made at {footage.width} x {footage.height} "
            f"and enlarged: a higher resolution or {closer} keeps more detail."
        )
    return tuple(said)
