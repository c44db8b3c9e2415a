"""A queue of 50 prompts through a real server: time of each after the first, and memory at its end beside its third.

Tiny random models of the real layout, on the CPU: what is measured is what a queue of prompts reuses and what it leaves
behind. Every prompt has a text and a seed of its own, as rows of tools/batch.py do; models, images and the VAE's
encoding of them are the same.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.harness.aims import Aim

AIMS = [Aim("50 prompts through one server: memory at the end", 1.02, lambda results: results["ratio"], of="after 3")]
COLLECTED = 12  # seconds; ComfyUI collects garbage 10 s after the time before
SMALL = {"resolution": "custom", "width": 64, "height": 64, "frames": 5}
NAME = "reference_to_video"


def measured(quick: bool) -> dict:
    from pack.dev.comfyui.server import Server
    from pack.dev.samples import workflow_inputs
    from pack.tools.batching.workflow import to_prompt

    count = 6 if quick else 50
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        workflow_inputs.prepare(Path(folder), [NAME])
        with Server(Path(folder), packs=workflow_inputs.TINY_PACKS, environment=workflow_inputs.ENVIRONMENT) as server:
            workflow = json.loads((workflow_inputs.WORKFLOWS / f"{NAME}.json").read_text(encoding="utf-8"))
            prompt = to_prompt(workflow, server.object_info())
            runs, at_rest = [], []
            for number in range(count):
                runs.append(one_prompt(server, row(prompt, number), prompt))
                if number in (2, count - 1):
                    at_rest.append(memory_at_rest(server))
    return {
        "prompts": count,
        "size": SMALL,
        "first_s": runs[0]["seconds"],
        "after_s": statistics.median(one["seconds"] for one in runs[1:]),
        "seconds": [one["seconds"] for one in runs],
        "rss": [one["rss"] for one in runs],
        "rss_at_rest": at_rest,
        "ratio": at_rest[-1] / at_rest[0],
        "reused": sorted(set.intersection(*(set(one["reused"]) for one in runs[1:]))),
    }


def row(prompt: dict, number: int) -> dict:
    from pack.dev.samples import workflow_inputs

    own = {
        "SkyReelsReferenceToVideo": SMALL,
        "CLIPTextEncode": {"text": f"The astronaut drinks cup number {number} of coffee."},
        "RandomNoise": {"noise_seed": number},
        "SkyReelsSigmas": {"steps": 2},
    }
    return workflow_inputs.changed(prompt, own)


def one_prompt(server, prompt: dict, titles: dict) -> dict:
    """Runs a prompt: {seconds, rss (bytes of the server afterwards), reused (types of nodes that did not run)}."""
    entry = server.run(prompt)
    times = {kind: data for kind, data in entry["status"]["messages"]}
    took = times["execution_success"]["timestamp"] - times["execution_start"]["timestamp"]
    reused = [titles[node]["class_type"] for node in times["execution_cached"]["nodes"]]
    return {"seconds": took / 1000, "rss": server.memory(), "reused": reused}


def memory_at_rest(server) -> int:
    """The server's resident memory once ComfyUI has collected what the last prompt left, which it does when idle."""
    time.sleep(COLLECTED)
    samples = []
    for _ in range(10):
        time.sleep(0.1)
        samples.append(server.memory())
    return min(samples)


def tables(result: dict) -> str:
    third, last = result["rss_at_rest"]
    numbers = [
        f"{result['first_s']:.2f}",
        f"{result['after_s']:.2f}",
        f"{third / 1e6:.0f}",
        f"{last / 1e6:.0f}",
        f"**{result['ratio']:.3f}**",
        AIMS[0].shown(),
    ]
    head = [
        "",
        "the first (s)",
        "each after it (s)",
        "memory after the third (MB)",
        "after the last (MB)",
        "ratio",
        "aim",
    ]
    rows = [[f"{result['prompts']} prompts", *numbers]]
    reused = ", ".join(f"`{name}`" for name in result["reused"])
    return f"{measure.table(head, rows)}\n\nNodes that no prompt after the first ran again: {reused}."


if __name__ == "__main__":
    sys.exit(measure.main(measured))
