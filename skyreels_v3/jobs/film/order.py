"""In which order the shots of a film are made: none before what it is made from, and each model loaded seldom.

`ready` is the seam for several devices: whatever it hands out can be made side by side. Needs no torch.
"""

from collections.abc import Collection, Sequence
from itertools import permutations

from ...recipes import Job
from .graph import Shot
from .takes import ShotState

# Which model goes first where several have something to do; of equally good ones the first: scenes, then what goes on.
PREFERENCES = tuple(permutations((Job.REFERENCE, Job.EXTENSION, Job.SHOT, Job.AVATAR)))


def ready(shots: Sequence[Shot], states: Sequence[ShotState]) -> list[int]:
    """Places of the shots that have takes to be made, and all that these are made from."""
    return [
        place
        for place, (shot, state) in enumerate(zip(shots, states, strict=True))
        if state.missing and all(states[need].made for need in shot.needs)
    ]


def order(shots: Sequence[Shot], to_make: Collection[int]) -> list[int]:
    """The places `to_make` in the order in which one device makes them: that with the fewest loads of models that is
    found by staying with a model for as long as it has something to do, or else as they are written."""
    found = [_by_preference(shots, to_make, preference) for preference in PREFERENCES]
    return min([*found, sorted(to_make)], key=lambda places: loads(shots, places))


def loads(shots: Sequence[Shot], places: Sequence[int]) -> int:
    """How often a model is loaded when shots are made in this order."""
    jobs = [shots[place].job for place in places if shots[place].job is not None]
    return sum(job is not before for job, before in zip(jobs, [None, *jobs], strict=False))


def _by_preference(shots: Sequence[Shot], to_make: Collection[int], preference: Sequence[Job]) -> list[int]:
    waits = {place: len([need for need in shots[place].needs if need in to_make]) for place in to_make}
    after: dict[int, list[int]] = {place: [] for place in to_make}
    for place in to_make:
        for need in shots[place].needs:
            if need in after:
                after[need].append(place)
    now, made, loaded = {place for place in to_make if not waits[place]}, [], None
    while now:
        jobs = {shots[place].job for place in now}
        if loaded not in jobs or loaded is None:
            loaded = None if None in jobs else next(job for job in preference if job in jobs)
        place = min(place for place in now if shots[place].job is loaded)
        now.remove(place)
        made.append(place)
        for later in after[place]:
            waits[later] -= 1
            if not waits[later]:
                now.add(later)
    return made
