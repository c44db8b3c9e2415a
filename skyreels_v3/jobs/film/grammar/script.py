"""The script of a film: one line for each shot, as an artist writes it. Needs no torch.

    scene 5s [anna, cafe]: Anna comes into the cafe and looks round.
    continue 8s: She walks to the window.
    cut 4s {seed 7}: [ZOOM_IN_CUT] The scene cuts from the cafe to her face.
    speak [anna: hello.wav]: Anna talks to somebody outside the window.
    clip harbour.mp4 3s-8s
    dub harbour.mp4 8s-12s [ben: answer.wav]: Ben shouts.

All that Extend Video's script may be (`extension.script`) is valid here too. `read_film` reads what one line says by
itself; whether its names, files and models are there is asked in `check`.
"""

import re
from fractions import Fraction

from ....errors import InputError
from ...extension.script import (
    CONTINUE,
    DEFAULT_SECONDS,
    MAX_SECONDS,
    check_begin,
    check_comma,
    check_outside,
    has_cut_tag,
    is_misplaced,
    parse_line,
    told,
)
from ...extension.script_marks import plain, read_marked, unwrapped
from ...extension.script_times import SHORTEST
from .footage import read_clip, read_dub
from .head import Head, read_head
from .line import CLIP, DUB, EXAMPLES, FOOTAGE, SCENE, SPEAK, FilmLine
from .options import ONE_KIND, WORDS, read_options
from .slips import check_begun, check_held, label_end
from .voices import read_voices

MAX_SCENE = 30  # seconds: of the reference job
MAX_REFERENCES = 4

_KEYWORDS = {
    **{"scene": SCENE, "场景": SCENE, "場景": SCENE},
    **{"speak": SPEAK, "说话": SPEAK, "說話": SPEAK},
    **{"clip": CLIP, "片段": CLIP},
    **{"dub": DUB, "配音": DUB},
}
_KEYWORD = re.compile("|".join(word + r"(?![^\W\d])" if word.isascii() else word for word in _KEYWORDS), re.IGNORECASE)
_LENGTH = re.compile(
    r"(?:for )?(\d{1,20}(?:[.,]\d{0,20})?|[.,]\d{1,20})\s*(s|sec\.?|secs|seconds?|秒钟?)?", re.IGNORECASE
)
# Braces belong to the order of a line where nothing but that stands before them: `Shot 2: cut 4s {seed 7}: ...`.
_BEFORE = re.compile(
    r"([^:{\[]{1,30}?[:|.)-]\s*)?([\[(]?\s*(continue|cut)(?![^\W\d])|继续|繼續|续写|切)[^:{]{0,30}(\[[^\]]*\]\s*)?"
    r"|\s*(\[\s*\w[\w\s-]*\]\s*)?",
    re.IGNORECASE,
)
_ANYWHERE = "|".join(word for word in WORDS if ONE_KIND.get(word) != DUB)
_OF_A_DUB = "|".join(word for word in WORDS if ONE_KIND.get(word) == DUB)  # words that prompts have as well
_OPTIONS = re.compile(rf"\{{\s*(?:(?:{_ANYWHERE})\b|(?:{_OF_A_DUB})[\s=:]*[\d.])[^}}]*\}}", re.IGNORECASE)
_LISTED = re.compile(r"(?:continue|cut)(?![^\W\d])[^:\[]*\[([^\]]*)\][^:]*:", re.IGNORECASE)


def parse_film(text: str) -> tuple[FilmLine, ...]:
    """The shots of a film's script, in order.

    Raises InputError with one sentence for each wrong line (the first five), for a script without a line, and for one
    that makes more than MAX_SECONDS in all.
    """
    lines, wrong = read_film(text)
    if wrong:
        raise told(dict(sorted(wrong.items())))
    if not lines:
        raise InputError(f"The script is empty, but it needs a line for each shot, such as {EXAMPLES[SCENE]}.")
    total = sum(line.seconds or 0 for line in lines)
    if total > MAX_SECONDS:
        raise InputError(
            f"The script makes {float(total):g} s in all, but at most {MAX_SECONDS} s are made in one film: take lines "
            "out, and put the finished film into the next script as a `clip`."
        )
    return lines


def read_film(text: str) -> tuple[tuple[FilmLine, ...], dict[int, str]]:
    """The right lines of a film's script in order, and of each wrong one, by its number, a sentence on what to do."""
    marked = read_marked(text)
    lines, wrong = [], marked.wrong
    total: Fraction | None = Fraction(0)  # seconds of the lines so far, None behind a recording or whole footage
    for number, written in marked.lines:
        try:
            line, begins, automatic = parse_film_line(number, written)
            if automatic and number in marked.outside:
                check_outside(number, line.prompt)
            if not wrong:
                check_begin(number, line.kind, line.seconds, begins, total)
        except InputError as error:
            wrong[number] = str(error)
            continue
        lines.append(line)
        length = line.stop - line.start if line.stop is not None else line.seconds
        total = None if total is None or length is None else total + length
    return tuple(lines), wrong


def named_files(text: str) -> list[str]:
    """All that the right lines of a script may mean as files."""
    names = []
    for line in read_film(text)[0]:
        names += [
            *line.references,
            *(voice.file for voice in line.voices if voice.file),
            *([line.file] * bool(line.file)),
        ]
    return names


def parse_film_line(number: int, written: str, clip: bool = False) -> tuple[FilmLine, Fraction | None, bool]:
    """The line, when it says to begin, and whether it is a prompt without a keyword. clip: as in `parse_line`."""
    written = written[label_end(plain(written)) :]
    text = plain(written)
    keyword = _KEYWORD.match(text)
    kind = _KEYWORDS[keyword[0].lower()] if keyword else None
    if kind in FOOTAGE and keyword:
        footage = (read_clip if kind == CLIP else read_dub)(number, written, keyword.end())
        if footage is not None:
            _check_prompt(number, kind, footage.prompt)
            return footage, None, False
    elif kind and keyword:
        head = read_head(number, text, keyword.end())
        if _is_order(kind, head):
            return _ordered(number, kind, head, written, clip), None, False
    return _extended(number, written, clip)


