"""A node on the page that tests have open: brought into sight, looked at, and as it is saved and queued."""

import json

from pack.dev.comfyui.page import Page
from pack.dev.samples import workflow_inputs

ARTIFACTS = workflow_inputs.ROOT / "test-artifacts"
SHOW_NODE = """type => {
    const node = app.graph.nodes.find(n => n.type === type);
    app.canvas.ds.scale = Math.min(0.9, 900 / node.size[1]); // its last button too
    app.canvas.ds.offset = [250 - node.pos[0], 60 - node.pos[1]];
    app.canvas.setDirty(true, true);
}"""
WIDGET = """([type, name]) => app.graph.nodes.find(n => n.type === type).widgets.find(w => w.name === name).value"""
SAVED = """type => JSON.stringify(app.graph.nodes.find(n => n.type === type).serialize())"""


def picture(page: Page, name: str) -> None:
    style = ("newest-" if page.newest else "") + ("nodes-2" if page.nodes_2 else "classic")
    page.screenshot(ARTIFACTS / f"{name}-{style}.png")


def load(page: Page, name: str, node_type: str) -> dict:
    """Opens a workflow with one node in sight, and returns the workflow."""
    workflow = json.loads(workflow_inputs.workflow_files()[name].read_text(encoding="utf-8"))
    page.load_workflow(workflow)
    page.tab.evaluate(SHOW_NODE, node_type)
    return workflow


def saved(page: Page, node_type: str) -> dict:
    return json.loads(page.tab.evaluate(SAVED, node_type))


def of_type(workflow: dict, node_type: str) -> dict:
    (node,) = [node for node in workflow["nodes"] if node["type"] == node_type]
    return node


def queued(page: Page, node_type: str) -> dict:
    """The inputs that the page would queue for a node."""
    (node,) = [node for node in page.api_prompt().values() if node["class_type"] == node_type]
    return node["inputs"]


def is_clean(page: Page) -> None:
    assert page.toasts() == page.dialogs() == page.errors() == []
