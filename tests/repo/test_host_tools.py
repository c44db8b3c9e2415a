"""The tools that the other tests stand on: server, page and converter, tried with a throw-away pack."""

import threading
from pathlib import Path

import pytest
import skimage

from pack.dev.comfyui.page import PageError
from pack.dev.comfyui.server import Interrupted, NodeFailed, PromptRefused, Server, ServerError
from pack.tools.batching.workflow import WorkflowError, to_prompt

pytestmark = pytest.mark.workshop

PHOTO = Path(skimage.__file__).parent / "data" / "chelsea.png"
PACK = """
import time
from fractions import Fraction
import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import ComfyExtension, InputImpl, Types, io

class Clip(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ThrowAwayClip",
            category="test",
            inputs=[
                io.Image.Input("image"),
                io.Int.Input("frames", default=8, min=1, max=64),
                io.Int.Input("seed", default=0, min=0, max=99, control_after_generate=True),
                io.Combo.Input("mode", options=["good", "failing", "slow"]),
            ],
            outputs=[io.Video.Output(display_name="video")],
        )

    @classmethod
    def execute(cls, image, frames, seed, mode):
        if mode == "failing":
            raise ValueError("0 images were given, but 1 to 4 are needed.")
        bar = comfy.utils.ProgressBar(200)
        for _ in range(200 if mode == "slow" else 0):
            throw_exception_if_processing_interrupted()
            time.sleep(0.1)
            bar.update(1)
        images = image[:1, :64, :96, :3].repeat(frames, 1, 1, 1)
        return io.NodeOutput(
            InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(8)))
        )

class Extension(ComfyExtension):
    async def get_node_list(self):
        return [Clip]

async def comfy_entrypoint():
    return Extension()
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    pack = tmp_path_factory.mktemp("packs") / "ThrowAway"
    pack.mkdir()
    (pack / "__init__.py").write_text(PACK)
    with Server(pack=False, packs=[pack]) as server:
        server.upload_image(PHOTO)
        yield server


def prompt(**changes) -> dict:
    values = {"image": ["1", 0], "frames": 16, "seed": 1, "mode": "good", **changes}
    save = {"video": ["2", 0], "filename_prefix": "tried/clip", "format": "auto", "codec": "auto"}
    return {
        "1": {"class_type": "LoadImage", "inputs": {"image": PHOTO.name}},
        "2": {"class_type": "ThrowAwayClip", "inputs": values},
        "3": {"class_type": "SaveVideo", "inputs": save},
    }


def without_titles(prompt: dict) -> dict:
    return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in prompt.items()}


@pytest.mark.server
def test_a_prompt_runs_and_its_file_is_found(running: Server):
    (video,) = running.output_files(running.run(prompt()))
    assert video.parent == running.base / "output" / "tried"
    assert video.stat().st_size > 500


@pytest.mark.server
def test_a_failed_node_is_raised_with_its_own_words(running: Server):
    with pytest.raises(NodeFailed, match=r"node 2 ThrowAwayClip: ValueError: 0 images were given, but") as caught:
        running.run(prompt(mode="failing"))
    assert "in execute" in caught.value.traceback


@pytest.mark.server
def test_a_refused_prompt_names_node_and_input(running: Server):
    with pytest.raises(PromptRefused, match=r"node 2 ThrowAwayClip: Value 1000 bigger than max of 64 \(frames\)"):
        running.queue(prompt(frames=1000))


@pytest.mark.server
def test_progress_can_be_followed_and_a_run_interrupted(running: Server):
    seen = []
    for event in running.events(prompt(mode="slow", seed=2)):
        seen.append(event["type"])
        if seen.count("progress") == 2:
            running.interrupt()
    assert seen[-1] == "execution_interrupted"
    running_id = running.queue(prompt(mode="slow", seed=3))
    threading.Timer(1, running.interrupt).start()
    with pytest.raises(Interrupted, match="in node 2 ThrowAwayClip"):
        running.wait(running_id)


@pytest.mark.server
def test_a_crash_is_told_and_its_folder_survives(server_factory):
    server = server_factory(pack=False)
    name = server.upload_image(PHOTO)
    server.kill()
    with pytest.raises(ServerError, match="ComfyUI ended"):
        server.wait("none")
    server.start()
    assert (server.base / "input" / name).is_file()
    assert server.get("/system_stats")["devices"][0]["type"] == "cpu"


@pytest.mark.parametrize("nodes_2", [False, True], ids=["classic canvas", "Nodes 2.0"])
def test_the_page_loads_runs_and_shows(running: Server, page_factory, tmp_path: Path, nodes_2: bool):
    page = page_factory(running, nodes_2=nodes_2)
    page.load_workflow(prompt(seed=5 + nodes_2))
    saved = page.saved_workflow()
    assert page.unknown_nodes() == []
    assert page.run()["status"]["status_str"] == "success"
    (video,) = page.video_state()
    assert (video["readyState"], video["videoWidth"], video["videoHeight"]) == (4, 96, 64)
    assert page.toasts() == page.dialogs() == []
    assert page.errors() == []
    assert page.screenshot(tmp_path / "page.png").stat().st_size > 10_000

    page.load_workflow(saved)
    info = running.object_info()
    assert without_titles(page.api_prompt()) == without_titles(to_prompt(saved, info)) == prompt(seed=5 + nodes_2)

    # The image and the clip as one subgraph, as the page writes it.
    page.tab.evaluate("() => { app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(n => n.id < 3))) }")
    folded = page.saved_workflow()
    assert len(folded["nodes"]) == 2
    assert without_titles(page.api_prompt()) == without_titles(to_prompt(folded, info))
    assert {key.split(":")[-1] for key in to_prompt(folded, info)} == {"1", "2", "3"}

    saved["nodes"][1]["type"] = "NoSuchNode"
    page.load_workflow(saved)
    assert page.unknown_nodes() == ["NoSuchNode"]
    with pytest.raises(WorkflowError, match="does not know: NoSuchNode"):
        to_prompt(saved, info)


def test_two_pages_can_be_open_at_once(running: Server, page_factory):
    first, second = page_factory(running), page_factory(running)
    first.load_workflow(prompt())
    assert len(first.saved_workflow()["nodes"]) == 3
    assert first.errors() == second.errors() == []


def test_a_run_that_is_not_queued_is_told(running: Server, page_factory):
    page = page_factory(running)
    unconnected = prompt()
    del unconnected["2"]["inputs"]["image"]
    page.load_workflow(unconnected)
    with pytest.raises(PageError, match="The page queued nothing when Run was pressed; it shows: "):
        page.run()
