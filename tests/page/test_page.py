"""Workflows and blueprints in ComfyUI's real page: they open clean, Run plays a video, the browser shows thumbnails.

Those of old versions open too, and a saved video carries the one that made it, whichever node wrote the file.

Screenshots stay in test-artifacts/.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from pack.dev.comfyui.page import Page
from pack.dev.comfyui.server import Server, checked
from pack.dev.samples import workflow_inputs
from pack.tests.page import test_old_workflows as old_workflows
from pack.tools.batching.workflow import Graph, to_prompt

ARTIFACTS = workflow_inputs.ROOT / "test-artifacts"
BLUEPRINTS = sorted((workflow_inputs.ROOT / "subgraphs").glob("*.json"))
EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "config": {}, "version": 0.4}
SIZE = (2560, 1200)  # a whole workflow stays readable, and every card of the template browser is in sight
# With the dialog about missing models, and with widgets drawn even where the whole graph is shown.
SETTINGS = {"Comfy.Workflow.ShowMissingModelsWarning": True, "LiteGraph.Canvas.MinFontSizeForLOD": 0}
# What is changed on the page before Run, so that the video is small and short: node type -> widget -> value.
TINY = {"resolution": "custom", "width": 96, "height": 64}
FIRST = {"SkyReelsReferenceToVideo": {**TINY, "frames": 9}}
REFERENCE = {**FIRST, "SkyReelsSigmas": {"steps": 2}}
EXTENSION = {**TINY, "steps": 2}
AVATAR = {**TINY, "steps": 1, **workflow_inputs.SHORT_WINDOWS}
SMALL = {
    "reference_to_video": REFERENCE,
    "video_extension": {"SkyReelsExtendVideo": {**EXTENSION, "script": "continue 0.2s: The rabbit looks around."}},
    "storyboard_extension": {
        "SkyReelsExtendVideo": {
            **EXTENSION,
            "script": "continue 0.2s: The rabbit looks up.\ncut 2s: [ZOOM_IN_CUT] Its face.\ncontinue 0.2s: It yawns.",
        }
    },
    "talking_avatar": {"SkyReelsTalkingAvatar": AVATAR},
    "talking_avatar_two_people": {"SkyReelsTalkingAvatar": AVATAR},
    "dub_footage": {"SkyReelsDubVideo": {**AVATAR, "drop": 5}},
    "dialogue": {"SkyReelsTalkingAvatar": AVATAR},
    "reference_extend_cut": {
        **FIRST,
        "SkyReelsExtendVideo": {**EXTENSION, "script": "continue 0.2s: She waits.\ncut 2s: Her face."},
    },
    "short_film": {
        **FIRST,
        "SkyReelsExtendVideo": {**EXTENSION, "script": "continue 0.2s: She looks up."},
        "SkyReelsTalkingAvatar": AVATAR,
    },
    "film": {"SkyReelsFilm": {**TINY, "steps": 2, "script": "scene 0.2s [anna]: She waits.\ncut 2s: Her face."}},
    "prompt_batch": {**REFERENCE, "SkyReelsReferenceToVideo": {**TINY, "frames": 5}},
    "reference_to_video_low_vram": REFERENCE,
    "talking_avatar_low_vram": {"SkyReelsTalkingAvatar": AVATAR},
}
# To run once is enough for those that share their nodes with others; all are opened in both.
ONCE = {
    "storyboard_extension": True,
    "talking_avatar_two_people": True,
    "dub_footage": False,
    "dialogue": False,
    "reference_extend_cut": False,
    "short_film": True,
    "film": False,
    "prompt_batch": True,
    "reference_to_video_low_vram": False,
    "talking_avatar_low_vram": True,
}
# The same for videos that are dropped onto the page.
SQUARE = {"resolution": "custom", "width": 64, "height": 64}
DROPPED = {
    "reference_to_video": {"SkyReelsReferenceToVideo": {**SQUARE, "frames": 5}, "SkyReelsSigmas": {"steps": 1}},
    "video_extension": {"SkyReelsExtendVideo": {**SQUARE, "steps": 1, "script": "continue 0.2s: She waves."}},
    "talking_avatar": {
        "SkyReelsTalkingAvatar": {**SQUARE, "steps": 1, "window": 25, "motion": 5, "drop": 4},
        "LoadAudio": {"audio": "speech_left.wav"},
    },
}
# Hands a file of the server to the page as an artist does who drops it beside the nodes.
DROP = """async ([url, name]) => {
    const data = new DataTransfer();
    data.items.add(new File([await (await fetch(url)).blob()], name, { type: "video/mp4" }));
    document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""
STYLES = {True: "Nodes 2.0", False: "classic canvas"}
SET_WIDGETS = """([type, values]) => {
    for (const node of app.graph.nodes.filter(n => n.type === type))
        for (const [name, value] of Object.entries(values)) {
            const widget = node.widgets.find(w => w.name === name);
            widget.value = value;
            widget.callback?.(value);
        }
}"""

# Where the page has drawn each node, in pixels of the graph: [name, left, top, right, bottom].
DRAWN = """nodes_2 => {
    const name = node => `${node.id} ${node.title}`;
    if (!nodes_2) return app.graph.nodes.map(node => {
        const [x, y, width, height] = node.getBounding();
        return [name(node), x, y, x + width, y + height];
    });
    const scale = app.canvas.ds.scale;
    return [...document.querySelectorAll("[data-node-id]")].flatMap(element => {
        const node = app.graph.getNodeById(element.dataset.nodeId);
        const {left, top, right, bottom} = element.getBoundingClientRect();
        return node ? [[name(node), ...[left, top, right, bottom].map(side => side / scale)]] : [];
    });
}"""


class OpenPage:
    """The one page that is open: opening it costs more than most tests do, and a second one would take half a GB."""

    def __init__(self):
        self.nodes_2: bool | None = None
        self.page: Page | None = None

    def get(self, server: Server, nodes_2: bool) -> Page:
        if nodes_2 != self.nodes_2:
            self.close()
            self.page = Page(server, nodes_2=nodes_2, size=SIZE, settings=SETTINGS).__enter__()
            self.nodes_2 = nodes_2
        return self.page

    def close(self) -> None:
        page, self.page, self.nodes_2 = self.page, None, None
        if page is not None:
            page.__exit__()


@pytest.fixture(scope="module")
def open_page(browser) -> Iterator[OpenPage]:
    opened = OpenPage()
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=STYLES, ids=STYLES.get)
def nodes_2(request) -> bool:
    """How nodes are drawn. The tests of one kind run one after another, on one page."""
    return request.param


