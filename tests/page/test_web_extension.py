"""What the pack adds to ComfyUI's page: the lines of a script, the boxes of speakers and heads, in both node styles.

On the page that the tests' ComfyUI brings; test_newest_page.py does it on its newest release. Screenshots stay in
test-artifacts/.
"""

import json
from collections.abc import Iterator

import pytest

from pack.dev.comfyui.page import Page
from pack.dev.comfyui.server import Server
from pack.dev.samples import workflow_inputs
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.speech.masks import box_mask
from pack.skyreels_v3.speech.timeline import COLOURS
from pack.tests.support.page_nodes import (
    ARTIFACTS,
    SHOW_NODE,
    WIDGET,
    cards,
    drag,
    is_clean,
    is_clean_but_for_pictures,
    load,
    of_type,
    panel_says,
    picture,
    queued,
    saved,
    write_script,
)

ROUTE = "/skyreels_v3/script"
SIZE = (1500, 1250)
EXTEND, AVATAR, DUB = "SkyReelsExtendVideo", "SkyReelsTalkingAvatar", "SkyReelsDubVideo"
GOOD = "# the park\ncontinue 6.5s: The rabbit looks up.\n\ncut 2s: [ZOOM_IN_CUT] Its face."
BAD = "continue 5s: The rabbit looks up.\ncut 9s: [ZOOM_IN_CUT] Its face.\ncontinue 2s: It yawns."
BOXES = ("0.05, 0.1, 0.45, 0.9", "0.55, 0.15, 0.95, 0.85")
# Short runs of the workflow of two people, as in the tests of all workflows.
SMALL = {"resolution": "custom", "width": 96, "height": 64, "steps": 1, **workflow_inputs.SHORT_WINDOWS}

SET = """([type, values]) => {
    for (const [name, value] of Object.entries(values)) {
        const widget = app.graph.nodes.find(n => n.type === type).widgets.find(w => w.name === name);
        widget.value = value;
        widget.callback?.(value);
    }
}"""
FITTED = """() => {
    const lines = document.querySelector(".skyreels-lines");
    const spare = lines.clientHeight - lines.firstChild.offsetHeight;
    return 0 <= spare && spare < 8;
}"""
SHOWN = """() => {
    const shown = document.querySelector(".skyreels-stage").firstChild;
    return shown.naturalWidth > 0 || (shown.videoWidth > 0 && shown.readyState >= 2 && !shown.seeking);
}"""
BUTTON = """type => {
    const node = app.graph.nodes.find(n => n.type === type);
    const {scale, offset} = app.canvas.ds, page = app.canvas.canvas.getBoundingClientRect();
    const [x, y] = [node.pos[0] + node.size[0] / 2, node.pos[1] + node.widgets.at(-1).y + 10];
    return [(x + offset[0]) * scale + page.x, (y + offset[1]) * scale + page.y];
}"""


@pytest.fixture(scope="module", params=[False, True], ids=["classic canvas", "Nodes 2.0"])
def page(request: pytest.FixtureRequest, stocked_server: Server) -> Iterator[Page]:
    ARTIFACTS.mkdir(exist_ok=True)
    with Page(stocked_server, nodes_2=request.param, size=SIZE) as opened:
        opened.nodes_2, opened.newest = request.param, False
        yield opened


