"""The workflows in workflows/ and the blueprints in subgraphs/: as the page saves them, known to ComfyUI, complete."""

import itertools
import json
import time
from fractions import Fraction
from pathlib import Path

import pytest

from pack.benchmarks.jobs import graphs as graphs_of_artists
from pack.dev.comfyui.server import Interrupted, Server
from pack.dev.samples import workflow_inputs
from pack.showcase import jobs
from pack.tools.batching.workflow import INTO, ONLY_ON_THE_PAGE, OUT_OF, to_prompt, unknown_types

BENCHMARKS = workflow_inputs.ROOT / "benchmarks"
FILES = sorted(workflow_inputs.WORKFLOWS.glob("*.json"))
BLUEPRINTS = sorted((workflow_inputs.ROOT / "subgraphs").glob("*.json"))
# In a folder that Templates does not list: experiments, and those that need a newer ComfyUI.
MORE = sorted((workflow_inputs.WORKFLOWS / "more").glob("*.json"))
NEEDED = {"TextGenerate": "0.33", "StartLoop": "0.46", "EndLoop": "0.46"}  # node type -> since which ComfyUI
OWN = "SkyReels"
LOADERS = {"CLIPLoader", "VAELoader", "CLIPVisionLoader", "AudioEncoderLoader"}
MEDIA = ("image", "file", "audio")  # inputs that name a picture, a video or a recording
MOST_BYTES = 60_000  # of a thumbnail
# Sizes of nodes are without their title, which is above.
TITLE = 30

each_workflow = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
each_noted = pytest.mark.parametrize("file", FILES + MORE, ids=lambda file: file.stem)
each_file = pytest.mark.parametrize("file", FILES + MORE + BLUEPRINTS, ids=lambda file: file.stem)


def read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def subgraphs(workflow: dict) -> list[dict]:
    return workflow.get("definitions", {}).get("subgraphs", [])


def graphs(workflow: dict) -> list[dict]:
    """The workflow itself and every subgraph in it."""
    return [workflow, *subgraphs(workflow)]


def all_nodes(workflow: dict) -> list[dict]:
    """Every node that runs or is read, those in subgraphs included; not the boxes that stand for a subgraph."""
    boxes = {graph["id"] for graph in subgraphs(workflow)}
    return [node for graph in graphs(workflow) for node in graph["nodes"] if node["type"] not in boxes]


