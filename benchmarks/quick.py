"""`make bench-quick`: the processor's ratios in a minute on two cores. The last line is one JSON object.

The same calls as forward.py at its full size, in fewer rounds: good to a few hundredths on a quiet machine.
"""

from __future__ import annotations

import json
import os
import statistics
import time

import forward
import measure

ROUNDS = 2
NAMES = {"plain": "forward", "extension": "forward_per_frame_timesteps"}


def ratios() -> dict[str, float]:
    """Time and peak of activations of a step, ours over ComfyUI's WanModel, by name."""
    measure.enter_comfyui()
    import torch

    found: dict[str, float] = {}
    with torch.inference_mode():
        own, wan = forward.models(forward.FULL)
        for name, (pack, comfyui, predicted) in forward.cases(forward.FULL, own, wan).items():
            first, later, _ = forward.steps(pack)
            expected = comfyui()[:, :, predicted]
            error = float((later() - expected).norm() / expected.norm())
            if not error < forward.TOLERANCE:
                raise SystemExit(f"Nothing to compare: the outputs of {name} differ by {error:.1e}.")
            memory = measure.peak_allocated(later) / measure.peak_allocated(comfyui)
            seconds: dict[str, list[float]] = {"first": [], "later": [], "comfyui": []}
            for _ in range(ROUNDS):
                for who, call in (("comfyui", comfyui), ("later", later), ("first", first)):
                    if who == "first" and seconds["first"]:
                        continue  # one step in eight
                    start = time.perf_counter()
                    call()
                    seconds[who].append(time.perf_counter() - start)
            steady = [own / other for own, other in zip(seconds["later"], seconds["comfyui"], strict=True)]
            once = seconds["first"][0] / seconds["comfyui"][0]
            step = (once + (forward.STEPS - 1) * statistics.median(steady)) / forward.STEPS
            found[f"{NAMES[name]}_time_vs_comfy"] = round(step, 3)
            found[f"{NAMES[name]}_memory_vs_comfy"] = round(memory, 3)
    return found


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
    print(json.dumps(ratios()))
