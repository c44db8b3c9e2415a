"""The script of a long video: one line for each shot, as an artist writes it.

    # the park
    continue 8s: She walks on, the camera drifting left.
    cut 4s: [ZOOM_IN_CUT] Close-up of her face.
    [MULTI_ANGLE_CUT] The same from above.

`continue` goes on with the shot, for any time; `cut` goes to a new one, for 2 to 5 s. A line without a keyword is a
cut where its prompt begins with a tag such as [ZOOM_IN_CUT], and a continue otherwise. Scripts of chats and language
models are read too (`script_marks`), and what looks like an order that cannot be followed is told, never a prompt.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from ...errors import InputError
from .script_marks import plain, read_marked, unwrapped
from .script_times import SHORTEST, moment

CONTINUE, CUT = "continue", "cut"
DEFAULT_SECONDS = Fraction(5)  # of a line without a length: what the models are made for
CUT_SECONDS = (2, 5)  # the shortest and the longest cut that the model was trained on
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


# In the languages of the pack's locales.
_KEYWORDS = {
    **{"continue": CONTINUE, "继续": CONTINUE, "繼續": CONTINUE, "续写": CONTINUE},
    **{"cut": CUT, "切镜头": CUT, "切镜": CUT, "切换": CUT, "切": CUT},
}
_UNITS = {"", "s", "sec", "sec.", "secs", "second", "seconds", "秒", "秒钟"}
_UNIT = r"(?:s|sec\.?|secs|seconds?|秒钟?)(?![A-Za-z])"
_WORD = "|".join(word + r"(?![^\W\d])" if word.isascii() else word for word in _KEYWORDS)
_NUMBER = r"\d+(?:[.,]\d*)?|[.,]\d+"

_TAG = re.compile(r"\[\s*(\w+(?:[\s-]+\w+)*[\s_-]cut)\s*\]", re.IGNORECASE)
_KEYWORD = re.compile(rf"(?P<open>[\[(]?)\s*(?P<word>{_WORD})", re.IGNORECASE)
_LENGTH = re.compile(
    rf"(?:\s*[\])])?(?:\s*,\s)?\s*(?:for\b)?\s*[\[(]?\s*(?P<sign>[-+]?)\s*(?P<number>{_NUMBER})\s*(?P<unit>[^\s:\])]*)"
    r"\s*(?P<close>[\])]?)\s*(?P<colon>:?)",
    re.IGNORECASE,
)
_AGAIN = re.compile(rf"[\s*_`]*(?:{_NUMBER})\s*{_UNIT}\s*:", re.IGNORECASE)  # a length behind a colon or a tag
_TIMED = re.compile(rf"[^:]*\d\s*{_UNIT}[^\w:]*:", re.IGNORECASE)
_CLOCK = re.compile(r"\d{1,2}\s*(:|$)")
# From when to when, as in `[0-2s]` and `0:05 - 0:10:`.
_MOMENT = rf"((?:\d{{1,2}}:){{0,2}}\d{{1,3}}(?:\.\d+)?)\s*({_UNIT})?"
_RANGE = re.compile(
    rf"(?P<open>[\[(]?)\s*{_MOMENT}\s*(?:-|~|→|to\b|至|到)\s*{_MOMENT}\s*(?P<close>[\])]?)\s*(?P<colon>[:|]|-\s)?\s*",
    re.IGNORECASE,
)
# Orders and times where none is read: before the first words of a line, at its end, behind another word.
_ORDER = rf"(?:{_WORD})[\s(\[,:]*(?:{_NUMBER})\s*{_UNIT}\s*[\])]*\s*:"
_LABEL = re.compile(rf"[^:]{{1,30}}?[:|.)-]\s*(?={_ORDER})", re.IGNORECASE)
_MISPLACED = re.compile(rf"(?<![^\W_]){_ORDER}|[\[(]\s*[~≈]?\s*(?:{_NUMBER})\s*{_UNIT}\s*[\])]\W*$", re.IGNORECASE)
_SLIP = re.compile(rf"([^\W\d_]+)\s*(?:{_NUMBER})\s*{_UNIT}\s*:", re.IGNORECASE)
_TIME = re.compile(
    rf"[\[(]\s*[~≈]?\s*(?:{_NUMBER})\s*{_UNIT}\s*[\]):]|(?:{_NUMBER})\s*{_UNIT}\s*:|[^:]{{0,40}}?(?<!\d)"
    rf"(?:{_NUMBER})\s*{_UNIT}\s*[\])]*:",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Order:
    """What a line says before its prompt. seconds: None where it does not say.  begins: of a line with two times."""

    kind: str | None
    seconds: Fraction | None
    prompt: str
    begins: Fraction | None = None


def parse_script(text: str) -> tuple[Line, ...]:
    """The shots of a script, in order; what a line may look like stands at `read_lines`.

    Raises InputError with one sentence for each wrong line (the first five), for a script without a line, and for one
    of more than MAX_SECONDS in all.
    """
    lines, wrong = read_lines(text)
    if wrong:
        raise told(wrong)
    if not lines:
        raise InputError(f"The script is empty, but it needs a line for each shot, such as {EXAMPLE}")
    total = sum(line.seconds for line in lines)
    if total > MAX_SECONDS:
        raise InputError(
            f"The script is {float(total):g} s long in all, but at most {MAX_SECONDS} s are made in one job: "
            "take lines out, and go on from the finished video."
        )
    return lines


def told(wrong: dict[int, str]) -> InputError:
    """One error for the wrong lines of a script: the first five, and how many more there are."""
    more = len(wrong) - MAX_TOLD
    said = list(wrong.values())[:MAX_TOLD]
    return InputError(" ".join(said + ([f"{more} more lines are wrong."] if more > 0 else [])))


def check_outside(number: int, prompt: str) -> None:
    """Raises InputError for a prompt without a keyword that stands outside of the script's code fence."""
    if not has_cut_tag(prompt):
        raise InputError(f"Line {number} stands outside of the code fence: take it out, or the ``` marks.")


