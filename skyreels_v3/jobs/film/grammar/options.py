"""What stands in braces on a line of a film's script: `{seed 7, takes 3, take best, lock, name door}`."""

import re
from dataclasses import fields
from fractions import Fraction
from typing import Any

from ....errors import InputError
from ....speech.box import read_box
from ...extension.script_marks import plain
from ...extension.script_times import SPAN, moment
from .line import BEST, DUB, LAST, NAME_SIGNS, SPEAK, Options, same_name

MAX_TAKES = 20
MAX_SEED = 2**64 - 1
MAX_STEPS = 1000  # as in sampling/schedule.py, which needs torch
GUIDANCE = (1.0, 30.0)
STRENGTH = (0.05, 1.0)
ONE_KIND = {"together": SPEAK, "box": DUB, "strength": DUB, "start": DUB}  # what other lines have no use for
FLAGS = ("lock", "together")
WORDS = tuple(field.name for field in fields(Options))
EXAMPLE = "`{seed 7, takes 3, take 2, lock, name door}`"
_BETWEEN = re.compile(r"[,;、](?!\s*[-+.\d])")  # options; what a number follows is within a box


def read_options(number: int, kind: str, written: str) -> Options:
    """written: between the braces. Raises InputError with one sentence that names the line."""
    found: dict[str, Any] = {}
    for part in option_parts(written):
        word, *rest = re.split(r"[\s=:]+", plain(part), maxsplit=1)
        word, value = word.lower(), "".join(rest)
        if word != "start":  # whose colons are those of a time
            value = re.sub(r"\s*[=:]\s*|\s+", " ", value)
        if word not in WORDS:
            raise InputError(
                f"Line {number} has the option {word!r}, but the options are {', '.join(WORDS)}: write them with "
                f"commas between, as in {EXAMPLE}."
            )
        if word in found:
            raise InputError(f"Line {number} has the option {word} twice: leave one of them out.")
        found[word] = _value(number, word, value.strip())
    options = Options(**found)
    other = next((word for word in found if ONE_KIND.get(word, kind) != kind), None)
    if other:
        raise InputError(f"Line {number} has the option {other}, which is for `{ONE_KIND[other]}` alone: leave it out.")
    take, takes = options.take, options.takes
    if isinstance(take, int) and takes is not None and take > takes:
        raise InputError(
            f"Line {number} goes on from take {take} of {takes}: choose one from 1 to {takes}, or write `takes {take}`."
        )
    if take == BEST and takes is None:
        raise InputError(
            f"Line {number} takes the best take, but makes only one: say how many, as in `{{takes 3, take best}}`."
        )
    return options


def option_parts(written: str) -> list[str]:
    """Each option as it is written between the braces."""
    ends = [(match.start(), match.end()) for match in _BETWEEN.finditer(plain(written))]
    begins = [0, *(end for _, end in ends)]
    parts = (written[begin:stop].strip() for begin, stop in zip(begins, [*(stop for stop, _ in ends), None]))
    return [part for part in parts if part]


def _value(number: int, word: str, value: str) -> Any:
    if word in FLAGS:
        if value:
            raise InputError(f"Line {number} has {value!r} behind the option {word}, which stands alone: leave it out.")
        return True
    if word == "box":
        return _box(number, value)
    if word == "start":
        return _start(number, value)
    if not value:
        raise InputError(f"Line {number} has the option {word} without a value: write it behind, as in {EXAMPLE}.")
    if word == "name":
        return checked_name(f"Line {number} has the name", value)
    if word == "take" and value.lower() == BEST:
        return BEST
    if word in ("guidance", "strength"):
        return _number(number, word, value, *(GUIDANCE if word == "guidance" else STRENGTH))
    least, most = {
        "seed": (0, MAX_SEED),
        "steps": (1, MAX_STEPS),
        "takes": (1, MAX_TAKES),
        "take": (1, MAX_TAKES),
    }[word]
    if not re.fullmatch(r"\d{1,20}", value, re.ASCII) or not least <= int(value) <= most:
        best = f", or {BEST}" if word == "take" else ""
        raise InputError(
            f"Line {number} has {word} {value}, but a whole number from {least} to {most} is needed{best}."
        )
    return int(value)


def _number(number: int, word: str, value: str, least: float, most: float) -> float:
    if not re.fullmatch(r"\d{1,4}(\.\d*)?", value, re.ASCII) or not least <= float(value) <= most:
        raise InputError(f"Line {number} has {word} {value}, but a number from {least:g} to {most:g} is needed.")
    return float(value)


def _box(number: int, value: str) -> str:
    try:
        read_box(value)
    except InputError as error:
        raise InputError(
            f"Line {number} has the box {value[:40]!r}, but left, top, right, bottom of the head's place are needed, "
            "each from 0 to 1 of the footage's picture: write them as in `{box 0.3 0 0.6 0.7}`."
        ) from error
    return value


def _start(number: int, value: str) -> Fraction:
    time = SPAN.fullmatch(value)
    if time is None or time["to"]:
        raise InputError(
            f"Line {number} has the start {value[:40]!r}, but seconds into the footage are needed: `{{start 1.5}}`."
        )
    return moment(time["start"])


def checked_name(whose: str, name: str) -> str:
    """A name for a picture or a shot. whose: the beginning of a sentence. Raises InputError for one that cannot be."""
    if not name.strip():
        raise InputError(f"{whose} {name!r}, but a name has at least one letter: write one, such as anna.")
    if same_name(name) == LAST:
        raise InputError(f"{whose} `{LAST}`, which stands for the last frame so far: choose another name.")
    wrong = sorted(set(plain(name)) & set(NAME_SIGNS))
    if wrong or len(name) > 100 or "\n" in name:
        raise InputError(
            f"{whose} {name[:40]!r}, but a name is one line of up to 100 letters, without {' '.join(NAME_SIGNS)}, "
            "which the script uses itself: choose another name."
        )
    return name.strip()