def boxes(workflow: dict) -> dict[str, tuple[float, float, float, float]]:
    """Node's title and id -> its left, top, right and bottom on the canvas."""
    found = {}
    for node in workflow["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        found[f"{node.get('title', node['type'])} ({node['id']})"] = (left, top - TITLE, left + width, top + height)
    return found


def test_every_workflow_is_in_the_demo():
    assert jobs.DEMOS.keys() == workflow_inputs.workflow_files().keys() == {file.stem for file in FILES}


@each_file
def test_it_is_as_the_page_saves_it(file: Path):
    workflow = read(file)
    assert workflow["version"] == 0.4
    assert file.read_text(encoding="utf-8") == json.dumps(workflow, indent=2, ensure_ascii=False) + "\n"
    for node in all_nodes(workflow):
        if node["type"] in ONLY_ON_THE_PAGE:
            continue
        properties = node["properties"]
        assert properties["Node name for S&R"] == node["type"]
        assert properties["cnr_id"] == ("skyreels-v3" if node["type"].startswith(OWN) else "comfy-core")
        assert properties["ver"]
    ids = [one["id"] for one in map(read, FILES + MORE + BLUEPRINTS)]
    assert ids.count(workflow["id"]) == 1


@each_noted
def test_its_notes_name_every_model_with_its_place_and_what_to_change(file: Path):
    workflow = read(file)
    notes = {node["title"]: node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"}
    assert "Note: What to change first" in notes
    links = notes["Note: Model links"]
    for node in all_nodes(workflow):
        if node["type"] in LOADERS:
            (model,) = node["properties"]["models"]
            assert f"**{model['directory']}** (" in links and f"[{model['name']}]({model['url']})" in links
        elif node["type"] == "SkyReelsLoadModel":
            repository, *folder = node["widgets_values"][0].strip("/").split("/")
            assert f"[Skywork/{repository}](https://huggingface.co/Skywork/{repository}" in links or folder
            assert all(f"─ {name}/" in links for name in (repository, *folder))
    # Code between words is blue on brown in Nodes 2.0: nobody can read it there.
    assert not any("`" in part for note in notes.values() for part in note.split("```")[::2])


@each_workflow
def test_it_has_a_thumbnail(file: Path):
    from PIL import Image

    picture = file.with_suffix(".jpg")  # the only kind that the page looks for
    assert picture.stat().st_size <= MOST_BYTES
    with Image.open(picture) as image:
        assert image.format == "JPEG" and image.width == image.height >= 384


def test_what_it_asks_of_an_artist_is_recorded():
    counted = [graphs_of_artists.count(file.stem, read(file)) for file in FILES]
    assert graphs_of_artists.table(counted) in (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    reference = next(one for one in counted if one.name == "reference_to_video")
    # Three clicks to open, two for each image, one for the prompt, one to run.
    assert (reference.media, reference.prompts, reference.clicks) == (2, 1, 3 + 4 + 1 + 1)


def test_models_in_an_authors_own_folder_and_prompts_inside_of_subgraphs_are_counted():
    loader = {"id": 1, "type": "UNETLoader", "widgets_values": ["wan\\model.safetensors"], "outputs": []}
    text = {"id": 2, "type": "CLIPTextEncode", "widgets_values": ["A cat."], "inputs": []}
    end = {"id": 3, "type": "SaveVideo", "inputs": [{"name": "a"}, {"name": "negative"}], "widgets_values": ["video"]}
    inner = {"id": "sub", "nodes": [text], "links": [dict(id=1, origin_id=2, target_id=-20, target_slot=0)]}
    for graph, prompts in (
        ({"nodes": [loader, text, end], "links": [[1, 2, 0, 3, 0, "X"]]}, 1),
        ({"nodes": [loader, text, end], "links": [[1, 2, 0, 3, 1, "X"]]}, 0),  # it is the negative one
        ({"nodes": [loader, text, end], "links": []}, 0),  # it leads nowhere
        ({"nodes": [loader, {"id": 4, "type": "sub"}], "links": [], "definitions": {"subgraphs": [inner]}}, 1),
    ):
        counted = graphs_of_artists.count("one", graph)
        assert (counted.prompts, counted.models_to_choose) == (prompts, 1)


def test_every_picture_has_a_workflow():
    assert {file.stem for file in workflow_inputs.WORKFLOWS.glob("*.*")} == {file.stem for file in FILES}


@each_file
def test_stock_loaders_name_their_download_and_others_do_not(file: Path):
    # Of a model in a folder the page would say that it is missing, even where it is there.
    for node in all_nodes(read(file)):
        models = node["properties"].get("models", [])
        assert bool(models) == (node["type"] in LOADERS)
        for model in models:
            assert model["name"] == node["widgets_values"][0]
            assert model["url"].startswith("https://huggingface.co/") and model["url"].endswith(model["name"])
            assert model["directory"] in {"text_encoders", "vae", "clip_vision", "audio_encoders"}


@each_file
def test_its_seeds_stay(file: Path):
    for node in all_nodes(read(file)):
        if node["type"] in {"RandomNoise", "KSampler"}:
            assert "fixed" in node["widgets_values"]


@each_file
def test_nothing_overlaps_and_every_group_holds_its_nodes(file: Path):
    workflow = read(file)
    for graph in graphs(workflow):
        for (name, a), (other, b) in itertools.combinations(boxes(graph).items(), 2):
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


@each_file
def test_its_links_agree_with_its_nodes(file: Path):
    workflow = read(file)
    ids = [node["id"] for graph in graphs(workflow) for node in graph["nodes"]]
    assert len(ids) == len(set(ids))  # otherwise newer pages number the nodes of subgraphs anew
    for graph in graphs(workflow):
        nodes = {node["id"]: node for node in graph["nodes"]}
        for link, source, out, target, into, kind in map(as_list, graph["links"]):
            given = graph["inputs"][out] if source == INTO else nodes[source]["outputs"][out]
            taken = graph["outputs"][into] if target == OUT_OF else nodes[target]["inputs"][into]
            assert link in given["linkIds" if source == INTO else "links"]
            assert [link] == (taken["linkIds"] if target == OUT_OF else [taken["link"]])
            assert kind == given["type"] or source == INTO
            fits = {kind, "*"}.intersection(taken["type"].split(",")) or kind == taken["type"]
            assert fits or kind == "*", "what a loop carries is any type"
        used = sum(slot["link"] is not None for node in graph["nodes"] for slot in node["inputs"])
        assert used + sum(len(slot["linkIds"]) for slot in graph.get("outputs", [])) == len(graph["links"])
        last = graph.get("state") or {"lastNodeId": graph["last_node_id"], "lastLinkId": graph["last_link_id"]}
        assert last["lastNodeId"] == max(nodes)
        assert last["lastLinkId"] == max([as_list(link)[0] for link in graph["links"]], default=0)


def as_list(link: list | dict) -> list:
    """A link of a subgraph as one of a workflow."""
    return link if isinstance(link, list) else list(link.values())


@each_file
def test_a_subgraphs_box_has_its_inputs_and_fields(file: Path):
    workflow = read(file)
    for graph in subgraphs(workflow):
        inside = {node["id"]: node for node in graph["nodes"]}
        (box,) = [node for node in workflow["nodes"] if node["type"] == graph["id"]]
        assert [slot["name"] for slot in box["inputs"]] == [slot["name"] for slot in graph["inputs"]]
        assert [slot["name"] for slot in box["outputs"]] == [slot["name"] for slot in graph["outputs"]]
        fields = [slot["name"] for slot in box["inputs"] if "widget" in slot]
        assert box["properties"]["proxyWidgets"] == [["-1", name] for name in fields]
        assert len(box["widgets_values"]) == len(fields)
        # Pages before the box kept values of its own show those of the nodes inside: both are the same.
        for index, slot in enumerate(graph["inputs"]):
            if slot["name"] in fields:
                value = box["widgets_values"][fields.index(slot["name"])]
                for link in map(as_list, graph["links"]):
                    if link[1:3] == [INTO, index]:
                        assert value in inside[link[3]]["widgets_values"]


@each_file
def test_app_mode_shows_what_an_artist_fills_in_and_the_video(file: Path):
    """`extra.linearData`: fields in the order in which they are filled in, each with a name of its own."""
    workflow = read(file)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    chosen = workflow["extra"]["linearData"]
    fields = [(id, name) for id, name, *_ in chosen["inputs"]]
    labels = []
    for id, name in fields:
        (field,) = [one for one in nodes[id]["inputs"] if one.get("widget", {}).get("name") == name]
        assert field.get("link") is None
        labels.append(field.get("label", name))
    assert len(set(labels)) == len(labels)
    is_model = [name.endswith("model") for _, name in fields]
    assert is_model == sorted(is_model) and any(is_model), "models come last"
    every_loader = {id for id, node in nodes.items() if node["type"] in {"LoadImage", "LoadVideo", "LoadAudio"}}
    assert every_loader | {id for id, node in nodes.items() if node["type"] == "SkyReelsLoadModel"} <= {
        id for id, _ in fields
    }
    videos = [id for id, node in nodes.items() if node["type"] == "SaveVideo"]
    assert chosen["outputs"] == ([1] if file in BLUEPRINTS else videos)


def test_every_blueprint_is_one_box_with_a_description():
    assert len(BLUEPRINTS) == 7
    for file in BLUEPRINTS:
        workflow = read(file)
        (box,), (graph,) = workflow["nodes"], subgraphs(workflow)
        assert box["type"] == graph["id"] and graph["name"] == box["title"] == file.stem
        assert graph["description"] and graph["category"] == "SkyReels-V3"


@pytest.mark.server
def test_comfyui_has_the_blueprints(stocked_server: Server):
    entries = stocked_server.get("/global_subgraphs")
    ours = {entry["name"]: key for key, entry in entries.items() if entry["info"]["node_pack"].endswith("SkyReels-V3")}
    assert ours.keys() == {file.stem for file in BLUEPRINTS}
    nodes = {node["display_name"] for node in stocked_server.object_info().values()}
    assert not nodes & ours.keys()  # whoever searches must be able to tell them apart
    for file in BLUEPRINTS:
        assert json.loads(stocked_server.get(f"/global_subgraphs/{ours[file.stem]}")["data"]) == read(file)


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


@pytest.mark.parametrize("file", MORE, ids=lambda file: file.stem)
def test_one_that_is_no_template_lacks_nothing_but_what_its_note_names(stocked_server: Server, file: Path):
    """Where this ComfyUI has that, the prompt is checked by it too; a language model is no file of these tests."""
    info, workflow = stocked_server.object_info(), read(file)
    needed = NEEDED.keys() & {node["type"] for node in all_nodes(workflow)}
    assert unknown_types(workflow, info) <= needed
    notes = " ".join(str(node["widgets_values"]) for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    assert all(f"ComfyUI {NEEDED[name]} or newer" in notes for name in needed)
    if not unknown_types(workflow, info):
        prompt = to_prompt(workflow, info)
        for node in prompt.values():
            inputs = info[node["class_type"]]["input"]
            specs = {**inputs.get("required", {}), **inputs.get("optional", {})}
            for name, value in node["inputs"].items():
                if node["class_type"] != "CLIPLoader" and name in specs:  # not what a choice brings
                    check(f"{node['class_type']}.{name}", value, *specs[name])


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


def test_what_the_demo_changes_is_there(stocked_server: Server):
    for name, one in jobs.DEMOS.items():
        prompt = to_prompt(read(workflow_inputs.workflow_files()[name]), stocked_server.object_info())
        for changes in (one.changes, *one.runs):
            prompt = workflow_inputs.changed(prompt, changes)
        given = [node["inputs"].get(key) for node in prompt.values() for key in MEDIA]
        # Nothing of the workflow's own is left; lists are links.
        assert {value for value in given if isinstance(value, str)} == set(one.inputs), name


def test_reference_to_video_runs_to_a_playable_video(stocked_server: Server):
    file = workflow_inputs.workflow_files()["reference_to_video"]
    prompt = to_prompt(read(file), stocked_server.object_info())
    small = {"resolution": "custom", "width": 96, "height": 64, "frames": 9}
    prompt = workflow_inputs.changed(prompt, {"SkyReelsReferenceToVideo": small})
    (path,) = stocked_server.output_files(stocked_server.run(prompt))
    assert path.parent == stocked_server.base / "output" / "video"
    assert path.name.startswith("SkyReels-V3_reference") and path.suffix == ".mp4"
    assert workflow_inputs.probe(path) == workflow_inputs.Video(96, 64, Fraction(24), 9)


def test_a_change_that_fits_no_node_is_told():
    prompt = {"1": {"class_type": "VAELoader", "inputs": {"vae_name": "a"}}}
    assert workflow_inputs.changed(prompt, {"VAELoader": {"vae_name": "b"}})["1"]["inputs"] == {"vae_name": "b"}
    assert prompt["1"]["inputs"] == {"vae_name": "a"}
    titled = {"1": {"class_type": "LoadImage", "inputs": {"image": "a"}, "_meta": {"title": "Portrait"}}}
    assert workflow_inputs.changed(titled, {"Portrait": {"image": "b"}})["1"]["inputs"] == {"image": "b"}
    with pytest.raises(KeyError, match="no node CLIPLoader"):
        workflow_inputs.changed(prompt, {"CLIPLoader": {}})
    with pytest.raises(KeyError, match="VAELoader has no input type"):
        workflow_inputs.changed(prompt, {"VAELoader": {"type": "wan"}})


def test_what_workflows_ask_for_is_known(tmp_path: Path):
    asked = {file for name in FILES for file in workflow_inputs.needs(read(name))}
    assert asked == workflow_inputs.FILES.keys()


def test_files_are_made_once(tmp_path: Path):
    written = tmp_path / "input" / "coffee.png"
    workflow_inputs.make_once(written, workflow_inputs.FILES["input/coffee.png"])
    before = written.stat().st_mtime_ns
    workflow_inputs.make_once(written, workflow_inputs.FILES["input/coffee.png"])
    assert written.stat().st_mtime_ns == before
    assert [path.name for path in written.parent.iterdir()] == ["coffee.png"]