def check_begin(
    number: int, kind: str, seconds: Fraction | None, begins: Fraction | None, total: Fraction | None
) -> None:
    """Raises InputError for a line that says to begin elsewhere than where those before it end, if both are known."""
    if begins is None or total is None or begins == total:
        return
    raise InputError(
        f"Line {number} begins at {float(begins):g} s, but the lines before it end at {float(total):g} s: let each "
        "begin where the one before ends, the first at 0 s, or write lengths, as in "
        f"`{kind} {float(seconds or 0):g}s: ...`."
    )


def read_lines(text: str) -> tuple[tuple[Line, ...], dict[int, str]]:
    """The right lines of a script in order, and of each wrong one, by its number, a sentence that says what to do.

    A line is `continue LENGTH: prompt`, `cut LENGTH: prompt` or a prompt alone. Keywords may have capitals, and be
    Chinese. LENGTH is in seconds, with a decimal point or comma, followed by s, sec, seconds, 秒 or nothing; without
    LENGTH, 5 s. `[0-2s] prompt` has the length between its times. Colons and signs may be full-width. Blank lines and
    lines that begin with # are left out, and so are the marks of lists, quotes, bold and code fences.
    """
    marked = read_marked(text)
    lines, wrong, total = [], marked.wrong, Fraction(0)
    for number, written in marked.lines:
        try:
            line, begins = parse_line(number, written)
            if line.automatic and number in marked.outside:
                check_outside(number, line.prompt)
            if not wrong:
                check_begin(number, line.kind, line.seconds, begins, total)
        except InputError as error:
            wrong[number] = str(error)
            continue
        lines.append(line)
        total += line.seconds
    return tuple(lines), wrong


def has_cut_tag(prompt: str) -> bool:
    """Whether a prompt begins with a tag such as [ZOOM_IN_CUT]."""
    return _TAG.match(plain(prompt)) is not None


def is_misplaced(prompt: str) -> str:
    """An order or a length inside of a prompt, where none is read; "" without one."""
    found = _MISPLACED.search(plain(prompt))
    return found[0].strip() if found else ""


