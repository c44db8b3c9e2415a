"""What an artist sees of a script while writing it: from when to when each line runs, or what is wrong with it."""

from dataclasses import asdict, dataclass
from itertools import groupby

from ...errors import InputError
from .plan import FPS, LONGEST_PREFIX, PlanSource, plan_extension
from .script import parse_script, read_lines

# A clip long enough that nothing is said about it; sizes and the clip itself are not known before a run.
ANY_SOURCE = PlanSource(width=1280, height=720, frames=LONGEST_PREFIX)
MAX_TEXT = 100_000  # characters: ten minutes of lines of one frame, each with a prompt


@dataclass(frozen=True)
class CheckedLine:
    """A line of a script. number: in the text, from 1.  wrong: a sentence, or None where the line is right.

    kind: "continue" or "cut".  start, stop: seconds of the new video.  rolls: runs of the sampler.
    """

    number: int
    kind: str = ""
    start: float = 0.0
    stop: float = 0.0
    rolls: int = 0
    wrong: str | None = None


@dataclass(frozen=True)
class CheckedScript:
    """A whole script. lines: in order, right and wrong ones; the times are those of the right ones alone.

    problem: what stops the job though every line is right.  notes: what an artist should know, one sentence each.
    """

    lines: tuple[CheckedLine, ...]
    problem: str | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def check_script(
    text: str, official: bool = False, has_model: bool = True, has_shot_model: bool = True
) -> CheckedScript:
    """What a run would make of a script; never raises. The options are those of `plan_extension`."""
    if len(text) > MAX_TEXT:
        return CheckedScript((), f"The script has {len(text)} characters, but at most {MAX_TEXT} are read: shorten it.")
    lines, wrong = read_lines(text)
    checked = [CheckedLine(number, wrong=sentence) for number, sentence in wrong.items()]
    notes, problem = (), None
    if lines:
        plan = plan_extension(lines, ANY_SOURCE, official=official)
        notes, start = plan.notes, 0
        for index, group in groupby(plan.rolls, key=lambda roll: roll.line):
            rolls = list(group)
            stop = start + sum(roll.new_frames for roll in rolls)
            line = lines[index]
            checked.append(CheckedLine(line.number, line.kind, start / FPS, stop / FPS, len(rolls)))
            start = stop
    if not wrong:
        try:
            plan_extension(
                parse_script(text), ANY_SOURCE, has_model=has_model, has_shot_model=has_shot_model, official=official
            )
        except InputError as error:
            problem = str(error)
    return CheckedScript(tuple(sorted(checked, key=lambda line: line.number)), problem, notes)