@pytest.mark.browser
def test_a_script_is_checked_while_it_is_written(page: Page):
    workflow = load(page, "storyboard_extension", EXTEND)
    panel_says(page, "14 s new in 3 rolls")
    values = of_type(workflow, EXTEND)["widgets_values"]
    assert saved(page, EXTEND)["widgets_values"] == values

    box = write_script(page, EXTEND, GOOD)
    text = panel_says(page, "8.5 s new in 3 rolls")
    rows = [line.split("\t") for line in text.splitlines() if line[:1].isdigit() and "\t" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["2", "continue", "0:00 – 0:06.5", "6.5 s", "2"],
        ["4", "cut", "0:06.5 – 0:08.5", "2 s", "1"],
    ]
    # As high as what it says, and no higher: it grew and shrank with the script.
    page.tab.wait_for_function(FITTED)
    picture(page, "script-right")
    assert queued(page, EXTEND)["script"] == GOOD
    assert saved(page, EXTEND)["widgets_values"] == [GOOD, *values[1:]]

    box = write_script(page, EXTEND, BAD)
    text = panel_says(page, "1 wrong line · 7 s new in 2 rolls")
    assert "Wrong: Line 2 is a cut of 9 s, but a cut takes 2 to 5 s" in text
    picture(page, "script-wrong")
    page.tab.get_by_role("button", name="2", exact=True).and_(page.tab.get_by_title("Go to line 2")).click()
    assert box.evaluate("b => b.value.slice(b.selectionStart, b.selectionEnd)") == BAD.splitlines()[1]

    # A cut that has no model, and lengths of the official code.
    write_script(page, EXTEND, GOOD)
    page.tab.evaluate(
        """type => {
            const node = app.graph.nodes.find(n => n.type === type);
            node.disconnectInput(node.inputs.findIndex(i => i.name === "shot_model"));
            node.widgets.find(w => w.name === "official").value = true;
        }""",
        EXTEND,
    )
    panel_says(page, "Line 4 is a cut, but nothing is connected to shot_model", "as in the official code")
    assert not [name for name in queued(page, EXTEND) if "skyreels" in name]

    again = page.saved_workflow()
    assert of_type(again, EXTEND)["widgets_values"][0] == GOOD
    page.load_workflow(again)
    page.tab.evaluate(SHOW_NODE, EXTEND)
    panel_says(page, "nothing is connected to shot_model")
    assert saved(page, EXTEND)["widgets_values"] == of_type(again, EXTEND)["widgets_values"]
    is_clean(page)


FILM = "SkyReelsFilm"
FILM_SCRIPT = "scene 2s [Anna]: She waits.\ncut 3s {seed 7}: [ZOOM_IN_CUT] Her face.\nclip nowhere.mp4"
ADD_FILM = """script => {
    app.graph.clear();
    const places = {SkyReelsFilm: [0, 0], SkyReelsCast: [-500, 0], SkyReelsLoadModel: [-500, 300]};
    const [film, cast, model] = Object.entries(places).map(([type, pos]) => {
        const node = LiteGraph.createNode(type);
        node.pos = pos;
        app.graph.add(node);
        return node;
    });
    cast.widgets.find(w => w.name === "name").value = "anna";
    film.widgets.find(w => w.name === "script").value = script;
    cast.connect(0, film, film.inputs.findIndex(i => i.name === "cast"));
    for (const name of ["reference_model", "shot_model"]) {
        model.connect(0, film, film.inputs.findIndex(i => i.name === name));
    }
}"""
# What the server says of a run: two shots, the second of two takes.
RAN = """([type, script]) => {
    const file = {filename: "a.jpg", subfolder: "", type: "output"};
    const takes = n => [...Array(n).keys()].map(i => ({take: i + 1, chosen: !i, measures: {likeness: 0.9 - i / 10}}));
    const shot = (number, start, seconds, n) => (
        {number, start, seconds, state: "done", picture: file, film: file, takes: takes(n)}
    );
    const node = app.graph.nodes.find(n => n.type === type);
    const settings = Object.fromEntries(node.widgets.filter(w => w.name !== "script").map(w => [w.name, w.value]));
    app.nodeOutputs[node.id] = {
        skyreels_film: [shot(1, 0, 2, 1), shot(2, 2, 3, 2)], skyreels_film_run: [{script, settings}],
    };
}"""


LINK_SCRIPT = """type => {
    const text = LiteGraph.createNode("PrimitiveStringMultiline"), node = app.graph.nodes.find(n => n.type === type);
    text.pos = [node.pos[0] - 500, node.pos[1] + 700];
    app.graph.add(text);
    text.connect(0, node, node.inputs.findIndex(i => i.name === "script"));
}"""


