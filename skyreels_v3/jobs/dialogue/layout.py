"""When each line of a dialogue is heard, once its recordings are there."""

from collections.abc import Sequence

from ...errors import InputError
from ...speech.turns import Turn, check_turns
from .script import Dialogue, Pause, Said


def part_of(line: Said, seconds: float, what: str) -> tuple[float, float]:
    """From when to when of a recording of so many seconds a line takes. what: which one.

    Raises InputError for times beyond its end.
    """
    start, stop = float(line.start), seconds if line.stop is None else float(line.stop)
    if start >= seconds or stop > seconds + 0.05:  # times are written rounded
        raise InputError(
            f"Line {line.number} takes {start:g} to {stop:g} s of {what}, which is {seconds:.2f} s long: write times "
            "within it."
        )
    return start, min(stop, seconds)


def laid_out(dialogue: Dialogue, seconds: Sequence[float]) -> tuple[list[Turn], float]:
    """The turns in order, and how long all is in seconds. seconds: of what each line that speaks takes.

    Raises InputError where one begins before the dialogue does, and for what `check_turns` refuses.
    """
    numbers = {name: number for number, name in enumerate(dialogue.names)}
    lengths, turns, end, pause = iter(seconds), [], 0.0, 0.0
    for line in dialogue.lines:
        if isinstance(line, Pause):
            pause += float(line.seconds)
            continue
        start = end + pause
        if start < 0:
            raise InputError(
                f"Line {line.number} begins {-start:.2f} s before the dialogue does: make the pause before it shorter."
            )
        turns.append(Turn(tuple(numbers[name] for name in line.names), start, start + next(lengths), line.number))
        end, pause = max(end, turns[-1].stop), 0.0
    check_turns(turns, dialogue.names)
    return turns, end + max(0.0, pause)


def timed(dialogue: Dialogue, seconds: float) -> list[Turn]:
    """The turns of lines that are times of one recording of so many seconds. Raises InputError as `laid_out` does."""
    numbers = {name: number for number, name in enumerate(dialogue.names)}
    turns = [
        Turn(tuple(numbers[name] for name in line.names), *part_of(line, seconds, "the recording"), line.number)
        for line in dialogue.said
    ]
    check_turns(turns, dialogue.names)
    return turns
