"""The pictures of the workflows in the template browser: workflows/NAME.jpg, from the real inputs of the demo.

    .venv/bin/python tools/thumbnails.py            all of them
    .venv/bin/python tools/thumbnails.py NAME ...   some of them

What goes into a workflow is shown as it is: photographs, the clip's own frames, the loudness of the recordings. What
comes out is only hinted at by empty frames: the tiny checkpoints of the demo have random weights, and their videos
are noise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

import stock
from demo import FOLDER
from downloads import ROOT, SetupError

SIDE = 512  # pixels; the browser shows squares
SCALE = 2  # drawn larger, so that edges are smooth
QUALITY = 80
BACK, PLATE, EDGE, INK, DIM = (18, 27, 34), (31, 45, 56), (63, 120, 158), (236, 240, 243), (120, 140, 154)
VOICES = ((255, 176, 84), (110, 201, 255))
GAP = 14
FACE = (0.5, 0.2)  # what a crop keeps: faces are in the upper part


class Card:
    """A square picture that things are put on. Positions and sizes are in pixels of the finished picture."""

    def __init__(self):
        self.image = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), BACK)
        self.draw = ImageDraw.Draw(self.image)

    def picture(self, source: Image.Image, left: float, top: float, width: float, height: float) -> None:
        """A picture, cropped to fill a box with round corners."""
        box = _scaled(left, top, width, height)
        fitted = ImageOps.fit(source.convert("RGB"), (box[2] - box[0], box[3] - box[1]), centering=FACE)
        mask = Image.new("L", fitted.size, 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, *(side - 1 for side in fitted.size)), 9 * SCALE, fill=255)
        self.image.paste(fitted, box[:2], mask)
        self.draw.rounded_rectangle(box, 9 * SCALE, outline=EDGE, width=SCALE)

    def empty(self, left: float, top: float, width: float, height: float, sign: str = "play") -> None:
        """A frame that is still to be made, with a sign in its middle: play, plus or cut."""
        box = _scaled(left, top, width, height)
        self.draw.rounded_rectangle(box, 9 * SCALE, fill=PLATE, outline=EDGE, width=2 * SCALE)
        x, y, size = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, min(width, height) * SCALE * 0.22
        if sign == "play":
            self.draw.polygon([(x - 0.7 * size, y - size), (x - 0.7 * size, y + size), (x + size, y)], fill=INK)
        elif sign == "plus":
            for wide, high in ((size, size / 6), (size / 6, size)):
                self.draw.rectangle((x - wide, y - high, x + wide, y + high), fill=INK)
        else:  # a frame closer and closer
            for part in (1.1, 0.55):
                self.draw.rectangle(
                    (x - 1.5 * part * size, y - part * size, x + 1.5 * part * size, y + part * size),
                    outline=INK,
                    width=3 * SCALE,
                )

    def sound(self, loudness: Sequence[float], left: float, top: float, width: float, height: float, colour) -> None:
        """A recording as upright bars, of 0 to 1 each."""
        step = width / len(loudness)
        for index, value in enumerate(loudness):
            half = max(2, value * height / 2)
            x, y = left + (index + 0.5) * step, top + height / 2
            box = [side * SCALE for side in (x - 0.3 * step, y - half, x + 0.3 * step, y + half)]
            self.draw.rounded_rectangle(box, 0.3 * step * SCALE, fill=colour)

    def arrow(self, left: float, top: float, length: float) -> None:
        """From above to below."""
        x, y, end = left * SCALE, top * SCALE, (top + length) * SCALE
        self.draw.line((x, y, x, end - 8 * SCALE), fill=DIM, width=3 * SCALE)
        self.draw.polygon([(x - 9 * SCALE, end - 11 * SCALE), (x + 9 * SCALE, end - 11 * SCALE), (x, end)], fill=DIM)

    def words(self, text: str, left: float, top: float, size: float, colour=INK) -> None:
        self.draw.text((left * SCALE, top * SCALE), text, fill=colour, font=ImageFont.load_default(size * SCALE))

    def badge(self, text: str) -> None:
        """A few letters in the upper right corner."""
        font = ImageFont.load_default(34 * SCALE)
        width = self.draw.textlength(text, font=font) / SCALE + 32
        self.draw.rounded_rectangle(_scaled(SIDE - width - 18, 18, width, 52), 26 * SCALE, fill=(201, 226, 101))
        self.words(text, SIDE - width - 2, 23, 34, BACK)

    def save(self, path: Path) -> None:
        finished = self.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        finished.save(path, "JPEG", quality=QUALITY, optimize=True, subsampling=1)


def _scaled(left: float, top: float, width: float, height: float) -> tuple[int, int, int, int]:
    return tuple(round(side * SCALE) for side in (left, top, left + width, top + height))


class Inputs:
    """What the workflows of the demo are given, in the demo's folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def photograph(self, name: str) -> Image.Image:
        with Image.open(self.folder / name) as image:
            return image.convert("RGB")

    def frames(self, name: str, count: int) -> list[Image.Image]:
        """Frames of a clip, evenly spread."""
        with av.open(str(self.folder / name)) as file:
            frames = [frame.to_image() for frame in file.decode(video=0)]
        return [frames[round(index)] for index in np.linspace(0, len(frames) - 1, count)]

    def loudness(self, name: str, count: int) -> list[float]:
        """A recording's loudness over time, against its loudest."""
        with av.open(str(self.folder / name)) as file:
            samples = np.concatenate([frame.to_ndarray().astype(float).ravel() for frame in file.decode(audio=0)])
        parts = [np.sqrt((part**2).mean()) for part in np.array_split(samples, count)]
        return [float(part / max(parts)) for part in parts]


