"""Files of ComfyUI's folder input, by the names that a saved prompt or a table gives them. Runs on a bare Python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .python import PACK

FOLDER = "input"


def input_file(name: str, near: Path) -> Path | None:
    """The file, in the folder beside that of results which `near` lies in, or of the ComfyUI that has this pack.

    name: with its folders inside of input; of an upload, maybe with ` [input]` behind.
    """
    name = name.removesuffix(f" [{FOLDER}]").replace("\\", "/")
    found = (folder / name for folder in _folders(near) if ".." not in Path(name).parts)
    return next((path for path in found if path.is_file()), None)


def _folders(near: Path) -> Iterable[Path]:
    for folder in near.resolve().parents:
        if folder.name == "output":
            yield folder.parent / FOLDER
    yield PACK.parent.parent / FOLDER