@pytest.mark.browser
def test_a_film_is_checked_and_its_cards_change_the_script(page: Page):
    page.tab.evaluate(ADD_FILM, FILM_SCRIPT)
    page.tab.evaluate(SHOW_NODE, FILM)
    panel_says(page, "1 wrong line · 2 shots, 5 s", "input folder has none of that name")
    right = "\n".join(FILM_SCRIPT.splitlines()[:2])
    page.tab.evaluate(SET, [FILM, {"script": right}])
    panel_says(page, "2 shots, 5 s · 2 to make · 2 loads of a model")
    assert cards(page) == [
        ["1 scene · 2 s", "0:00 – 0:02", "planned · reference_model"],
        ["2 cut · 3 s", "0:02 – 0:05", "planned · shot_model"],
    ]
    page.fit_view()  # the node has grown by its cards
    picture(page, "film-planned")
    made = right.replace("{seed 7}", "{seed 7, takes 2}")
    page.tab.evaluate(SET, [FILM, {"script": made}])
    page.tab.evaluate(RAN, [FILM, made])
    panel_says(page, "2 shots, 5 s · all made")
    page.tab.evaluate("app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")
    panel = page.tab.locator(".skyreels-script:visible")

    panel.get_by_title("Lock line 1").focus()
    page.tab.keyboard.press("Enter")
    script_becomes(page, made.replace("[Anna]:", "[Anna] {lock}:"))
    panel_says(page, "locked", "all made")
    assert page.tab.evaluate("document.activeElement.title") == "Unlock line 1", "the keyboard stays where it was"
    panel.get_by_label("Take of line 2").select_option("2")
    script_becomes(page, made.replace("[Anna]:", "[Anna] {lock}:").replace("takes 2", "takes 2, take 2"))
    panel_says(page, "2 shots, 5 s · all made")
    assert panel.get_by_label("Take of line 2").input_value() == "2"
    assert queued(page, FILM)["script"].splitlines()[1] == "cut 3s {seed 7, takes 2, take 2}: [ZOOM_IN_CUT] Her face."

    page.tab.evaluate(SET, [FILM, {"script": made.replace("[Anna]:", "[Anna] {seed 5}:")}])
    panel_says(page, "2 to make")
    stale = "follows a change, made anew · 2 takes"
    assert [card[2] for card in cards(page)] == ["changed, made anew", stale]
    page.fit_view()
    picture(page, "film-cards")
    page.tab.evaluate(SET, [FILM, {"script": made.replace("{seed 7", "{seed 9")}])
    panel_says(page, "1 to make")
    page.tab.evaluate(SET, [FILM, {"script": made, "seed": 8}])
    panel_says(page, "2 to make")
    page.tab.evaluate(SET, [FILM, {"script": made, "seed": 0}])
    panel_says(page, "all made")

    panel.get_by_title("Lock line 1").click()
    script_becomes(page, made.replace("[Anna]:", "[Anna] {lock}:"))
    page.tab.keyboard.press("Control+z")
    script_becomes(page, made)
    panel.get_by_title("Lock line 1", exact=True).wait_for()  # the undone node is another one than the cards were of
    assert [card[2] for card in cards(page)] == ["done", "done"]

    panel.get_by_title("Play line 1").press("Enter")  # an undo may move the view away from the mouse
    player = page.tab.locator(".skyreels-player")
    player.wait_for()
    page.tab.keyboard.press("Delete")
    page.tab.keyboard.press("Escape")
    player.wait_for(state="detached")
    assert saved(page, FILM), "keys of the player are not the page's"

    page.tab.evaluate(LINK_SCRIPT, FILM)
    panel_says(page, "comes from a connection")  # cards of the last run stay to be looked at
    assert [card[2] for card in cards(page)] == ["done", "done"]
    assert [panel.get_by_role("button", name=name).count() for name in ("▶", "↻")] == [2, 0]
    picture(page, "film-linked")
    is_clean_but_for_pictures(page)


