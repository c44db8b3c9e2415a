"""What makes two queued prompts the same run."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodes as comfy_nodes
from comfy_execution.graph_utils import is_link

from ...formats.kinds import Products
from ...model_loaders.files.folders import checkpoint_files
from ...model_loaders.files.stamps import stamp_of
from ...skyreels_v3.digest import digest
from ..network import attention
from ..weights.lora_branches import attached

# Inputs by whose names two results do not differ: model_stamps has what they come to.
RESOLVED = {"SkyReelsLoadModel": {"model", "attention", "products", "gpus"}}


@dataclass(frozen=True)
class Node:
    """The node that is run."""

    id: str | None  # in the graph; what is told appears there
    inputs: Mapping[str, str]  # what its models and encoders follow from, see `upstream`


def upstream(prompt: dict | None, node_id: str | None, names: Iterable[str]) -> dict[str, str]:
    """What each of a node's inputs `names` follows from in the graph: its name -> 32 hex digits.

    Nodes count by what they do: not by their ids, which copies and subgraphs change, nor by what lies behind them.
    """
    graph = prompt or {}
    known: dict[str, str] = {}

    def value_key(value: Any) -> str:
        if is_link(value) and value[0] in graph:
            return digest(node_key(value[0]), value[1])
        return digest(json.dumps(value, sort_keys=True, default=str))

    def node_key(name: str) -> str:
        if name not in known:
            known[name] = ""  # met again in a circle, which ComfyUI does not run
            node = graph[name]
            counted = counted_inputs(node["class_type"], node["inputs"])
            known[name] = digest(node["class_type"], {key: value_key(value) for key, value in counted.items()})
        return known[name]

    given = graph.get(str(node_id), {}).get("inputs", {})
    return {name: value_key(given[name]) if name in given else "" for name in names}


def counted_inputs(class_type: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a node that its result follows from."""
    known, resolved = declared_inputs(class_type), RESOLVED.get(class_type, ())
    return {
        key: value
        for key, value in inputs.items()
        if key not in resolved and (known is None or key.split(".")[0] in known)
    }


def declared_inputs(class_type: str) -> set[str] | None:
    """Names of a node's own inputs, None for an unknown node. The page adds others, such as the state of a preview."""
    node = comfy_nodes.NODE_CLASS_MAPPINGS.get(class_type)
    return None if node is None else {name for group in node.INPUT_TYPES().values() for name in group}


def file_stamps(paths: list[Path], by_time: bool = False) -> list[tuple]:
    """(name, size, content) of files: the same as long as they are, and for copies on other machines.

    by_time: with the time of change instead of the content, as keys of runs had it once.
    """
    stamps = [stamp_of(path) for path in sorted(paths)]
    return [stamp.key if by_time else stamp.content_key for stamp in stamps]


def model_stamps(models: Iterable, by_time: bool = False) -> list[tuple]:
    """The checkpoints and LoRAs behind MODELs of Load Model, products of the artist's choice and an attention that
    rounds: another one of these is another run. Exact attentions are one and the same. by_time: see `file_stamps`.
    """
    stamps = []
    for model in models:
        stamps += file_stamps(checkpoint_files(Path(model.cached_patcher_init[1].path)), by_time)
        products = model.cached_patcher_init[1].products
        if products != Products.AUTO.value:
            stamps.append(("products", products))
        stamps += [file.key if by_time else file.content_key for lora in attached(model) for file in lora.files]
        attending = attention.choose(
            model.model.diffusion_model.attention, model.load_device, model.model_options["transformer_options"]
        )
        if not attending.exact:
            stamps.append(("attention", attending.name))
    return stamps
