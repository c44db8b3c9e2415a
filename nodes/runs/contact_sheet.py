"""The key frames of a talking avatar on one picture."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw

from ...skyreels_v3.images.lettering import lettered

SHEET_COLUMNS, SHEET_SIDE = 5, 224  # of the contact sheet of key frames; pixels
NAMES = 14  # pixels: their height on it


def window_numbers(windows: Sequence[int]) -> str:
    """Windows that follow each other, counted from 1: "3", or "3-5"."""
    first, last = windows[0] + 1, windows[-1] + 1
    return f"{first}" if first == last else f"{first}-{last}"


def thumbnail(frame: torch.Tensor) -> Image.Image:
    """A frame, uint8 [H, W, 3], in the contact sheet's size."""
    picture = Image.fromarray(frame.numpy())
    picture.thumbnail((SHEET_SIDE, SHEET_SIDE))
    return picture


def contact_sheet(
    pictures: Sequence[Image.Image], labels: Sequence[str], speakers: Sequence[Sequence[tuple[str, str]]] = ()
) -> Image.Image:
    """The key frames side by side, each with the windows that end on it: is the pose right?

    speakers: of a dialogue the (name, colour) of those who speak in these windows.
    """
    width, height = pictures[0].size
    rows = -(-len(pictures) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (width * min(len(pictures), SHEET_COLUMNS), height * rows))
    draw = ImageDraw.Draw(sheet)
    for index, (picture, label) in enumerate(zip(pictures, labels)):
        place = (index % SHEET_COLUMNS * width, index // SHEET_COLUMNS * height)
        sheet.paste(picture, place)
        draw.text((place[0] + 4, place[1] + 2), label, fill="white", stroke_width=1, stroke_fill="black")
        for line, (name, colour) in enumerate(speakers[index] if speakers else ()):
            text, font = lettered(name, NAMES, "?")
            at = place[0] + 4, place[1] + 16 + line * (NAMES + 3)
            draw.text(at, text, fill=colour, font=font, stroke_width=2, stroke_fill="black")
    return sheet
