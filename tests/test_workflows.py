"""The workflows in workflows/: as the page saves them, known to ComfyUI, and run to a playable video."""

import itertools
import json
import time
from fractions import Fraction
from pathlib import Path

import pytest

import demo
from comfyui_server import Interrupted, Server
from workflow import ONLY_ON_THE_PAGE, to_prompt, unknown_types

FILES = sorted(demo.WORKFLOWS.glob("*.json"))
OWN = "SkyReels"
# Sizes of nodes are without their title, which is above.
TITLE = 30

each_workflow = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def boxes(workflow: dict) -> dict[str, tuple[float, float, float, float]]:
    """Node's title and id -> its left, top, right and bottom on the canvas."""
    found = {}
    for node in workflow["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        found[f"{node.get('title', node['type'])} ({node['id']})"] = (left, top - TITLE, left + width, top + height)
    return found


def test_every_workflow_is_in_the_demo():
    assert demo.workflow_files().keys() == demo.DEMOS.keys() == {file.stem for file in FILES}


@each_workflow
def test_it_is_as_the_page_saves_it(file: Path):
    workflow = read(file)
    assert workflow["version"] == 0.4
    assert file.read_text(encoding="utf-8") == json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"
    for node in workflow["nodes"]:
        if node["type"] in ONLY_ON_THE_PAGE:
            continue
        properties = node["properties"]
        assert properties["Node name for S&R"] == node["type"]
        assert properties["cnr_id"] == ("skyreels-v3" if node["type"].startswith(OWN) else "comfy-core")
        assert properties["ver"]
    assert any(node["type"] == "MarkdownNote" and node["title"] == "Note: Model links" for node in workflow["nodes"])


@each_workflow
def test_stock_loaders_name_their_download_and_others_do_not(file: Path):
    # Of a model in a folder the page would say that it is missing, even where it is there.
    for node in read(file)["nodes"]:
        models = node["properties"].get("models", [])
        assert bool(models) == (node["type"] in {"CLIPLoader", "VAELoader", "CLIPVisionLoader", "AudioEncoderLoader"})
        for model in models:
            assert model["name"] == node["widgets_values"][0]
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(model["name"])
            assert model["directory"] in {"text_encoders", "vae", "clip_vision", "audio_encoders"}


@each_workflow
def test_its_seeds_stay(file: Path):
    for node in read(file)["nodes"]:
        if node["type"] in {"RandomNoise", "KSampler"}:
            assert "fixed" in node["widgets_values"]


@each_workflow
def test_nothing_overlaps_and_every_group_holds_its_nodes(file: Path):
    workflow = read(file)
    for (name, a), (other, b) in itertools.combinations(boxes(workflow).items(), 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], f"{name} overlaps {other}"
    groups = {group["title"]: group["bounding"] for group in workflow["groups"]}
    for title, (left, top, width, height) in groups.items():
        inside = [
            name
            for name, (a, b, c, d) in boxes(workflow).items()
            if left <= a and top <= b and c <= left + width and d <= top + height
        ]
        across = [
            name
            for name, (a, b, c, d) in boxes(workflow).items()
            if name not in inside and a < left + width and c > left and b < top + height and d > top
        ]
        assert inside and not across, f"group {title} is empty or cuts {across}"


@each_workflow
def test_its_links_agree_with_its_nodes(file: Path):
    workflow = read(file)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    for link, source, out, target, into, kind in workflow["links"]:
        assert link in nodes[source]["outputs"][out]["links"]
        assert nodes[target]["inputs"][into]["link"] == link
        assert kind == nodes[source]["outputs"][out]["type"]
        assert {kind, "*"}.intersection(nodes[target]["inputs"][into]["type"].split(","))
    used = sum(slot["link"] is not None for node in workflow["nodes"] for slot in node["inputs"])
    assert used == len(workflow["links"])
    assert workflow["last_node_id"] == max(nodes)
    assert workflow["last_link_id"] == max(link[0] for link in workflow["links"])


@each_workflow
def test_it_is_known_to_comfyui_and_accepted_unchanged(stocked_server: Server, file: Path):
    info = stocked_server.object_info()
    assert not unknown_types(read(file), info)
    prompt = to_prompt(read(file), info)
    for node in prompt.values():
        inputs = info[node["class_type"]]["input"]
        specs = {**inputs.get("required", {}), **inputs.get("optional", {})}
        assert node["inputs"].keys() <= specs.keys()
        for name, value in node["inputs"].items():
            check(f"{node['class_type']}.{name}", value, *specs[name])
    # Queueing is what checks a prompt; it is taken out again, because its full size takes many minutes here.
    prompt_id = stocked_server.queue(prompt)
    while prompt_id not in stocked_server.get(f"/history/{prompt_id}"):
        stocked_server.interrupt()
        time.sleep(0.1)
    with pytest.raises(Interrupted):
        stocked_server.wait(prompt_id)


def check(where: str, value, kind, options=None) -> None:
    """Assert that a widget's value is one that its node accepts."""
    options = options or {}
    if isinstance(value, list):
        return  # a link
    choices = kind if isinstance(kind, list) else options.get("options")
    if choices is not None:
        assert value in choices, where
    elif kind in ("INT", "FLOAT"):
        assert options.get("min", value) <= value <= options.get("max", value), where
    elif kind == "STRING":
        assert isinstance(value, str), where


def test_reference_to_video_runs_to_a_playable_video(stocked_server: Server):
    file = demo.workflow_files()["reference_to_video"]
    prompt = to_prompt(read(file), stocked_server.object_info())
    small = {"resolution": "custom", "width": 96, "height": 64, "frames": 9}
    prompt = demo.changed(prompt, {"SkyReelsReferenceToVideo": small})
    (path,) = stocked_server.output_files(stocked_server.run(prompt))
    assert path.parent == stocked_server.base / "output" / "video"
    assert path.name.startswith("SkyReels-V3_reference") and path.suffix == ".mp4"
    assert demo.probe(path) == demo.Video(96, 64, Fraction(24), 9)


def test_the_demo_says_what_is_wrong_with_its_table():
    prompt = {"1": {"class_type": "VAELoader", "inputs": {"vae_name": "a"}}}
    assert demo.changed(prompt, {"VAELoader": {"vae_name": "b"}})["1"]["inputs"] == {"vae_name": "b"}
    assert prompt["1"]["inputs"] == {"vae_name": "a"}
    with pytest.raises(KeyError, match="no node CLIPLoader"):
        demo.changed(prompt, {"CLIPLoader": {}})
    with pytest.raises(KeyError, match="VAELoader has no input type"):
        demo.changed(prompt, {"VAELoader": {"type": "wan"}})


def test_the_demo_makes_its_files_once(tmp_path: Path):
    one = demo.Demo(models=(), inputs=("coffee.png",), videos=())
    demo.prepare(tmp_path, [one])
    written = tmp_path / "input" / "coffee.png"
    before = written.stat().st_mtime_ns
    demo.prepare(tmp_path, [one])
    assert written.stat().st_mtime_ns == before
    assert [path.name for path in written.parent.iterdir()] == ["coffee.png"]
