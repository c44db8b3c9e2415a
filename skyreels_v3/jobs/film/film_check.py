"""What an artist sees of a film's script while writing it: where each line runs, what is made of it, or is wrong."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..extension.script import MAX_SECONDS
from ..extension.script_check import MAX_TEXT
from .grammar.check import Known, missing, models_of
from .grammar.line import CLIP, FOOTAGE, FilmLine
from .grammar.script import read_film
from .outlook import MADE, PLANNED, LastRun, outlook


@dataclass(frozen=True)
class CheckedShot:
    """A line of a film's script. number: in the text, from 1; 0 for the footage that is connected.

    start, length: seconds; None where a recording or footage decides that is not known.  text: its prompt or file.
    models: inputs of the node that it needs.  locked: whether it says so.  take: that it shows, None for the best.
    state, was, missing: see `outlook.Foreseen`.  wrong: a sentence, or None where the line is right.
    """

    number: int
    kind: str = ""
    start: float | None = None
    length: float | None = None
    text: str = ""
    models: tuple[str, ...] = ()
    locked: bool = False
    take: int | None = 1
    state: str = PLANNED
    was: int | None = None
    missing: int = 1
    wrong: str | None = None


@dataclass(frozen=True)
class CheckedFilm:
    """A whole script. lines: in order, right and wrong ones.  problem: what stops the run though every line is right.

    to_make: how many shots a model makes in the next run.  loads: how often a model is loaded for them.
    """

    lines: tuple[CheckedShot, ...]
    problem: str | None = None
    to_make: int = 0
    loads: int = 0

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def check_film(
    text: str, known: Known, settings: Mapping[str, Any] | None = None, last: LastRun | None = None
) -> CheckedFilm:
    """What a run would make of a script; no text raises. settings: of the node, by the names of its inputs."""
    if len(text) > MAX_TEXT:
        return CheckedFilm((), f"The script has {len(text)} characters, but at most {MAX_TEXT} are read: shorten it.")
    lines, wrong = read_film(text)
    wrong = {**missing(lines, known), **wrong}
    right = [line for line in lines if line.number not in wrong]
    ahead = outlook(right, list(known.cast or ()), known.source, settings or {}, last or LastRun())
    checked = [CheckedShot(number, wrong=sentence) for number, sentence in wrong.items()]
    start: float | None = 0.0
    for line in [*([FilmLine(0, CLIP)] if known.source else []), *lines]:
        length, seen = _length(line, known), ahead.lines.get(line.number)
        if seen is not None:
            if line.seconds is None and seen.state in MADE and last is not None:
                length = last.seconds.get(seen.was)
            said = line.prompt or line.file, models_of(line, known), line.options.lock, line.options.shown
            checked.append(CheckedShot(line.number, line.kind, start, length, *said, **asdict(seen)))
        start = None if start is None or length is None else start + length
    made = sum(line.seconds or 0 for line in lines)
    problem = None
    if made > MAX_SECONDS:
        problem = f"The script makes {float(made):g} s in all, but at most {MAX_SECONDS} s are made in one film."
    checked.sort(key=lambda line: line.number)
    return CheckedFilm(tuple(checked), problem, ahead.to_make, ahead.loads)


def _length(line: FilmLine, known: Known) -> float | None:
    """Seconds of a shot, as far as they are known before it is made."""
    if line.seconds is not None:
        return float(line.seconds)
    if line.stop is not None:
        return float(line.stop - line.start)
    files = [line.file] if line.kind in FOOTAGE else [voice.file for voice in line.voices]
    found = [known.seconds(file) if known.seconds and file else None for file in files]
    lengths = [one for one in found if one is not None]
    if len(lengths) < len(found):
        return None
    total = max(lengths) if line.options.together else sum(lengths)
    return max(0.0, round(total - float(line.start), 2))
