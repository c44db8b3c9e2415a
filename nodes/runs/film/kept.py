"""What a film's folder holds beside the windows: its takes, how they are shown, and what the film showed last."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from PIL import Image

from ....skyreels_v3.jobs.extension.roll import Tail
from ....skyreels_v3.jobs.film.graph import Shot
from ....skyreels_v3.jobs.film.takes import Shelf, ShotState, Shown, Take, score_of
from ....skyreels_v3.resume.folder import RunFolder

TAKE, PICTURE = "take-", "picture-"  # begin the parts of a finished take, and of how it is shown
MIDDLE = "middle"  # of a take's tensors, uint8 [H, W, 3]: by what it is shown, and measured
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


def keep_take(folder: RunFolder, key: str, tail: Tail, middle: torch.Tensor, info: Mapping[str, Any]) -> None:
    """Notes a take that is finished, and how it is shown. middle: uint8 [H, W, 3]."""
    name = f"{TAKE}{key}.safetensors"
    folder.put_tensors(name, {**tail.tensors(), MIDDLE: middle})
    folder.commit(f"{TAKE}{key}", [name], info)
    show(folder, key, middle)


def tail_of(folder: RunFolder, key: str) -> Tail:
    """The last frames of a finished take."""
    stored = folder.get_tensors(f"{TAKE}{key}.safetensors")
    return Tail(**{name: tensor.clone() for name, tensor in stored.items() if name != MIDDLE})


def middle_of(folder: RunFolder, key: str) -> torch.Tensor:
    """uint8 [H, W, 3] of a finished take's middle frame."""
    return folder.get_tensors(f"{TAKE}{key}.safetensors")[MIDDLE].clone()


def measure_late(
    folder: RunFolder,
    shots: Sequence[Shot],
    now: Sequence[ShotState],
    likeness: Callable[[int, torch.Tensor], Mapping[str, float]],
) -> bool:
    """Measures the likeness of finished takes that lie beside others and have none, and says whether there were any.

    likeness: (place of a shot, middle frame of a take) -> {"likeness": 0.9}, or nothing where it cannot be said.
    """
    found = False
    for place, (shot, state) in enumerate(zip(shots, now, strict=True)):
        if len(state.keys) < 2 or not all(now[need].made for need in shot.needs):
            continue
        for key in state.keys.values():
            part = f"{TAKE}{key}"
            if not folder.done(part) or "likeness" in folder.info(part).get("measures", {}):
                continue
            measured = likeness(place, middle_of(folder, key))
            if measured:
                info = folder.info(part)
                measures = {**info.get("measures", {}), **measured}
                folder.commit(
                    part, [f"{part}.safetensors"], {**info, "measures": measures, "score": score_of(measures)}
                )
                found = True
    return found


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
