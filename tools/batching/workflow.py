"""Turns a saved workflow into the prompt that ComfyUI's page would queue, without a browser, on a bare Python.

graph = Graph(workflow, object_info)
graph.set("12", "text", "The robot drinks tea.")   # in the workflow itself, as if it had been typed there
prompt = graph.prompt()
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ONLY_ON_THE_PAGE = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
MUTED, BYPASSED = 2, 4
INTO, OUT_OF = -10, -20  # ids that stand for the inputs and outputs of a subgraph inside of it
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"  # a choice that brings inputs of its own
AFTER_GENERATE = {"fixed", "increment", "decrement", "randomize"}  # what the page writes behind a seed
SEEDS = {"seed", "noise_seed"}
DEEPEST = 32  # subgraphs in subgraphs; more is a circle


class WorkflowError(ValueError):
    """A workflow that the page could not queue either, in one sentence."""


@dataclass(frozen=True)
class Place:
    """Where a widget's value lies in the workflow."""

    holder: Any  # a list or a dict
    key: int | str

    @property
    def value(self):
        return self.holder[self.key]


@dataclass(frozen=True)
class Source:
    """What a link brings: the output `slot` of the node with this id in the prompt, or a value."""

    node: str | None = None
    slot: int = 0
    place: Place | None = None


class Scope:
    """A workflow, or one instance of a subgraph in it: nodes and links that know each other by id."""

    def __init__(self, data: dict, prefix: str = "", instance: dict | None = None, parent: Scope | None = None):
        self.data = data
        self.prefix = prefix
        self.instance = instance
        self.parent = parent
        self.depth = 0 if parent is None else parent.depth + 1
        if self.depth > DEEPEST:
            raise WorkflowError("The workflow has a subgraph that holds itself.")
        self.nodes = {node["id"]: node for node in data["nodes"]}
        # A workflow's links are lists, a subgraph's are dicts: (from node, its slot, to node, its slot).
        names = ("origin_id", "origin_slot", "target_id", "target_slot")
        self.links = {
            link["id"] if isinstance(link, dict) else link[0]: tuple(link[name] for name in names)
            if isinstance(link, dict)
            else tuple(link[1:5])
            for link in data.get("links") or []
        }

    def id_of(self, node: dict) -> str:
        return f"{self.prefix}{node['id']}"


