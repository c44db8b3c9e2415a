"""The pack inside a running ComfyUI: what it registers and serves, how runs go, and what bad input is answered."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pack.dev.comfyui.server import NodeFailed, PromptRefused, Server
from pack.dev.samples import workflow_inputs
from pack.dev.samples.tiny_models import write_text_encoder, write_transformer
from pack.skyreels_v3.recipes import Job
from pack.tools.batching.workflow import to_prompt

ROOT = workflow_inputs.ROOT
SNAPSHOT = Path(__file__).resolve().parents[1] / "data" / "snapshots" / "nodes.json"
UPDATE = "SKYREELS_UPDATE_SNAPSHOT"  # by `make snapshot`: what it takes over, "added" or, with TAKE, "changed"
NAMES = {
    "SkyReelsLoadModel": "SkyReels-V3 Load Model",
    "SkyReelsLora": "SkyReels-V3 LoRA",
    "SkyReelsReferenceToVideo": "SkyReels-V3 Reference to Video",
    "SkyReelsExtensionWindow": "SkyReels-V3 Extension Window",
    "SkyReelsExtendVideo": "SkyReels-V3 Extend Video",
    "SkyReelsSpeech": "SkyReels-V3 Speech",
    "SkyReelsAvatarWindow": "SkyReels-V3 Avatar Window",
    "SkyReelsTalkingAvatar": "SkyReels-V3 Talking Avatar",
    "SkyReelsUniPCSampler": "SkyReels-V3 UniPC Sampler",
    "SkyReelsSigmas": "SkyReels-V3 Sigmas",
    "SkyReelsGuider": "SkyReels-V3 Guider",
    "SkyReelsSaveModel": "SkyReels-V3 Save Model",
    "SkyReelsPlan": "SkyReels-V3 Plan",
    "SkyReelsJoinVideos": "SkyReels-V3 Join Videos",
    "SkyReelsPrompts": "SkyReels-V3 Prompts",
    "SkyReelsFilm": "SkyReels-V3 Film",
    "SkyReelsCast": "SkyReels-V3 Cast",
    "SkyReelsDubVideo": "SkyReels-V3 Dub Video",
    "SkyReelsPromptBrief": "SkyReels-V3 Prompt Brief",
    "SkyReelsScriptFromText": "SkyReels-V3 Script from Text",
    "SkyReelsDialogue": "SkyReels-V3 Dialogue",
}
FILE_LISTS = {("SkyReelsLoadModel", "model"), ("SkyReelsLora", "lora")}  # their options are what lies in a folder
REFERENCE = workflow_inputs.WORKFLOWS / "reference_to_video.json"
tags = itertools.count(1)


@pytest.fixture(scope="module")
def info(stocked_server: Server) -> dict:
    return stocked_server.object_info()


@pytest.fixture(scope="module")
def ours(info: dict) -> dict:
    return {key: node for key, node in info.items() if node["python_module"] == "custom_nodes.SkyReels-V3"}


@pytest.fixture
def prompt(info: dict) -> dict:
    """The reference workflow as a prompt, small and short."""
    small = {"resolution": "custom", "width": 64, "height": 64, "frames": 5}
    workflow = json.loads(REFERENCE.read_text(encoding="utf-8"))
    return workflow_inputs.changed(to_prompt(workflow, info), {"SkyReelsReferenceToVideo": small})


def node(prompt: dict, node_type: str) -> dict:
    """The inputs of the one node of a type."""
    (found,) = [node["inputs"] for node in prompt.values() if node["class_type"] == node_type]
    return found


def ending(prompt: dict, node_type: str, slot: int = 0) -> dict:
    """The prompt up to one output of a node; nothing after it runs."""
    (key,) = [key for key, node in prompt.items() if node["class_type"] == node_type]
    kept = {key: value for key, value in prompt.items() if value["class_type"] != "SaveVideo"}
    return {**kept, "end": {"class_type": "End", "inputs": {"anything": [key, slot], "tag": next(tags)}}}


def inputs_of(node: dict) -> dict[str, dict]:
    return {part: node["input"].get(part) or {} for part in ("required", "optional")}


def contract(node_id: str, node: dict) -> dict:
    """What saved workflows and prompts rely on of a node."""

    def one(name: str, kind, options: dict | None = None) -> dict:
        options = options or {}
        choices = kind if isinstance(kind, list) else options.get("options")
        if choices is not None:
            kind = "COMBO"
        kept = {key: options[key] for key in ("default", "min", "max", "step") if key in options}
        if choices is not None and (node_id, name) not in FILE_LISTS:
            kept["options"] = choices
        return {"name": name, "type": kind, **kept}

    return {
        **{part: [one(name, *spec) for name, spec in specs.items()] for part, specs in inputs_of(node).items()},
        "outputs": [{"name": name, "type": kind} for name, kind in zip(node["output_name"], node["output"])],
    }


def broken(old: dict, new: dict) -> list[str]:
    """Why saved workflows that fit the contracts `old` would not fit `new`: node id -> contract each."""
    problems = []
    for node_id, before in old.items():
        if node_id not in new:
            problems.append(f"{node_id} is gone")
            continue
        for part, entries in before.items():
            now = new[node_id][part]
            for index, entry in enumerate(entries):
                other = now[index] if index < len(now) else None
                where = f"{node_id}.{part}[{index}] {entry['name']}"
                if other is None:
                    problems.append(f"{where} is gone")
                elif {**entry, "options": 0} != {**other, "options": 0}:
                    problems.append(f"{where} was {entry} and is {other}")
                elif not set(entry.get("options", ())) <= set(other.get("options", ())):
                    problems.append(f"{where} lost an option: {entry['options']} became {other.get('options')}")
            if part == "required" and len(now) > len(entries):
                problems.append(
                    f"{node_id} has the new input {now[-1]['name']}, which old prompts lack: make it optional"
                )
    return problems


@pytest.mark.server
def test_every_node_is_registered_with_words_for_people(ours: dict):
    assert {key: node["display_name"] for key, node in ours.items()} == NAMES
    for key, entry in ours.items():
        assert entry["category"] == "SkyReels-V3", key
        assert entry["description"].endswith("."), key
        for specs in inputs_of(entry).values():
            for name, (_, options) in specs.items():
                assert options.get("tooltip", "").endswith("."), f"{key}.{name} has no tooltip"
        for name, kind in zip(entry["output_name"], entry["output"]):
            assert name and name != kind, f"an output of {key} is called {name}"
        told = entry["output_tooltips"]
        assert len(told) == len(entry["output"]) and all(words and words.endswith(".") for words in told), key


@pytest.mark.server
def test_saved_workflows_keep_fitting(ours: dict):
    new = {key: contract(key, node) for key, node in sorted(ours.items())}
    old = json.loads(SNAPSHOT.read_text(encoding="utf-8")) if SNAPSHOT.exists() else {}
    taken, problems = os.environ.get(UPDATE), broken(old, new)
    assert not problems or taken == "changed", "\n".join([*problems, "If that is wanted: make snapshot TAKE=changed"])
    if taken in ("added", "changed"):
        SNAPSHOT.write_text(json.dumps(new, indent=2) + "\n", encoding="utf-8")
    elif new != old:
        pytest.fail(f"Something was added to the nodes: run `make snapshot` and commit {SNAPSHOT.name}.")


def test_what_would_break_saved_workflows_is_found():
    steps, mode = (
        {"name": "steps", "type": "INT", "default": 8},
        {"name": "mode", "type": "COMBO", "options": ["a", "b"]},
    )
    old = {"Node": {"required": [steps, mode], "optional": [], "outputs": [{"name": "model", "type": "MODEL"}]}}

    def after(**changes) -> list[str]:
        return broken(old, {"Node": {**old["Node"], **changes}})

    assert after() == after(optional=[steps]) == []
    assert after(required=[steps, {**mode, "options": ["b", "c", "a"]}]) == []
    assert "is gone" in after(required=[steps])[0]
    assert "was" in after(required=[mode, steps])[0]
    assert "was" in after(required=[{**steps, "default": 4}, mode])[0]
    assert "was" in after(outputs=[{"name": "model", "type": "LATENT"}])[0]
    assert "lost an option" in after(required=[steps, {**mode, "options": ["a"]}])[0]
    assert "make it optional" in after(required=[steps, mode, steps])[0]
    assert broken(old, {}) == ["Node is gone"]


@pytest.mark.server
def test_every_node_has_a_help_page_that_names_what_it_has(stocked_server: Server, ours: dict):
    for key, entry in ours.items():
        answer = stocked_server._web.get(f"{stocked_server.url}/extensions/SkyReels-V3/docs/{key}.md", timeout=30)
        assert answer.status_code == 200, key
        page = answer.content.decode("utf-8")
        assert page.startswith(f"# {entry['display_name']}\n")
        for name in itertools.chain(*inputs_of(entry).values(), entry["output_name"]):
            assert f"`{name}`" in page or re.fullmatch(r"image_[234]", name), f"the page of {key} lacks {name}"


@pytest.mark.server
def test_the_workflows_are_among_the_templates(stocked_server: Server):
    names = stocked_server.get("/workflow_templates")["SkyReels-V3"]
    assert sorted(names) == sorted(workflow_inputs.workflow_files())
    for name in names:
        assert stocked_server.get(f"/api/workflow_templates/SkyReels-V3/{name}.json")["version"] == 0.4


@pytest.mark.server
def test_the_pack_is_loaded_quickly(stocked_server: Server):
    seconds = re.findall(r"([\d.]+) seconds.*: .*custom_nodes/SkyReels-V3$", stocked_server.log, re.MULTILINE)
    assert seconds  # one for each start: tests may have started it again
    print(f"ComfyUI took {', '.join(seconds)} s to load the pack")
    assert "IMPORT FAILED" not in stocked_server.log


def test_the_entry_point_imports_nothing_heavy():
    script = """
