"""Who and what a frame shows, read from its pixels alone: what generated videos are judged by.

Right on true frames of 96 x 64 with blur and noise (training/tests/test_training_measures.py); larger frames are looked
at in the same way.
"""

from dataclasses import dataclass

import numpy as np

from .surroundings import place_of
from .templates import Found, find

ASIDE = 0.2  # heads nearer to each other, in the picture's height at zoom 1, are one
# Where an object's middle is, from the middle of a head: left, top, right, bottom in world units, y down.
IN_HAND, LEFT_OF, RIGHT_OF = (0.12, -0.15, 0.48, 0.45), (-0.66, 0.15, -0.2, 0.75), (0.2, 0.15, 0.66, 0.75)
THING_ZOOM = (0.93, 1.09)  # of the head's: what a hand holds stands where its owner stands


@dataclass(frozen=True)
class Sight:
    """characters: best fit first.  thing: the object that fits best beside the first of them, or None.

    place, time: of day. What fits best is named even where nothing is there: its error says how well.
    """

    characters: tuple[Found, ...]
    thing: Found | None
    place: str
    time: str


def look_at(frame: np.ndarray, people: int = 1) -> Sight:
    """Everything at once. frame: uint8 [H, W, 3].  people: how many characters are looked for."""
    seen = characters(frame, people)
    things = objects(frame, seen[0] if seen else None)
    place, time, _ = place_of(frame)
    return Sight(tuple(seen), things[0] if things else None, place, time)


def characters(frame: np.ndarray, people: int = 1) -> list[Found]:
    """The characters that fit best, one at a place."""
    kept: list[Found] = []
    ratio = frame.shape[1] / frame.shape[0]
    for found in find(frame, "head"):
        apart = [abs(found.x - other.x) * ratio > ASIDE * other.zoom for other in kept]
        if all(apart):
            kept.append(found)
        if len(kept) == people:
            break
    return kept


def objects(frame: np.ndarray, near: Found | None = None, names: tuple[str, ...] | None = None) -> list[Found]:
    """Every object, best fit first. near: a character; what it holds or stands beside is looked for.

    names: look for these alone.

    Without a character, or where it stands so that nothing beside it is in the frame, the whole frame is searched.
    """
    if near is None:
        return find(frame, "thing", names=names)
    across, down = near.zoom * frame.shape[0] / frame.shape[1], near.zoom
    boxes = [
        (near.x + left * across, near.y + top * down, near.x + right * across, near.y + bottom * down)
        for left, top, right, bottom in (IN_HAND, LEFT_OF, RIGHT_OF)
    ]
    zooms = tuple(share * near.zoom for share in THING_ZOOM)
    return find(frame, "thing", zooms, names, boxes) or find(frame, "thing", names=names)
