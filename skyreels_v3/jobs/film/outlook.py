"""What a run would make of a script that has been edited since the last run, before it runs.

Only what the page knows counts: the script and the node's own settings. Whether pictures, recordings or models are
others than before is seen when it runs.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ...digest import digest
from ..extension.script import CONTINUE, CUT
from .grammar.line import CLIP, DUB, FilmLine, same_name
from .grammar.script import read_film
from .graph import Shot, shots_of, shown_shot
from .look import Look, take_settings
from .order import loads, order
from .plan import waits
from .takes import Shelf, ShotState, Shown, Take, score_of, states

PLANNED, DONE, LOCKED, KEPT = "planned", "done", "locked", "kept"
CHANGED, STALE, MORE = "changed", "stale", "more"
MADE = (DONE, LOCKED, KEPT, MORE)  # the film shows what the last run made
SHARED = ("resolution", "width", "height", "rate", "codec")  # of all shots: another one makes another film


@dataclass(frozen=True)
class LastRun:
    """What the last run was asked for, and came to.

    settings: by the names of the node's inputs.  chosen: of each line, by its number, the take that the film shows.
    scores: of each line, by its number, those of its takes, by which the best is chosen; None for those without.
    kept: numbers of locked lines that were made from other frames than those that were before them.  seconds: of each
    shot.
    """

    script: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[int, int] = field(default_factory=dict)
    scores: Mapping[int, Mapping[int, float | None]] = field(default_factory=dict)
    kept: Collection[int] = ()
    seconds: Mapping[int | None, float] = field(default_factory=dict)

    @classmethod
    def read(cls, asked: Mapping[str, Any]) -> "LastRun":
        """Of JSON: {"script", "settings", "shots": cards of the run}. Raises one of Python's own errors for another."""
        shots = asked["shots"]
        chosen = {int(shot["number"]): int(take["take"]) for shot in shots for take in shot["takes"] if take["chosen"]}
        return cls(
            str(asked["script"]),
            dict(asked["settings"]),
            {**{int(shot["number"]): 1 for shot in shots}, **chosen},
            {
                int(shot["number"]): {int(one["take"]): score_of(one.get("measures", {})) for one in shot["takes"]}
                for shot in shots
            },
            {int(shot["number"]) for shot in shots if shot["state"] == KEPT},
            {int(shot["number"]): float(shot["seconds"]) for shot in shots},
        )


@dataclass(frozen=True)
class Foreseen:
    """state: one of the words above.  was: number of the line of the last run whose picture is the nearest to it.

    missing: how many takes are to be made.
    """

    state: str
    was: int | None = None
    missing: int = 0


@dataclass(frozen=True)
class Outlook:
    """lines: by their numbers.  to_make: how many shots.  loads: how often a model is loaded for them."""

    lines: Mapping[int, Foreseen]
    to_make: int
    loads: int


def outlook(
    lines: Sequence[FilmLine], cast: Collection[str], source: bool, settings: Mapping[str, Any], last: LastRun
) -> Outlook:
    """lines: right ones of the script as it stands.  cast: names of pictures.  source: whether footage is connected.

    settings: as the node has them now.
    """
    shots = shots_of(_with_source(lines, source), cast)
    own, shelf = _own(shots, settings), _shelf(last, cast)
    known, foreseen = {take.own for take in shelf.takes.values()}, {}
    found = states(shots, own, shelf)
    for place, (shot, state) in enumerate(zip(shots, found, strict=True)):
        mine = {number: own(place, number) for number in shot.line.options.numbers}
        shown = [mine[shot.line.options.shown]] if shot.line.options.shown else list(mine.values())
        was = shelf.was(state, mine.values())
        foreseen[shot.line.number] = _foreseen(shot.line, state, known.issuperset(shown), was)
    _guess(foreseen, last)
    to_make = [place for place, state in enumerate(found) if shots[place].job is not None and waits(state)]
    return Outlook(foreseen, len(to_make), loads(shots, order(shots, to_make)))