def script_becomes(page: Page, script: str) -> None:
    page.tab.wait_for_function(f"([args, wanted]) => ({WIDGET})(args) === wanted", arg=[[FILM, "script"], script])


def open_picker(page: Page, node_type: str = AVATAR, button: str = "Draw the boxes of the speakers") -> dict:
    """Where the picture is that is drawn on."""
    if page.nodes_2:
        page.tab.get_by_role("button", name=button).click()
    else:
        page.tab.mouse.click(*page.tab.evaluate(BUTTON, node_type))
    stage = page.tab.locator(".skyreels-stage")
    stage.wait_for()
    page.tab.wait_for_function(SHOWN)
    return stage.bounding_box()


@pytest.mark.browser
def test_boxes_of_two_speakers_are_drawn_on_the_portrait(page: Page):
    workflow = load(page, "talking_avatar_two_people", AVATAR)
    values = of_type(workflow, AVATAR)["widgets_values"]
    assert saved(page, AVATAR)["widgets_values"][: len(values)] == values
    page.tab.wait_for_timeout(300)

    def boxes() -> list[list[float]]:
        texts = [page.tab.evaluate(WIDGET, [AVATAR, name]) for name in ("box_1", "box_2")]
        return [[float(side) for side in text.split(",") if text] for text in texts]

    nodes = page.tab.evaluate("() => app.graph.nodes.length")
    stage = open_picker(page)
    drag(page, stage, (0.05, 0.1), (0.45, 0.9))
    drag(page, stage, (0.95, 0.85), (0.5, 0.3), (0.55, 0.15))  # from its right lower corner, with a detour
    page.tab.keyboard.press("Delete")  # of the page: it would remove the node
    picture(page, "boxes-drawn")
    page.tab.get_by_role("button", name="Apply").click()
    wanted = [[float(side) for side in box.split(",")] for box in BOXES]
    for box, other in zip(boxes(), wanted):
        assert box == pytest.approx(other, abs=0.005)
    assert page.tab.evaluate("() => app.graph.nodes.length") == nodes

    drawn = boxes()
    stage = open_picker(page)  # what was drawn is there again; moved, resized, moved by keys
    drag(page, stage, (0.2, 0.5), (0.0, 0.5))
    corner = page.tab.locator(".skyreels-box.skyreels-speaker-2 .skyreels-corner")
    corner.hover()
    page.tab.mouse.down()
    page.tab.mouse.move(stage["x"] + 0.85 * stage["width"], stage["y"] + 0.75 * stage["height"], steps=3)
    page.tab.mouse.up()
    page.tab.keyboard.press("ArrowLeft")
    page.tab.keyboard.press("Shift+ArrowDown")
    page.tab.get_by_role("button", name="Apply").click()
    left, right = boxes()
    assert left == pytest.approx([0, drawn[0][1], 0.4, drawn[0][3]], abs=0.01), "moved up to the picture's edge"
    assert right[:2] == pytest.approx([drawn[1][0] - 0.01, drawn[1][1]], abs=0.002)
    assert right[2:] == pytest.approx([0.84, 0.76], abs=0.02)
    picture(page, "boxes-applied")

    open_picker(page)
    page.tab.get_by_role("button", name="No boxes").click()
    page.tab.keyboard.press("Escape")
    assert boxes() == [left, right]

    again = page.saved_workflow()
    kept = of_type(again, AVATAR)["widgets_values"]
    page.load_workflow(again)
    assert boxes() == [left, right] and saved(page, AVATAR)["widgets_values"] == kept
    places = slice(len(values) - 4, len(values) - 2)  # before position_map and places
    assert kept[: places.start] == values[: places.start] and kept[places.stop : len(values)] == values[places.stop :]
    inputs = queued(page, AVATAR)
    assert [inputs["box_1"], inputs["box_2"]] == kept[places]
    if page.newest and page.nodes_2:  # one real run is enough: all queue the same
        page.tab.evaluate(SET, [AVATAR, SMALL])
        entry = page.run()
        (ran,) = [node["inputs"] for node in entry["prompt"][2].values() if node["class_type"] == AVATAR]
        assert [ran["box_1"], ran["box_2"]] == [inputs["box_1"], inputs["box_2"]]
        assert page.server.output_files(entry)
    is_clean(page)


