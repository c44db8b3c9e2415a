"""What the rows of a table need of a server, and which of it is not there: told before the first row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .rows import KINDS

if TYPE_CHECKING:
    from .server import ComfyUI
    from .state import Need

MODELS = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".onnx")
OURS = "SkyReels"  # what types of this pack begin with: their choices are all that there is
TOLD = 5  # names in a sentence


def needs_of(prompt: dict, uploads: Iterable[tuple[str, str]]) -> frozenset[Need]:
    """What a server must have to run a prompt. uploads: (node, input) of files that it gets with the row."""
    brought = set(uploads)
    return frozenset(
        (node["class_type"], name, value if isinstance(value, str) and (node_id, name) not in brought else "")
        for node_id, node in prompt.items()
        for name, value in node["inputs"].items()
    )


class Needs:
    """What all rows need. infos: what the servers say of their nodes, as far as they answer; the first one counts."""

    def __init__(self, needs: frozenset[Need], infos: Sequence[dict]):
        self._needs = needs
        self._infos = infos

    def lacking(self, server: ComfyUI, info: dict | None = None) -> str | None:
        """What a server lacks, in one sentence, or None. info: what it said of its nodes. Raises Away, Refused."""
        info = server.object_info() if info is None else info
        types = {kind for kind, _, _ in self._needs}
        nodes = types - set(info)
        older = {
            f"{name} of {kind}"
            for kind, name, _ in self._needs
            if kind in info
            and kind in self._infos[0]
            and name in _inputs(self._infos[0][kind]).keys() - _inputs(info[kind])
        }
        models: set[str] = set()
        inputs: set[str] = set()
        for kind, name, value in self._needs:
            choices = _choices(info, kind, name)
            if not value or choices is None or value in choices:
                continue
            if _takes_files(info, kind, name):
                if not server.has(value):
                    inputs.add(value)
            elif self._is_sure(kind, name, value):
                models.add(value)
        parts = [
            _listed("node", nodes, "install the pack that has them and restart that ComfyUI"),
            _listed("input", older, "update its packs to the versions of the first server"),
            _listed("model or choice", models, "copy the file there or choose another one"),
            _listed("file in its folder input", inputs, "copy it there, or lay it beside the table"),
        ]
        told = "; ".join(part for part in parts if part)
        return f"{server.address} gets no row: {told}." if told else None

    def _is_newer(self, info: dict, kind: str, name: str) -> bool:
        """Whether an input is one that the first server's nodes have, and this one's lack: it would be passed over."""
        return name in _inputs(self._infos[0].get(kind, {})) and name not in _inputs(info[kind])

    def _is_sure(self, kind: str, name: str, value: str) -> bool:
        """Whether a choice that is not listed cannot be made: some packs list less than they take."""
        elsewhere = any(value in (_choices(info, kind, name) or ()) for info in self._infos)
        return elsewhere or kind.startswith(OURS) or Path(value).suffix.lower() in MODELS


def _listed(what: str, names: set[str], cure: str) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:TOLD]) + (f" and {len(names) - TOLD} more" if len(names) > TOLD else "")
    return f"it has no {what} {shown} ({cure})"


def _inputs(node: dict) -> dict:
    given = node.get("input") or {}
    return {**(given.get("required") or {}), **(given.get("optional") or {})}


def _choices(info: dict, kind: str, name: str) -> list | None:
    """What a server lists for an input that is chosen, None for any other input."""
    spec = _inputs(info.get(kind, {})).get(name)
    if not spec:
        return None
    if isinstance(spec[0], list):
        return spec[0]
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    return options.get("options") if spec[0] == "COMBO" else None


def _takes_files(info: dict, kind: str, name: str) -> bool:
    options = _inputs(info[kind])[name][1:2]
    return bool(options) and any(options[0].get(f"{one}_upload") for one in KINDS)