import importlib.util, sys, time
start = time.perf_counter()
spec = importlib.util.spec_from_file_location("pack_alone", sys.argv[1], submodule_search_locations=[])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
print(time.perf_counter() - start, *sorted({name.split(".")[0] for name in sys.modules}))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(ROOT / "__init__.py")], capture_output=True, text=True, check=True
    )
    seconds, *modules = done.stdout.split()
    print(f"importing the pack's __init__ alone took {float(seconds) * 1000:.1f} ms")
    assert not {"torch", "numpy", "PIL", "av", "comfy", "comfy_api", "safetensors", "einops"}.intersection(modules)


@pytest.mark.server
def test_the_model_stays_loaded_between_prompts(stocked_server: Server, prompt: dict):
    node(prompt, "RandomNoise")["noise_seed"] = 100
    stocked_server.run(prompt)
    before = len(stocked_server.log)
    node(prompt, "RandomNoise")["noise_seed"] = 101
    node(prompt, "CLIPTextEncode")["text"] = "The robot drinks tea."
    entry = stocked_server.run(prompt)
    log = stocked_server.log[before:]
    assert len(stocked_server.output_files(entry)) == 1
    assert "Prompt executed" in log
    for loading in ("Job reference", "model_type", "Requested to load Model", "loaded completely"):
        assert loading not in log
    cached = next(data["nodes"] for kind, data in entry["status"]["messages"] if kind == "execution_cached")
    skipped = {prompt[key]["class_type"] for key in cached}
    assert {"SkyReelsLoadModel", "CLIPLoader", "VAELoader", "SkyReelsSigmas"} <= skipped
    assert "SkyReelsReferenceToVideo" not in skipped


