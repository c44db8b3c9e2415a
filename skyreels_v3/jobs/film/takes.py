"""Which takes of a film's shots are made, which one each shot goes on with, and which are missing. Needs no torch.

A take's key follows from what its own line says and from the keys of the takes it is made from, and from nothing else:
a changed line has another key, and so have those that are made from it, while all others find what they had.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...digest import digest
from .graph import Shot


@dataclass(frozen=True)
class Take:
    """A finished one. own: key of what its line says alone.  score: by which the best is chosen, the highest."""

    own: str
    score: float | None = None


@dataclass(frozen=True)
class ShotState:
    """Where a shot stands.

    keys: of its takes by their numbers; empty where it goes on from a best take that is not chosen yet.
    chosen: the key of the take that the film shows; None where it cannot be said yet.
    missing: numbers of the takes that are to be made.  made: whether the chosen one is there.
    kept: a locked take that was made from other frames than those that are before it now.
    """

    keys: Mapping[int, str]
    chosen: str | None
    missing: tuple[int, ...] = ()
    made: bool = False
    kept: bool = False


def states(shots: Sequence[Shot], own: Callable[[int, int], str], shelf: Mapping[str, Take]) -> tuple[ShotState, ...]:
    """Where each shot stands. own: (place of a shot, number of a take) -> key of all that its line decides.

    shelf: the finished takes by their keys, the oldest first.
    """
    found: list[ShotState] = []
    for place, shot in enumerate(shots):
        needed = [found[need].chosen for need in shot.needs]
        found.append(state_of(place, shot, needed, own, shelf))
    return tuple(found)


def state_of(
    place: int,
    shot: Shot,
    needed: Sequence[str | None],
    own: Callable[[int, int], str],
    shelf: Mapping[str, Take],
) -> ShotState:
    """Where the shot at `place` stands. needed: the chosen takes of the shots that it is made from.

    own, shelf: as in `states`.
    """
    options, keys, kept = shot.line.options, {}, set()
    for number in options.numbers:
        mine = own(place, number)
        key = None if None in needed else digest(mine, list(needed))
        if options.lock and key not in shelf:
            before = [one for one, take in shelf.items() if take.own == mine]
            if before:
                key = before[-1]
                kept.add(key)
        if key is not None:
            keys[number] = key
    if len(keys) < len(options.numbers):
        return ShotState({}, None)
    missing = tuple(number for number, key in keys.items() if key not in shelf)
    if options.shown is None:
        chosen = None if missing else max(keys.values(), key=lambda key: _score(shelf[key]))
    else:
        chosen = keys[options.shown]
    return ShotState(keys, chosen, missing, chosen in shelf, chosen in kept)


def _score(take: Take) -> float:
    return float("-inf") if take.score is None else take.score
