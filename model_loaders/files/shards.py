"""Checkpoints in several files: which files belong together, and whether the index agrees with them."""

import json
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...skyreels_v3.errors import InputError
from .tensor_info import Header, printable, short

SUFFIXES = (".safetensors", ".sft")
SHARD = re.compile(r"^(?P<base>.*)-(?P<number>\d{5})-of-(?P<total>\d{5})\.(?:safetensors|sft)$", re.IGNORECASE)
INDEX = ".index.json"
TRANSFORMER_FOLDERS = ("transformer", "shot_transformer")  # of Skywork's repositories
MAX_JSON = 100_000_000  # bytes
AGAIN = "download the folder again"


@dataclass(frozen=True)
class Files:
    """The files of one checkpoint. weight_map: key -> file name from the index, None if there is no index."""

    paths: tuple[Path, ...]
    weight_map: dict[str, str] | None = None


def title(place: Path) -> str:
    """How sentences call a file or folder: every repository has a folder `transformer`, so its own name is added."""
    name = printable(place.name)
    return f"{printable(place.parent.name)}/{name}" if name in TRANSFORMER_FOLDERS else name


def find_files(path: Path) -> Files:
    """The files of the checkpoint at a path: a single file, any shard of a set, their index, or a folder.

    Raises InputError for a folder without a checkpoint or with several, an incomplete set of shards and an index that
    is malformed, points out of its folder or names a file that is not there.
    """
    if path.is_dir():
        return _in_folder(path)
    if path.name.lower().endswith(INDEX):
        return _from_index(path.parent, path.name)
    shard = SHARD.match(path.name)
    return _set_of(path.parent, shard["base"], shard["total"]) if shard else Files((path,))


def _in_folder(folder: Path) -> Files:
    names = _names(folder)
    sets = sorted({(match["base"], match["total"]) for match in map(SHARD.match, names) if match})
    indexes = _names(folder, (INDEX,))
    if len(sets) > 1 or len(indexes) > 1:
        raise InputError(f"{title(folder)} holds more than one checkpoint in shards: choose one of its files instead.")
    if indexes:
        return _from_index(folder, indexes[0])
    if sets:
        return _set_of(folder, *sets[0])
    if names:  # A2V's shards may have any names: together they are the model
        return Files(tuple(folder / name for name in names))
    inner = [name for name in TRANSFORMER_FOLDERS if (folder / name).is_dir()]
    if len(inner) == 1:
        return _in_folder(folder / inner[0])
    if inner:
        raise InputError(f"{title(folder)} holds {' and '.join(inner)}: choose one of these two folders.")
    raise InputError(
        f"{title(folder)} holds no safetensors file: choose the folder that has the transformer's shards, or a file."
    )


def _names(folder: Path, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
    """Those of its files with these ends, without hidden ones: macOS leaves a `._name` beside each file on disks of
    other systems."""
    try:
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        return sorted(name for name in names if name.lower().endswith(suffixes))
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): check that ComfyUI may read it.") from error


def _set_of(folder: Path, base: str, total: str) -> Files:
    names = set(_names(folder))
    for index in (f"{base}.safetensors.index.json", f"{base}.sft.index.json"):
        if (folder / index).is_file():
            return _from_index(folder, index)
    found = {
        match["number"]: match.string for match in map(SHARD.match, sorted(names)) if match and match["base"] == base
    }
    wanted = int(total)
    missing = [number for number in range(1, wanted + 1) if f"{number:05}" not in found]
    if missing or len(found) > wanted:
        what = f"{printable(base)}-{missing[0]:05}-of-{total}" if missing else "no more shards than its names tell"
        raise InputError(f"{title(folder)} has {len(found)} of {wanted} shards and needs {what}: {AGAIN}.")
    return Files(tuple(folder / found[number] for number in sorted(found)))


def others_in(folder: Path, files: Files) -> list[Path]:
    """The safetensors files of a folder that are neither among its checkpoint's nor shards of another."""
    own = {path.name for path in files.paths}
    return [folder / name for name in _names(folder) if name not in own and not SHARD.match(name)]


def read_json(path: Path) -> dict:
    """A JSON file that holds a table. Raises InputError with its name if it cannot be read as one."""
    name = f"{title(path.parent)}/{printable(path.name)}"
    try:
        if not path.is_file():  # a pipe would be waited for
            raise InputError(f"{name} is a folder or a device, not the file it should be: {AGAIN}.")
        if path.stat().st_size > MAX_JSON:
            raise InputError(f"{name} is larger than {MAX_JSON} bytes, so it is not the file it should be: {AGAIN}.")
        content = json.loads(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}): check that ComfyUI may read it.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not readable as JSON: {AGAIN}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{name} holds no table: {AGAIN}.")
    return content


def _from_index(folder: Path, index: str) -> Files:
    where = f"{title(folder)}/{printable(index)}"
    weight_map = read_json(folder / index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{where} has no weight_map: {AGAIN}.")
    if not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{where} names a shard by something else than a text: {AGAIN}.")
    listed = sorted(set(weight_map.values()))
    for name in listed:
        if not name.lower().endswith(SUFFIXES) or any(sign in name for sign in "/\\:\0") or name.startswith("."):
            raise InputError(f"{where} points to {short(name)}, which is no shard in its own folder: {AGAIN}.")
    present = _names(folder)
    missing = [name for name in listed if name not in present]
    if missing:
        raise InputError(
            f"{title(folder)} lacks {short(missing[0])}, one of {len(listed)} shards that its index names "
            f"({len(missing)} missing): {AGAIN}."
        )
    extra = [name for name in present if SHARD.match(name) and name not in listed]
    if extra:
        raise InputError(
            f"{title(folder)} holds the shard {printable(extra[0])}, which its index does not name: remove it, "
            f"or {AGAIN}."
        )
    return Files(tuple(folder / name for name in listed), weight_map)


def check_index(files: Files, headers: Mapping[Path, Header], markers: Container[str] = ()) -> None:
    """Raise InputError unless every tensor is in one shard only, and in the one that the index names if it does. An
    index may know less than its shards have: the official loaders read the shards alone.

    markers: keys that each shard may have.
    """
    owner: dict[str, str] = {}
    for path, header in headers.items():
        for key in header.tensors:
            if key in owner and key not in markers:
                raise InputError(f"{short(key)} is in {printable(owner[key])} and in {printable(path.name)}: {AGAIN}.")
            owner[key] = path.name
    if files.weight_map is None:
        return
    folder = title(files.paths[0].parent)
    for key, listed in files.weight_map.items():
        found = owner.get(key, "no shard")
        if listed != found and key not in markers:
            raise InputError(
                f"In {folder}, the index lists {short(key)} in {short(listed)}, but it is in {printable(found)}: "
                f"{AGAIN}."
            )