@pytest.mark.server
def test_previews_of_the_video_arrive_with_every_step(stocked_server: Server, prompt: dict):
    node(prompt, "RandomNoise")["noise_seed"] = 200
    events = list(stocked_server.events(prompt))
    assert events[-1]["type"] == "execution_success"
    assert sum(event["type"] == "preview" for event in events) >= 8
    steps = [event["data"]["value"] for event in events if event["type"] == "progress" and event["data"]["max"] == 8]
    assert steps == list(range(1, 9))


@pytest.mark.server
def test_an_interrupt_stops_within_a_step_and_the_next_prompt_runs(stocked_server: Server, prompt: dict):
    node(prompt, "SkyReelsSigmas")["steps"] = 500
    node(prompt, "SkyReelsReferenceToVideo")["frames"] = 25
    steps, asked = [], None
    for event in stocked_server.events(prompt):
        if event["type"] == "progress" and event["data"]["max"] == 500:
            steps.append(event["data"]["value"])
        if asked is None and steps and steps[-1] >= 3:
            stocked_server.interrupt()
            asked = len(steps)
    assert event["type"] == "execution_interrupted"
    assert len(steps) - asked <= 2  # the step that ran, and one whose message was under way
    node(prompt, "SkyReelsSigmas")["steps"] = 0
    assert stocked_server.output_files(stocked_server.run(prompt))


