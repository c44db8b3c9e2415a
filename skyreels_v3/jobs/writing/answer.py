"""What a language model answered becomes a script or one prompt.

What stands around the lines goes (thoughts, code fences, chatter), lengths are brought to what a shot may have, and
tags to those that the models know. What a line then still has wrong is told, and the line left out.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from fractions import Fraction

from ...errors import InputError
from ..extension.script import CONTINUE, CUT, CUT_SECONDS, MAX_SECONDS, has_cut_tag, parse_line
from ..extension.script_marks import lines_of, plain, read_marked, unwrapped, without_list_marks
from ..film.grammar.line import SCENE, FilmLine, Options, Voice
from ..film.grammar.script import parse_film_line
from .brief import EXAMPLES
from .cuts import with_tag_mended
from .data import lines_of_data

MAX_LETTERS = 1500  # of a prompt: about what the text encoder's 512 tokens hold of English
MAX_ANSWER = 200_000  # letters that are read
SHORTEST_REST = {CUT: CUT_SECONDS[0], CONTINUE: 1, SCENE: 1}  # seconds that a line is cut down to, at the least


class Kind(str, Enum):
    """What an answer is to become. The value is the name artists choose."""

    SCRIPT = "script"
    FILM = "film"
    PROMPT = "one prompt"


@dataclass(frozen=True)
class Answer:
    """text: the script or the prompt, "" where nothing of the answer can be used.  seconds: of a script's lines.

    told: a sentence for each thing that was changed or left out.
    """

    text: str
    told: tuple[str, ...] = ()
    seconds: float = 0.0


_THOUGHTS = [
    re.compile(r"<(think|thinking|thought|reasoning)>.*?(</\1>|$)", re.DOTALL | re.IGNORECASE),
    re.compile(r"<\|channel\|?>\s*(thought|analysis|commentary).*?(<channel\|>|<\|channel\|?>\s*final|$)", re.DOTALL),
]
_THOUGHT_ENDS = re.compile(r"^.*</(think|thinking|thought|reasoning)>", re.DOTALL | re.IGNORECASE)  # opened by the host
_MARKS = re.compile(
    r"<\|?[a-z_]{2,20}\|>|<\|[a-z_]{2,20}\|?>|</?(s|eos|bos|pad|(start|end)_of_turn|answer|script)>", re.I
)
_CHATTER = re.compile(
    r"((?:sure|certainly|of course|absolutely|okay|ok|great|alright|yes)\b(?=[,.!:]|\s*$)|"
    r"here(?:'s|’s| is| are) (?:your|the|a|an|my|some|\d)|below is|this is (?:the|your) (?:\w+ )?(?:prompt|script)|"
    r"i(?:'ve|’ve| have|'ll|’ll| will| hope|'m|’m)\b|let me|feel free|would you|do you|if you(?:'d| would| want| need)|"
    r"(?:please )?(?:note|notes|tip|explanation|reasoning|total|duration|word count|title)\b[^a-z]{0,3}[:(]|"
    r"(?:hope|enjoy) this|as an ai|好的|当然|以下是|这是|希望|注意[:：]|说明[:：])",
    re.IGNORECASE,
)
_ORDER = re.compile(r"[\[(]?\s*(continue|cut|scene|speak|clip|dub|继续|切|场景|说话|片段|配音)", re.IGNORECASE)
_HEADING = re.compile(r"(?:shot|scene|line|part|cut|镜头|场景)\s*#?\d+\s*[:.)-]*(?:[^:]{0,60}:)?$", re.IGNORECASE)
_NUMBER = re.compile(r"(?:shot|scene|line|part|镜头|场景)\s*#?\d+\s*[:.)|-]+[*_\s]*", re.IGNORECASE)
_FENCED = re.compile(r"^\s*(?:`{3,}|~{3,})[^\n]*\n(.*?)\n\s*(?:`{3,}|~{3,})\s*$", re.DOTALL | re.MULTILINE)
_LABEL = re.compile(
    r"(?:(?:final|video|your|the|improved|enhanced)\s+)*(?:prompt|answer|output|script|提示词)\s*:\s*", re.I
)
_JSON = re.compile(r"[{}]|\[\s*[{\"]|\]")
_COPIED = "Line {} is left out: it is the example of the brief."
_Read = tuple[FilmLine, bool]  # a line, and whether it is a prompt without an order
_SENTENCE = re.compile(r"[.!?。！？][\"'”’)]*(?=\s|$|[^\x00-\x7f])")


def read_answer(text: str, kind: Kind, most: float = MAX_SECONDS) -> Answer:
    """What of a language model's answer can be used; never raises. most: seconds of all lines together."""
    text = lines_of_data(without_thoughts(text[:MAX_ANSWER]))
    return _prompt(text) if kind is Kind.PROMPT else _script(text, kind, Fraction(str(most)))


