"""Lists through our nodes: a list of prompts, pictures, clips or recordings is one queue with one result for each."""

import json
from pathlib import Path

import av
import numpy as np
import pytest

from pack.dev.comfyui.server import Server
from pack.dev.samples import workflow_inputs
from pack.tests.support import video_clips
from pack.tools.batching.workflow import to_prompt

TINY = {"resolution": "custom", "width": 64, "height": 64}


def prompt(server: Server, name: str, changes: dict) -> dict:
    workflow = json.loads((workflow_inputs.WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    return workflow_inputs.changed(to_prompt(workflow, server.object_info()), changes)


def node(prompt: dict, node_type: str) -> dict:
    (inputs,) = [one["inputs"] for one in prompt.values() if one["class_type"] == node_type]
    return inputs


def listed(prompt: dict, first, second) -> list:
    """Adds a list of two things, each a value or a link, and returns the link to it."""
    key = f"list {len(prompt)}"
    prompt[key] = {"class_type": "Listed", "inputs": {"first": first, "second": second}}
    return [key, 0]


def frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


@pytest.fixture
def reference(stocked_server: Server) -> dict:
    changes = {"SkyReelsReferenceToVideo": {**TINY, "frames": 5}, "SkyReelsSigmas": {"steps": 1}}
    return prompt(stocked_server, "reference_to_video", changes)


@pytest.fixture
def extension(stocked_server: Server) -> dict:
    for name, count in (("first.mp4", 9), ("second.mp4", 13)):
        video_clips.clip(stocked_server.base / "input" / name, count)
    changes = {"SkyReelsExtendVideo": {**TINY, "steps": 1, "script": "continue 0.2s: She walks on."}}
    return prompt(stocked_server, "video_extension", changes | {"LoadVideo": {"file": "first.mp4"}})


@pytest.fixture
def avatar(stocked_server: Server) -> dict:
    one_window = {"window": 25, "motion": 5, "drop": 4}
    changes = {"SkyReelsTalkingAvatar": {**TINY, "steps": 1, **one_window}}
    return prompt(stocked_server, "talking_avatar", changes)


def two(server: Server, prompt: dict) -> list[np.ndarray]:
    """The frames of the two videos that a prompt makes."""
    first, second = server.output_files(server.run(prompt))
    return [frames(first), frames(second)]


@pytest.mark.server
def test_two_prompts_are_two_videos(stocked_server: Server, reference: dict):
    text = node(reference, "CLIPTextEncode")
    text["text"] = listed(reference, text["text"], "A cat drinks milk.")
    first, second = two(stocked_server, reference)
    assert first.shape == second.shape == (5, 64, 64, 3)
    assert (first != second).any()


@pytest.mark.server
def test_two_pictures_are_two_videos(stocked_server: Server, reference: dict):
    job = node(reference, "SkyReelsReferenceToVideo")
    job["image_1"] = listed(reference, job["image_1"], job["image_2"])
    del job["image_2"]
    first, second = two(stocked_server, reference)
    assert first.shape == second.shape and (first != second).any()


@pytest.mark.server
def test_two_clips_and_their_scripts_are_two_extensions(stocked_server: Server, extension: dict):
    job = node(extension, "SkyReelsExtendVideo")
    extension["other"] = {"class_type": "LoadVideo", "inputs": {"file": "second.mp4"}}
    job["source"] = listed(extension, job["source"], ["other", 0])
    job["script"] = listed(extension, job["script"], "continue 0.4s: She sits down.")
    assert [len(one) for one in two(stocked_server, extension)] == [9 + 5, 13 + 10]


@pytest.mark.server
def test_two_recordings_are_two_avatars(stocked_server: Server, avatar: dict):
    for side in ("left", "right"):
        avatar[side] = {"class_type": "LoadAudio", "inputs": {"audio": f"speech_{side}.wav"}}
    node(avatar, "SkyReelsSpeech")["audio"] = listed(avatar, ["left", 0], ["right", 0])
    first, second = two(stocked_server, avatar)
    assert len(first) == len(second) == 15 and (first != second).any()
