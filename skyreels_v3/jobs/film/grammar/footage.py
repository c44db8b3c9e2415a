"""Lines of a film's script that show footage: as it is, or with another recording for somebody in it."""

import re
from fractions import Fraction

from ....errors import InputError
from ...extension.script import has_cut_tag
from ...extension.script_marks import plain, unwrapped
from ...extension.script_times import SPAN, span_times
from .head import read_head
from .line import CLIP, DUB, EXAMPLES, FilmLine, Options
from .options import read_options
from .voices import FILE, read_voices

CLOCK = re.compile(r"\d:(?=\d)")  # a colon within a time
# What only a file can be, and what may follow it: `Dub reggae plays. 3 people dance.` is a prompt.
_NAMED = re.compile(r"[^\[{:]*\.(?=\w*[^\W\d])\w{2,5}\s*(?:\s\d|[\[{:]|$)")


def read_clip(number: int, written: str, start: int) -> FilmLine | None:
    """A clip, None for a prompt that only begins with that word. start: behind the keyword."""
    text = plain(written)
    head = read_head(number, text, start, colon=False)
    words = head.words.rstrip(":").rstrip()
    file, span = _file(words)
    if head.references is not None:
        file, rest = head.references.strip().strip("\"'`"), file
        if rest.strip():
            return None
    if not file:
        raise InputError(f"Line {number} is a clip without a file: name it, as in {EXAMPLES[CLIP]}.")
    before, colon, _ = CLOCK.sub("0", words).partition(":")
    if colon and FILE.search(_file(before.strip())[0]):
        raise InputError(f"Line {number} is a clip, which has no prompt: leave out the colon and what is behind it.")
    if not span and not FILE.search(file) and head.options is None and head.references is None:
        return None
    options = read_options(number, CLIP, head.options or "")
    for word in ("seed", "steps", "guidance", "takes", "take", "lock"):
        if getattr(options, word) not in (None, False):
            raise InputError(f"Line {number} is a clip, of which nothing is made: leave out the option {word}.")
    begin, stop = _times(number, CLIP, span)
    return FilmLine(number, CLIP, file=file, start=begin, stop=stop, options=Options(name=options.name))


def read_dub(number: int, written: str, start: int) -> FilmLine | None:
    """A dub, None for a prompt that only begins with that word. start: behind the keyword."""
    text = plain(written)
    opened = min((place for place in (text.find("[", start), text.find("{", start)) if place >= 0), default=len(text))
    words = text[start:opened].strip()
    is_prompt = ":" in CLOCK.sub("", words)  # what stands in brackets behind a colon is the prompt's
    head = read_head(number, text, start if is_prompt else opened)
    if head.references is None:
        if _NAMED.match(text[start:]):
            raise InputError(f"Line {number} is a dub without a voice: name it, as in {EXAMPLES[DUB]}.")
        return None
    if has_cut_tag(f"[{head.references}]"):
        return None
    if head.twice:
        raise InputError(f"Line {number} has two brackets of one kind: write all of them in one, with commas between.")
    file, span = _file(words)
    if not file:
        raise InputError(f"Line {number} is a dub without footage: name its file, as in {EXAMPLES[DUB]}.")
    if head.words:
        raise InputError(
            f"Line {number} has {head.words[:40]!r} behind its voice: times stand behind the file, and a prompt behind "
            f"a colon, as in {EXAMPLES[DUB][:-1]}: Anna talks.`."
        )
    voices = read_voices(number, DUB, [item.strip() for item in re.split("[,;、]", head.references) if item.strip()])
    begin, stop = _times(number, DUB, span)
    prompt = "" if head.prompt is None else unwrapped(written[head.prompt :])
    options = read_options(number, DUB, head.options or "")
    return FilmLine(number, DUB, None, prompt, voices=voices, file=file, start=begin, stop=stop, options=options)


def _file(words: str) -> tuple[str, re.Match | None]:
    """The file, and the times behind it."""
    span = SPAN.search(words)
    return (words[: span.start()] if span else words).strip().strip("\"'`"), span


def _times(number: int, kind: str, span: re.Match | None) -> tuple[Fraction, Fraction | None]:
    """From when to when. Raises InputError where the second time is not the later one."""
    try:
        return span_times(span)
    except ValueError as error:
        said = span[0].strip() if span else ""
        raise InputError(
            f"Line {number} shows {said!r} of its file, but the second time must be the later one, by a frame at "
            f"least: write it as in {EXAMPLES[kind]}."
        ) from error
