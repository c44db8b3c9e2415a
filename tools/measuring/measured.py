"""All numbers of one video."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.film.grammar.line import SPEAK
from ...skyreels_v3.measures.colours import distance
from ...skyreels_v3.measures.seams import Seam
from ...skyreels_v3.measures.smoothness import smoothness
from ...skyreels_v3.speech.recording import FPS as SPOKEN_FPS
from ...skyreels_v3.video.sources.file import FileSource
from .carried import Carried, carried
from .cuts import PLAIN, CutScore, find_cuts, score_cuts
from .likeness import NONE, Network, likeness, spread
from .lips import PLAINLY, REACH, Lips, by_loudness, by_syncnet, lacking, loudness, read_sound
from .stretches import Stretch, shots_of, speaks_in, stretches_of, windows_of
from .watching import Watched, one_thread, watch

PART = 1.0  # second at the begin of a shot and at the end of a roll whose colours are compared
OWN = "own"  # as a recording: the video's sound


@dataclass(frozen=True)
class Task:
    """What is measured. name: as it is shown.  speech: a recording or OWN.  group: takes of one thing, compared."""

    video: Path
    name: str
    references: tuple[Path, ...] = ()
    script: str | None = None
    speech: str | None = None
    group: str = ""


@dataclass(frozen=True)
class Tools:
    """What measures. networks: of likeness.  weights: the folder of SyncNet's."""

    networks: Sequence[Network]
    weights: Path


@dataclass(frozen=True)
class Roll:
    """A stretch with its numbers. seam: over its first frame, None behind a cut.  drift: Lab distance of its end."""

    stretch: Stretch
    seam: Seam | None
    drift: float


@dataclass(frozen=True)
class Measured:
    """likeness: kind of network -> of each reference.  left_out: what was not measured and why, a sentence each."""

    task: Task
    watched: Watched
    found: list[int]
    found_by: str
    cuts: CutScore
    scripted: bool
    rolls: list[Roll]
    smoothness: float | None
    likeness: dict[str, list[float]]
    lips: Lips | None
    took: float
    left_out: list[str] = field(default_factory=list)

    @property
    def motion(self) -> float:
        """Mean change from frame to frame, in steps of 8 bits, cuts left out."""
        inside = np.delete(self.watched.changes, [0, *self.found])
        return float(inside.mean()) if len(inside) else 0.0

    @property
    def faults(self) -> float | None:
        """Cuts that are missing or that nobody asked for; None without a script."""
        return float(len(self.cuts.missed) + len(self.cuts.unasked)) if self.scripted else None

    @property
    def seam(self) -> float | None:
        """Of the worst seam: jump and step of the mean colour together."""
        return max((roll.seam.jump + roll.seam.colour for roll in self.rolls if roll.seam), default=None)

    @property
    def drift(self) -> float | None:
        """Of the roll that is farthest from the begin of its shot."""
        return max((roll.drift for roll in self.rolls if roll.stretch.made), default=None)


def measure(task: Task, tools: Tools) -> Measured:
    """Raises InputError for what is no video, and for references and recordings that cannot be read."""
    began, left_out = time.monotonic(), []
    references = [_picture(path) for path in task.references]
    own = carried(task.video)
    source = FileSource(task.video)
    watched = watch(source)
    found, found_by = find_cuts(watched)
    with one_thread():
        smooth = smoothness(watched.grey, found)
    if found_by == PLAIN:
        left_out.append(
            "Cuts are found by the plain search, which knows hard cuts alone; TransNetV2 is not installed "
            "(python tools/measure.py --setup)."
        )
    stretches, problem = _stretches(task, own, watched)
    if problem:
        left_out.append(problem)
    lips, why = _lips(task, own, tools, watched, found, source, stretches)
    left_out += why
    scripted = bool(stretches)
    if not scripted and own.timing and watched.fps == SPOKEN_FPS:
        stretches = windows_of(Stretch(SPEAK, 0, 1, 0, watched.frames), watched.fps, own.timing)
    elif not scripted and own.speaks and own.known:
        left_out.append(
            "Seams: where the windows are is known of a talking avatar alone whose video goes straight to Save Video; "
            "of others look at the curve change."
        )
    stretches = stretches or shots_of(found, watched.frames)
    looks: dict[str, list[float]] = {}
    if references and tools.networks:
        made = [
            image for at, image in watched.pictures.items() if any(_holds(one, at) for one in stretches if one.made)
        ]
        looks = {one.kind: likeness(one, spread(made), references) for one in tools.networks if made}
    elif references:
        left_out.append(NONE)
    return Measured(
        task,
        watched,
        found,
        found_by,
        score_cuts(found, stretches if scripted else [], float(watched.fps)),
        scripted,
        rolls_of(watched, stretches, found),
        smooth,
        looks,
        lips,
        time.monotonic() - began,
        left_out,
    )