class Graph:
    """A workflow as the page saves it (format 0.4), and what its nodes have on this server.

    object_info: what the server answers under that name. The workflow is not copied: `set` changes it.
    Raises WorkflowError for nodes that the server does not know.
    """

    def __init__(self, workflow: dict, object_info: dict):
        unknown = unknown_types(workflow, object_info)
        if unknown:
            names = ", ".join(sorted(unknown))
            raise WorkflowError(f"The workflow has nodes that this ComfyUI does not know: {names}.")
        self.info = object_info
        self.workflow = workflow
        self.subgraphs = {one["id"]: one for one in (workflow.get("definitions") or {}).get("subgraphs") or []}

    def prompt(self) -> dict:
        """The prompt in API form."""
        prompt = {}
        for scope, node in self._running(Scope(self.workflow)):
            inputs = {name: _as_value(place.value) for name, place in self.widgets(node).items()}
            for name, source in self._linked(scope, node):
                if source is not None and source.place is not None:
                    inputs[name] = _as_value(source.place.value)
                elif source is not None:
                    inputs[name] = [source.node, source.slot]
            prompt[scope.id_of(node)] = {
                "class_type": node["type"],
                "inputs": inputs,
                "_meta": {"title": self._title(node)},
            }
        # Links from nodes that do not run are left out, as by the page.
        for node in prompt.values():
            for name, value in list(node["inputs"].items()):
                if isinstance(value, list) and value[0] not in prompt:
                    del node["inputs"][name]
        return prompt

    def set(self, node_id: str, name: str, value) -> None:
        """Type a value into an input of a node of the prompt, wherever the page keeps it.

        Raises WorkflowError where the input is linked to another node's output or is not there.
        """
        for scope, node in self._running(Scope(self.workflow)):
            if scope.id_of(node) != node_id:
                continue
            source = dict(self._linked(scope, node)).get(name)
            place = self.widgets(node).get(name) if source is None else source.place
            if place is None:
                what = "has no such field" if source is None else "is linked to another node"
                raise WorkflowError(f"{name} of {self._title(node)} cannot be set: it {what}.")
            place.holder[place.key] = value
            return
        raise WorkflowError(f"The workflow has no node {node_id} that runs.")

    def widgets(self, node: dict) -> dict[str, Place]:
        """Where the values of a node's fields lie, by the names of its inputs.

        Fields that were added since the workflow was saved get their defaults, as on the page.
        """
        values = node.get("widgets_values")
        if values is None:
            values = node["widgets_values"] = []
        sockets = {slot["name"] for slot in node.get("inputs") or [] if slot.get("widget")}
        places: dict[str, Place] = {}
        index = 0
        stack = list(self._inputs(node["type"]))
        while stack:
            name, kind, options = stack.pop(0)
            if not (is_widget(kind, options) or name in sockets):
                continue
            if isinstance(values, dict):  # of packs that save by name
                values.setdefault(name, default(kind, options))
                places[name] = Place(values, name)
            else:
                if index == len(values):  # saved before this input was added
                    values.append(default(kind, options))
                places[name] = Place(values, index)
                index += 1
            if kind == DYNAMIC:
                chosen = [one for one in options.get("options", []) if one["key"] == places[name].value]
                stack[:0] = [(f"{name}.{key}", of, more) for one in chosen for key, of, more in _specs(one["inputs"])]
            seeds = options.get("control_after_generate", kind == "INT" and name in SEEDS)
            if seeds and isinstance(values, list) and index < len(values) and values[index] in AFTER_GENERATE:
                index += 1
        return places

    def _inputs(self, node_type: str) -> Iterator[tuple[str, object, dict]]:
        yield from _specs(self.info[node_type].get("input") or {})

    def _title(self, node: dict) -> str:
        return node.get("title") or self.info[node["type"]].get("display_name") or node["type"]

    def _running(self, scope: Scope) -> Iterator[tuple[Scope, dict]]:
        """Every node that is part of the prompt, those in subgraphs included."""
        for node in scope.nodes.values():
            if node.get("mode") in (MUTED, BYPASSED) or node["type"] in ONLY_ON_THE_PAGE:
                continue
            if node["type"] in self.subgraphs:
                yield from self._running(self._inside(scope, node))
            else:
                yield scope, node

    def _inside(self, scope: Scope, instance: dict) -> Scope:
        return Scope(self.subgraphs[instance["type"]], f"{scope.id_of(instance)}:", instance, scope)

    def _linked(self, scope: Scope, node: dict) -> Iterator[tuple[str, Source | None]]:
        for slot in node.get("inputs") or []:
            if slot.get("link") is not None:
                yield slot["name"], self._source(scope, slot["link"])

    def _source(self, scope: Scope, link: int, steps: int = 0) -> Source | None:
        """What a link brings in the end, through reroutes, bypassed nodes and the borders of subgraphs."""
        if link not in scope.links or steps > 1000:
            return None
        origin, out, *_ = scope.links[link]
        if origin == INTO and scope.instance is not None and scope.parent is not None:
            name = scope.data["inputs"][out]["name"]
            outer = next((slot for slot in scope.instance.get("inputs") or [] if slot["name"] == name), {})
            if outer.get("link") in scope.parent.links:
                return self._source(scope.parent, outer["link"], steps + 1)
            place = self._promoted(scope, out)
            return None if place is None else Source(place=place)
        node = scope.nodes.get(origin)
        if node is None or node.get("mode") == MUTED:
            return None
        if node.get("mode") == BYPASSED or node["type"] == "Reroute":
            into = _passed(node, out)
            return None if into is None else self._source(scope, into, steps + 1)
        if node["type"] == "PrimitiveNode":
            values = node.get("widgets_values")
            return Source(place=Place(values, 0)) if values else None
        if node["type"] in self.subgraphs:
            inner = self._inside(scope, node)
            ends = [key for key, one in inner.links.items() if one[2:] == (OUT_OF, out)]
            return self._source(inner, ends[0], steps + 1) if ends else None
        return Source(scope.id_of(node), out)

    def _promoted(self, scope: Scope, index: int) -> Place | None:
        """Where the instance of a subgraph keeps the value of its input, if it keeps one.

        Newer pages do, in the order of those inputs that are fields inside; with older ones it lies inside, or in
        an order that `proxyWidgets` gives.
        """
        instance = scope.instance or {}
        values = instance.get("widgets_values")
        order = instance.get("properties", {}).get("proxyWidgets")
        name = scope.data["inputs"][index]["name"]
        if order:
            key = next((key for key, (node, field) in enumerate(order) if node == "-1" and field == name), None)
        else:
            fields = [number for number in range(len(scope.data["inputs"])) if self._is_field(scope, number)]
            key = fields.index(index) if index in fields else None
        return Place(values, key) if isinstance(values, list) and key is not None and key < len(values) else None

    def _is_field(self, scope: Scope, index: int) -> bool:
        for origin, out, target, slot in scope.links.values():
            if (origin, out) == (INTO, index) and target in scope.nodes:
                inputs = scope.nodes[target].get("inputs") or []
                if slot < len(inputs) and inputs[slot].get("widget"):
                    return True
        return False