# Bad input: one clear sentence, and the server goes on.


def refused_by_node(server: Server, prompt: dict, node_type: str, words: str) -> None:
    """Assert that a node ends the prompt with one sentence that `words` (a pattern) fits, and that the next runs."""
    with pytest.raises(NodeFailed) as caught:
        server.run(prompt)
    failed = caught.value
    assert failed.node_type == node_type
    assert failed.exception_type.endswith(("InputError", "AnotherModel"))
    assert re.search(words, failed.exception_message)
    assert failed.exception_message.endswith(".") and "\n" not in failed.exception_message
    server.run({"image": {"class_type": "OddImage", "inputs": {"kind": "one pixel"}}, **end("image")})


def end(key: str) -> dict:
    return {"end": {"class_type": "End", "inputs": {"anything": [key, 0], "tag": next(tags)}}}


def with_image(prompt: dict, kind: str) -> dict:
    """The prompt up to its references, of which the only one is an odd image."""
    reference = node(prompt, "SkyReelsReferenceToVideo")
    reference.pop("image_2")
    reference["image_1"] = ["odd", 0]
    prompt["odd"] = {"class_type": "OddImage", "inputs": {"kind": kind}}
    return prompt


@pytest.mark.server
def test_no_image_is_told(stocked_server: Server, prompt: dict):
    for name in ("image_1", "image_2"):
        node(prompt, "SkyReelsReferenceToVideo").pop(name)
    words = "^0 reference images were given, but the model takes 1 to 4: connect at least one"
    refused_by_node(stocked_server, prompt, "SkyReelsReferenceToVideo", words)


@pytest.mark.server
@pytest.mark.parametrize("kind", ["batch", "one pixel", "panorama", "alpha"])
def test_odd_images_work(stocked_server: Server, prompt: dict, kind: str):
    stocked_server.run(ending(with_image(prompt, kind), "SkyReelsReferenceToVideo"))


@pytest.mark.server
@pytest.mark.parametrize(("kind", "words"), [("not a number", "NaN"), ("empty", "0 x 48 x 64 x 3")])
def test_images_without_pixels_are_told(stocked_server: Server, prompt: dict, kind: str, words: str):
    refused_by_node(stocked_server, with_image(prompt, kind), "SkyReelsReferenceToVideo", words)


@pytest.mark.server
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("width", 0, "Value 0 smaller than min of 16"),
        ("height", 5000, "Value 5000 bigger than max of 4096"),
        ("seconds", 0, "Value 0.0 smaller than min of 0.1"),
        ("seconds", 1000, "Value 1000.0 bigger than max of 30.0"),
        ("frames", -1, "Value -1 smaller than min of 0"),
    ],
)
def test_numbers_out_of_range_never_start(stocked_server: Server, prompt: dict, name: str, value, words: str):
    node(prompt, "SkyReelsReferenceToVideo")[name] = value
    with pytest.raises(PromptRefused, match=f"SkyReelsReferenceToVideo: {words} .*{name}"):
        stocked_server.queue(prompt)


@pytest.mark.server
@pytest.mark.parametrize(
    ("node_type", "name"),
    [("SkyReelsReferenceToVideo", "resolution"), ("SkyReelsLoadModel", "model")],
)
def test_choices_that_are_not_on_the_list_are_told(stocked_server: Server, prompt: dict, node_type: str, name: str):
    # Older releases of ComfyUI leave it to the node.
    node(prompt, node_type)[name] = "1080P"
    with pytest.raises((PromptRefused, NodeFailed), match=f"{node_type}: .*1080P"):
        stocked_server.run(ending(prompt, node_type))