def reference(card: Card, inputs: Inputs) -> None:
    half = (SIDE - 3 * GAP) / 2
    card.picture(inputs.photograph("astronaut.png"), GAP, GAP, half, 210)
    card.picture(inputs.photograph("coffee.png"), 2 * GAP + half, GAP, half, 210)
    card.arrow(SIDE / 2, 232, 34)
    card.empty(GAP, 274, SIDE - 2 * GAP, SIDE - 274 - GAP)


def strip(card: Card, pictures: Sequence[Image.Image], signs: Sequence[str], top: float, height: float) -> None:
    """Frames side by side: those that there are, then those that are to be made."""
    count = len(pictures) + len(signs)
    width = (SIDE - (count + 1) * GAP) / count
    for index, picture in enumerate(pictures):
        card.picture(picture, GAP + index * (width + GAP), top, width, height)
    for index, sign in enumerate(signs, start=len(pictures)):
        card.empty(GAP + index * (width + GAP), top, width, height, sign)


def extension(card: Card, inputs: Inputs) -> None:
    first, second, last = inputs.frames("bigbuckbunny.mp4", 3)
    card.picture(last, GAP, GAP, SIDE - 2 * GAP, 310)
    card.arrow(SIDE / 2, 332, 34)
    strip(card, (first, second, last), ("plus",), 374, SIDE - 374 - GAP)


def storyboard(card: Card, inputs: Inputs) -> None:
    (last,) = inputs.frames("bigbuckbunny.mp4", 2)[1:]
    card.picture(last, GAP, GAP, SIDE - 2 * GAP, 310)
    card.arrow(SIDE / 2, 332, 34)
    strip(card, (last,), ("plus", "cut", "plus"), 374, SIDE - 374 - GAP)


def avatar(card: Card, inputs: Inputs) -> None:
    card.picture(inputs.photograph("astronaut.png"), GAP, GAP, SIDE - 2 * GAP, 350)
    card.sound(inputs.loudness("speech.wav", 48), 2 * GAP, 378, SIDE - 4 * GAP, SIDE - 378 - GAP, VOICES[0])