@pytest.mark.browser
def test_the_names_of_a_dialogue_are_on_their_boxes(page: Page):
    """Who is who is what the script says: a renamed person is asked for, and a stale one goes."""
    load(page, "dialogue", AVATAR)
    page.tab.evaluate(SET, ["SkyReelsDialogue", {"script": "ben: audio_1\npause 1s\ndora: audio_2\ncarl: audio_3"}])
    page.tab.wait_for_timeout(300)
    open_picker(page)
    shown = [frame.inner_text() for frame in page.tab.locator(".skyreels-box").all() if frame.is_visible()]
    assert shown == ["ben", "carl"]
    choice = page.tab.locator(".skyreels-choice label")
    assert [label.inner_text().strip() for label in choice.all()] == ["ben", "dora", "carl"]
    colours = page.tab.evaluate(
        "() => [...document.querySelectorAll('.skyreels-choice label')].map(l => getComputedStyle(l).borderLeftColor)"
    )
    assert colours == [f"rgb({', '.join(str(int(one[i : i + 2], 16)) for i in (1, 3, 5))})" for one in COLOURS[:3]]
    page.tab.get_by_text("Speaker dora: no box yet; of three people and more, each needs one.").wait_for()
    choice.nth(1).click()
    drag(page, page.tab.locator(".skyreels-stage").bounding_box(), (0.05, 0.1), (0.3, 0.9))
    picture(page, "boxes-of-a-dialogue")
    page.tab.get_by_role("button", name="Apply").click()
    lines = [line.partition(":") for line in page.tab.evaluate(WIDGET, [AVATAR, "places"]).split("\n")]
    assert [name for name, _, _ in lines] == ["ben", "dora", "carl"]
    assert [float(side) for side in lines[1][2].split(",")] == pytest.approx([0.05, 0.1, 0.3, 0.9], abs=0.005)
    assert page.tab.evaluate(WIDGET, [AVATAR, "box_1"]) == ""
    is_clean(page)


@pytest.mark.browser
def test_the_box_of_a_head_is_drawn_in_the_footage(page: Page):
    """As the browser plays it, from where the recording begins; the same box as one that was typed."""
    values = of_type(load(page, "dub_footage", DUB), DUB)["widgets_values"]
    page.tab.evaluate(SET, [DUB, {"start": 0.5}])
    page.tab.wait_for_timeout(300)
    stage = open_picker(page, DUB, "Draw the box of the head")
    assert stage["width"] / stage["height"] == pytest.approx(16 / 9, rel=0.01)
    video, slider = page.tab.locator(".skyreels-stage video"), page.tab.get_by_label("Time in the video")
    assert video.evaluate("one => one.currentTime") == 0.5 and float(slider.input_value()) == 0.5
    assert float(slider.get_attribute("max")) == pytest.approx(2, abs=0.1)
    slider.fill("1.25")
    assert video.evaluate("one => one.currentTime") == 1.25
    page.tab.wait_for_function(SHOWN)
    assert [one.is_visible() for one in page.tab.locator(".skyreels-choice, .skyreels-box").all()] == [False, True]
    page.tab.get_by_role("button", name="No box").click()
    page.tab.get_by_text("No box: the whole picture is made anew.").wait_for()
    drag(page, stage, (0.3, 0.1), (0.6, 0.8))
    picture(page, "head-drawn")
    page.tab.get_by_role("button", name="Apply").click()
    box = page.tab.evaluate(WIDGET, [DUB, "box"])
    assert [float(side) for side in box.split(",")] == pytest.approx([0.3, 0.1, 0.6, 0.8], abs=0.005)
    assert saved(page, DUB)["widgets_values"] == [0.5, *values[1:-1], box] and queued(page, DUB)["box"] == box
    page.tab.evaluate(SET, ["LoadVideo", {"file": "speech.wav"}])  # as a file whose pictures the browser can't read
    page.tab.evaluate("type => app.graph.nodes.find(n => n.type === type).widgets.at(-1).callback()", DUB)
    page.tab.get_by_text("This browser can't show the video of").wait_for()
    page.tab.get_by_role("button", name="Cancel", exact=True).click()
    is_clean(page)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("workflow", "node_type", "input_name", "told"),
    [
        ("talking_avatar_two_people", AVATAR, "portrait", "No portrait is connected"),
        ("dub_footage", DUB, "source", "No footage is connected"),
    ],
)
def test_the_picker_tells_what_it_lacks(page: Page, workflow: str, node_type: str, input_name: str, told: str):
    load(page, workflow, node_type)
    page.tab.evaluate(
        """([type, name]) => {
            const node = app.graph.nodes.find(n => n.type === type);
            node.disconnectInput(node.inputs.findIndex(i => i.name === name));
            node.widgets.at(-1).callback();
        }""",
        [node_type, input_name],
    )
    page.tab.get_by_role("dialog").filter(has_text=told).wait_for()
    assert page.tab.get_by_role("button", name="Apply").count() == 0
    page.tab.get_by_role("button", name="Cancel", exact=True).click()
    is_clean(page)