def parse_line(number: int, written: str, clip: bool = False) -> tuple[Line, Fraction | None]:
    """The line of a text that is not blank, and when it says to begin. Raises InputError that names the line.

    clip: brings a length that is too short or too long for its kind to the nearest that is not.
    """
    label = _LABEL.match(plain(written))  # `Shot 2: cut 4s: ...`
    order = _order(number, written[label.end() :] if label else written)
    prompt = unwrapped(order.prompt)
    tag = _TAG.match(plain(prompt))
    if tag and order.seconds is None and _AGAIN.match(plain(prompt), tag.end()):  # `[ZOOM_IN_CUT] 2s: ...`
        length = _length(number, order.kind or CUT, prompt[tag.end() :])
        order = _Order(order.kind or CUT, length.seconds, f"{tag[0]} {length.prompt}")
        prompt = order.prompt
    kind = order.kind or (CUT if tag else CONTINUE)
    seconds = DEFAULT_SECONDS if order.seconds is None else order.seconds
    if clip:
        seconds = clipped(kind, seconds)
    _check_seconds(number, kind, seconds)
    prompt = _prompt(number, prompt)
    _check_prompt(number, kind, order, prompt)
    return Line(number, kind, seconds, prompt, automatic=order.kind is None), order.begins


def _order(number: int, written: str) -> _Order:
    times = _RANGE.match(plain(written))
    if times and (times[3] or times[5] or ":" in times[2]) and (times["open"] or times["colon"]):
        return _range(number, written, times)
    text = plain(written)
    keyword = _KEYWORD.match(text)
    if keyword is None:
        return _Order(None, None, written)
    kind, rest = _KEYWORDS[keyword["word"].lower()], text[keyword.end() :]
    if not (_is_order(rest) if keyword["word"].isascii() else _is_chinese_order(rest)):
        return _Order(None, None, written)
    if keyword["open"] and written.endswith(("]", ")", "】", "）")):  # `[cut 4s: ...]`
        written = written[:-1]
    return _length(number, kind, written[keyword.end() :])


def _range(number: int, written: str, times: re.Match) -> _Order:
    """The order of a line that begins with two times. Raises InputError where the second is not later."""
    start, stop = moment(times[2]), moment(times[4])
    rest = written[times.end() :]
    if times["open"] and not times["close"]:  # `[0-2s: ...]`
        rest = rest.rstrip("])】）")
    if stop <= start:
        raise InputError(
            f"Line {number} runs from {times[2]} to {times[4]}, but the second time must be the later one."
        )
    order = _order(number, rest)
    if order.seconds not in (None, stop - start):
        raise InputError(
            f"Line {number} has the times {times[2]} to {times[4]} and a length of {float(order.seconds or 0):g} s: "
            "leave one of them out."
        )
    return _Order(order.kind, stop - start, order.prompt, start)


def _is_order(rest: str) -> bool:
    """Whether what follows a keyword makes it one: a length, a colon, nothing, a word or two or a time before a colon.

    `Continue walking down the street.` and `Cut flowers stand on a table: roses.` are prompts.
    """
    before, colon, _ = rest.partition(":")
    short = bool(colon) and len(before.split()) <= 2
    return bool(not rest.strip() or short or _LENGTH.match(rest) or _TIMED.match(rest) or has_cut_tag(rest.strip()))


def _is_chinese_order(rest: str) -> bool:
    """The same where words have no spaces between them: 继续走 and 切3个苹果 are prompts."""
    length = _LENGTH.match(rest)
    whole = length is not None and (length["colon"] or length["unit"] in _UNITS)
    return bool(not rest.strip("]) ") or whole or re.match(r"[\s\])]*(:|\[\s*\w+_CUT\b)|[^:]{0,12}秒[^\w:]*:", rest))


def _length(number: int, kind: str, written: str) -> _Order:
    """The order of what follows a keyword."""
    text = plain(written)
    length = _LENGTH.match(text)
    if length is None:
        before, colon, _ = text.partition(":")
        if has_cut_tag(text.strip()):
            return _Order(kind, None, written)  # `cut [ZOOM_IN_CUT] 2s: ...`
        if before.strip(" ])"):
            raise InputError(
                f"Line {number} has the length {before.strip()!r}, but a number of seconds is needed, such as `5s`."
            )
        rest = written[len(before) + len(colon) :]
        return _length(number, kind, rest) if _AGAIN.match(plain(rest)) else _Order(kind, None, rest)
    start = length.end()
    if not length["unit"] and _CLOCK.match(text, start) and length["colon"]:
        raise InputError(f"Line {number} has a length in minutes, but seconds are needed: write `{kind} 90s: ...`.")
    seconds = _seconds(number, kind, length)
    if not length["colon"] and not length["close"] and text[start:].strip():
        raise InputError(
            f"Line {number} has no colon after its length: write `{kind} {_said(length)}: ` before the prompt."
        )
    return _Order(kind, seconds, written[start:])