# Of one kind: the first, as pytest sorts by the place among the parameters.
only_first = pytest.mark.parametrize("nodes_2", [True], ids=STYLES.get, indirect=True)


@pytest.fixture
def page(request, stocked_server: Server, open_page: OpenPage, nodes_2: bool) -> Iterator[Page]:
    """A wide page on which other workflows were open before; after a test that failed, a fresh one."""
    failed = request.session.testsfailed
    page = open_page.get(stocked_server, nodes_2)
    yield page
    if request.session.testsfailed > failed:
        open_page.close()
    elif page is open_page.page:
        page.load_workflow(EMPTY, drawn=0)  # its videos would go on playing


def inputs(prompt: dict, info: dict) -> dict:
    """What nodes are given, less what the page adds for its own previews."""
    known = {name: {one for part in node["input"].values() for one in part} for name, node in info.items()}
    return {
        key: (kind, {name: value for name, value in node["inputs"].items() if name in known[kind]})
        for key, node in prompt.items()
        for kind in [node["class_type"]]
    }


def is_clean(page: Page, noise: list[str]) -> None:
    """Assert that the page shows no message and logged no error besides `noise`."""
    assert page.unknown_nodes() == []
    assert page.toasts() == page.dialogs() == []
    assert [error for error in page.errors() if error not in noise] == []


def overlapping(page: Page, nodes_2: bool) -> list[str]:
    """Nodes that are drawn over others by more than a line."""
    drawn = page.tab.evaluate(DRAWN, nodes_2)
    assert len(drawn) == len(page.saved_workflow()["nodes"])
    return [
        f"{name} and {other}: {min(right, far) - max(left, near):.0f} x {min(bottom, low) - max(top, high):.0f}"
        for (name, left, top, right, bottom), (other, near, high, far, low) in itertools.combinations(drawn, 2)
        if min(right, far) - max(left, near) > 2 and min(bottom, low) - max(top, high) > 2
    ]


def test_every_workflow_is_opened():
    assert SMALL.keys() == workflow_inputs.workflow_files().keys()


def kept(node: dict) -> tuple:
    """What a saved node must not lose. Pages differ in values at the end that are none."""
    values = list(node.get("widgets_values") or [])
    while values and values[-1] is None:
        values.pop()
    return node["id"], node["type"], values, node.get("mode")


