"""Who speaks when: the turns of a dialogue."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..recipes import AT_ONCE
from .recording import FPS


@dataclass(frozen=True)
class Turn:
    """What one or more people say. people: their numbers from 0.  start, stop: seconds.  line: of the script."""

    people: tuple[int, ...]
    start: float
    stop: float
    line: int


def check_turns(turns: Sequence[Turn], names: Sequence[str]) -> None:
    """Raises InputError where more people speak at once than the model drives, or one person speaks twice at once."""
    for turn in sorted(turns, key=lambda one: one.line):
        with_it = [one for one in turns if one is not turn and _overlap(one, turn)]
        for other in with_it:
            twice = sorted(set(other.people) & set(turn.people))
            if twice and other.line < turn.line:
                raise InputError(
                    f"Line {turn.line} has {names[twice[0]]} speak before line {other.line} ends, which is theirs too: "
                    "let it begin later."
                )
        there = [one for one in with_it if (one.start, one.line) < (turn.start, turn.line)]  # when this one begins
        meets = sorted({person for one in there for person in one.people} - set(turn.people))
        if len(meets) + len(turn.people) > AT_ONCE:
            told, others = (_listed([names[person] for person in people]) for people in (turn.people, meets))
            raise InputError(
                f"Line {turn.line} has {told} speak while {others} do, but the model "
                f"drives {AT_ONCE} people at once: let it begin later, or leave one of them out."
            )


def spoken(turns: Sequence[Turn], people: int, frames: int) -> torch.Tensor:
    """How much of each frame of video each of the people speaks in, from 0 to 1: float32 [frames, people]."""
    begins = torch.arange(frames, dtype=torch.float64) / FPS
    made = torch.zeros(frames, people)
    for turn in turns:
        inside = (begins + 1 / FPS).clamp(max=turn.stop) - begins.clamp(min=turn.start)
        for person in turn.people:
            made[:, person] += (inside.clamp(min=0) * FPS).float()
    return made.clamp(max=1)


def speakers_in(turns: Sequence[Turn], start: float, stop: float) -> list[int]:
    """The people who say something between two times in seconds, in the order of their numbers."""
    return sorted({person for one in turns if one.start < stop and one.stop > start for person in one.people})


def _overlap(one: Turn, other: Turn) -> bool:
    """By more than a sample or two: each recording has its own rate."""
    return min(one.stop, other.stop) - max(one.start, other.start) > 1e-3


def _listed(names: Sequence[str]) -> str:
    """anna, ben and carl."""
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last
