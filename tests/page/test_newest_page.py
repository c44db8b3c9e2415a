"""ComfyUI's newest page: every workflow opens and one runs there, and what the pack adds to it works.

With Nodes 2.0, which need most of a page; its classic canvas is for the workshop.
"""

import json
from collections.abc import Iterator

import pytest

from pack.dev.comfyui.page import Page
from pack.dev.comfyui.server import Server
from pack.dev.samples import workflow_inputs
from pack.tests.page.test_page import ARTIFACTS, BLUEPRINTS, SET_WIDGETS, SETTINGS, SMALL, is_clean, is_saved_as
from pack.tests.page.test_web_extension import (  # noqa: F401
    SIZE,
    test_a_film_is_checked_and_its_cards_change_the_script,
    test_a_script_is_checked_while_it_is_written,
    test_boxes_of_two_speakers_are_drawn_on_the_portrait,
    test_the_picker_tells_what_it_lacks,
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, id="classic canvas", marks=pytest.mark.workshop), pytest.param(True, id="Nodes 2.0")],
)
def page(request: pytest.FixtureRequest, newest_page_server: Server, browser) -> Iterator[Page]:
    ARTIFACTS.mkdir(exist_ok=True)
    with Page(newest_page_server, nodes_2=request.param, size=SIZE, settings=SETTINGS) as opened:
        opened.nodes_2, opened.newest = request.param, True
        yield opened


def test_a_workflow_runs(newest_page_server: Server, page: Page):
    noise = page.errors()
    name = "reference_to_video"
    page.load_workflow(json.loads(workflow_inputs.workflow_files()[name].read_text(encoding="utf-8")), name)
    for node_type, values in SMALL[name].items():
        page.tab.evaluate(SET_WIDGETS, [node_type, values])
    entry = page.run()
    page.fit_view()
    page.screenshot(ARTIFACTS / "newest-done.png")
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
        is_saved_as(page, workflow)
    page.tab.wait_for_timeout(500)  # what the last ones say late
    is_clean(page, noise)
