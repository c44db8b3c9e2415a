"""The LoRA node in a running ComfyUI: in a workflow and in a long job, and bad files."""

import json
import re

import pytest
import torch

from pack.dev.comfyui.server import NodeFailed, Server
from pack.dev.samples import workflow_inputs
from pack.tests.server.test_extension_server import prompt as extension
from pack.tests.server.test_extension_server import result
from pack.tests.support.loras import lora_pairs, named, write_lora
from pack.tools.batching.workflow import to_prompt

SCRIPT = "continue 0.2s: She walks on.\ncontinue 0.2s: She smiles."


def with_lora(prompt: dict, name: str, strength: float = 1.0) -> dict:
    """The prompt with a LoRA on every model."""
    loaders = [key for key, node in prompt.items() if node["class_type"] == "SkyReelsLoadModel"]
    changed = {key: {**node, "inputs": dict(node["inputs"])} for key, node in prompt.items()}
    for node in changed.values():
        for name_of_input, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in loaders:
                node["inputs"][name_of_input] = [f"lora of {value[0]}", 0]
    for key in loaders:
        inputs = {"model": [key, 0], "lora": name, "strength": strength}
        changed[f"lora of {key}"] = {"class_type": "SkyReelsLora", "inputs": inputs}
    return changed


@pytest.fixture
def reference(stocked_server: Server) -> dict:
    workflow = json.loads(workflow_inputs.workflow_files()["reference_to_video"].read_text(encoding="utf-8"))
    small = {"resolution": "custom", "width": 64, "height": 64, "frames": 5}
    return workflow_inputs.changed(
        to_prompt(workflow, stocked_server.object_info()), {"SkyReelsReferenceToVideo": small}
    )


def put(server: Server, name: str, tensors: dict[str, torch.Tensor]) -> None:
    write_lora(server.base / "models" / "loras" / name, tensors)


def test_a_workflow_with_a_lora(stocked_server: Server, reference: dict):
    put(stocked_server, "kohya.safetensors", named(lora_pairs(), "kohya"))
    videos = []
    for prompt in (reference, with_lora(reference, "kohya.safetensors"), with_lora(reference, "kohya.safetensors", -1)):
        (path,) = stocked_server.output_files(stocked_server.run(prompt))
        videos.append(path.read_bytes())
    assert len(set(videos)) == 3
    assert "kohya.safetensors: " in stocked_server.log
    assert "strength -1" in stocked_server.log


def test_a_long_job_goes_on_only_with_the_same_lora(stocked_server: Server):
    put(stocked_server, "style.safetensors", named(lora_pairs()))

    def made_before(script: str, strength: float = 1.0) -> str:
        prompt = with_lora(extension(stocked_server, script, steps=2), "style.safetensors", strength)
        return re.search(r"(\d) of 2 rolls were made before", result(stocked_server, stocked_server.run(prompt))[1])[1]

    assert made_before(SCRIPT) == "0"
    assert made_before(SCRIPT + "\n# again") == "2"
    assert made_before(SCRIPT, 0.5) == "0"
    put(stocked_server, "style.safetensors", named(lora_pairs(seed=1)))
    assert made_before(SCRIPT) == "0"


@pytest.mark.parametrize(
    ("name", "tensors", "words"),
    [
        ("flux.safetensors", {"transformer.x.lora_A.weight": torch.zeros(2, 2)}, "^flux.safetensors is a LoRA for ano"),
        ("empty.safetensors", {}, r"^empty.safetensors \(it is empty\)"),
    ],
)
def test_a_bad_file_is_told(stocked_server: Server, reference: dict, name: str, tensors: dict, words: str):
    put(stocked_server, name, tensors)
    with pytest.raises(NodeFailed) as caught:
        stocked_server.run(with_lora(reference, name))
    assert caught.value.node_type == "SkyReelsLora"
    assert re.search(words, caught.value.exception_message)
