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
TEXT_BOX = """value => [...document.querySelectorAll("textarea")].find(b => b.value === value && b.offsetParent)"""
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


def is_clean_but_for_pictures(page: Page) -> None:
    assert page.toasts() == page.dialogs() == []
    assert [error for error in page.errors() if "404" not in error] == []


def panel_says(page: Page, *words: str) -> str:
    """Waits until the panel under the script says all of these, and returns its text."""
    panel = page.tab.locator(".skyreels-script:visible")
    for word in words:
        panel.filter(has_text=word).wait_for()
    return panel.inner_text()


def cards(page: Page) -> list[list[str]]:
    """Of each card what it is, when, and where it stands."""
    found = page.tab.locator(".skyreels-script:visible .skyreels-shot")
    parts = found.evaluate_all("all => all.map(one => [...one.children].slice(1, 4).map(part => part.textContent))")
    return [[part.strip() for part in card] for card in parts]


def drag(page: Page, stage: dict, *points: tuple[float, float]) -> None:
    (x, y), *others = [(stage["x"] + u * stage["width"], stage["y"] + v * stage["height"]) for u, v in points]
    page.tab.mouse.move(x, y)
    page.tab.mouse.down()
    for x, y in others:
        page.tab.mouse.move(x, y, steps=3)
    page.tab.mouse.up()


def write_script(page: Page, node_type: str, text: str):
    """Types a script where the artist does, and returns that box."""
    old = page.tab.evaluate(WIDGET, [node_type, "script"])
    page.tab.wait_for_function(TEXT_BOX, arg=old)
    box = page.tab.evaluate_handle(TEXT_BOX, old).as_element()
    box.fill(text)
    return box