def two_people(card: Card, inputs: Inputs) -> None:
    card.picture(inputs.photograph("two_people.png"), GAP, GAP, SIDE - 2 * GAP, 300)
    half = (SIDE - 4 * GAP) / 2
    for side, (name, colour) in enumerate(zip(("speech_left.wav", "speech_right.wav"), VOICES)):
        card.sound(inputs.loudness(name, 24), 2 * GAP + side * half, 324 + 82 * side, half, 92, colour)


def story(card: Card, inputs: Inputs) -> None:
    third = (SIDE - 4 * GAP) / 3
    for name, top in (("astronaut.png", GAP), ("coffee.png", 2 * GAP + 153)):
        card.picture(inputs.photograph(name), GAP, top, third, 153)
        card.draw.line(_line(GAP + third, top + 76, 2 * GAP + third + 20, 172), fill=DIM, width=3 * SCALE)
    card.empty(2 * GAP + third + 20, 2 * GAP + 60, SIDE - third - 3 * GAP - 20, 190)
    card.arrow(SIDE / 2, 342, 34)
    strip(card, (), ("play", "plus", "cut"), 384, SIDE - 384 - GAP)


def film(card: Card, inputs: Inputs) -> None:
    half = (SIDE - 3 * GAP) / 2
    card.picture(inputs.photograph("astronaut.png"), GAP, GAP, half, 160)
    card.picture(inputs.photograph("coffee.png"), 2 * GAP + half, GAP, half, 160)
    card.arrow(SIDE / 2, 182, 34)
    strip(card, (), ("play", "plus", "cut"), 224, 130)
    card.sound(inputs.loudness("speech.wav", 48), 2 * GAP, 368, SIDE - 4 * GAP, SIDE - 368 - GAP, VOICES[0])


def batch(card: Card, inputs: Inputs) -> None:
    half = (SIDE - 3 * GAP) / 2
    card.picture(inputs.photograph("astronaut.png"), GAP, GAP, half, 150)
    card.picture(inputs.photograph("coffee.png"), 2 * GAP + half, GAP, half, 150)
    for number in (1, 2, 3):
        top = 180 + (number - 1) * 110
        card.words(str(number), 2 * GAP, top + 20, 52, DIM)
        for line, length in enumerate((190, 150, 110 + 30 * number % 70)):
            card.draw.rounded_rectangle(_scaled(84, top + 24 + 22 * line, length, 10), 5 * SCALE, fill=EDGE)
        card.empty(SIDE - 180 - GAP, top, 180, 96)


def low_vram(draw: Callable[[Card, Inputs], None]) -> Callable[[Card, Inputs], None]:
    def drawn(card: Card, inputs: Inputs) -> None:
        draw(card, inputs)
        card.badge("8 GB")

    return drawn


def _line(*points: float) -> tuple[float, ...]:
    return tuple(point * SCALE for point in points)


CARDS: dict[str, Callable[[Card, Inputs], None]] = {
    "reference_to_video": reference,
    "video_extension": extension,
    "storyboard_extension": storyboard,
    "talking_avatar": avatar,
    "talking_avatar_two_people": two_people,
    "reference_extend_cut": story,
    "short_film": film,
    "prompt_batch": batch,
    "reference_to_video_low_vram": low_vram(reference),
    "talking_avatar_low_vram": low_vram(avatar),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the pictures of the workflows in the template browser.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a workflow's file name without .json; default: all")
    names = parser.parse_args().names or list(CARDS)
    unknown = [name for name in names if name not in CARDS]
    if unknown:
        print(f"There is no picture for {', '.join(unknown)}: there are {', '.join(CARDS)}.", file=sys.stderr)
        return 1
    try:
        for name, maker in stock.INPUTS.items():
            stock.make_once(FOLDER / name, maker)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    inputs = Inputs(FOLDER / "input")
    for name in names:
        card, path = Card(), stock.WORKFLOWS / f"{name}.jpg"
        CARDS[name](card, inputs)
        card.save(path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
