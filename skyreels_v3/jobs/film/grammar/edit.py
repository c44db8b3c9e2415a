"""Changes of one option on one line of a film's script: what the cards on the page do. Needs no torch."""

import re
from dataclasses import replace

from ....errors import InputError
from ...extension.script_marks import plain
from .footage import CLOCK
from .line import FOOTAGE
from .options import option_parts, read_options
from .script import read_film

MOST_LABEL = 40  # characters
_LABEL_ENDS = re.compile(r"[:|.)-]\s*")
_ENDS = re.compile("(\r\n|[\r\n\v\f\x85\u2028\u2029])")


def edited(text: str, number: int, word: str, value: str | None) -> str:
    """The script with an option of line `number` set, or taken out where `value` is None; "" is for a word alone.

    All else stays as it was written. A line that is no right line of the script is left alone, and so is the whole
    where the result would not be read as that option.
    """
    parts = _ENDS.split(text)
    place = 2 * (number - 1)
    before = {line.number: line for line in read_film(text)[0]}
    if number not in before or place >= len(parts):
        return text
    was, line = before[number], parts[place]
    # Before the order a label may stand, whose sign is no end of it: `Shot 2: cut 4s: ...`.
    for start in (0, *(sign.end() for sign in _LABEL_ENDS.finditer(plain(line[:MOST_LABEL])))):
        changed, written = _changed(line[start:], was.kind in FOOTAGE, word, value)
        result = "".join([*parts[:place], line[:start], changed, *parts[place + 1 :]])
        after = {line.number: line for line in read_film(result)[0]}
        try:
            wanted = read_options(number, was.kind, written)
        except InputError:
            continue
        if after.get(number) == replace(was, options=wanted):
            return result
    return text


def _changed(line: str, timed: bool, word: str, value: str | None) -> tuple[str, str]:
    """The line with the option as it is to be, and what stands in its braces then. timed: see `_head_end`."""
    head = _head_end(line, timed)
    opened, close = _braces(line, head)
    written = option_parts(line[opened + 1 : close]) if close > opened else []
    kept = [part for part in written if re.split(r"[\s=:]", plain(part), maxsplit=1)[0].lower() != word]
    if value is not None:
        kept.append(f"{word} {value}".strip())
    options = ", ".join(kept)
    braces = f"{{{options}}}" if kept else ""
    if close > opened:
        start, end = line[:opened].rstrip(), line[close + 1 :]
        return f"{start}{' ' if braces else ''}{braces}{end}", options
    return (f"{line[:head].rstrip()} {braces}{line[head:]}" if braces else line), options


def _braces(line: str, head: int) -> tuple[int, int]:
    """Where the line's options open and close; (0, 0) without any. head: see `_head_end`."""
    text = plain(line)
    opened = text.find("{")
    close = text.find("}", opened)
    return (opened, close) if 0 <= opened < close and opened < head else (0, 0)


def _head_end(line: str, timed: bool) -> int:
    """Where the colon before the prompt is; the end of a line without one. timed: whether times may hold others."""
    depth, end, text = 0, None, plain(line)
    for place, sign in enumerate(CLOCK.sub("00", text) if timed else text):
        depth += (sign in "[{") - (sign in "]}")
        if sign == ":" and depth <= 0:
            end = place
            break
    return len(line.rstrip()) if end is None else end
