"""The script of a dialogue: one line for each recording, as an artist writes it. Needs no torch.

    anna: hello.wav
    pause 0.4s
    ben: audio_1
    anna + ben: laugh.wav 0s-1.5s

Each line begins where those before it end; `pause -0.3s` lets the next one begin before that. Lines of times alone,
such as `anna: 0s-3.2s`, say who speaks when in one recording of all.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ...errors import InputError
from ...recipes import AT_ONCE, MAX_PEOPLE
from ..extension.script import told
from ..extension.script_marks import plain, read_marked
from ..extension.script_times import SPAN, moment, span_times
from ..film.grammar.line import same_name
from ..film.grammar.options import checked_name

EXAMPLE = "`anna: hello.wav`"
SOUNDS = 8  # AUDIO inputs

_PAUSE = re.compile(r"(?:pause|停顿|停頓|暂停|暫停)\s*:?\s*(?:for\s+)?(?P<sign>[-+]?)(?=\s*[\d.,])", re.IGNORECASE)
_SOUND = re.compile(r"audio[\s_]*(\d{1,4})(?=\s|$)", re.IGNORECASE)
_FILE = re.compile(r"\.\w{2,5}$")
_AND = re.compile(r"\s*[+&]\s*")
_QUOTES = "\"'`“”「」"


@dataclass(frozen=True)
class Said:
    """A line that speaks. number: in the text, from 1.  names: who, as they are written first.

    sound: a file, or the name of an input, such as audio_1; "" for times of the one recording of all.
    start, stop: seconds of it; stop None for its end.
    """

    number: int
    names: tuple[str, ...]
    sound: str
    start: Fraction = Fraction(0)
    stop: Fraction | None = None


@dataclass(frozen=True)
class Pause:
    """A line between two that speak. seconds: below 0 where the next one begins before the one before ends."""

    number: int
    seconds: Fraction


@dataclass(frozen=True)
class Dialogue:
    """lines: in order.  names: of all who speak, by who speaks first; their numbers are those of their places."""

    lines: tuple[Said | Pause, ...]
    names: tuple[str, ...]

    @property
    def said(self) -> tuple[Said, ...]:
        return tuple(line for line in self.lines if isinstance(line, Said))

    @property
    def of_one_recording(self) -> bool:
        """Whether the lines are times of one recording of all."""
        return not self.said[0].sound


def parse_dialogue(text: str) -> Dialogue:
    """Raises InputError with one sentence for each wrong line (the first five), and for a script without a line."""
    dialogue, wrong = read_dialogue(text)
    if wrong:
        raise told(dict(sorted(wrong.items())))
    if not dialogue.said:
        raise InputError(f"The script is empty, but it needs a line for each recording, such as {EXAMPLE}.")
    return dialogue


def read_dialogue(text: str) -> tuple[Dialogue, dict[int, str]]:
    """The right lines, and of each wrong one, by its number, a sentence that says what to do."""
    marked = read_marked(text, f"each line is who and what, such as {EXAMPLE}")
    lines, wrong, names = [], marked.wrong, {}
    for number, written in marked.lines:
        try:
            line = _line(number, written)
            if isinstance(line, Said):
                line = Said(number, _known(number, line.names, names), line.sound, line.start, line.stop)
                _check_kind(line, lines)
        except InputError as error:
            wrong[number] = str(error)
            continue
        lines.append(line)
    timed = next((one for one in lines if isinstance(one, Said) and not one.sound), None)
    for line in lines:
        if timed is not None and isinstance(line, Pause):
            wrong[line.number] = (
                f"Line {line.number} is a pause, but line {timed.number} is a time of one recording of all, which has "
                "its own: leave the pause out."
            )
    return Dialogue(tuple(lines), tuple(names.values())), wrong


def named_files(text: str) -> list[str]:
    """The files of the right lines."""
    return list(dict.fromkeys(line.sound for line in read_dialogue(text)[0].said if _FILE.search(line.sound)))


def input_number(sound: str) -> int | None:
    """The number of the AUDIO input that a sound is; None for a file."""
    found = _SOUND.fullmatch(sound)
    return int(found[1]) if found else None


def _line(number: int, written: str) -> Said | Pause:
    text = plain(written)
    pause = _PAUSE.match(text)
    if pause:
        return _pause(number, text[pause.end() :].strip(), pause["sign"])
    colon = text.find(":")
    if colon < 0:
        raise InputError(
            f"Line {number} is {written[:40]!r}, but each line is who and what, such as {EXAMPLE}, or `pause 0.4s`: "
            "write it so."
        )
    names = [checked_name(f"Line {number} has the name", name) for name in _AND.split(text[:colon])]
    what = written[colon + 1 :].strip().strip(_QUOTES).strip()
    sound = _SOUND.match(plain(what))
    span = SPAN.search(plain(what), sound.end() if sound else 0)
    name = what[: span.start()].strip().strip(_QUOTES) if span else what
    if sound:
        if name[sound.end() :].strip() or not 1 <= int(sound[1]) <= SOUNDS:
            raise InputError(
                f"Line {number} has the recording {what[:40]!r}, but the inputs are audio_1 to audio_{SOUNDS}: write "
                "one of them, with times behind it or without."
            )
        name = f"audio_{int(sound[1])}"
    elif name and not _FILE.search(name):
        raise InputError(
            f"Line {number} gives {_listed(names)} {name[:40]!r}, which is no recording: write a file of the input "
            f"folder, as in {EXAMPLE}, or connect a node that speaks text to audio_1 and write `{names[0]}: audio_1`."
        )
    elif not name and not span:
        raise InputError(
            f"Line {number} gives {_listed(names)} nothing to say: write a recording behind the colon, as in {EXAMPLE}."
        )
    try:
        start, stop = span_times(span)
    except ValueError as error:
        said = span[0].strip() if span else ""
        raise InputError(
            f"Line {number} has the times {said!r}, but the second one must be the later one: write them as in "
            "`anna: talk.wav 3s-8s`."
        ) from error
    return Said(number, tuple(names), name, start, stop)


def _pause(number: int, written: str, sign: str) -> Pause:
    span = SPAN.fullmatch(written)
    if span is None or span["to"]:
        raise InputError(
            f"Line {number} is a pause of {written[:40]!r}, but a number of seconds is needed, as in `pause 0.4s`."
        )
    seconds = moment(span["start"])
    return Pause(number, -seconds if sign == "-" else seconds)


def _known(number: int, names: Iterable[str], known: dict[str, str]) -> tuple[str, ...]:
    """The names as they are written first; adds new ones to `known`."""
    said = {same_name(name): name for name in names}
    if len(said) > AT_ONCE:
        raise InputError(
            f"Line {number} has {len(said)} people speak at once ({_listed(said.values())}), but the model drives "
            f"{AT_ONCE}: name two of them."
        )
    for key, name in said.items():
        if key not in known and len(known) == MAX_PEOPLE:
            raise InputError(
                f"Line {number} is of {name}, the {MAX_PEOPLE + 1}th who speaks, but at most {MAX_PEOPLE} speak in one "
                "picture: give the line to another one, or make a second dialogue."
            )
        known.setdefault(key, name)
    return tuple(known[key] for key in said)


def _check_kind(line: Said, before: Iterable[Said | Pause]) -> None:
    """Raises InputError where one line is a time of the recording of all and another has a recording of its own."""
    other = next((one for one in before if isinstance(one, Said)), None)
    if other is None or bool(other.sound) == bool(line.sound):
        return
    what = ("has times alone", "has a recording of its own")
    raise InputError(
        f"Line {line.number} {what[bool(line.sound)]}, but line {other.number} {what[bool(other.sound)]}: write a "
        "recording on every line, or connect one recording of all and write times alone."
    )


def _listed(names: Iterable[str]) -> str:
    return " + ".join(names)
