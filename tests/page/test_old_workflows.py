"""Workflows of every released version, as they were then, still open with their values in place and can be queued.

tests/data/workflows/VERSION holds those of a version and is never changed.
"""

import json
import re
import time
from pathlib import Path

import pytest

from pack.dev.comfyui.server import Interrupted, Server
from pack.dev.samples import workflow_inputs
from pack.tools.batching.workflow import ONLY_ON_THE_PAGE, to_prompt

FROZEN = Path(__file__).resolve().parents[1] / "data" / "workflows"
FILES = sorted(FROZEN.glob("*/*.json"))
AFTER_GENERATE = {"fixed", "randomize", "increment", "decrement"}

each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def values_then(workflow: dict) -> dict[str, dict]:
    """Node's id -> its fields' names and values, from the file alone: the sockets that belong to fields name them."""
    found = {}
    for node in workflow["nodes"]:
        if node["type"] in ONLY_ON_THE_PAGE:
            continue
        names = [slot["widget"]["name"] for slot in node["inputs"] if slot.get("widget")]
        values = list(node.get("widgets_values") or [])
        for index, name in enumerate(names):  # behind a seed the page writes what becomes of it after a run
            if name in ("seed", "noise_seed") and values[index + 1 : index + 2] in ([word] for word in AFTER_GENERATE):
                del values[index + 1]
        found[str(node["id"])] = dict(zip(names, values))
    return found


def kept(then: dict[str, dict], prompt: dict, info: dict) -> None:
    """Assert that a prompt has the values of then, wherever their nodes still have that input."""
    assert prompt.keys() == then.keys()
    for key, values in then.items():
        node = prompt[key]
        ours = node["class_type"].startswith("SkyReels")
        known = {name for part in info[node["class_type"]]["input"].values() for name in part}
        for name, value in values.items():
            if ours or name in known:
                assert node["inputs"][name] == value, f"{node['class_type']}.{name}"


def test_every_version_in_the_changelog_has_its_workflows():
    changelog = (workflow_inputs.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = set(re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE))
    assert versions == {folder.name for folder in FROZEN.iterdir()}
    assert all(list((FROZEN / version).glob("*.json")) for version in versions)


@each_file
def test_an_old_workflow_becomes_a_prompt_that_runs(stocked_server: Server, file: Path):
    workflow, info = read(file), stocked_server.object_info()
    then = values_then(workflow)
    prompt = to_prompt(workflow, info)
    kept(then, prompt, info)
    # And as a script would have kept it from then: without what was added since.
    old = {key: {**node, "inputs": dict(node["inputs"])} for key, node in prompt.items()}
    for key, node in old.items():
        for name, value in list(node["inputs"].items()):
            if node["class_type"].startswith("SkyReels") and not isinstance(value, list) and name not in then[key]:
                del node["inputs"][name]
    for one in (prompt, old):
        prompt_id = stocked_server.queue(one)  # which is what checks it; its full size would take hours here
        while prompt_id not in stocked_server.get(f"/history/{prompt_id}"):
            stocked_server.interrupt()
            time.sleep(0.1)
        with pytest.raises(Interrupted):
            stocked_server.wait(prompt_id)