def without_thoughts(text: str) -> str:
    """An answer without what its model thought aloud, and without the signs that end its turn."""
    for thoughts in _THOUGHTS:
        text = thoughts.sub("", text)
    return _MARKS.sub("", _THOUGHT_ENDS.sub("", text)).strip()


def _prompt(text: str) -> Answer:
    """One prompt: the answer's paragraphs, without orders, headings and labels before them."""
    kept, told = [], []
    fenced = _FENCED.search(text)
    for number, raw in enumerate(lines_of(fenced[1] if fenced else text), start=1):
        written = without_list_marks(raw.strip())
        line = unwrapped(_LABEL.sub("", written, count=1))
        if not line or raw.lstrip().startswith("#") or _is_chatter(line):
            continue
        try:
            read, _ = parse_line(number, _mended(line)[0], clip=True)
            line = line if read.automatic else read.prompt
        except InputError:
            pass  # it need not be a line of a script
        if _JSON.match(line):
            told.append(f"Line {number} is left out: it is JSON without a prompt.")
        elif _is_example(line):
            told.append(_COPIED.format(number))
        else:
            kept.append(line)
    prompt, shortened = _shortened(" ".join(kept))
    return Answer(prompt, (*told, *(["The prompt was longer than the model reads: its end is left out."] * shortened)))


@dataclass
class _Shot:
    """A line of the answer that begins with an order. line: None where it cannot be read, and why is in `wrong`."""

    number: int
    written: str
    last: int  # the line of the answer that its prompt ends on
    line: FilmLine | None = None
    wrong: str = ""


def _script(text: str, kind: Kind, most: Fraction) -> Answer:
    read = _film_line if kind is Kind.FILM else _line
    marked = read_marked(text)
    told: list[str] = []
    shots: list[_Shot] = []
    loose: list[tuple[int, str]] = []  # prompts without an order
    for number, written in marked.lines:
        if _HEADING.match(plain(written)):
            continue
        shot, automatic = _shot(read, number, written, told)
        if not (automatic or (shot.wrong and _is_chatter(written))):
            shots.append(shot)
        elif not (shots and _is_more(read, shots[-1], number, written, told)) and not _is_chatter(written):
            loose.append((number, written))
    if any(shot.line for shot in shots):
        told += [f"Line {number} is left out, it has no order: {_short(written)}" for number, written in loose]
    else:  # prose: each line is a shot that goes on
        outside = marked.outside if len(marked.outside) < len(marked.lines) else set()
        shots += [_shot(read, number, written, told)[0] for number, written in loose if number not in outside]
    told += [*marked.wrong.values(), *(shot.wrong for shot in shots if shot.wrong)]
    lines, seconds = _fitting([shot.line for shot in shots if shot.line], most, told)
    return Answer("\n".join(written_line(line) for line in lines), tuple(told), float(seconds))


def _shot(read: Callable[..., _Read], number: int, written: str, told: list[str]) -> tuple[_Shot, bool]:
    """A line of the answer as a shot, and whether it is a prompt without an order."""
    mended, lost = _mended(written)
    shot = _Shot(number, mended, number)
    try:
        line, automatic = _clipped(read, number, mended, told)
        prompt, tag = with_tag_mended(line.prompt)  # behind times, or a second one
        line, lost = replace(line, prompt=prompt), lost or tag
        if line.kind == CONTINUE and has_cut_tag(line.prompt):
            told.append(f"Line {number} went on with the tag of a cut: it is a cut now.")
            line, _ = _clipped(read, number, f"cut {_seconds(line.seconds)}s: {line.prompt}", told)
        prompt, shortened = _shortened(line.prompt)
        line = replace(line, prompt=prompt)
        read(number, written_line(line), False)
    except InputError as error:
        shot.wrong = str(error)
        return shot, False
    finally:
        if lost:
            told.append(f"Line {number} had the tag {lost}, which the models do not know: it is taken out.")
    if _is_example(line.prompt):
        shot.wrong = _COPIED.format(number)
        return shot, False
    if shortened:
        told.append(f"Line {number} was longer than the model reads: its end is left out.")
    shot.line = line
    return shot, automatic and not has_cut_tag(prompt)


def _mended(written: str) -> tuple[str, str | None]:
    """A line without the number of its shot before it, its tag mended; and a tag that was taken out."""
    label = _NUMBER.match(plain(written))
    return with_tag_mended(unwrapped(written[label.end() :]) if label else written)