def unknown_types(workflow: dict, object_info: dict) -> set[str]:
    """The node types of a workflow in the page's form, subgraphs included, that the server does not know."""
    subgraphs = (workflow.get("definitions") or {}).get("subgraphs") or []
    known = set(object_info) | ONLY_ON_THE_PAGE | {subgraph["id"] for subgraph in subgraphs}
    return {node["type"] for graph in (workflow, *subgraphs) for node in graph["nodes"]} - known


def is_page_form(workflow: dict) -> bool:
    """Whether this is a workflow as the page saves it, and not a prompt in API form."""
    return isinstance(workflow.get("nodes"), list)


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """The prompt in API form for a workflow as the page saves it; one in API form is returned as it is.

    Raises WorkflowError for a node that the server does not know.
    """
    return Graph(copy.deepcopy(workflow), object_info).prompt() if is_page_form(workflow) else workflow


def is_widget(kind, options: dict) -> bool:
    """Whether the page draws a field for an input of this type, which has a place among the saved values."""
    if options.get("forceInput"):
        return False
    marked = options.get("socketless") or options.get("widgetType")
    return isinstance(kind, list) or kind in WIDGETS or kind == DYNAMIC or bool(marked)


def default(kind, options: dict):
    """What the page writes into a field that nobody has filled in."""
    choices: list[Any] = kind if isinstance(kind, list) else options.get("options") or [""]
    first = choices[0]["key"] if isinstance(choices[0], dict) else choices[0]
    blank = {"INT": 0, "FLOAT": 0, "STRING": "", "BOOLEAN": False, "COLOR": "#000000"}
    return options.get("default", blank.get(kind, first) if isinstance(kind, str) else first)


def _specs(inputs: dict) -> list[tuple[str, object, dict]]:
    """(name, type, options) of inputs as the server describes them, in their order."""
    return [
        (name, spec[0], spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {})
        for part in ("required", "optional")
        for name, spec in (inputs.get(part) or {}).items()
    ]


def _passed(node: dict, out: int) -> int | None:
    """The link into a bypassed node that goes on at its output `out`: at the same place, else of the same type."""
    inputs = node.get("inputs") or []
    kind = node["outputs"][out]["type"]
    near = [slot for slot in inputs[out : out + 1] if slot["type"] == kind or "*" in (slot["type"], kind)]
    fitting = [*near, *(slot for slot in inputs if slot["type"] == kind)]
    return fitting[0].get("link") if fitting else None


def _as_value(value):
    """A list that is a value must not look like a link."""
    return {"__value__": value} if isinstance(value, list) else value
