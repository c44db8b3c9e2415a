"""What a film's folder holds beside the windows: its takes, how they are shown, and what the film showed last."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch
from PIL import Image

from ....skyreels_v3.jobs.film.takes import Shelf, ShotState, Shown, Take
from ....skyreels_v3.resume.folder import RunFolder

TAKE, PICTURE = "take-", "picture-"  # begin the parts of a finished take, and of how it is shown
SHOWN = "shown-"  # begins the part that notes what the film of a node showed last


def shelf_of(folder: RunFolder, node_id: str | None) -> Shelf:
    """The finished takes, and the film that this node finished last; failing that, any other node."""
    takes = {
        part.removeprefix(TAKE): Take(folder.info(part)["own"], folder.info(part)["score"])
        for part in folder.parts
        if part.startswith(TAKE)
    }
    notes = [part for part in folder.parts if part.startswith(SHOWN)]
    own = f"{SHOWN}{node_id}"
    last = [own] if own in notes else notes[-1:]  # a copy of the graph has other numbers
    return Shelf(takes, [Shown(**shot) for part in last for shot in folder.info(part)["film"]])


def note_film(folder: RunFolder, node_id: str | None, film: Sequence[Shown]) -> None:
    """Notes a film that is finished."""
    folder.commit(f"{SHOWN}{node_id}", [], {"film": [asdict(shot) for shot in film]})


def show(folder: RunFolder, key: str, picture: torch.Tensor) -> None:
    """Keeps a take's picture, uint8 [H, W, 3]."""
    path = folder.path(f"{TAKE}{key}.jpg")
    thumbnail = Image.fromarray(picture.numpy())
    thumbnail.thumbnail((320, 320))
    with folder.writing(path):
        thumbnail.save(path, quality=85)
    folder.commit(f"{PICTURE}{key}", [path.name])


def is_whole(folder: RunFolder, part: str) -> bool:
    """Whether nothing is missing of a part: a take without its windows is made again."""
    return not part.startswith(TAKE) or all(map(folder.done, folder.info(part)["windows"]))


def used_parts(folder: RunFolder, now: Sequence[ShotState]) -> Iterator[str]:
    """The parts that stay: all finished takes with their windows, and what there is of those to be made."""
    wanted = {key for state in now for key in state.keys.values()}
    for part in folder.parts:
        if part.startswith(TAKE):
            yield from (part, part.replace(TAKE, PICTURE), *folder.info(part)["windows"])
        elif part.startswith(SHOWN) or not wanted.isdisjoint(part.split("-")):
            yield part
