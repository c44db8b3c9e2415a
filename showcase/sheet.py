"""One picture of what the demo made: of every video what went in, what was asked, and frames of what came out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from pack.dev.drawing import ACCENT, BACK, DIM, INK, VOICES, Card, Colour, frames_of, loudness_of, picture_of, spread
from pack.showcase.jobs import Demo, Part
from pack.showcase.runs import Run

WIDTH, EDGES, GAP = 1600, 28, 12
INSIDE = 20  # from a plate's border to what is on it
ASKED = 400  # width of the column of what went in
HEAD, TOP = 92, 76  # height of the sheet's head and of a plate's
COLUMNS, ROWS = 4, 2  # of frames
SHAPE = 2 / 3  # height of a frame, of its width
STRIP, BARS = 38, 20  # below a frame of a spoken video: how high the sound is, in how many bars
KINDS: dict[str, tuple[Colour, str]] = {
    "source": (VOICES[1], "the clip"),
    "new": (ACCENT, "new"),
    "cut": (VOICES[0], "after the cut"),
    "spoken": (ACCENT, "spoken"),
}
HEARD = 0.02  # loudness from which on someone speaks


def write_sheet(path: Path, runs: Sequence[Run]) -> Path:
    """Draw the sheet, a plate for each run, and return its path."""
    wide = (WIDTH - 2 * EDGES - ASKED - 3 * INSIDE - (COLUMNS - 1) * GAP) / COLUMNS
    heights = [_height(run, wide) for run in runs]
    card = Card(WIDTH, round(HEAD + sum(heights) + len(runs) * GAP + EDGES))
    seconds = sum(run.seconds for run in runs)
    card.words("What the demo made", EDGES, 22, 30)
    card.words(
        f"nano checkpoints of a drawn world, {len(runs)} workflows in {seconds:.0f} s, "
        "every frame as it came from ComfyUI, enlarged",
        EDGES,
        60,
        15,
        DIM,
    )
    top = HEAD
    for run, height in zip(runs, heights):
        card.plate(EDGES, top, WIDTH - 2 * EDGES, height)
        _draw_run(card, run, top, wide)
        top += height + GAP
    return card.save(path)


def _height(run: Run, wide: float) -> float:
    return TOP + ROWS * (wide * SHAPE + (STRIP if run.recordings else 0) + GAP) + INSIDE - GAP


def _draw_run(card: Card, run: Run, top: float, wide: float) -> None:
    demo, left, right = run.demo, EDGES + INSIDE, WIDTH - EDGES - INSIDE
    card.words(demo.title, left, top + 14, 22)
    card.words(demo.look, left, top + 44, 15, DIM)
    card.words(f"workflows/{run.name}.json", right, top + 18, 14, DIM, "ra")
    parts = " + ".join(str(part.frames) for part in demo.parts)
    videos = f"{len(run.videos)} x " if run.videos[1:] else ""
    card.words(f"{videos}{parts} frames in {run.seconds:.0f} s", right, top + 44, 14, DIM, "ra")
    below = _draw_inputs(card, run, left, top + TOP)
    card.paragraph(demo.prompt, left, below + 6, ASKED, 15)
    _draw_frames(card, run, left + ASKED + INSIDE, top + TOP, wide)


def _draw_inputs(card: Card, run: Run, left: float, top: float) -> float:
    """What went in; the top of what comes below."""
    pictures = [picture_of(path) for path in run.pictures]
    pictures += [frame for path in run.clips for frame in spread(frames_of(path), 2)]
    columns = max(2, len(pictures))
    wide = (ASKED - (columns - 1) * GAP) / columns
    for index, image in enumerate(pictures):
        card.picture(image, left + index * (wide + GAP), top, wide, wide * SHAPE)
    if len(pictures) == 1:  # the recordings beside the portrait
        high = wide * SHAPE / len(run.recordings)
        for index, (path, colour) in enumerate(zip(run.recordings, VOICES)):
            card.sound(loudness_of(path, 36), left + wide + GAP, top + index * high + 4, wide, high - 8, colour)
    top += wide * SHAPE + 8
    card.words(", ".join(run.demo.inputs), left, top, 13, DIM)
    return top + 22


def _draw_frames(card: Card, run: Run, left: float, top: float, wide: float) -> None:
    """A frame of each stretch of the videos, in the colour of its part, above what is heard meanwhile.

    It is the middle one, and where someone speaks that of the loudest moment, which is marked.
    """
    demo, count, high = run.demo, COLUMNS * ROWS, wide * SHAPE
    frames = [frame for index in range(len(run.videos)) for frame in run.frames(index)]
    sounds = _sounds(run, count * BARS)
    for index in range(count):
        x = left + index % COLUMNS * (wide + GAP)
        y = top + index // COLUMNS * (high + (STRIP if sounds else 0) + GAP)
        stretches = [(loudness[index * BARS : (index + 1) * BARS], tint) for loudness, tint in sounds]
        bars, _ = max(stretches, key=lambda one: max(one[0]), default=([0.0], None))
        loudest = (bars.index(max(bars)) + 0.5) / len(bars) if max(bars) > HEARD else 0.5
        at = int((index + loudest) * len(frames) / count)
        second = at % demo.frames
        colour, word = KINDS[_part(demo, second).kind]
        word = "silent" if word == "spoken" and max(bars) <= HEARD else word
        card.picture(frames[at], x, y, wide, high, colour)
        card.plate(x + 8, y + high - 27, 62 + 7 * len(word), 20, BACK)
        card.words(f"{second / demo.fps:.1f} s", x + 14, y + high - 17, 12, INK, "lm")
        card.words(word, x + 64 + 7 * len(word), y + high - 17, 12, colour, "rm")
        for loudness, tint in stretches:
            if max(loudness) > HEARD:
                card.line(x + loudest * wide, y + high + 2, x + loudest * wide, y + high + 8, colour=INK, width=2)
                card.sound(loudness, x, y + high + 10, wide, STRIP - 12, tint)


def _sounds(run: Run, bars: int) -> list[tuple[list[float], Colour]]:
    """Of each recording its loudness over the whole video, in so many bars, and its colour."""
    sounds = []
    for turn, path, colour in zip(run.turns(), run.recordings, VOICES):
        start, stop = (min(round(bars * frame / run.demo.frames), bars) for frame in turn)
        sounds.append(([0.0] * start + loudness_of(path, stop - start) + [0.0] * (bars - stop), colour))
    return sounds


def _part(demo: Demo, frame: int) -> Part:
    ends = accumulate(part.frames for part in demo.parts)
    return next((part for part, end in zip(demo.parts, ends) if frame < end), demo.parts[-1])
