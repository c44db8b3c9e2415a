"""Who and what a frame shows, read from its pixels alone: what generated videos are judged by.

Right on true frames of 96 x 64 with blur and noise (tests/test_training_measures.py); larger frames are looked at in
the same way.
"""

from dataclasses import dataclass

import numpy as np

from .surroundings import place_of
from .templates import Found, find

ASIDE = 0.2  # heads nearer to each other, in the picture's height at zoom 1, are one
THING_REACH = 0.66  # how far from a head's middle the object next to it may be, world units
THING_ZOOM = (0.93, 1.09)  # of the head's: what a hand holds stands where its owner stands
FITS = {"head": 0.2, "thing": 0.21}  # errors above it: nothing is there


@dataclass(frozen=True)
class Sight:
    """characters: best fit first.  thing: the object nearest to the first of them, or None.  place, time: of day."""

    characters: tuple[Found, ...]
    thing: Found | None
    place: str
    time: str


def look_at(frame: np.ndarray, people: int = 1) -> Sight:
    """Everything at once. frame: uint8 [H, W, 3].  people: how many characters are looked for."""
    seen = characters(frame, people)
    things = objects(frame, seen[0] if seen else None)
    place, time, _ = place_of(frame)
    return Sight(tuple(seen), things[0] if things and things[0].error < FITS["thing"] else None, place, time)


def characters(frame: np.ndarray, people: int = 1, any_error: bool = False) -> list[Found]:
    """The characters that fit best, one at a place. any_error: also where the fit is poor."""
    kept: list[Found] = []
    ratio = frame.shape[1] / frame.shape[0]
    for found in find(frame, "head"):
        if found.error > FITS["head"] and not any_error:
            break
        apart = [abs(found.x - other.x) * ratio > ASIDE * other.zoom for other in kept]
        if all(apart):
            kept.append(found)
        if len(kept) == people:
            break
    return kept


def objects(frame: np.ndarray, near: Found | None = None) -> list[Found]:
    """Every object, best fit first. near: a character; only what it can hold or stand beside is looked at."""
    if near is None:
        return find(frame, "thing")
    ratio = frame.shape[1] / frame.shape[0]
    low, high = (share * near.zoom for share in THING_ZOOM)
    found = find(frame, "thing", (low, high)) or find(frame, "thing", (0.8 * low, 1.2 * high))
    return [
        one
        for one in found
        if abs(one.x - near.x) * ratio < THING_REACH * near.zoom and one.y > near.y - 0.25 * near.zoom
    ]
