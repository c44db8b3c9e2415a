"""What a workflow asks of an artist before the first video: nodes, clicks and typed characters, counted from its JSON.

    python benchmarks/jobs/graphs.py                       the workflows of this pack
    python benchmarks/jobs/graphs.py FILE.json ...         other files, for example ComfyUI's templates

The models are in the folders that the workflow's notes name, and the artist has media of their own. Counted are, from
the page with the workflow's card in the template browser:

  3 clicks      Templates, the pack, the card
  2 clicks      each picture, clip or recording: the field, the file
  2 clicks      each model file that the workflow names in a folder of its author's own: the field, the file
  1 click       each prompt, and 80 typed characters (a script: 80 for each line). Negative prompts stay, and so does
                the sentence "a person is talking", which the avatar was trained with
  1 click       Run

Notes, muted and bypassed nodes do not count, nor prompts that lead nowhere. Sizes, seeds and all other settings stay
as they are. `nodes` are the boxes on the canvas that run, `inside` those in their subgraphs. Plain Python: nothing
needs to be installed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
PROMPT = 80  # characters
NOTES = {"Note", "MarkdownNote"}
MEDIA = {"LoadImage", "LoadVideo", "LoadAudio", "VHS_LoadVideo", "VHS_LoadImages", "VHS_LoadAudioUpload"}
MODEL_FILES = (".safetensors", ".gguf", ".pt", ".pth", ".bin", ".onnx")
MUTED = 2  # what is bypassed (4) still lets through
KEPT = {"a person is talking"}
# Node -> which of its values is the prompt.
PROMPTS = {
    "CLIPTextEncode": 0,
    "MiniMaxH3ImageToVideo": 0,
    "WanVideoTextEncode": 0,
    "WanVideoTextEncodeCached": 2,
    "SkyReelsExtendVideo": 0,
    "SkyReelsFilm": 0,
    "SkyReelsPrompts": 0,
    "SkyReelsTalkingAvatar": 0,
}
ENDS = re.compile("Save|Preview|Combine|Show|SetNode")
SCRIPTS = {"SkyReelsExtendVideo", "SkyReelsFilm", "SkyReelsPrompts"}  # a prompt on each line


@dataclass
class Count:
    """What one workflow asks for."""

    name: str
    nodes: int = 0
    inside: int = 0
    media: int = 0
    prompts: int = 0
    models_to_choose: int = 0
    clicks: int = 0
    typed: int = 0


def count(name: str, workflow: dict) -> Count:
    """Counts one workflow in the page's form."""
    found = Count(name)
    subgraphs = {graph["id"]: graph for graph in workflow.get("definitions", {}).get("subgraphs", [])}
    notes = " ".join(str(node.get("widgets_values")) for node in workflow["nodes"] if node["type"] in NOTES)
    negative = set(negatives(workflow))
    lines = 0
    for depth, graph, node in running(workflow, subgraphs):
        if depth:
            found.inside += 1
        else:
            found.nodes += 1
        if node["type"] in MEDIA:
            found.media += 1
        for value in values(node):
            found.models_to_choose += isinstance(value, str) and elsewhere(value, notes)
        if node["type"] in PROMPTS and (id(graph), node["id"]) not in negative and is_used(node, graph):
            text = str(values(node)[PROMPTS[node["type"]]])
            if text not in KEPT:
                found.prompts += 1
                lines += len(text.splitlines()) if node["type"] in SCRIPTS else 1
    found.clicks = 3 + 2 * found.media + 2 * found.models_to_choose + found.prompts + 1
    found.typed = PROMPT * lines
    return found


def running(graph: dict, subgraphs: dict, depth: int = 0) -> Iterator[tuple[int, dict, dict]]:
    """(depth, graph, node) of every node that runs, those in subgraphs included."""
    for node in graph["nodes"]:
        if node.get("mode", 0) or node["type"] in NOTES:
            continue
        yield depth, graph, node
        if node["type"] in subgraphs:
            yield from running(subgraphs[node["type"]], subgraphs, depth + 1)


def values(node: dict) -> list:
    kept = node.get("widgets_values") or []
    return list(kept.values()) if isinstance(kept, dict) else kept


def elsewhere(value: str, notes: str) -> bool:
    """Whether this is a model file in a folder that no note names. Boxes of subgraphs repeat what is inside."""
    parts = value.replace("\\\\", "/").replace("\\", "/").strip("/").split("/")
    return value.endswith(MODEL_FILES) and len(parts) > 1 and not all(part in notes for part in parts)


def negatives(workflow: dict) -> Iterator[tuple[int, int]]:
    """(id of the graph, id of the node) of prompts that go into an input called negative, directly or on the way."""
    for graph in (workflow, *workflow.get("definitions", {}).get("subgraphs", [])):
        nodes = {node["id"]: node for node in graph["nodes"]}
        for link in graph["links"]:
            names = ("origin_id", "target_id", "target_slot")
            origin, target, slot = (link[name] for name in names) if isinstance(link, dict) else [*link[1:5:2], link[4]]
            if target in nodes and "negative" in nodes[target]["inputs"][slot]["name"]:
                yield id(graph), origin


def is_used(node: dict, graph: dict) -> bool:
    """Whether a prompt is written in this node and leads to something that is saved or shown.

    What comes from a subgraph's own box is typed there, once, and counts for the node inside.
    """
    names = ("text", "prompt", "prompts", "script", "positive_prompt", "string")
    into = [slot["link"] for slot in node.get("inputs") or [] if slot["name"] in names and slot.get("link") is not None]
    links = [
        (link["id"], link["origin_id"], link["target_id"]) if isinstance(link, dict) else (link[0], link[1], link[3])
        for link in graph["links"]
    ]
    if any(number in into and origin >= 0 for number, origin, _ in links):
        return False
    nodes = {one["id"]: one for one in graph["nodes"]}
    reached, left = {node["id"]}, [node["id"]]
    while left:
        current = left.pop()
        if current not in nodes or ENDS.search(nodes[current]["type"]):
            return True  # out of the subgraph, saved, shown, or handed on by name
        after = {target for _, origin, target in links if origin == current} - reached
        reached |= after
        left += [key for key in after if nodes.get(key, {}).get("mode") != MUTED]
    return False


def table(counts: list[Count]) -> str:
    """The counts as a Markdown table."""
    head = "| workflow | nodes | inside | media | prompts | models to choose | clicks | typed |"
    rows = [
        "| " + " | ".join(f"`{v}`" if k == "name" else str(v) for k, v in asdict(one).items()) + " |" for one in counts
    ]
    return "\n".join([head, "| --- |" + " --- |" * 7, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Count nodes, clicks and typed characters of workflows.")
    parser.add_argument("files", nargs="*", type=Path, help="workflows in the page's form; default: this pack's")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of a table")
    options = parser.parse_args()
    files = options.files or sorted(WORKFLOWS.glob("*.json"))
    counts = [count(file.stem, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    print("\n".join(json.dumps(asdict(one)) for one in counts) if options.json else table(counts))


if __name__ == "__main__":
    main()
