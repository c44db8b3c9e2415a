"""A place in the picture as an artist writes it. Needs no torch."""

import re
import unicodedata

from ..errors import InputError

# What may stand between the four numbers of a box; where there are two signs, a comma left over is one of decimals.
_SEPARATORS = (r"\s*;\s*", r"\s*(?:、|,(?=\s)|\s)\s*", r"\s*[;,、]\s*")
_SIDE = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)(e[-+]?\d+)?%?", re.IGNORECASE | re.ASCII)


def read_box(written: str) -> tuple[float, float, float, float]:
    """(left, top, right, bottom), each from 0 to 1 of the picture. web/js/box.js reads the same.

    written: four numbers, from 0 to 1 or in percent, with commas, semicolons or spaces between them; brackets and
    quotes around them, full-width signs, and decimal commas where the separator is another.
    Raises InputError for what is no box.
    """
    text = unicodedata.normalize("NFKC", written)
    text = re.sub(r"\s+(?=[%,;、])", "", re.sub(r"[][(){}<>\"'【】「」]", " ", text)).strip()
    for separator in _SEPARATORS:
        parts = re.split(separator, text)
        if len(parts) == 4 and all(_SIDE.fullmatch(part) for part in parts):
            left, top, right, bottom = map(_side, parts)
            if 0 <= left < right <= 1 and 0 <= top < bottom <= 1:
                return left, top, right, bottom
    raise InputError(
        f"The box is {written.strip()!r}, but left, top, right, bottom are needed, each from 0 to 1 or from 0 % to "
        "100 % of the picture: for example `0.05, 0.1, 0.45, 0.9`."
    )


def _side(written: str) -> float:
    number = float(written.rstrip("%").replace(",", "."))
    return number / 100 if written.endswith("%") else number
