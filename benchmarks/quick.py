"""`make bench-quick`: the processor's ratios within a minute on two cores. The last line is one JSON object.

The network, the videos and the definition of a step are forward.py's, without diffusers. A first step is timed once, a
later one and WanModel's in as many rounds as there is time for, all layer by layer in turns. `..._time_...` is made of
every layer's fastest time, `..._time_of_the_rounds` is the median of the ratios of whole forwards beside it, which is
the same on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.benchmarks.forward import forward
from pack.benchmarks.harness import measure, peers, turns

NAMES = {"plain": "forward", "extension": "forward_per_frame_timesteps"}
SECONDS = 42  # from the start; what is begun by then ends within 60, on slow machines too
ROUNDS = 8


def ratios(size: forward.Size, began: float) -> dict[str, float]:
    """Time and peak of activations of a step, ours over ComfyUI's WanModel, by name."""
    measure.enter_comfyui()
    import torch

    device = torch.device("cpu")
    found: dict[str, float] = {}
    with torch.inference_mode():
        network = peers.own(forward.params(size), device, torch.float32, comfyui=True)
        wan = peers.Comfyui(network)
        for one in (network, wan.network):
            turns.pause_before(forward.layers_of(one))
        cases = forward.cases(size, card=False)
        for number, (name, case) in enumerate(cases.items(), start=1):
            until = began + SECONDS * number / len(cases)
            given = forward.video(case, device, torch.float32)
            found |= {f"{NAMES[name]}_{key}": value for key, value in compared(network, wan, given, until).items()}
    return found


def compared(network, wan, given, until: float) -> dict[str, float]:
    """Ratios of one case, measured until about `until` on perf_counter's clock."""
    _, later, _ = forward.steps(network, given)
    outputs = {}

    def comfyui():
        outputs["comfyui"] = wan(given)

    def pack():
        outputs["pack"] = later()

    memory = measure.peak_allocated(comfyui)
    first = turns.in_turns({"pack": pack, "comfyui": comfyui}, 1)  # this step makes what the later ones keep
    memory = measure.peak_allocated(pack) / memory
    error = forward.largest_error({"first": lambda: outputs["pack"], "comfyui": lambda: outputs["comfyui"]})
    if not error < forward.TOLERANCE["float32"]:
        raise SystemExit(f"Nothing to compare: the outputs differ by {error:.1e}.")
    times = turns.in_turns({"pack": pack, "comfyui": comfyui}, ROUNDS, until - time.perf_counter(), least=1)
    wall = {who: timing.wall for who, timing in times.items()}
    processor = {who: timing.processor for who, timing in times.items()}
    rounds = zip(turns.totals(wall["pack"]), turns.totals(wall["comfyui"]), strict=True)
    found = {
        "time_vs_comfy": turns.steady(wall["pack"]) / turns.steady(wall["comfyui"]),
        "time_vs_comfy_of_the_rounds": statistics.median(own / other for own, other in rounds),
        "processor_time_vs_comfy": turns.steady(processor["pack"]) / turns.steady(processor["comfyui"]),
    }
    once = turns.totals(first["pack"].wall)[0] / turns.totals(first["comfyui"].wall)[0]
    found = {key: (once + (forward.STEPS - 1) * ratio) / forward.STEPS for key, ratio in found.items()}
    found = {key: round(value, 3) for key, value in (found | {"memory_vs_comfy": memory}).items()}
    return {**found, "rounds": len(wall["pack"])}


def main() -> None:
    start = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, not how fast")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
    found = ratios(forward.QUICK if options.quick else forward.FULL, start)
    print(json.dumps({**found, "cores": os.cpu_count(), "seconds": round(time.perf_counter() - start, 1)}))


if __name__ == "__main__":
    main()
