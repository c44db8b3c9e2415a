"""What models on the web are: their headers are read there, and nothing is downloaded but these and small JSON files.

A model is inspected as a local one is, in a folder of empty files with its names.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...model_loaders.checkpoints.inspection import Inspection, Source, inspect, sentence_of
from ...model_loaders.files.header import Header, header_in
from ...model_loaders.files.shards import INDEX, SHARD, read_json
from ...model_loaders.files.tensor_info import printable
from ...skyreels_v3.errors import InputError
from .addresses import MODELS, place_of
from .web import Missing, Web

CONFIG = "config.json"
DIFFUSERS = "diffusion_pytorch_model"  # names of files whose config.json counts
FOLDERS_KEPT = 3  # around a file: more do not say its job
LARGEST_JSON = 20_000_000  # bytes; of an index it has some hundred thousand
MOST_SHARDS = 1000
LONGEST_NAME = 240  # bytes
NO_NAMES = re.compile(r'[\x00-\x1f<>:"|?*\\]')  # signs that a name may not have on every system
# What is said of a local file -> what helps with one on the web.
WORDS = (
    ("the download is incomplete, download it again", "it is incomplete there too, use another file"),
    ("it is damaged, download it again", "it is damaged there, use another file"),
    ("download the file again from where it came from, or use", "use"),
    ("download it again", "use another file"),
    ("download the folder again", "use another one"),
)


def inspect_far(address: str, source: Source) -> Iterator[Inspection]:
    """What is at a web address, as `inspect` says it of a path. Raises no Exception.

    source: what is the same for models of this machine.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            # What lies above a folder called so says nothing about a model's job.
            twin = _Twin(address, Path(folder).resolve() / "models")
            for found in inspect(str(twin.path), dataclasses.replace(source, read=twin.read, is_here=False)):
                yield twin.told(found)
    except InputError as error:
        problem = _of_the_web(str(error))
        yield Inspection(address, problems=(problem,), advice=(sentence_of(problem.rpartition(": ")[2]),))
    except OSError as error:
        yield Inspection(
            address, problems=(f"The folder for temporary files cannot be used ({error}).",),
            advice=("Set the variable TMPDIR to a folder that can be written to.",),
        )  # fmt: skip


class _Twin:
    """A place on the web as a local folder: model files are empty, JSON files whole.

    path: what is to be inspected in it. Raises InputError where there is nothing, OSError where it cannot be made.
    """

    def __init__(self, address: str, folder: Path):
        self._address, self._web = address, Web()
        self._place = place_of(address, self._web.hub)
        self._root = folder.joinpath(*filter(None, map(_name, self._place.folders[-FOLDERS_KEPT:])))
        self._names: dict[Path, str] = {}  # local -> on the web
        self._headers: dict[Path, Header | InputError] = {}
        self.path = self._file(self._place.path) if self._place.is_file else self._folder(self._place.path)

    def read(self, path: Path) -> Header:
        """As `read_header`, of the file on the web; each is asked for once."""
        if path not in self._headers:
            name = printable(path.name)
            try:
                with self._web.file(self._place.url(self._names[path]), name) as (file, size):
                    self._headers[path] = header_in(file, size, name)
            except InputError as error:
                self._headers[path] = error
        found = self._headers[path]
        if isinstance(found, InputError):
            raise found
        return found

    def told(self, found: Inspection) -> Inspection:
        """The same, of the web."""
        path, address = Path(found.file), self._address
        if path in self._names and path != self.path:
            address = self._place.url(self._names[path])
        elif path != self.path:
            address = self._place.page(path.relative_to(self._root).as_posix())
        texts = (map(_of_the_web, texts) for texts in (found.problems, found.advice))
        problems, advice = (tuple(text.replace(str(self._root), self._address) for text in each) for each in texts)
        return dataclasses.replace(found, file=address, problems=problems, advice=advice)

    def _folder(self, folder: str) -> Path:
        """All models below a folder of a repository, with the JSON files beside them."""
        try:
            files = self._place.files(self._web)
        except Missing as error:
            raise Missing(
                f"There is no repository at {printable(self._address)}: copy the address of a file or of a repository "
                "from its page."
            ) from error
        if folder in files:
            return self._file(folder)
        below = [file for file in files if not folder or file.startswith(f"{folder}/")]
        if not below:
            raise Missing(
                f"There is nothing in {printable(self._address)}: copy the address from the page of the model."
            )
        models = [file for file in below if file.lower().endswith(MODELS) and self._local(file)]
        homes = {posixpath.dirname(self._names[self._empty(file)]) for file in models}
        for file in below:
            if posixpath.dirname(file) in homes and file.endswith((CONFIG, INDEX)):
                self._json_if_there(file)
        path = self._local(folder) or self._root
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _file(self, path: str) -> Path:
        """A model file or an index, with what belongs to it."""
        folder, name = posixpath.split(path)
        shard, is_index = SHARD.match(name), name.lower().endswith(INDEX)
        if is_index:
            self._shards(folder, self._json(path))
        elif shard:
            kind = posixpath.splitext(name)[1]
            index = self._json_if_there(posixpath.join(folder, f"{shard['base']}{kind}{INDEX}"))
            count = min(int(shard["total"]), MOST_SHARDS)
            numbered = {str(n): f"{shard['base']}-{n:05}-of-{shard['total']}{kind}" for n in range(1, count + 1)}
            self._shards(folder, index or {"weight_map": numbered})
        if is_index or shard or name.startswith(DIFFUSERS):
            self._json_if_there(posixpath.join(folder, CONFIG))
        local = self._local(path)
        return local if is_index and local else self._empty(path)

    def _shards(self, folder: str, index: dict) -> None:
        names = index.get("weight_map")
        for name in set(map(str, names.values())) if isinstance(names, dict) else ():
            if name.lower().endswith(MODELS) and posixpath.basename(name) == name and self._local(name):
                self._empty(posixpath.join(folder, name))

    def _local(self, path: str) -> Path | None:
        """Where a file or folder of the web has its twin; None for one that would lie elsewhere, or for no path."""
        parts = path.split("/")
        return self._root.joinpath(*map(_name, parts)) if all(map(_name, parts)) else None

    def _empty(self, path: str) -> Path:
        return self._write(path, b"")

    def _json(self, path: str) -> dict:
        """A JSON file, kept. Raises InputError."""
        data, _ = self._web.small(self._place.url(path), posixpath.basename(path), LARGEST_JSON)
        return read_json(self._write(path, data))

    def _json_if_there(self, path: str) -> dict | None:
        try:
            return self._json(path)
        except InputError:
            local = self._local(path)
            if local:
                local.unlink(missing_ok=True)
            return None

    def _write(self, path: str, data: bytes) -> Path:
        local = self._local(path)
        if local is None:
            raise InputError(f"{printable(path)} is no name of a file: copy the address from the page of the model.")
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(data)
        self._names[local] = path
        return local


def _of_the_web(sentence: str) -> str:
    for here, there in WORDS:
        sentence = sentence.replace(here, there).replace(sentence_of(here), sentence_of(there))
    return sentence


def _name(part: str) -> str:
    """A name that every system takes, of a long one the end; empty for what is none."""
    return "" if part in (".", "..") else NO_NAMES.sub("_", part).encode()[-LONGEST_NAME:].decode(errors="ignore")
