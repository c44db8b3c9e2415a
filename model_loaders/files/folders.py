"""What Load Model lists: single files and folders with a transformer in shards, and the path behind a choice."""

import ntpath
import os
import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...skyreels_v3.errors import InputError
from .shards import SHARD, SUFFIXES, TRANSFORMER_FOLDERS, find_files

# Folders beside the transformer in Skywork's and other diffusers repositories, by a part of their name.
PARTS = (
    "vae",
    "text_encoder",
    "tokenizer",
    "image_encoder",
    "image_processor",
    "feature_extractor",
    "scheduler",
    "audio_encoder",
    "wav2vec",
    "roberta",
    "umt5",
)
GGUF = ".gguf"  # always one file: nobody splits a transformer of this size
MAX_FOLDERS = 10_000  # below one root


def gguf_files(roots: Iterable[str | Path]) -> list[str]:
    """The .gguf files below these folders, relative to them, with `/`, sorted: ComfyUI's own lists have none.

    As in those, links are followed. What is hidden is left out; a folder that cannot be read or is not there counts as
    empty. Below a root the search ends after 10,000 folders.
    """
    return sorted(
        {name for root in roots for name in files_below(str(root), GGUF)}, key=lambda name: (name.lower(), name)
    )


def files_below(root: str, endings: str | tuple[str, ...] = (*SUFFIXES, GGUF)) -> Iterator[str]:
    """The files below a folder with one of these endings, relative to it, as `gguf_files` finds them."""
    ways: dict[str, frozenset[str]] = {}  # folder -> real paths from the root to it: a link to one of them is a loop
    for folder, inner, files in os.walk(os.path.normpath(root), followlinks=True):
        way, real = ways.get(os.path.dirname(folder), frozenset()), os.path.realpath(folder)
        if len(ways) >= MAX_FOLDERS:
            return
        ways[folder] = way | {real}
        if real in way:
            inner.clear()  # tells os.walk not to go on there
            continue
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in files:
            if name.lower().endswith(endings) and not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), root).replace("\\", "/")


def models_below(folder: str) -> list[str]:
    """The models in any folder, relative to it, as the list would show them; "" is the folder itself."""
    return [entry[2:].rstrip("/") for entry in model_entries(f"./{name}" for name in files_below(folder))]


def model_entries(names: Iterable[str]) -> list[str]:
    """What the list shows, sorted, with `/` between folders.

    names: the files below ComfyUI's diffusion_models folders, relative to them, with `/` or `\\`. A folder with shards
    becomes one entry that ends in `/`; shards and the other parts of its repository (text encoder, VAE ...) are left
    out. Where two sets of shards share a folder, or lie in no folder, the first shard of each stands for it.
    """
    paths = sorted({name.replace("\\", "/") for name in names})
    paths = [path for path in paths if not posixpath.basename(path).startswith(".")]  # macOS's, beside each file
    sets: dict[str, set[str]] = {}  # folder -> first shards
    homes: set[str] = set()  # folders of whole repositories
    for path in paths:
        folder, name = posixpath.split(path)
        shard = SHARD.match(name)
        if posixpath.basename(folder) in TRANSFORMER_FOLDERS and posixpath.dirname(folder):
            homes.add(posixpath.dirname(folder))
        if shard and not _is_part(posixpath.basename(folder)):
            first = f"{shard['base']}-00001-of-{shard['total']}{posixpath.splitext(name)[1]}"
            sets.setdefault(folder, set()).add(posixpath.join(folder, first))
    homes.update(folder for folder in sets if folder and posixpath.basename(folder) not in TRANSFORMER_FOLDERS)
    entries = {
        entry
        for folder, firsts in sets.items()
        if not _in_part(folder, homes)
        for entry in ([f"{folder}/"] if folder and len(firsts) == 1 else firsts)
    }
    entries.update(path for path in paths if _is_single(path) and not _in_part(posixpath.dirname(path), homes))
    return sorted(entries, key=lambda entry: (entry.lower(), entry))


def _is_single(path: str) -> bool:
    # ComfyUI's list has pickles too; none of the models is published as one
    return path.lower().endswith((*SUFFIXES, GGUF)) and not SHARD.match(posixpath.basename(path))


def _is_part(folder: str) -> bool:
    return any(part in folder.lower() for part in PARTS)


def _in_part(folder: str, homes: set[str]) -> bool:
    """Whether a folder belongs to a part of a repository; the same name elsewhere is the artist's own."""
    names = folder.split("/")
    return any(
        "/".join(names[:depth]) in homes and any(_is_part(name) for name in names[depth:])
        for depth in range(1, len(names))
    )


def entry_path(entry: str, roots: Iterable[str | Path]) -> Path:
    """The file or folder behind an entry of `model_entries`.

    roots: ComfyUI's diffusion_models folders, the first that has the entry wins. Raises InputError for an entry that is
    in none of them, and for one that leaves them (an absolute path, a drive, `..`).
    """
    relative = entry.replace("\\", "/")
    parts = relative.split("/")
    absolute = relative.startswith("/") or ntpath.splitdrive(entry)[0] or ":" in parts[0]
    if not relative.strip("/ ") or absolute or ".." in parts or "\0" in relative:
        raise InputError(
            f"{ascii(entry)[:120]} is no place in the diffusion_models folders: choose a model from the list."
        )
    for root in roots:
        path = Path(root) / relative
        if path.is_dir() if relative.endswith("/") else path.is_file():
            return path
    raise InputError(
        f"{entry} is in none of the diffusion_models folders: put the model there, or refresh the list and "
        "choose another."
    )


def checkpoint_files(path: Path) -> list[Path]:
    """Every file that a checkpoint is made of: all of a folder, all shards beside one, or the file itself."""
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file()]
    return list(find_files(path).paths)