@pytest.mark.server
def test_a_vae_of_another_family_is_told(stocked_server: Server, prompt: dict):
    node(prompt, "VAELoader")["vae_name"] = "pixel_space"
    words = "^The VAE is .*, but SkyReels-V3 needs the one of Wan 2.1"
    refused_by_node(stocked_server, prompt, "SkyReelsReferenceToVideo", words)


@pytest.mark.server
def test_a_prompt_of_another_text_encoder_is_told(stocked_server: Server, prompt: dict):
    prompt["narrow"] = {"class_type": "NarrowText", "inputs": {}}
    node(prompt, "SkyReelsReferenceToVideo")["positive"] = ["narrow", 0]
    words = "^The prompt's encoding is 768 wide, but this model needs 4096: encode it with umt5_xxl"
    refused_by_node(stocked_server, prompt, "SamplerCustomAdvanced", words)


@pytest.mark.server
def test_a_prompt_that_went_past_the_job_is_told(stocked_server: Server, prompt: dict):
    (text,) = [key for key, node in prompt.items() if node["class_type"] == "CLIPTextEncode"]
    node(prompt, "SkyReelsGuider")["positive"] = [text, 0]
    words = "did not come through Reference to Video"
    refused_by_node(stocked_server, prompt, "SamplerCustomAdvanced", words)


@pytest.fixture(scope="module")
def bad_models(stocked_server: Server) -> Path:
    """The folder of models, with files and folders that are no SkyReels-V3 models or no longer."""
    folder = stocked_server.base / "models" / "diffusion_models"
    whole = write_transformer(folder / "cut.safetensors", Job.REFERENCE)
    whole.write_bytes(whole.read_bytes()[:-1000])
    write_text_encoder(folder / "text_encoder.safetensors")
    lora = {"diffusion_model.blocks.0.self_attn.q.lora_A.weight": torch.zeros(4, 128)}
    save_file(lora, folder / "lora.safetensors")
    (folder / "page.safetensors").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    torch.save({"weight": torch.zeros(4)}, folder / "pickle.safetensors")
    write_transformer(folder / "gap" / "transformer", Job.REFERENCE, "diffusers", shards=3)
    (folder / "gap" / "transformer" / "diffusion_pytorch_model-00002-of-00003.safetensors").unlink()
    write_transformer(folder / "v2v.safetensors", Job.EXTENSION)
    return folder


@pytest.mark.server
@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("cut.safetensors", "^cut.safetensors has .* bytes, but .*the download is incomplete"),
        ("text_encoder.safetensors", "^text_encoder.safetensors is the umt5 text encoder, not a .*CLIPLoader"),
        ("lora.safetensors", "^lora.safetensors is a LoRA: .*SkyReels-V3 LoRA"),
        ("page.safetensors", "^page.safetensors is a web page, not a model"),
        ("pickle.safetensors", "^pickle.safetensors is a PyTorch pickle"),
        ("gap/transformer/", "^gap/transformer lacks diffusion_pytorch_model-00002-of-00003.safetensors"),
    ],
)
def test_files_that_are_no_model_are_told(stocked_server: Server, prompt: dict, bad_models, entry: str, words: str):
    node(prompt, "SkyReelsLoadModel")["model"] = entry
    refused_by_node(stocked_server, ending(prompt, "SkyReelsLoadModel"), "SkyReelsLoadModel", words)


@pytest.mark.server
def test_the_model_of_another_job_is_told(stocked_server: Server, prompt: dict, bad_models):
    node(prompt, "SkyReelsLoadModel")["model"] = "v2v.safetensors"
    words = "^This conditioning was made for the reference job, but the model does the extension job"
    refused_by_node(stocked_server, prompt, "SamplerCustomAdvanced", words)


@pytest.mark.server
def test_after_all_that_a_video_is_made(stocked_server: Server, prompt: dict):
    node(prompt, "RandomNoise")["noise_seed"] = 300
    assert stocked_server.output_files(stocked_server.run(prompt))
