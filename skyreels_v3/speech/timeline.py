"""A picture of who speaks when: a lane for each person, in the colours of their boxes on the page."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..images.lettering import lettered
from .recording import to_mono
from .speakers import Recording
from .turns import Turn

# Of persons 1 to 8, also in web/js/skyreels.css. Told apart in the dark and, by lightness, without red or green.
COLOURS = ("#4ea1ff", "#ffb02e", "#5fd38d", "#ff7a90", "#c79bff", "#f4e04d", "#4fd8e0", "#e08a5a")
WIDTH, LANE, AXIS, MARGIN = 1280, 72, 40, 16  # pixels
NAMES = 0.22  # of the width, at most
GROUND, LINE, TEXT = "#17181c", "#3a3c44", "#c8cad2"
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600)  # seconds between marks


def timeline(
    names: Sequence[str], turns: Sequence[Turn], recordings: Sequence[Recording], seconds: float
) -> Image.Image:
    """The picture. recordings: what is heard in each turn.  seconds: of all."""
    labels = [lettered(name, 24, str(number)) for number, name in enumerate(names, start=1)]
    widest = max(font.getlength(text) for text, font in labels)
    left = MARGIN * 2 + round(min(widest, NAMES * WIDTH))
    height = MARGIN + LANE * len(names) + AXIS
    picture = Image.new("RGB", (WIDTH, height), GROUND)
    draw = ImageDraw.Draw(picture)
    across = (WIDTH - MARGIN - left) / max(seconds, 1e-3)
    _axis(draw, left, across, seconds, height)
    for number, ((text, font), colour) in enumerate(zip(labels, COLOURS)):
        draw.text((MARGIN, MARGIN + LANE * (number + 0.5)), _fitting(text, font), fill=colour, font=font, anchor="lm")
    for turn, recording in zip(turns, recordings, strict=True):
        first, last = left + turn.start * across, left + turn.stop * across
        heights = _heights(recording, max(2, round(last - first)))
        for person in turn.people:
            _bar(draw, first, last, MARGIN + LANE * person, COLOURS[person], heights)
    return picture


def _fitting(text: str, font) -> str:
    """As much of a name as there is room for."""
    room = NAMES * WIDTH
    while len(text) > 1 and font.getlength(text) > room:
        text = f"{text.removesuffix('...')[:-1]}..." if len(text) > 4 else text[:-1]
    return text


def _axis(draw: ImageDraw.ImageDraw, left: float, across: float, seconds: float, height: int) -> None:
    step = next((step for step in STEPS if step * across >= 64), STEPS[-1])
    _, font = lettered("0", 18, "0")
    for number in range(math.floor(seconds / step + 1e-6) + 1):
        x = left + number * step * across
        draw.line([(x, MARGIN // 2), (x, height - AXIS + 6)], fill=LINE)
        label = f"{number * step:g}" if step < 60 else f"{number * step // 60:g}:{number * step % 60:02g}"
        draw.text((min(x, WIDTH - MARGIN), height - AXIS + 10), label, fill=TEXT, font=font, anchor="ma")


def _bar(draw: ImageDraw.ImageDraw, first: float, last: float, top: float, colour: str, heights: np.ndarray) -> None:
    middle, half = top + LANE / 2, LANE / 2 - 8
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    ground = tuple(round(0.25 * one + 0.75 * dark) for one, dark in zip((red, green, blue), (23, 24, 28)))
    draw.rectangle([first, middle - half, max(last - 1, first), middle + half], fill=ground, outline=colour)
    for x, high in enumerate(heights):
        draw.line([(first + x, middle - high * half), (first + x, middle + high * half)], fill=colour)


def _heights(recording: Recording, columns: int) -> np.ndarray:
    """How loud each of so many columns is, 0 to 1 of its loudest sample: float32 [columns]."""
    samples = np.abs(to_mono(recording.waveform, recording.rate).numpy())
    edges = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    return np.maximum.reduceat(samples, edges) / max(float(samples.max()), 1e-9)
