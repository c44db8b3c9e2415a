"""Load Model with several gpus in a running ComfyUI: the same video, previews, Stop; and nothing is left of it."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from pack.dev.comfyui.server import Server, ServerError
from pack.dev.samples import workflow_inputs
from pack.dev.samples.tiny_models import write_transformer
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tools.batching.workflow import to_prompt

pytestmark = [pytest.mark.server, pytest.mark.workshop]  # a ComfyUI and two processes: a minute
PARAMS = TransformerParams(dim=384, ffn_dim=512, num_heads=3, num_layers=2)
STOPS = 10  # seconds
LEFT = 10  # seconds until everything has ended


AVATAR = replace(PARAMS, in_dim=36, image_dim=1280, audio=AudioParams(hidden=32, dim=64))
MODELS = {
    "SkyReels-V3-R2V-14B/transformer": (Job.REFERENCE, PARAMS),
    "SkyReels-V3-V2V-14B/transformer": (Job.EXTENSION, PARAMS),
    "SkyReels-V3-V2V-14B/shot_transformer": (Job.SHOT, PARAMS),
    "SkyReels-V3-A2V-19B": (Job.AVATAR, AVATAR),
}
SIZE = {"resolution": "custom", "width": 64, "height": 64}
LOSSLESS = {"codec": "lossless"}  # another makes several steps of 255 out of one
SCRIPT = "continue 0.2s: The rabbit looks up.\ncut 2s: [ZOOM_IN_CUT] Its face."
SMALL = {
    "reference_to_video": {"SkyReelsReferenceToVideo": {**SIZE, "frames": 5}},
    "storyboard_extension": {"SkyReelsExtendVideo": {**SIZE, **LOSSLESS, "steps": 2, "script": SCRIPT}},
    "talking_avatar_two_people": {
        "SkyReelsTalkingAvatar": {**SIZE, **LOSSLESS, "steps": 2, "window": 21, "motion": 5, "drop": 8},
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    base = tmp_path_factory.mktemp("shared")
    for name, (job, params) in MODELS.items():
        write_transformer(base / "models" / "diffusion_models" / name, job, params=params)
    workflow_inputs.prepare(base, SMALL)
    environment = {**workflow_inputs.ENVIRONMENT, "SKYREELS_GPUS_ON_CPU": "2"}
    options = {"packs": workflow_inputs.TINY_PACKS, "arguments": ["--preview-method", "latent2rgb"]}
    with Server(base, environment=environment, **options) as running:
        yield running


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]).astype(int)


def prompt(
    server: Server, gpus: int, seed: int = 1, frames: int | None = None, name: str = "reference_to_video"
) -> dict:
    workflow = json.loads(workflow_inputs.workflow_files()[name].read_text(encoding="utf-8"))
    changes = {**SMALL[name], "SkyReelsLoadModel": {"gpus": gpus}}
    if frames:
        changes["SkyReelsReferenceToVideo"] = {**SIZE, "frames": frames}
    made = workflow_inputs.changed(to_prompt(workflow, server.object_info()), changes)
    for node in made.values():
        if "noise_seed" in node["inputs"]:
            node["inputs"]["noise_seed"] = seed
    return made


def command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):  # it has ended
        return " ".join(process.cmdline())
    return ""


@pytest.mark.parametrize("name", SMALL)
def test_the_same_video(server, name):
    """Cuts and rolls of a script and two people's windows included."""
    videos = []
    for gpus in (1, 2):
        (path,) = server.output_files(server.run(prompt(server, gpus, name=name)))
        videos.append(frames_of(path))
        # What is kept of a job does not depend on the number of cards: it would not be made again.
        shutil.rmtree(server.base / "output" / "skyreels_v3_jobs", ignore_errors=True)
    assert np.abs(videos[0] - videos[1]).max() <= 1
    assert "2 cards" in server.log and "on one card" not in server.log


def test_previews(server):
    kinds = {event["type"] for event in server.events(prompt(server, 2, seed=2))}
    assert {"progress", "preview"} <= kinds, kinds


def test_stop(server):
    server.run(prompt(server, 2, seed=3))
    started = server.log.count("Started in")
    queued = server.queue(prompt(server, 2, seed=4, frames=481))
    time.sleep(3)
    server.interrupt()
    begun = time.monotonic()
    try:
        server.wait(queued)
    except ServerError:
        pass
    assert time.monotonic() - begun < STOPS
    server.run(prompt(server, 2, seed=5))
    assert server.log.count("Started in") == started


def test_nothing_is_left_of_a_comfyui_that_was_killed(server):
    server.run(prompt(server, 2, seed=6))
    server.queue(prompt(server, 2, seed=7, frames=481))
    time.sleep(1)
    below = psutil.Process(server.process.pid).children(recursive=True)
    assert any("ray::Process" in command(one) for one in below), [command(one) for one in below]
    os.kill(server.process.pid, signal.SIGKILL)
    until = time.monotonic() + LEFT
    # Two helpers of Ray's own notice it a minute later; they hold no card.
    helpers = ("DashboardAgent", "RuntimeEnvAgent")
    left = [one for one in below if not any(name in command(one) for name in helpers)]
    while left and time.monotonic() < until:
        left = [one for one in left if command(one)]
        time.sleep(0.2)
    assert left == []