def _is_order(kind: str, head: Head) -> bool:
    """Whether what follows a keyword makes it one: `Scene 2: She walks on.` and `Speak softly.` are prompts."""
    listed = head.references is not None or head.options is not None
    length = _LENGTH.fullmatch(head.words)
    if head.prompt is None and not listed:
        return False
    return listed or not head.words or (kind == SCENE and length is not None and length[2] is not None)


def _ordered(number: int, kind: str, head: Head, written: str, clip: bool) -> FilmLine:
    """A scene or a speak."""
    if head.twice:
        raise InputError(f"Line {number} has two brackets of one kind: write all of them in one, with commas between.")
    if head.prompt is None:
        raise InputError(f"Line {number} has no colon before its prompt: write it as in {EXAMPLES[kind]}.")
    options = read_options(number, kind, head.options or "")
    prompt = unwrapped(written[head.prompt :])
    if not prompt:
        raise InputError(f"Line {number} has no prompt: say what is to be seen.")
    _check_prompt(number, kind, prompt)
    items = [item.strip() for item in re.split("[,;、]", head.references or "") if item.strip()]
    if kind == SCENE:
        seconds = _scene_seconds(number, head.words, clip)
        return FilmLine(number, kind, seconds, prompt, _references(number, items), options=options)
    if head.words:
        raise InputError(
            f"Line {number} has {head.words!r} behind `speak`, but the recording says how long it is: write "
            f"{EXAMPLES[SPEAK]}."
        )
    return FilmLine(number, kind, None, prompt, voices=read_voices(number, kind, items), options=options)


def _scene_seconds(number: int, words: str, clip: bool) -> Fraction:
    if not words:
        return DEFAULT_SECONDS
    length = _LENGTH.fullmatch(words)
    if length is None:
        raise InputError(
            f"Line {number} has the length {words[:40]!r}, but a number of seconds is needed, as in {EXAMPLES[SCENE]}."
        )
    check_comma(number, words, length[1])
    seconds = Fraction(length[1].replace(",", ".").rstrip("."))
    if seconds < SHORTEST:
        raise InputError(f"Line {number} is {words} long, but it must be at least a frame, 1/24 s.")
    if clip:
        seconds = min(seconds, Fraction(MAX_SCENE))
    if seconds > MAX_SCENE:
        raise InputError(
            f"Line {number} is a scene of {float(seconds):g} s, but at most {MAX_SCENE} s are made of references: make "
            "it shorter, and go on with a `continue` line."
        )
    return seconds


def _references(number: int, names: list[str]) -> tuple[str, ...]:
    if not names:
        raise InputError(
            f"Line {number} is a scene without pictures: name 1 to {MAX_REFERENCES} of them, as in {EXAMPLES[SCENE]}."
        )
    if len(names) > MAX_REFERENCES:
        raise InputError(
            f"Line {number} names {len(names)} pictures, but the model takes 1 to {MAX_REFERENCES}: leave some out."
        )
    for name in names:
        if ":" in name:
            raise InputError(
                f"Line {number} has {name[:40]!r} among the pictures of a scene, but recordings are for `speak`: write "
                "names alone."
            )
    return tuple(names)


def _extended(number: int, written: str, clip: bool) -> tuple[FilmLine, Fraction | None, bool]:
    """A continue or a cut, in all the ways in which Extend Video's script has them, with options in braces."""
    text, braces = plain(written), None
    check_begun(number, text)
    opened = text.find("{")
    if opened >= 0 and _BEFORE.fullmatch(text, 0, opened):
        close = text.find("}", opened)
        if close < 0:
            raise InputError(f"Line {number} opens a brace `{{` that is not closed: write `}}` behind it.")
        if re.match(r"[^:]*\{", text[close + 1 :]):
            raise InputError(f"Line {number} has two braces: write all options in one, with commas between.")
        braces = written[opened + 1 : close]
        written = f"{written[:opened].rstrip()}{_between(text[close + 1 :])}{written[close + 1 :].lstrip()}"
    listed = _LISTED.match(plain(written))
    if listed and not has_cut_tag(f"[{listed[1]}]") and not re.search(r"\d", listed[1]):
        raise InputError(
            f"Line {number} names {listed[1].strip()[:40]!r}, but pictures are for a `scene` and voices for `speak`: "
            f"leave the brackets out, or write {EXAMPLES[SCENE]}."
        )
    line, begins = parse_line(number, written, clip)
    _check_prompt(number, line.kind, line.prompt)
    options = read_options(number, line.kind, braces or "")
    return FilmLine(number, line.kind, line.seconds, line.prompt, options=options), begins, line.automatic


def _between(rest: str) -> str:
    """What joins an order to what follows its braces."""
    return "" if rest.lstrip().startswith(":") else " "


def _check_prompt(number: int, kind: str, prompt: str) -> None:
    misplaced = _OPTIONS.search(plain(prompt))
    if misplaced:
        raise InputError(
            f"Line {number} has {misplaced[0][:60]} inside of its prompt: write it before the colon, such as "
            f"`{kind} {misplaced[0][:60]}: ...`."
        )
    order = is_misplaced(prompt)
    if order and kind != CONTINUE:
        raise InputError(
            f"Line {number} holds {order!r} inside of its prompt: give each shot a line of its own, its length first."
        )
    check_held(number, prompt)
