"""What an artist sees of a film's script while writing it: where each line runs, or what is wrong. Needs no torch."""

from dataclasses import asdict, dataclass

from ..extension.script import MAX_SECONDS
from ..extension.script_check import MAX_TEXT
from .check import Known, missing
from .graph import shots_of
from .line import FilmLine
from .order import loads, order
from .script import read_film


@dataclass(frozen=True)
class CheckedShot:
    """A line of a film's script. number: in the text, from 1.  wrong: a sentence, or None where the line is right.

    start, length: seconds; None where a recording or whole footage decides.  takes: that are made.
    """

    number: int
    kind: str = ""
    start: float | None = None
    length: float | None = None
    takes: int = 1
    locked: bool = False
    wrong: str | None = None


@dataclass(frozen=True)
class CheckedFilm:
    """A whole script. lines: in order, right and wrong ones.  problem: what stops the run though every line is right.

    loads: how often a model is loaded where nothing is made yet.
    """

    lines: tuple[CheckedShot, ...]
    problem: str | None = None
    loads: int = 0

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def check_film(text: str, known: Known) -> CheckedFilm:
    """What a run would make of a script; never raises."""
    if len(text) > MAX_TEXT:
        return CheckedFilm((), f"The script has {len(text)} characters, but at most {MAX_TEXT} are read: shorten it.")
    lines, wrong = read_film(text)
    wrong = {**missing(lines, known), **wrong}
    checked = [CheckedShot(number, wrong=sentence) for number, sentence in wrong.items()]
    start = None if known.source else 0.0
    for line in lines:
        length = _length(line)
        if line.number not in wrong:
            options = line.options
            checked.append(CheckedShot(line.number, line.kind, start, length, len(options.numbers), options.lock))
        start = None if start is None or length is None else start + length
    made = sum(line.seconds or 0 for line in lines)
    problem = None
    if made > MAX_SECONDS:
        problem = f"The script makes {float(made):g} s in all, but at most {MAX_SECONDS} s are made in one film."
    count = 0
    if not wrong:
        shots = shots_of(lines, list(known.cast or ()))
        count = loads(shots, order(shots, range(len(shots))))
    return CheckedFilm(tuple(sorted(checked, key=lambda line: line.number)), problem, count)


def _length(line: FilmLine) -> float | None:
    if line.seconds is not None:
        return float(line.seconds)
    return None if line.stop is None else float(line.stop - line.start)