def is_saved_as(page: Page, workflow: dict) -> dict:
    """Assert that the page saves what it shows as the workflow that was opened, and return what it saves."""
    saved = page.saved_workflow()
    assert [kept(node) for node in saved["nodes"]] == [kept(node) for node in workflow["nodes"]]
    assert sorted(saved["links"]) == sorted(workflow["links"])
    assert [group["title"] for group in saved["groups"]] == [group["title"] for group in workflow["groups"]]
    subgraphs = [one.get("definitions", {}).get("subgraphs", []) for one in (saved, workflow)]
    assert [one["name"] for one in subgraphs[0]] == [one["name"] for one in subgraphs[1]]
    return saved


@pytest.mark.parametrize("name", SMALL)
def test_a_workflow_opens_and_runs_on_the_page(stocked_server: Server, page: Page, nodes_2: bool, name: str):
    ARTIFACTS.mkdir(exist_ok=True)
    picture = f"{name}-{'nodes-2' if nodes_2 else 'classic'}"
    noise = page.errors()
    workflow = json.loads(workflow_inputs.workflow_files()[name].read_text(encoding="utf-8"))
    runs = ONCE.get(name, nodes_2) == nodes_2
    page.load_workflow(workflow, name)
    if runs:
        page.fit_view()
        page.screenshot(ARTIFACTS / f"{picture}-opened.png")
    is_clean(page, noise)
    is_saved_as(page, workflow)
    info = stocked_server.object_info()
    assert inputs(page.api_prompt(), info) == inputs(to_prompt(workflow, info), info)
    if not runs:
        return

    for node_type, values in SMALL[name].items():
        page.tab.evaluate(SET_WIDGETS, [node_type, values])
    entry = page.run()
    page.fit_view()
    videos = [video for video in page.video_state() if "type=output" in video["src"]]  # not of the one to load
    page.screenshot(ARTIFACTS / f"{picture}-done.png")
    is_clean(page, noise)
    assert overlapping(page, nodes_2) == []
    assert videos and all(video["readyState"] == 4 and not video["error"] for video in videos)
    files = [workflow_inputs.probe(path) for path in stocked_server.output_files(entry)]
    assert {(video["videoWidth"], video["videoHeight"]) for video in videos} == {(f.width, f.height) for f in files}
    assert videos[0]["duration"] == pytest.approx(files[0].frames / files[0].fps, abs=0.05)


def test_a_blueprint_that_was_saved_again_is_the_same(page: Page):
    noise = page.errors()
    for file in BLUEPRINTS:
        workflow = json.loads(file.read_text(encoding="utf-8"))
        page.load_workflow(workflow, drawn=100)
        is_clean(page, noise)
        is_saved_as(page, workflow)
    page.tab.wait_for_timeout(500)  # what the last ones say late
    is_clean(page, noise)


@only_first
def test_a_count_beside_run_queues_every_prompt_of_a_list(stocked_server: Server, page: Page):
    page.load_workflow(json.loads(workflow_inputs.workflow_files()["prompt_batch"].read_text(encoding="utf-8")))
    for node_type, values in SMALL["prompt_batch"].items():
        page.tab.evaluate(SET_WIDGETS, [node_type, values])
    page.set_run_count(3)
    before = set(stocked_server.get("/history"))
    page.press_run()
    page.wait_until(lambda: len(set(stocked_server.get("/history")) - before) == 3)
    entries = [entry for key, entry in stocked_server.get("/history").items() if key not in before]
    names = [path.name for entry in entries for path in stocked_server.output_files(checked(entry))]
    assert [name.rpartition("_0000")[0] for name in names] == [
        "SkyReels-V3_01_In_a_wooden_café_the_astronaut_in_the",
        "SkyReels-V3_02_In_a_spaceship_the_astronaut_in_the",
        "SkyReels-V3_03_On_a_park_bench_in_autumn_the_astronaut",
    ]


