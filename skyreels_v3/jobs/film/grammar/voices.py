"""Who speaks on a line of a film's script, and what: `[anna: hello.wav, ben]`."""

import re

from ....errors import InputError
from .line import DUB, EXAMPLES, Voice

FILE = re.compile(r"\.\w{2,5}$")  # the end of a file's name
MAX_VOICES = 2


def read_voices(number: int, kind: str, items: list[str]) -> tuple[Voice, ...]:
    """items: what stands in the brackets, without the commas. Raises InputError with one sentence."""
    if not items:
        many = "it" if kind == DUB else "one or two"
        raise InputError(f"Line {number} is a {kind} without a voice: name {many}, as in {EXAMPLES[kind]}.")
    if kind == DUB and len(items) > 1:
        raise InputError(
            f"Line {number} has {len(items)} voices, but one person of its footage is dubbed: leave one voice, and dub "
            "the others in what this makes, with Dub Video."
        )
    if len(items) > MAX_VOICES:
        raise InputError(
            f"Line {number} has {len(items)} voices, but the model drives 1 or {MAX_VOICES}: give the others lines of "
            "their own."
        )
    return tuple(_voice(number, item) for item in items)


def _voice(number: int, item: str) -> Voice:
    name, colon, file = (part.strip() for part in item.partition(":"))
    if colon and not (name and file):
        raise InputError(
            f"Line {number} has the voice {item[:40]!r}: write a name and a file, such as anna: hello.wav."
        )
    if not colon and FILE.search(name):
        name, file = "", name
    return Voice(name or None, file or None)
