"""The script of a long video: one line for each shot, as an artist writes it.

    # the park
    continue 8s: She walks on, the camera drifting left.
    cut 4s: [ZOOM_IN_CUT] Close-up of her face.
    [MULTI_ANGLE_CUT] The same from above.

`continue` goes on with the shot, for any time; `cut` goes to a new one, for 2 to 5 s. A line without a keyword is a
cut where its prompt begins with a tag such as [ZOOM_IN_CUT], and a continue otherwise.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from ...errors import InputError

CONTINUE, CUT = "continue", "cut"
DEFAULT_SECONDS = Fraction(5)  # of a line without a length: what the models are made for
CUT_SECONDS = (2, 5)  # the shortest and the longest cut that the model was trained on
SHORTEST = Fraction(1, 24)  # a frame
# Of a line and of all together. Ten minutes are 120 rolls, a day on most cards: above it, it is a slip of the pen.
MAX_SECONDS = 600
MAX_TOLD = 5  # wrong lines in one message
EXAMPLE = "`continue 5s: She walks on.`."


@dataclass(frozen=True)
class Line:
    """One shot of a script.

    number: of its line in the text, from 1.  kind: "continue" or "cut".  seconds: exactly as written.
    prompt: without the keyword; a cut tag at its start is in capitals.  automatic: written without a keyword.
    """

    number: int
    kind: str
    seconds: Fraction
    prompt: str
    automatic: bool = False


# Full-width signs of East Asian keyboards and typographic minus signs, one for one, so that places stay.
_PLAIN = {
    **{0xFF01 + i: 0x21 + i for i in range(94)},
    **{0x3000: " ", 0x3010: "[", 0x3011: "]"},
    **{sign: "-" for sign in (0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212)},
}

_TAG = re.compile(r"\[\s*(\w+_CUT)\s*\]", re.IGNORECASE)
_KEYWORD = re.compile(r"(continue|cut)(?![^\W\d])", re.IGNORECASE)
_LENGTH = re.compile(r"\s*(?P<sign>[-+]?)\s*(?P<number>\d+(?:[.,]\d*)?|[.,]\d+)\s*(?P<unit>[^\s:]*)\s*(?P<colon>:?)")
_SLIP = re.compile(r"([^\W\d_]+)\s*\d+(?:[.,]\d*)?\s*s(?:ec(?:ond)?s?)?\s*:", re.IGNORECASE)
_UNITS = {"", "s", "sec", "sec.", "secs", "second", "seconds"}
_CLOCK = re.compile(r"\d{1,2}\s*(:|$)")


def parse_script(text: str) -> tuple[Line, ...]:
    """The shots of a script, in order; what a line may look like stands at `read_lines`.

    Raises InputError with one sentence for each wrong line (the first five), for a script without a line, and for one
    of more than MAX_SECONDS in all.
    """
    lines, wrong = read_lines(text)
    if wrong:
        more = len(wrong) - MAX_TOLD
        told = list(wrong.values())[:MAX_TOLD] + ([f"{more} more lines are wrong."] if more > 0 else [])
        raise InputError(" ".join(told))
    if not lines:
        raise InputError(f"The script is empty, but it needs a line for each shot, such as {EXAMPLE}")
    total = sum(line.seconds for line in lines)
    if total > MAX_SECONDS:
        raise InputError(
            f"The script is {float(total):g} s long in all, but at most {MAX_SECONDS} s are made in one job: "
            "take lines out, and go on from the finished video."
        )
    return lines


def read_lines(text: str) -> tuple[tuple[Line, ...], dict[int, str]]:
    """The right lines of a script in order, and of each wrong one, by its number, a sentence that says what to do.

    A line is `continue LENGTH: prompt`, `cut LENGTH: prompt` or a prompt alone. Keywords may have capitals. LENGTH is
    in seconds, with a decimal point or comma, followed by s, sec, seconds or nothing; without LENGTH, 5 s. Colons and
    signs may be full-width. Blank lines and lines that begin with # are left out.
    """
    lines, wrong = [], {}
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff")), start=1):
        written = raw.strip()
        if not written or written.translate(_PLAIN).startswith("#"):
            continue
        try:
            lines.append(_parse_line(number, written))
        except InputError as error:
            wrong[number] = str(error)
    return tuple(lines), wrong


def has_cut_tag(prompt: str) -> bool:
    """Whether a prompt begins with a tag such as [ZOOM_IN_CUT]."""
    return _TAG.match(prompt.translate(_PLAIN)) is not None


def _parse_line(number: int, written: str) -> Line:
    """The line of a text that is not blank. Raises InputError with a sentence that names the line."""
    plain = written.translate(_PLAIN)
    keyword = _KEYWORD.match(plain)
    if keyword is None or not _is_order(plain[keyword.end() :]):
        slip = _SLIP.match(plain)
        if slip:
            raise InputError(
                f"Line {number} begins with {slip[1]!r}, but the keywords are `continue` and `cut`: write one of them."
            )
        kind = CUT if _TAG.match(plain) else CONTINUE
        return Line(number, kind, DEFAULT_SECONDS, _prompt(number, written), automatic=True)
    kind = keyword[1].lower()
    rest = keyword.end()
    length = _LENGTH.match(plain, rest)
    if length is None:
        before, colon, _ = plain[rest:].partition(":")
        if before.strip():
            raise InputError(
                f"Line {number} has the length {before.strip()!r}, but a number of seconds is needed, such as `5s`."
            )
        seconds, start = DEFAULT_SECONDS, rest + len(before) + len(colon)
    else:
        start = length.end()
        if not length["unit"] and _CLOCK.match(plain, start) and length["colon"]:
            raise InputError(f"Line {number} has a length in minutes, but seconds are needed: write `{kind} 90s: ...`.")
        seconds = _seconds(number, kind, length)
        if not length["colon"] and plain[start:].strip():
            raise InputError(
                f"Line {number} has no colon after its length: write `{kind} {length[0].strip()}: ` before the prompt."
            )
    return Line(number, kind, seconds, _prompt(number, written[start:]))


def _is_order(rest: str) -> bool:
    """Whether what follows a keyword makes it one: a length, a colon, nothing, or a word or two before a colon.

    `Continue walking down the street.` and `Cut flowers stand on a table: roses.` are prompts.
    """
    before, colon, _ = rest.partition(":")
    return bool(not rest.strip() or _LENGTH.match(rest) or (colon and len(before.split()) <= 2))


def _seconds(number: int, kind: str, length: re.Match) -> Fraction:
    written = length[0].strip().rstrip(":").strip()
    if length["unit"].lower() not in _UNITS:
        raise InputError(
            f"Line {number} has the length {written!r}, but lengths are in seconds: write `{kind} 5s: ...`."
        )
    if len(length["number"]) > 20:
        raise InputError(f"Line {number} has a length of {len(length['number'])} digits: write seconds, such as `5s`.")
    seconds = Fraction(length["number"].replace(",", ".").rstrip("."))
    if length["sign"] == "-":
        seconds = -seconds
    if seconds < SHORTEST:
        raise InputError(f"Line {number} is {written} long, but it must be at least a frame, 1/24 s.")
    if kind == CUT and not CUT_SECONDS[0] <= seconds <= CUT_SECONDS[1]:
        raise InputError(
            f"Line {number} is a cut of {float(seconds):g} s, but a cut takes {CUT_SECONDS[0]} to {CUT_SECONDS[1]} s: "
            "go on with a `continue` line where the shot is to be longer."
        )
    if seconds > MAX_SECONDS:
        raise InputError(
            f"Line {number} is {float(seconds):g} s long, but at most {MAX_SECONDS} s are made in one job."
        )
    return seconds


def _prompt(number: int, written: str) -> str:
    """The prompt, its cut tag as the model knows it. Raises InputError where there is none beside the tag."""
    prompt = written.strip()
    tag = _TAG.match(prompt.translate(_PLAIN))
    if tag:
        rest = prompt[tag.end() :].lstrip()
        prompt = f"[{tag[1].upper()}] {rest}" if rest else ""
    if not prompt:
        raise InputError(f"Line {number} has no prompt: say what is to be seen.")
    return prompt
