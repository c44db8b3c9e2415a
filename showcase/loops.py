"""Looping pictures of videos for README.md: a video, enlarged, and below it what went in and what was asked."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

from PIL import Image

from pack.dev.drawing import DIM, INK, PLATE, SCALE, VOICES, Card, loudness_of, picture_of
from pack.showcase.runs import Run
from pack.showcase.sheet import KINDS

WIDTH, HIGH = 384, 256  # of the video
HEIGHT = 358  # with what is below it
TRACK = 268  # where the parts or the sound are shown, a line that the video goes along
ASKED = 300  # top of what went in and what was asked
LETTERS = (12, 11, 10, 9)  # pixels, the largest that what was asked has room for
BARS = 80
INPUT_WIDE, INPUT_HIGH = 75, 50
MOST_BYTES = 270_000
QUALITIES = (80, 70, 60, 50, 40, 30)
STEPS = (2, 3)  # every second frame is shown, or every third where the file would become too large
REST = 700  # milliseconds for which the last frame stays


def write_loop(path: Path, run: Run) -> Path:
    """Write the first video of a run as an animated WebP of at most MOST_BYTES and return its path.

    Raises ValueError where no quality makes it small enough.
    """
    for step in STEPS:
        frames = run.frames()
        pictures = [drawn(run, frame, index) for index, frame in enumerate(frames) if index % step == 0]
        times = [round(1000 * step / run.demo.fps)] * len(pictures)
        times[-1] += REST
        for quality in QUALITIES:
            options = {"save_all": True, "append_images": pictures[1:], "duration": times, "loop": 0}
            pictures[0].save(path, "WEBP", quality=quality, method=4, **options)
            if path.stat().st_size <= MOST_BYTES:
                return path
    raise ValueError(f"{path} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}: show fewer frames.")


def drawn(run: Run, frame: Image.Image, index: int) -> Image.Image:
    """A frame of the first video, number `index`, with what is below it."""
    card = Card(WIDTH, HEIGHT)
    card.image.paste(frame.resize((SCALE * WIDTH, SCALE * HIGH), Image.Resampling.LANCZOS), (0, 0))
    left = 8
    for path in run.pictures:
        card.picture(picture_of(path), left, ASKED, INPUT_WIDE, INPUT_HIGH)
        left += INPUT_WIDE + 8
    _write(card, _asked(run, index), left)
    _draw_parts(card, run, index)
    return card.finished()


def _write(card: Card, asked: str, left: float) -> None:
    """Raises ValueError for more than there is room for."""
    for size in LETTERS:
        if card.paragraph(asked, left, ASKED, WIDTH - left - 8, size, draw=False) <= HEIGHT:
            card.paragraph(asked, left, ASKED, WIDTH - left - 8, size)
            return
    raise ValueError(f"There is no room for {asked!r}: ask for it in fewer words.")


def _asked(run: Run, index: int) -> str:
    """What the prompt says of a frame: of a script the line that it is made for."""
    lines, parts = run.demo.prompt.split("\n"), [part for part in run.demo.parts if part.kind != "source"]
    if len(lines) != len(parts):
        return ", ".join(lines)
    start = run.demo.frames
    for line, part in zip(reversed(lines), reversed(parts)):
        start -= part.frames
        if index >= start:
            return line
    return "the clip that goes on"


def _draw_parts(card: Card, run: Run, index: int) -> None:
    """The parts in their colours, or what is heard in them, with a mark at the frame."""
    ends = list(accumulate(part.frames for part in run.demo.parts))
    along = (WIDTH - 16) / ends[-1]
    heard = False
    for part, end in zip(run.demo.parts, ends):
        colour, word = KINDS[part.kind]
        left, wide = 8 + (end - part.frames) * along, part.frames * along - 3
        now = end - part.frames <= index < end
        if part.kind == "spoken":
            _draw_sounds(card, run, along)
            heard = True
            continue
        card.plate(left, TRACK + 16, wide, 5, colour if now else PLATE)
        card.words(word, left + wide / 2, TRACK + 6, 11, colour if now else DIM, "mm")
    x = 8 + (index + 0.5) * along
    card.line(x, TRACK - 4 if heard else TRACK + 12, x, TRACK + (28 if heard else 25), colour=INK, width=2)


def _draw_sounds(card: Card, run: Run, along: float) -> None:
    """Of each speaker in a colour. along: pixels of a frame."""
    for (start, stop), path, colour in zip(run.turns(), run.recordings, VOICES):
        wide = (min(stop, run.demo.frames) - start) * along
        card.sound(loudness_of(path, round(BARS * wide / (WIDTH - 16))), 8 + start * along, TRACK, wide, 24, colour)
