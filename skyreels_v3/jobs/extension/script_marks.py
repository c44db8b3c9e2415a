"""What editors, chats and language models put around the lines of a script: list marks, quotes, bold, code fences."""

import json
import re
from dataclasses import dataclass, field

SHOT = "each shot is one line, such as `continue 5s: She walks on.`"
DEEPEST = 8  # marks in marks; more are the line's own
# Line ends of every program, U+2028 of page layouts and the vertical tab of Word among them.
_ENDS = re.compile("\r\n|[\r\n\v\f\x85\u2028\u2029]")
# Signs without a width: byte order marks, zero-width spaces, directions. Joiners stay, they are part of emoji.
_INVISIBLE = dict.fromkeys(
    [0xAD, 0x200B, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF]
)
_JOINERS = "\u200c\u200d"
# Full-width signs of East Asian keyboards and typographic minus signs, one for one, so that places stay.
_PLAIN = {
    **{0xFF01 + i: 0x21 + i for i in range(94)},
    **{0x3000: " ", 0x3010: "[", 0x3011: "]"},
    **{sign: "-" for sign in (0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212)},
}

_FENCE = re.compile(r"(`{3,}|~{3,})\s*[\w+-]*$")
_ONLY_MARKS = re.compile(r"[-*_=~]{3,}|\[|\],?")  # a rule, or the brackets around a list of lines
_LIST_MARK = re.compile(
    r">\s*|[*+]\s+|[-•●▪◦‣·](\s+|(?=[^\W\d]|[\[*_`\"“]))|\[[ xX]?\]\s+"
    r"|\(?\d{1,3}[.)]\s+|\(?\d{1,3}[.)](?=[^\W\d])|\d{1,3}、\s*|[①-⑳]\s*|\d\ufe0f?\u20e3\s*"
)
_EMPHASIS = re.compile(r"(\*\*\*|\*\*|__|\*|`+)(?=\S)")
_QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "‘": "’", "«": "»", "「": "」", "『": "』"}
_DATA = re.compile(
    r"[{}]|\[\s*[{\"\[]|\"[^\"]*\"\s*:|(type|kind|duration|length|seconds|prompt|时长|提示词)\s*:", re.IGNORECASE
)


@dataclass
class Marked:
    """The lines of a text that may be shots, in order: (number in the text, from 1, without marks).

    outside: numbers of those beside the code fences, where there are fences.  wrong: a sentence for each line that is
    markup of another kind, the first of its kind alone.
    """

    lines: list[tuple[int, str]] = field(default_factory=list)
    outside: set[int] = field(default_factory=set)
    wrong: dict[int, str] = field(default_factory=dict)


def plain(text: str) -> str:
    """The text with ASCII signs for full-width ones, each in its place."""
    return text.translate(_PLAIN)


def lines_of(text: str) -> list[str]:
    """The lines of a text, as `read_marked` numbers them."""
    return _ENDS.split(text)


def read_marked(text: str, one: str = SHOT) -> Marked:
    """The lines of a script without what is around them; blank lines, comments, fences and rules are left out.

    one: what each line is, with an example, for those that are markup of another kind.
    """
    made, inside, told, fences = Marked(), False, set(), 0
    for number, raw in enumerate(lines_of(text), start=1):
        line = raw.translate(_INVISIBLE).strip().lstrip(_JOINERS)
        if _FENCE.match(re.sub(r"^(>\s*)+", "", line)):
            inside, fences = not inside, fences + 1
            continue
        line = without_list_marks(line)
        if not line or plain(line).startswith("#") or _ONLY_MARKS.fullmatch(plain(line)):
            continue
        kind = "a table" if line.startswith("|") else "JSON or YAML" if _DATA.match(plain(line)) else None
        if kind is None:
            made.lines.append((number, line))
            made.outside |= set() if inside else {number}
        elif kind not in told:
            told.add(kind)
            made.wrong[number] = f"Line {number} begins with {kind}, but {one}: write it so."
    if fences < 2:  # one alone is a slip, and says nothing of what is inside
        made.outside.clear()
    return made


def without_list_marks(line: str) -> str:
    """A line without bullets, numbers, check boxes, quotes and bold around it."""
    for _ in range(DEEPEST):
        before = line
        mark = _LIST_MARK.match(plain(line))
        if mark:
            line = line[mark.end() :].strip()
        line = unwrapped(line)
        if line == before:
            break
    return line


def unwrapped(text: str) -> str:
    """A text without the quotes around all of it, or the emphasis that it begins with."""
    text = text.strip()
    emphasis = _EMPHASIS.match(text)
    if emphasis:
        mark = emphasis[1]
        close = text.find(mark, len(mark) + 1)
        if close > 0:
            text = (text[len(mark) : close] + text[close + len(mark) :]).strip()
    inner = text.rstrip(",，").rstrip()
    if text.startswith('"'):  # a string of a JSON list
        try:
            return json.loads(inner).strip()
        except ValueError:
            pass
    close = _QUOTES.get(text[:1])
    if close and len(inner) > 1 and inner.endswith(close) and not {text[0], close} & set(inner[1:-1]):
        return inner[1:-1].strip()
    return text
