"""The shots of a film and what each is made from: a graph, not a chain. Needs no torch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ...recipes import Job
from ..extension.script import CONTINUE, CUT
from .grammar.line import LAST, SPEAK, FilmLine, same_name


@dataclass(frozen=True)
class Shot:
    """A line and the shots, by their places in the film, without whose frames it cannot be made; all before it."""

    line: FilmLine
    needs: tuple[int, ...] = ()

    @property
    def job(self) -> Job | None:
        """Which model makes it; None for a clip."""
        return self.line.job


def shots_of(lines: Sequence[FilmLine], cast: Collection[str] = ()) -> tuple[Shot, ...]:
    """The graph of a film whose lines `check.missing` finds nothing missing for. cast: names of pictures.

    A continue, a cut and a speak go on from the shot before; a scene depends on the shots that its references show.
    """
    pictures = {same_name(name) for name in cast}
    named: dict[str, int] = {}
    shots = []
    for place, line in enumerate(lines):
        needs = {place - 1} if line.kind in (CONTINUE, CUT, SPEAK) and place else set[int]()
        for name in map(same_name, line.references):
            if name == LAST and place:
                needs.add(place - 1)
            elif name in named and name not in pictures:
                needs.add(named[name])
        shots.append(Shot(line, tuple(sorted(needs))))
        if line.options.name:
            named[same_name(line.options.name)] = place
    return tuple(shots)


def shown_shot(shots: Sequence[Shot], place: int, reference: str) -> int | None:
    """Which shot's last frame a reference of the scene at `place` shows; None for a picture."""
    if same_name(reference) == LAST:
        return place - 1 if place else None
    names = {same_name(shot.line.options.name or ""): number for number, shot in enumerate(shots[:place])}
    found = names.get(same_name(reference))
    return found if found in shots[place].needs else None
