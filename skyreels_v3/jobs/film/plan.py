"""What a film will be, and what of it is still to be made: to be read before anything starts. Needs no torch."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from ..table import table
from .graph import Shot
from .order import loads, order
from .takes import ShotState

SHOWN = 50  # characters of a prompt
DONE, LOCKED, KEPT, PLANNED = "done", "locked", "locked, seam", "to make"


@dataclass(frozen=True)
class FilmPlan:
    """width, height: pixels.  rate: frames a second of the film.  frames: of each shot, at that rate.

    states: where each shot stands before the run.
    """

    width: int
    height: int
    rate: Fraction
    shots: tuple[Shot, ...]
    frames: tuple[int, ...]
    states: tuple[ShotState, ...]

    @cached_property
    def to_make(self) -> tuple[int, ...]:
        """Places of the shots that are made, in the order in which they are."""
        return tuple(order(self.shots, [place for place in range(len(self.shots)) if waits(self.states[place])]))

    @property
    def loads(self) -> int:
        """How often a model is loaded."""
        return loads(self.shots, self.to_make)

    def describe(self) -> str:
        """The film as a table, and the order in which what is missing of it is made."""
        total = sum(self.frames)
        head = (
            f"{self.width} x {self.height} pixels, {len(self.shots)} shots, {total} frames "
            f"({_seconds(total, self.rate)} s at {float(self.rate):.4g} a second)"
        )
        rows: list[tuple[Any, ...]] = [("line", "shot", "from s", "seconds", "made from", "takes", "state", "prompt")]
        start = 0
        for shot, frames, state in zip(self.shots, self.frames, self.states, strict=True):
            line = shot.line
            after = ", ".join(str(self.shots[need].line.number) for need in shot.needs)
            times = _seconds(start, self.rate), _seconds(frames, self.rate)
            said = line.prompt or line.file or "source"
            takes = len(line.options.numbers)
            rows.append((line.number, line.kind, *times, after, takes, state_word(shot, state), _shortened(said)))
            start += frames
        return "\n".join([head, *table(rows, text=True), self._to_come()])

    def _to_come(self) -> str:
        if not self.to_make:
            return "Nothing is to be made: all shots are there."
        lines = ", ".join(str(self.shots[place].line.number) for place in self.to_make)
        count, as_written = self.loads, loads(self.shots, sorted(self.to_make))
        less = f" instead of {as_written} as written" if as_written > count else ""
        return f"Made in this order: lines {lines}; {count} load{'s' if count != 1 else ''} of a model{less}."


def waits(state: ShotState) -> bool:
    """Whether something of a shot is still to be made, as far as that can be said."""
    return bool(state.missing) or not state.made


def state_word(shot: Shot, state: ShotState) -> str:
    """Where a shot stands, in a word or two."""
    if waits(state):
        return PLANNED
    if state.kept:
        return KEPT
    return LOCKED if shot.line.options.lock else DONE


def _seconds(frames: int, rate: Fraction) -> str:
    return f"{float(frames / rate):.2f}".rstrip("0").rstrip(".")


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