@pytest.mark.browser
def test_the_page_and_the_node_read_boxes_alike(page: Page):
    texts = [
        *BOXES,
        "0;0;1;1",
        " 0.1 ,0.2,0.30,0.4 ",
        "",
        "1",
        "0,0,1",
        "0,0,1,1,1",
        "a,b,c,d",
        "0,,1,1",
        "0.5,0,0.1,1",
    ]
    texts += [
        "[5%, 10 %, 45%, 90%]",
        "５％，１０％，４５％，９０％",
        "0,05; 0,1; 0,45; 0,9",
        "0,05, 0,1, 0,45, 0,9",
        "5,10,45,90%",
    ]
    texts += ["【0.05、0.1、0.45、0.9】", "0.05;0.1,0.45;0.9", "(0.05 0.1 0.45 0.9)", "64, 32, 200, 300", "0x1,0,1,1"]
    texts += ["0,0,0.01,1", "0,0,2,1", "-0.1,0,1,1", "0,0,1e-1,1", "nan,0,1,1"]
    read = """async texts => {
        const {readBox, writeBox} = await import("/extensions/SkyReels-V3/js/box.js");
        return texts.map(text => writeBox(readBox(text)));
    }"""
    for text, written in zip(texts, page.tab.evaluate(read, texts)):
        try:
            mask = box_mask(text, 100, 100)
        except InputError:
            assert written == "", text
        else:
            assert mask.equal(box_mask(written, 100, 100)), text


@pytest.mark.browser
def test_every_language_of_the_page_says_as_much(page: Page):
    read = """async () => JSON.stringify((await import("/extensions/SkyReels-V3/js/texts.js")).TEXTS)"""
    english, *others = json.loads(page.tab.evaluate(read)).values()

    def form(texts: dict) -> dict:
        return {key: sorted(part.split("}")[0] for part in text.split("{")[1:]) for key, text in texts.items()}

    assert others and all(form(texts) == form(english) and all(texts.values()) for texts in others)


@pytest.mark.browser
@pytest.mark.parametrize("page", [False], ids=["classic canvas"], indirect=True)
def test_a_server_without_the_route_has_plain_nodes(page: Page):
    """The last one on its page, which stays without."""
    page.tab.context.route(f"**{ROUTE}", lambda route: route.fulfill(status=404))
    page.reload()
    workflow = load(page, "storyboard_extension", EXTEND)
    page.tab.wait_for_timeout(800)
    assert page.tab.locator(".skyreels-script").count() == 0
    assert saved(page, EXTEND)["widgets_values"] == of_type(workflow, EXTEND)["widgets_values"]
    is_clean(page)
