"""A picture with a row of frames for the first video of every group."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .measured import Measured
from .ranking import MEASURES, Groups, text_of

FRAMES, HIGH, GAP, HEAD = 6, 160, 12, 36  # frames of a row; pixels
INK = "#1f2328"


def contact_sheet(groups: Groups) -> Image.Image:
    """The first of every group in a row of frames, under its name and its numbers."""
    font = ImageFont.load_default(16)
    rows = []
    for group in groups:
        one = group[0][0]
        pictures = [image.resize((max(1, round(HIGH * image.width / image.height)), HIGH)) for image in _spread(one)]
        wide = sum(image.width + GAP for image in pictures) + GAP
        row = Image.new("RGB", (wide, HIGH + HEAD + 4), "white")
        of = f", best of {len(group)}" if len(group) > 1 else ""
        numbers = "  ".join(f"{m.title} {text_of(m, one)}" for m in MEASURES if m.value(one) is not None)
        ImageDraw.Draw(row).text((GAP, 10), f"{one.task.name}{of}   {numbers}", fill=INK, font=font)
        left = GAP
        for image in pictures:
            row.paste(image, (left, HEAD))
            left += image.width + GAP
        rows.append(row)
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows) + GAP), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _spread(one: Measured) -> list[Image.Image]:
    pictures = list(one.watched.pictures.values())
    return [pictures[round(index)] for index in np.linspace(0, len(pictures) - 1, min(FRAMES, len(pictures)))]
