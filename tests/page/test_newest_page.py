"""ComfyUI's newest page: every workflow opens and one runs there, and what the pack adds to it works.

With Nodes 2.0, which need most of a page; its classic canvas is for the workshop.
"""

import json
from collections.abc import Iterator

import pytest

from pack.dev.comfyui.page import Page
from pack.dev.comfyui.server import Server, checked
from pack.dev.samples import workflow_inputs
from pack.tests.page.test_page import ARTIFACTS, BLUEPRINTS, SET_WIDGETS, SETTINGS, SMALL, is_clean, is_saved_as
from pack.tests.page.test_web_extension import (  # noqa: F401
    SIZE,
    test_a_film_is_checked_and_its_cards_change_the_script,
    test_a_script_is_checked_while_it_is_written,
    test_boxes_of_two_speakers_are_drawn_on_the_portrait,
    test_the_box_of_a_head_is_drawn_in_the_footage,
    test_the_picker_tells_what_it_lacks,
)
from pack.tools.batching.workflow import ONLY_ON_THE_PAGE

SWITCH = "() => app.extensionManager.command.execute('Comfy.ToggleLinear')"  # between the graph and app mode


def named_values(workflow: dict) -> dict:
    """The values of fields by their names, of the nodes in subgraphs too; notes have none."""
    graphs = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    nodes = [(graph["id"], node) for graph in graphs for node in graph["nodes"] if node["type"] not in ONLY_ON_THE_PAGE]
    return {(graph, node["id"]): node.get("widgets_values_named") or {} for graph, node in nodes}


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, id="classic canvas", marks=pytest.mark.workshop), pytest.param(True, id="Nodes 2.0")],
)
def page(request: pytest.FixtureRequest, newest_page_server: Server, browser) -> Iterator[Page]:
    ARTIFACTS.mkdir(exist_ok=True)
    with Page(newest_page_server, nodes_2=request.param, size=SIZE, settings=SETTINGS) as opened:
        opened.nodes_2, opened.newest = request.param, True
        yield opened


def test_a_workflow_runs_in_app_mode(newest_page_server: Server, page: Page):
    """The fields that the workflow chose, by their names, and the video; on a phone too."""
    noise = page.errors()
    name = "reference_to_video"
    page.load_workflow(json.loads(workflow_inputs.workflow_files()[name].read_text(encoding="utf-8")), name)
    for node_type, values in SMALL[name].items():
        page.tab.evaluate(SET_WIDGETS, [node_type, values])
    page.tab.evaluate(SWITCH)
    page.tab.wait_for_timeout(1500)
    for skip in page.tab.get_by_role("button", name="Skip", exact=True).all():  # the tour of a first visit
        skip.click()
    fields = ("reference 1", "reference 2", "prompt", "resolution", "seconds", "noise_seed", "model")
    for field in fields:
        assert sum(one.is_visible() for one in page.tab.get_by_text(field, exact=True).all()) == 1, field
    assert not any(one.is_visible() for one in page.tab.get_by_text("steps", exact=True).all())
    before = set(newest_page_server.get("/history"))
    page.tab.get_by_role("button", name="Run", exact=True).last.click()
    page.wait_until(lambda: set(newest_page_server.get("/history")) - before)
    (entry,) = [checked(one) for key, one in newest_page_server.get("/history").items() if key not in before]
    assert {(video["readyState"], video["error"]) for video in page.video_state()} == {(4, None)}
    page.screenshot(ARTIFACTS / "newest-app.png")
    page.tab.set_viewport_size({"width": 390, "height": 844})
    page.tab.wait_for_timeout(500)
    page.screenshot(ARTIFACTS / "newest-app-phone.png")
    page.tab.set_viewport_size({"width": SIZE[0], "height": SIZE[1]})
    page.tab.evaluate(SWITCH)
    page.tab.wait_for_timeout(500)
    is_clean(page, noise)
    (path,) = newest_page_server.output_files(entry)
    assert workflow_inputs.probe(path).frames == 9


def test_a_workflow_that_was_saved_again_is_the_same(page: Page):
    """The last one on its page, which it makes small: what is saved does not follow from what is drawn."""
    page.tab.set_viewport_size({"width": 800, "height": 600})
    noise = page.errors()
    for file in [*workflow_inputs.workflow_files().values(), *BLUEPRINTS]:
        workflow = json.loads(file.read_text(encoding="utf-8"))
        page.load_workflow(workflow, drawn=100)
        is_clean(page, noise)
        saved = is_saved_as(page, workflow)
        assert named_values(saved) == named_values(workflow)
        assert saved["extra"]["linearData"] == workflow["extra"]["linearData"]  # as app mode understood it
    page.tab.wait_for_timeout(500)  # what the last ones say late
    is_clean(page, noise)
