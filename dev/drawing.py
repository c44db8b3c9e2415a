"""A dark card to put pictures, words, frames and sound on, as the thumbnails and the demo's sheet are drawn; and what
they are drawn from: frames of a video, the loudness of a recording."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

SCALE = 2  # drawn larger, so that edges are smooth
QUALITY = 80
BACK, PLATE, EDGE, INK, DIM = (18, 27, 34), (31, 45, 56), (63, 120, 158), (236, 240, 243), (120, 140, 154)
ACCENT = (201, 226, 101)
VOICES = ((255, 176, 84), (110, 201, 255), (95, 211, 141))
ROUND = 9  # of a picture's corners
FACE = (0.5, 0.2)  # what a crop keeps: faces are in the upper part

Colour = tuple[int, int, int]


class Card:
    """A picture that things are put on. Positions and sizes are in pixels of the finished picture."""

    def __init__(self, width: int, height: int):
        self.size = width, height
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), BACK)
        self.draw = ImageDraw.Draw(self.image)

    def plate(self, left: float, top: float, width: float, height: float, colour: Colour = PLATE) -> None:
        self.draw.rounded_rectangle(_scaled(left, top, width, height), ROUND * SCALE, fill=colour)

    def picture(
        self, source: Image.Image, left: float, top: float, width: float, height: float, edge: Colour = EDGE
    ) -> None:
        """A picture, cropped to fill a box with round corners."""
        box = _scaled(left, top, width, height)
        size = box[2] - box[0], box[3] - box[1]
        fitted = ImageOps.fit(source.convert("RGB"), size, Image.Resampling.LANCZOS, centering=FACE)
        mask = Image.new("L", fitted.size, 0)
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, *(side - 1 for side in fitted.size)), ROUND * SCALE, fill=255)
        self.image.paste(fitted, box[:2], mask)
        self.draw.rounded_rectangle(box, ROUND * SCALE, outline=edge, width=SCALE)

    def sound(
        self, loudness: Sequence[float], left: float, top: float, width: float, height: float, colour: Colour
    ) -> None:
        """A recording as upright bars, of 0 to 1 each."""
        step = width / len(loudness)
        for index, value in enumerate(loudness):
            half = max(1, value * height / 2)
            x, y = left + (index + 0.5) * step, top + height / 2
            box = [side * SCALE for side in (x - 0.3 * step, y - half, x + 0.3 * step, y + half)]
            self.draw.rounded_rectangle(box, 0.3 * step * SCALE, fill=colour)

    def arrow(self, left: float, top: float, length: float) -> None:
        """From above to below."""
        x, y, end = left * SCALE, top * SCALE, (top + length) * SCALE
        self.draw.line((x, y, x, end - 8 * SCALE), fill=DIM, width=3 * SCALE)
        self.draw.polygon([(x - 9 * SCALE, end - 11 * SCALE), (x + 9 * SCALE, end - 11 * SCALE), (x, end)], fill=DIM)

    def line(self, *points: float, colour: Colour = DIM, width: float = 3) -> None:
        """Through x, y, x, y ..."""
        self.draw.line([point * SCALE for point in points], fill=colour, width=round(width * SCALE))

    def words(self, text: str, left: float, top: float, size: float, colour: Colour = INK, anchor: str = "la") -> None:
        """anchor: of Pillow; "ra" ends at `left`, "ma" has its middle there."""
        font = ImageFont.load_default(size * SCALE)
        self.draw.text((left * SCALE, top * SCALE), text, fill=colour, font=font, anchor=anchor)

    def paragraph(
        self,
        text: str,
        left: float,
        top: float,
        width: float,
        size: float,
        colour: Colour = INK,
        space: float = 1.35,
        draw: bool = True,
    ) -> float:
        """Words in lines of at most `width`; the top of what comes below. space: of a line, of the letters' size.

        draw: False to measure alone.
        """
        font = ImageFont.load_default(size * SCALE)
        for part in text.split("\n"):
            line = ""
            for word in [*part.split(), None]:
                longer = f"{line} {word}".strip()
                if word is not None and self.draw.textlength(longer, font=font) <= width * SCALE:
                    line = longer
                    continue
                if draw:
                    self.words(line, left, top, size, colour)
                top, line = top + space * size, word
        return top

    def badge(self, text: str, right: float, top: float, size: float) -> None:
        """A few letters on a bright ground, in the upper right of what is shown."""
        width = self.draw.textlength(text, font=ImageFont.load_default(size * SCALE)) / SCALE + 0.94 * size
        box = _scaled(right - width, top, width, 1.53 * size)
        self.draw.rounded_rectangle(box, 0.76 * size * SCALE, fill=ACCENT)
        self.words(text, right - width / 2, top + 0.76 * size, size, BACK, "mm")

    def finished(self) -> Image.Image:
        return self.image.resize(self.size, Image.Resampling.LANCZOS)

    def save(self, path: Path) -> Path:
        """As .jpg or .png."""
        options = {"quality": QUALITY, "subsampling": 1} if path.suffix == ".jpg" else {}
        self.finished().save(path, optimize=True, **options)
        return path


def _scaled(left: float, top: float, width: float, height: float) -> tuple[int, int, int, int]:
    return tuple(round(side * SCALE) for side in (left, top, left + width, top + height))


def picture_of(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def frames_of(path: Path) -> list[Image.Image]:
    """Every frame of a video."""
    with av.open(str(path)) as file:
        return [frame.to_image() for frame in file.decode(video=0)]


def spread(frames: Sequence[Image.Image], count: int) -> list[Image.Image]:
    """Some of the frames: the middles of `count` parts of equal length."""
    return [frames[int((index + 0.5) * len(frames) / count)] for index in range(count)]


def seconds_of(path: Path) -> float:
    """How long a recording is."""
    with av.open(str(path)) as file:
        return (file.duration or 0) / av.time_base


def loudness_of(path: Path, count: int) -> list[float]:
    """A recording's loudness over time in `count` parts, against its loudest."""
    with av.open(str(path)) as file:
        samples = np.concatenate([frame.to_ndarray().astype(float).ravel() for frame in file.decode(audio=0)])
    parts = [np.sqrt((part**2).mean()) for part in np.array_split(samples, count)]
    return [float(part / max(parts)) for part in parts]