@dataclass(frozen=True)
class _Shelf(Shelf):
    """What the last run left. numbers: of the lines that the takes are of, by their keys."""

    numbers: dict[str, int] = field(default_factory=dict)

    def was(self, state: ShotState, own: Collection[str]) -> int | None:
        """Which line a shot was; failing that, one that said the same."""
        if state.chosen in self.numbers:
            return self.numbers[state.chosen]
        return next((self.numbers[key] for key, take in self.takes.items() if take.own in own), None)


def _shelf(last: LastRun, cast: Collection[str]) -> _Shelf:
    """As if the last run had begun with nothing: keys of real takes follow from models and pictures besides."""
    shots = shots_of(_with_source(read_film(last.script)[0], 0 in last.chosen), cast)
    own, shelf, found = _own(shots, last.settings), _Shelf(), []
    for place, shot in enumerate(shots):
        number = shot.line.number
        if number not in last.chosen:
            return shelf
        chosen, needed = last.chosen[number], [found[need] for need in shot.needs]
        shown = {take: digest(own(place, take), needed) for take in {chosen, *shot.line.options.numbers}}
        if number in last.kept:  # made from frames that are unknown here
            shown[chosen] = digest("kept", own(place, chosen), place)
        for take, key in shown.items():
            score = last.scores.get(number, {}).get(take, float(take == chosen))
            shelf.takes.setdefault(key, Take(own(place, take), score))
            shelf.numbers.setdefault(key, number)
        shelf.film.append(Shown(own(place, 1), {own(place, take): key for take, key in shown.items()}))
        found.append(shown[chosen])
    return shelf


def _with_source(lines: Sequence[FilmLine], source: bool) -> list[FilmLine]:
    return [*([FilmLine(0, CLIP)] if source else []), *lines]


def _own(shots: Sequence[Shot], settings: Mapping[str, Any]) -> Callable[[int, int], str]:
    """What a line decides for a take, as far as it is known here."""
    look = Look(
        0,
        0,
        int(settings.get("seed") or 0),
        int(settings.get("steps") or 0) or None,
        float(settings.get("shift") or 0) or None,
        float(settings.get("guidance") or 1),
        str(settings.get("negative") or ""),
        float(settings.get("colour_anchor") or 0),
        "",
    )
    shared = {name: settings.get(name) for name in SHARED}
    if shared["resolution"] != "custom":
        shared |= {"width": None, "height": None}
    all_shots = digest(shared)

    @cache
    def own(place: int, number: int) -> str:
        line = shots[place].line
        if line.job is None:
            given = settings.get("frame_rate") if line.number == 0 else None
            return digest(all_shots, settings.get("fit"), given, same_name(line.file), line.start, line.stop)
        known = [(name, shown_shot(shots, place, name)) for name in line.references]
        # Shots by their places among those that it is made from: another name makes nothing anew.
        named = [same_name(name) if shot is None else shots[place].needs.index(shot) for name, shot in known]
        voices = [(same_name(voice.name or ""), same_name(voice.file or "")) for voice in line.voices]
        said = line.kind, line.prompt, line.seconds, named, voices, line.options.together
        if line.kind == DUB:
            where = line.options.box, line.options.strength, line.options.start
            said = *said, same_name(line.file), line.start, line.stop, *where, settings.get("fit")
        anchor = look.colour_anchor if line.kind in (CONTINUE, CUT) else None
        return digest(all_shots, said, take_settings(look, line, number), anchor)

    return own


def _foreseen(line: FilmLine, state: ShotState, said_before: bool, was: int | None) -> Foreseen:
    missing = len(state.missing) or int(waits(state))
    if state.made:
        word = MORE if missing else KEPT if state.kept else LOCKED if line.options.lock else DONE
    else:
        word = STALE if said_before else PLANNED if was is None else CHANGED
    return Foreseen(word, was, missing)


def _guess(foreseen: dict[int, Foreseen], last: LastRun) -> None:
    """A line that says something new is the changed one that had its number, unless that one is elsewhere now."""
    taken = {one.was for one in foreseen.values()}
    for number, one in foreseen.items():
        if one.state == PLANNED and number in last.chosen and number not in taken:
            foreseen[number] = Foreseen(CHANGED, number, one.missing)