def rolls_of(watched: Watched, stretches: Sequence[Stretch], found: Sequence[int]) -> list[Roll]:
    """Each stretch with its seam and its drift from the begin of its shot: from the end of footage that it goes on."""
    part = max(1, round(PART * float(watched.fps)))
    rolls: list[Roll] = []
    anchor = watched.colours[:part]
    for stretch in stretches:
        start, stop = stretch.start, stretch.stop
        new_shot = stretch.begins_with_cut or stretch.kind == "shot" or not start
        before = rolls[-1].stretch if rolls else None
        if new_shot or before is None:
            anchor = watched.colours[start : min(stop, start + part)]
        elif not before.made:
            anchor = watched.colours[max(before.start, start - part) : start]
        inside = np.delete(watched.changes[start:stop], [one - start for one in found if start <= one < stop])
        motion = float(inside[1:].mean()) if len(inside) > 1 else 0.0
        seam = None
        if not new_shot:
            seam = Seam.between(watched.means[:start], watched.means[start:stop], float(watched.changes[start]), motion)
        end = watched.colours[max(start, stop - part) : stop]
        rolls.append(Roll(stretch, seam, distance(end, anchor)))
    return rolls


def _stretches(task: Task, own: Carried, watched: Watched) -> tuple[list[Stretch], str]:
    script = own.script if task.script is None else task.script
    if script is None and own.known:
        return [], ""
    if script is None:
        return [], "Cuts and rolls against a script: the video carries none; give it by --script."
    try:
        official = own.official and script == own.script
        return stretches_of(script, watched.frames, watched.fps, official, own.footage, task.video), ""
    except InputError as error:
        return [], f"Cuts and rolls against the script: {error}"


def _lips(
    task: Task,
    own: Carried,
    tools: Tools,
    watched: Watched,
    found: Sequence[int],
    source: FileSource,
    stretches: Sequence[Stretch],
) -> tuple[Lips | None, list[str]]:
    speech = task.speech or (OWN if own.speaks or speaks_in(task.script or "") else None)
    if speech is None and own.known:
        return None, []
    if speech is None:
        return None, ["Mouths: no speech; give the recording by --speech, or --speech own for the video's sound."]
    reason = lacking(tools.weights)
    if reason is None:
        try:
            lips = by_syncnet(task.video, None if speech == OWN else Path(speech), tools.weights)
            return lips, _edge(lips) if lips else ["Mouths: SyncNet finds no face that stays for two seconds."]
        except Exception as error:  # of ffmpeg, OpenCV, its weights: one video does not end a batch
            reason = f"Mouths: SyncNet failed ({' '.join(str(error).split())[:150]}); {PLAINLY}."
    sound = source.sound() if speech == OWN else read_sound(Path(speech))
    if sound is None:
        return None, ["Mouths: the video has no sound; give the recording by --speech."]
    spoken: dict[int, tuple[int, int]] = {}  # of each line
    for one in stretches if speech == OWN else ():
        if one.kind == SPEAK:
            spoken[one.line] = spoken.get(one.line, (one.start, 0))[0], one.stop
    longest = max(spoken, key=lambda line: spoken[line][1] - spoken[line][0], default=0)
    part = spoken.get(longest, (0, watched.frames))
    lips = by_loudness(watched, loudness(sound, float(watched.fps), watched.frames), found, part)
    if lips is None:
        return None, ["Mouths: the speech is silent, or shorter than 2.5 s, in which no lag can be told."]
    if len(spoken) > 1:
        reason += f" Of {len(spoken)} lines that speak it looks at the longest, line {longest}."
    return lips, [reason, *_edge(lips)]


def _edge(lips: Lips) -> list[str]:
    if not lips.at_edge:
        return []
    return [
        f"Mouths: the best fit is the farthest lag that is tried, {REACH} frames, so none is told: nothing follows the "
        "speech, or it is farther off. Listen to it."
    ]


def _holds(stretch: Stretch, frame: int) -> bool:
    return stretch.start <= frame < stretch.stop


def _picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise InputError(f"The reference {path} cannot be read as a picture: give a PNG or JPEG.") from error