def _clipped(read: Callable[..., _Read], number: int, written: str, told: list[str]) -> _Read:
    """A line, its length brought to what its kind may have. Raises InputError."""
    try:
        return read(number, written, False)
    except InputError:
        line, automatic = read(number, written, True)
    told.append(f"Line {number} is {_seconds(line.seconds)} s long now, the nearest that a {line.kind} may be.")
    return line, automatic


def _is_more(read: Callable[..., _Read], shot: _Shot, number: int, written: str, told: list[str]) -> bool:
    """Whether a line without an order is more of the prompt above it, which then has it."""
    if _is_chatter(written) or (shot.line and number != shot.last + 1):
        return False
    longer, _ = _shot(read, shot.number, f"{shot.written} {written}", [] if shot.line else told)
    if longer.line is None:
        return False
    shot.written, shot.line, shot.wrong, shot.last = longer.written, longer.line, "", number
    return True


def _line(number: int, written: str, clip: bool) -> _Read:
    kind = _film_kind(number, written)
    if kind not in (CONTINUE, CUT):
        raise InputError(f"Line {number} is a {kind}, which Film alone makes: set kind to {Kind.FILM.value}.")
    line, begins = parse_line(number, written, clip)
    return FilmLine(number, line.kind, line.seconds, line.prompt), line.automatic and begins is None


def _film_kind(number: int, written: str) -> str:
    """What a line would be in a film."""
    try:
        return parse_film_line(number, written, True)[0].kind
    except InputError:
        return CONTINUE


def _film_line(number: int, written: str, clip: bool) -> _Read:
    line, begins, automatic = parse_film_line(number, written, clip)
    return line, automatic and begins is None


def _fitting(lines: list[FilmLine], most: Fraction, told: list[str]) -> tuple[list[FilmLine], Fraction]:
    """The lines that fit into `most` seconds, the last of them shortened, and their seconds."""
    kept, total = [], Fraction(0)
    for line in lines:
        if line.seconds is not None and total + line.seconds > most:
            rest = most - total
            if rest < SHORTEST_REST.get(line.kind, 0):
                told.append(f"Line {line.number} and those behind it are left out: {float(most):g} s are full.")
                break
            line = replace(line, seconds=rest)
            told.append(
                f"Line {line.number} is shortened to {float(rest):g} s: together they may be {float(most):g} s."
            )
        kept.append(line)
        total += line.seconds or 0
    return kept, total


def written_line(line: FilmLine) -> str:
    """A line as the script has it."""
    stop = "" if line.stop is None else f"{_seconds(line.stop)}s"
    footage = [line.file] * bool(line.file) + [f"{_seconds(line.start)}s-{stop}"] * bool(line.start or stop)
    named = line.references or tuple(_voice(voice) for voice in line.voices)
    values = {field.name: getattr(line.options, field.name) for field in fields(Options)}
    written = {word: value for word, value in values.items() if value is not None and value is not False}
    options = [word if value is True else f"{word} {_written(value)}" for word, value in written.items()]
    head = [line.kind, *footage, *([f"{_seconds(line.seconds)}s"] if line.seconds is not None else [])]
    head += [f"[{', '.join(named)}]"] * bool(named) + [f"{{{', '.join(options)}}}"] * bool(options)
    return f"{' '.join(head)}: {line.prompt}" if line.prompt else " ".join(head)


def _written(value: object) -> str:
    return _seconds(value) if isinstance(value, Fraction) else f"{value}"


def _seconds(seconds: Fraction | None) -> str:
    return f"{float(seconds or 0):.12g}"


def _voice(voice: Voice) -> str:
    return ": ".join(part for part in (voice.name, voice.file) if part)


def _is_chatter(line: str) -> bool:
    """Whether a line speaks to the artist, not of the video."""
    text = plain(line)
    return bool(_CHATTER.match(text)) or (text.endswith(":") and not _ORDER.match(text))


def _is_example(prompt: str) -> bool:
    """Whether a prompt is an example that a language model gave back."""
    same = _words(prompt)
    return len(same) > 40 and any(same.endswith(_words(example)) or same in _words(example) for example in EXAMPLES)


def _words(text: str) -> str:
    return re.sub(r"\W+", " ", text).lower().strip()


def _short(written: str) -> str:
    return written if len(written) <= 60 else f"{written[:57]}..."


def _shortened(prompt: str) -> tuple[str, bool]:
    """A prompt of at most MAX_LETTERS, which ends with a sentence where one ends in its second half."""
    prompt = " ".join(prompt.split())
    if len(prompt) <= MAX_LETTERS:
        return prompt, False
    cut = prompt[:MAX_LETTERS]
    ends = [found.end() for found in _SENTENCE.finditer(cut) if found.end() > MAX_LETTERS // 2]
    return (cut[: ends[-1]] if ends else cut.rpartition(" ")[0] or cut).strip(), True