def test_a_blueprint_is_found_by_name_and_runs(stocked_server: Server, page: Page, nodes_2: bool):
    noise = page.errors()
    wanted = {file.stem for file in BLUEPRINTS}
    page.wait_until(lambda: wanted <= {name for name, _ in page.blueprints()})
    assert {name for name, pack in page.blueprints() if pack.endswith("SkyReels-V3")} == wanted
    name = "SkyReels-V3 Images to Video" if nodes_2 else "SkyReels-V3 Video Extension"
    page.load_workflow(EMPTY)
    page.search_node(name)
    (box,) = page.saved_workflow()["nodes"]
    # Joined up as an artist would: what goes in on its left, Save Video on its right.
    source = ("LoadImage", "image", "astronaut.png") if nodes_2 else ("LoadVideo", "file", "bigbuckbunny.mp4")
    extended = {"script": "continue 0.2s: The rabbit looks up.", "output": "new only"}
    short = {"seconds": 0.3} if nodes_2 else extended
    page.tab.evaluate(
        """([id, source, values]) => {
            const box = app.graph.getNodeById(id);
            const load = LiteGraph.createNode(source[0]), save = LiteGraph.createNode("SaveVideo");
            for (const [node, x] of [[load, -500], [save, 700]]) { node.pos = [x, 0]; app.graph.add(node); }
            load.widgets.find(w => w.name === source[1]).value = source[2];
            load.connect(0, box, 0);
            box.connect(0, save, 0);
            for (const widget of box.widgets) if (widget.name in values) widget.value = values[widget.name];
        }""",
        [box["id"], source, {**TINY, **short}],
    )
    entry = page.run()
    page.fit_view()
    page.screenshot(ARTIFACTS / f"blueprint-{'nodes-2' if nodes_2 else 'classic'}.png")
    is_clean(page, noise)
    (path,) = stocked_server.output_files(entry)
    made = workflow_inputs.probe(path)
    assert (made.width, made.height) == (96, 64) and made.frames == (9 if nodes_2 else 5)


@only_first
def test_a_failed_run_is_told_on_the_page(page: Page):
    prompt = {
        "1": {"class_type": "OddImage", "inputs": {"kind": "not a number"}},
        "2": {"class_type": "NarrowText", "inputs": {}},
        "3": {"class_type": "VAELoader", "inputs": {"vae_name": "wan_2.1_vae.safetensors"}},
        "4": {
            "class_type": "SkyReelsReferenceToVideo",
            "inputs": {
                **{"positive": ["2", 0], "vae": ["3", 0], "image_1": ["1", 0], "resolution": "custom"},
                **{"width": 64, "height": 64, "seconds": 1, "frames": 5, "batch_size": 1},
            },
        },
        "5": {"class_type": "End", "inputs": {"anything": ["4", 2], "tag": 0}},
    }
    page.load_workflow(prompt)
    page.press_run()
    page.tab.wait_for_function("() => document.body.innerText.includes('The image holds pixels that are no numbers')")
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(ARTIFACTS / "failed-run.png")
    page.tab.keyboard.press("Escape")
    page.wait_until(lambda: not page.dialogs())


def test_old_workflows_open(stocked_server: Server, page: Page):
    noise, info = page.errors(), stocked_server.object_info()
    for file in old_workflows.FILES:
        workflow = old_workflows.read(file)
        page.load_workflow(workflow, file.stem, drawn=100)
        assert page.unknown_nodes() == page.toasts() == page.dialogs() == [], file
        old_workflows.kept(old_workflows.values_then(workflow), page.api_prompt(), info)
    page.tab.wait_for_timeout(500)  # what the last ones say late
    is_clean(page, noise)


def made(server: Server, name: str) -> tuple[Path, dict, dict]:
    """The video that a small variant of a workflow makes, with that workflow and its prompt."""
    workflow = json.loads((workflow_inputs.WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    graph = Graph(workflow, server.object_info())
    for node in workflow["nodes"]:
        for field, value in DROPPED[name].get(node["type"], {}).items():
            graph.set(str(node["id"]), field, value)
    prompt = graph.prompt()
    # As the page queues it.
    data = {"prompt": prompt, "extra_data": {"extra_pnginfo": {"workflow": workflow}}}
    answer = server.post("/prompt", data)
    answer.raise_for_status()
    (path,) = server.output_files(server.wait(answer.json()["prompt_id"]))
    return path, workflow, prompt


@only_first
def test_a_result_dropped_onto_the_page_opens_its_workflow(stocked_server: Server, page: Page):
    noise = page.errors()
    for name in DROPPED:
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


@only_first
def test_the_template_browser_shows_every_workflow_with_its_picture(page: Page, open_page: OpenPage):
    assert page.templates("SkyReels-V3") == {name: 512 for name in workflow_inputs.workflow_files()}
    page.screenshot(ARTIFACTS / "templates.png")
    open_page.close()  # the dialogs of both tests stay
