"""A saved video carries the workflow that made it, whichever node wrote the file: dropped onto the page, it opens."""

import json
from pathlib import Path

import av
import pytest

from pack.dev.comfyui.server import Server
from pack.dev.samples import workflow_inputs
from pack.tools.batching.workflow import Graph

TINY = {"resolution": "custom", "width": 64, "height": 64}
CHANGES = {
    "reference_to_video": {"SkyReelsReferenceToVideo": {**TINY, "frames": 5}, "SkyReelsSigmas": {"steps": 1}},
    "video_extension": {"SkyReelsExtendVideo": {**TINY, "steps": 1, "script": "continue 0.2s: She waves."}},
    "talking_avatar": {
        "SkyReelsTalkingAvatar": {**TINY, "steps": 1, "window": 25, "motion": 5, "drop": 4},
        "LoadAudio": {"audio": "speech_left.wav"},
    },
}
# Hands a file of the server to the page as an artist does who drops it beside the nodes.
DROP = """async ([url, name]) => {
    const data = new DataTransfer();
    data.items.add(new File([await (await fetch(url)).blob()], name, { type: "video/mp4" }));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


def made(server: Server, name: str) -> tuple[Path, dict, dict]:
    """The video that a small variant of a workflow makes, with that workflow and its prompt."""
    workflow = json.loads((workflow_inputs.WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    graph = Graph(workflow, server.object_info())
    for node in workflow["nodes"]:
        for field, value in CHANGES[name].get(node["type"], {}).items():
            graph.set(str(node["id"]), field, value)
    prompt = graph.prompt()
    # As the page queues it.
    data = {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": workflow}}}
    answer = server.post("/prompt", data)
    answer.raise_for_status()
    (path,) = server.output_files(server.wait(answer.json()["prompt_id"]))
    return path, workflow, prompt


def test_a_result_dropped_onto_the_page_opens_its_workflow(stocked_server: Server, page_factory):
    page = page_factory(stocked_server, nodes_2=False)
    noise = page.errors()
    for name in CHANGES:
        path, workflow, prompt = made(stocked_server, name)
        with av.open(str(path)) as file:
            carried = {key: json.loads(file.metadata[key]) for key in ("prompt", "workflow")}
        assert carried["workflow"] == workflow
        # ComfyUI notes more in a prompt than it was given.
        assert {key: node["inputs"] for key, node in carried["prompt"].items()} == {
            key: node["inputs"] for key, node in prompt.items()
        }

        page.tab.evaluate("() => app.graph.clear()")
        folder = path.parent.relative_to(stocked_server.base / "output")
        page.tab.evaluate(DROP, [f"/view?filename={path.name}&subfolder={folder}&type=output", path.name])
        page.tab.wait_for_function(f"() => app.graph.nodes.length === {len(workflow['nodes'])}")
        page.tab.wait_for_timeout(500)
        opened = page.api_prompt()
        assert opened.keys() == prompt.keys()
        for key, node in prompt.items():
            for field, value in node["inputs"].items():
                assert opened[key]["inputs"][field] == pytest.approx(value), f"{node['class_type']}.{field}"
        assert page.unknown_nodes() == page.toasts() == page.dialogs() == []
    assert [error for error in page.errors() if error not in noise] == []
