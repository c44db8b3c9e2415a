"""Which takes of a film's shots are made, which one each shot goes on with, and which are missing. Needs no torch.

A take's key follows from what its own line says and from the keys of the takes it is made from, and from nothing else:
a changed line has another key, and so have those that are made from it, while all others find what they had.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from ...digest import digest
from .graph import Shot


@dataclass(frozen=True)
class Take:
    """A finished one. own: key of what its line says alone.  score: by which the best is chosen, the highest."""

    own: str
    score: float | None = None


@dataclass(frozen=True)
class Shown:
    """A shot of a finished film. said: key of what its line says alone, whatever takes it asks for.

    takes: their keys, by those of what the line says for each.
    """

    said: str
    takes: Mapping[str, str]


@dataclass(frozen=True)
class Shelf:
    """What there is of a film. takes: the finished ones by their keys, the oldest first.

    film: the shots that were in it when it was finished last, from which locked lines keep what they showed.
    """

    takes: dict[str, Take] = field(default_factory=dict)
    film: list[Shown] = field(default_factory=list)


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


Own = Callable[[int, int], str]  # (place of a shot, number of a take) -> key of all that its line decides


def states(shots: Sequence[Shot], own: Own, shelf: Shelf) -> tuple[ShotState, ...]:
    """Where each shot stands."""
    was = _was(shots, own, shelf.film)
    found: list[ShotState] = []
    for place, shot in enumerate(shots):
        options, keys, kept = shot.line.options, {}, set()
        needed = [found[need].chosen for need in shot.needs]
        for number in options.numbers:
            key = anew = None if None in needed else digest(own(place, number), list(needed))
            if options.lock:
                key = _locked(shots, place, number, anew, own, shelf, was)
            if key is not None:
                keys[number] = key
                kept |= {key} if key != anew else set()
        found.append(_state(shot, keys, kept, shelf))
    return tuple(found)


def shown_film(shots: Sequence[Shot], states: Sequence[ShotState], own: Own) -> list[Shown]:
    """Of a film that is finished, as `Shelf` has it."""
    return [
        Shown(own(place, 1), {own(place, number): key for number, key in state.keys.items()})
        for place, state in enumerate(states)
    ]


def _state(shot: Shot, keys: Mapping[int, str], kept: Collection[str], shelf: Shelf) -> ShotState:
    options = shot.line.options
    if len(keys) < len(options.numbers):
        return ShotState({}, None)
    missing = tuple(number for number, key in keys.items() if key not in shelf.takes)
    if options.shown is None:
        chosen = None if missing else max(keys.values(), key=lambda key: _score(shelf.takes[key]))
    else:
        chosen = keys[options.shown]
    return ShotState(keys, chosen, missing, chosen in shelf.takes, chosen in kept)


def _was(shots: Sequence[Shot], own: Own, film: Sequence[Shown]) -> dict[int, Shown | None]:
    """Which shots of the last film the locked ones were; None for another one of a line that was in it."""
    locked = [place for place, shot in enumerate(shots) if shot.line.options.lock]
    if not locked or not film:
        return {}
    then, now = [one.said for one in film], [own(place, 1) for place in range(len(shots))]
    was, found = _aligned(then, now), dict[int, Shown | None]()
    for place in locked:
        if place not in was and now[place] in then:
            free = [one for one, said in enumerate(then) if said == now[place] and one not in was.values()]
            was |= {place: free[0]} if free else {}
            found[place] = None
        if place in was:
            found[place] = film[was[place]]
    return found


def _aligned(then: Sequence[str], now: Sequence[str]) -> dict[int, int]:
    """Places in `now` -> in `then`. Lines that say the same are told apart by those around them: whatever was edited,
    what comes before and after it stays."""
    count = min(len(then), len(now))
    start = next((place for place in range(count) if then[place] != now[place]), count)
    end = next((back for back in range(count - start) if then[-1 - back] != now[-1 - back]), count - start)
    was = {place: place for place in range(start)}
    was |= {len(now) - back: len(then) - back for back in range(1, end + 1)}
    middle = then[start : len(then) - end], now[start : len(now) - end]
    for block in SequenceMatcher(None, *middle, autojunk=False).get_matching_blocks():
        was |= {start + block.b + step: start + block.a + step for step in range(block.size)}
    return was


def _locked(
    shots: Sequence[Shot],
    place: int,
    number: int,
    anew: str | None,
    own: Own,
    shelf: Shelf,
    was: Mapping[int, Shown | None],
) -> str | None:
    """The key of a locked line's take: the one that the last film showed, else what there is, else that of a new one.

    anew: of the one that the line comes to as it stands.
    """
    mine, shown = own(place, number), was.get(place)
    if shown is not None and shown.takes.get(mine) in shelf.takes:
        return shown.takes[mine]
    if anew is None or anew in shelf.takes or (place in was and shown is None):
        return anew
    same = [other for other, shot in enumerate(shots) if mine in [own(other, one) for one in shot.line.options.numbers]]
    made = [key for key, take in shelf.takes.items() if take.own == mine][-len(same) :]
    before = same.index(place)
    return made[before] if before < len(made) else anew


def score_of(measures: Mapping[str, float]) -> float | None:
    """By which the best take is chosen: likeness where that is known, else the seam; None where neither is."""
    if "likeness" in measures:
        return measures["likeness"]
    if "jump" in measures:
        return -(measures["jump"] + measures["colour"])
    return None


def _score(take: Take) -> float:
    return float("-inf") if take.score is None else take.score