def _said(length: re.Match) -> str:
    return length.string[length.start("sign") : length.end("unit")].strip()


def _seconds(number: int, kind: str, length: re.Match) -> Fraction:
    written = _said(length)
    if length["unit"].lower() not in _UNITS:
        raise InputError(
            f"Line {number} has the length {written!r}, but lengths are in seconds: write `{kind} 5s: ...`."
        )
    if len(length["number"]) > 20:
        raise InputError(f"Line {number} has a length of {len(length['number'])} digits: write seconds, such as `5s`.")
    check_comma(number, written, length["number"])
    seconds = Fraction(length["number"].replace(",", ".").rstrip("."))
    if length["sign"] == "-":
        seconds = -seconds
    if seconds < SHORTEST:
        raise InputError(f"Line {number} is {written} long, but it must be at least a frame, 1/24 s.")
    return seconds


def check_comma(number: int, length: str, digits: str) -> None:
    """Raises InputError where a comma may be that of decimals or of thousands. length: as written, with a unit."""
    if re.fullmatch(r"[1-9]\d{0,2},\d{3}", digits):
        raise InputError(
            f"Line {number} has the length {length!r}, where the comma may be that of decimals or of thousands: write "
            "a point for decimals, and nothing for thousands."
        )


def clipped(kind: str, seconds: Fraction) -> Fraction:
    """The nearest length that a line of this kind may have."""
    low, high = CUT_SECONDS if kind == CUT else (SHORTEST, MAX_SECONDS)
    return Fraction(min(max(seconds, low), high))


def _check_seconds(number: int, kind: str, seconds: Fraction) -> None:
    if kind == CUT and not CUT_SECONDS[0] <= seconds <= CUT_SECONDS[1]:
        raise InputError(
            f"Line {number} is a cut of {float(seconds):g} s, but a cut takes {CUT_SECONDS[0]} to {CUT_SECONDS[1]} s: "
            "go on with a `continue` line where the shot is to be longer."
        )
    if seconds > MAX_SECONDS:
        raise InputError(
            f"Line {number} is {float(seconds):g} s long, but at most {MAX_SECONDS} s are made in one job."
        )


def _prompt(number: int, written: str) -> str:
    """The prompt, its cut tag as the model knows it. Raises InputError where there is none beside the tag."""
    prompt = written.strip()
    tag = _TAG.match(plain(prompt))
    if tag:
        rest = prompt[tag.end() :].lstrip()
        name = re.sub(r"[\s_-]+", "_", tag[1].upper())
        prompt = f"[{name}] {rest}" if rest else ""
    if not prompt:
        raise InputError(f"Line {number} has no prompt: say what is to be seen.")
    return prompt


def _check_prompt(number: int, kind: str, order: _Order, prompt: str) -> None:
    """Raises InputError for a prompt that holds an order or a length: the model would be told them as if to be seen."""
    text = plain(prompt)
    slip = _SLIP.match(text) if order.kind is None else None
    misplaced = is_misplaced(prompt)
    if misplaced:
        raise InputError(
            f"Line {number} holds {misplaced!r} inside of its prompt: give each shot a line of its own, its "
            f"length first, such as `{kind} 5s: ...`."
        )
    if slip:
        raise InputError(
            f"Line {number} begins with {slip[1]!r}, but the keywords are `continue` and `cut`: write one of them."
        )
    if order.seconds is None and order.kind is None:
        time = _TIME.match(text)
        if time:
            raise InputError(
                f"Line {number} has the time {time[0].strip()!r} and no keyword: write `continue 5s: ` or `cut 5s: ` "
                "before the prompt, with its length in place of 5."
            )
        if text.endswith(":"):
            raise InputError(f"Line {number} ends with a colon: write its prompt behind that, or take the line out.")
