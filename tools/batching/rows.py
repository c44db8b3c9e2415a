"""What a batch is made of: rows of a table or files of a folder, and the fields of a workflow that they fill in."""

from __future__ import annotations

import copy
import csv
import hashlib
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from pack.tools.batching.workflow import Graph, default, is_page_form, is_widget, to_prompt

KINDS = {
    "image": {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"},
    "audio": {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"},
    "video": {".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v"},
}
PROMPT_ENDS = ".txt"
NAME = "name"  # the column that names a row's results
PREFIX = "filename_prefix"  # of nodes that save
# What people call a field -> what nodes call it, where none has that very name.
OTHER_NAMES = {"prompt": ("text", "script", "prompts"), "seed": ("noise_seed",), "video": ("file",)}
YES, NO = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}


class BatchError(ValueError):
    """What is wrong with the table, the folder or the workflow, in one sentence."""


@dataclass(frozen=True)
class Row:
    """number: counted from 1.  name: of its results.  cells: column -> text; empty ones are left out."""

    number: int
    name: str
    cells: dict[str, str]


@dataclass(frozen=True)
class Field:
    """An input that can be typed into. upload: the kind of file that it takes, or None."""

    node: str
    input: str
    title: str
    node_type: str
    kind: object
    options: dict

    @property
    def key(self) -> tuple[str, str]:
        return self.node, self.input

    @property
    def upload(self) -> str | None:
        return next((kind for kind in KINDS if self.options.get(f"{kind}_upload")), None)

    @property
    def names(self) -> tuple[str, ...]:
        """What a column can be called, the best to read first, the surest last."""
        return tuple(f"{owner}.{self.input}" for owner in (self.title, self.node_type, self.node))


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV file, of a text file with a prompt a line, or of a folder. Raises BatchError."""
    if path.is_dir():
        cells = _folder(path)
    else:
        text = _text(path)
        if path.suffix.lower() == PROMPT_ENDS:
            cells = [{"prompt": line.strip()} for line in text.splitlines() if line.strip()]
        else:
            cells = _table(text, path.name)
    if not cells:
        raise BatchError(f"{path.name} has no rows: there is nothing to queue.")
    width = max(3, len(str(len(cells))))
    rows = []
    for number, one in enumerate(cells, start=1):
        name = re.sub(r'[\\/:*?"<>|%\s]+', "_", one.pop(NAME, "")) or f"{number:0{width}}"
        rows.append(Row(number, name, {column: text for column, text in one.items() if text}))
    return rows


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BatchError(f"{path} cannot be read ({error.strerror}).") from error
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BatchError(f"{path.name} is not UTF-8 text: save it as CSV UTF-8.") from error


def _table(text: str, name: str) -> list[dict[str, str]]:
    head = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=head.count)
    lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(line)]
    if not lines:
        return []
    columns = [column.strip() for column in lines[0]]
    used = [column for column in columns if column and not column.startswith("#")]
    if len(set(used)) < len(used):
        raise BatchError(f"{name} has two columns of the same name: {', '.join(used)}.")
    rows = []
    for number, line in enumerate(lines[1:], start=1):
        if any(cell.strip() for cell in line[len(columns) :]):
            raise BatchError(
                f"Row {number} of {name} has {len(line)} cells, but there are {len(columns)} columns: put text that "
                f'holds "{delimiter}" into quotes.'
            )
        rows.append({column: cell.strip() for column, cell in zip(columns, line) if column in used})
    return rows


def _folder(folder: Path) -> list[dict[str, str]]:
    """One row for each name: its picture, recording, clip and prompt (a .txt), as far as they are there."""
    kinds = {end: kind for kind, ends in KINDS.items() for end in ends} | {PROMPT_ENDS: "prompt"}
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: _natural(path.name)):
        kind = kinds.get(path.suffix.lower())
        if kind is None or not path.is_file() or path.name.startswith("."):
            continue
        row = found.setdefault(path.stem, {NAME: path.stem})
        if kind in row:
            raise BatchError(f"{folder.name} has two files for the {kind} of {path.stem}: leave one of them.")
        row[kind] = _text(path).strip() if kind == "prompt" else path.name
    return list(found.values())


def _natural(name: str) -> list:
    """Sorts shot2 before shot10."""
    return [(part.isdigit(), int(part) if part.isdigit() else part.lower()) for part in re.split(r"(\d+)", name)]


class Template:
    """A workflow, as the page saves it or in API form, whose fields are filled in for each row."""

    def __init__(self, workflow: dict, object_info: dict):
        self.workflow = workflow
        self.info = object_info
        self.in_page_form = is_page_form(workflow)
        prompt = to_prompt(workflow, object_info)
        if not prompt or not all(isinstance(node, dict) and "class_type" in node for node in prompt.values()):
            raise BatchError("The workflow is no workflow of ComfyUI: save it with Save, or with Export (API).")
        unknown = sorted({node["class_type"] for node in prompt.values()} - set(object_info))
        if unknown:
            raise BatchError(f"The workflow has nodes that this ComfyUI does not know: {', '.join(unknown)}.")
        self.fields = [field for node_id, node in prompt.items() for field in self._fields(node_id, node)]
        self.prompt = prompt

    def _fields(self, node_id: str, node: dict):
        inputs = self.info[node["class_type"]]["input"]
        for name, (kind, *rest) in {**inputs.get("required", {}), **inputs.get("optional", {})}.items():
            options = rest[0] if rest and isinstance(rest[0], dict) else {}
            if is_widget(kind, options) and not isinstance(node["inputs"].get(name), list):
                title = (node.get("_meta") or {}).get("title") or node["class_type"]
                yield Field(node_id, name, title, node["class_type"], kind, options)

    def field(self, column: str) -> Field:
        """The field that a column is called after. Raises BatchError where there is none, or more than one."""
        wanted = column.lower()
        found: list[Field] = []
        if "." in column:
            found = [field for field in self.fields if wanted in (name.lower() for name in field.names)]
        else:
            for name in (wanted, *OTHER_NAMES.get(wanted, ())):
                found = [field for field in self.fields if field.input.lower() == name]
                if found:
                    break
        return self._only(found, f"the column {column}")

    def upload_field(self, kind: str) -> Field:
        """The field that takes files of a kind. Raises BatchError where there is none, or more than one."""
        return self._only([field for field in self.fields if field.upload == kind], f"the {kind} files")

    def _only(self, found: list[Field], what: str) -> Field:
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(self._surest(field) for field in found)
            raise BatchError(f"For {what} there are {len(found)} places in the workflow: name one of {names}.")
        names = ", ".join(self._surest(field) for field in self.fields if field.input != PREFIX)
        raise BatchError(f"For {what} there is no place in the workflow; it has {names}.")

    def _surest(self, field: Field) -> str:
        """The first of a field's names that no other has."""
        all_names = [name for other in self.fields for name in set(other.names)]
        return next(name for name in field.names if all_names.count(name) == 1 or name == field.names[-1])

    def filled(self, values: dict[tuple[str, str], object], results: str) -> tuple[dict, dict | None]:
        """The prompt with `values` in its fields, and the workflow as the page would show it (None for API form).

        results: folder/name below the output folder, put in front of what nodes save.
        """
        saving = [field for field in self.fields if field.input == PREFIX]
        for field in saving:
            own = str(self.prompt[field.node]["inputs"].get(PREFIX) or default(field.kind, field.options))
            folder, _, last = own.rpartition("/")
            name = f"{results}_{last}" if len(saving) > 1 else results
            values = {field.key: "/".join(part for part in (folder, name) if part), **values}
        if not self.in_page_form:
            prompt = copy.deepcopy(self.prompt)
            for (node, name), value in values.items():
                prompt[node]["inputs"][name] = value
            return prompt, None
        workflow = copy.deepcopy(self.workflow)
        graph = Graph(workflow, self.info)
        for (node, name), value in values.items():
            graph.set(node, name, value)
        return graph.prompt(), workflow


def value_of(field: Field, text: str) -> object:
    """A cell's text as what the field holds. Raises BatchError for text that is no such thing."""
    options, kind = field.options, field.kind
    choices = kind if isinstance(kind, list) else options.get("options") if kind == "COMBO" else None
    if choices is not None:
        for choice in choices:
            if str(choice) == text:
                return choice
        shown = ", ".join(map(str, choices[:10])) + (" ..." if len(choices) > 10 else "")
        raise BatchError(f"{text!r} is not among the choices of {field.input}: {shown}.")
    if kind == "BOOLEAN":
        if text.lower() not in YES | NO:
            raise BatchError(f"{text!r} is neither true nor false, which {field.input} needs.")
        return text.lower() in YES
    if kind in ("INT", "FLOAT"):
        try:
            number = int(text) if kind == "INT" else float(text.replace(",", "."))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BatchError(f"{text!r} is no {'whole ' if kind == 'INT' else ''}number, which {field.input} needs.")
        least, most = options.get("min", number), options.get("max", number)
        if not least <= number <= most:
            raise BatchError(f"{field.input} is {text}, but it must be between {least} and {most}.")
        return number
    return text.replace("\\n", "\n") if options.get("multiline") else text


def row_key(prompt: dict, files: list[Path]) -> str:
    """What makes two rows the same: their prompts but for the names of results, and the files that they use."""
    inputs = {
        node_id: [node["class_type"], {name: value for name, value in node["inputs"].items() if name != PREFIX}]
        for node_id, node in prompt.items()
    }
    stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([inputs, stamps], sort_keys=True).encode()).hexdigest()[:16]
