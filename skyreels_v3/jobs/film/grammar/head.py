"""What stands on a line before its colon: words, references in brackets, options in braces, in any order."""

import re
from dataclasses import dataclass, field

from ....errors import InputError

_SIGN = re.compile(r"[\[{:]")
CLOSING = {"[": "]", "{": "}"}
CALLED = {"[": "bracket", "{": "brace"}


@dataclass
class Head:
    """words: what is in no bracket, joined by spaces.  references, options: what is in them, None without any.

    prompt: where in the text what follows the colon begins, None without a colon.
    """

    words: str = ""
    references: str | None = None
    options: str | None = None
    prompt: int | None = None
    twice: list[str] = field(default_factory=list)  # kinds of brackets that come again


def read_head(number: int, text: str, start: int, colon: bool = True) -> Head:
    """text: with ASCII signs, see `plain`.  start: behind the keyword.  colon: whether one ends it.

    Raises InputError for a bracket that is not closed.
    """
    head, words, position = Head(), [], start
    while True:
        sign = _SIGN.search(text, position) if colon else re.compile(r"[\[{]").search(text, position)
        if sign is None:
            words.append(text[position:])
            break
        words.append(text[position : sign.start()])
        kind = sign[0]
        if kind == ":":
            head.prompt = sign.end()
            break
        end = text.find(CLOSING[kind], sign.end())
        if end < 0:
            raise InputError(
                f"Line {number} opens a {CALLED[kind]} `{kind}` that is not closed: write `{CLOSING[kind]}` behind it."
            )
        content = text[sign.end() : end]
        name = "references" if kind == "[" else "options"
        if getattr(head, name) is not None:
            head.twice.append(kind)
        setattr(head, name, content)
        position = end + 1
    head.words = " ".join(" ".join(words).split())
    return head
