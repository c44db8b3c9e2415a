"""A forward of the 14B transformer whose blocks wait in RAM, beside the same with all weights on the graphics card.

Streamed, the blocks come through two buffers while the block before computes (skyreels_v3/model/block_streaming.py),
from pinned memory; copied in line, each block waits for its own copy, which is what streaming saves. The peak is of
everything on the card: weights, buffers, activations. Nothing is measured unless the outputs are equal.

Without a card this runs in tiny sizes only, to show that it runs.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.forward import block, forward
from pack.benchmarks.forward.forward import Case
from pack.benchmarks.harness import measure, peers
from pack.benchmarks.harness.aims import Aim

CARD_ONLY = True
PRECISIONS = ("bf16", "int8")
LABELS = {"resident": "all on the card", "streamed": "streamed", "in line": "copied in line"}
LATENTS = {"480p, 81 frames": (21, 60, 104), "720p, 81 frames": (21, 90, 160), "720p, 121 frames": (31, 90, 160)}
MEMORY_ONLY = {("720p, 81 frames", "int8"), ("720p, 121 frames", "bf16"), ("720p, 121 frames", "int8")}
CARD = forward.Size(dim=5120, heads=40, ffn=13824, layers=40, frames=0, height=0, width=0, rounds=2)
QUICK = forward.Size(dim=256, heads=2, ffn=512, layers=3, frames=0, height=0, width=0, rounds=2)


def _slower(case: str):
    return lambda results: 100 * (results["cases"][case]["bf16"]["ratio"]["streamed"] - 1)


def _peak(case: str, precision: str):
    return lambda results: results["cases"][case][precision]["peak_bytes"]["streamed"] / 1e9


AIMS = [
    Aim("streamed in bf16, 480p: slower by", 3, _slower("480p, 81 frames"), card=True, unit=" %", of="resident"),
    Aim("streamed in bf16, 720p: slower by", 1, _slower("720p, 81 frames"), card=True, unit=" %", of="resident"),
    Aim(
        "streamed in bf16, 480p x 81 frames: memory of the card", 4, _peak("480p, 81 frames", "bf16"), True, unit=" GB"
    ),
    Aim(
        "streamed in bf16, 720p x 121 frames: memory of the card",
        10,
        _peak("720p, 121 frames", "bf16"),
        True,
        unit=" GB",
    ),
    Aim(
        "streamed in int8, 720p x 121 frames: memory of the card",
        8,
        _peak("720p, 121 frames", "int8"),
        True,
        unit=" GB",
    ),
]


def measured(quick: bool) -> dict:
    import torch

    device = measure.device()
    peers.enter(cpu=device.type == "cpu")
    from pack.kernels.half_precision import computed_in

    size = QUICK if quick else CARD
    dtype = computed_in(torch.bfloat16, device)  # on a processor it is only shown to run
    latents = {"24 tokens": (2, 6, 8)} if quick else LATENTS
    result = {"device": measure.device_name(device), "size": vars(size), "cases": {name: {} for name in latents}}
    with torch.inference_mode():
        plain = peers.own(forward.params(size), device, dtype, comfyui=False)
        for precision in PRECISIONS:
            resident = plain if precision == "bf16" else block.in_8_bits(plain, precision)
            waiting = in_ram(resident, device)
            for name, latent in latents.items():
                # Long forwards take half a minute: where time does not count, one is run for its memory.
                timed = (name, precision) not in MEMORY_ONLY
                given = forward.video(Case(name, latent), device, dtype)
                result["cases"][name][precision] = compared(resident, waiting, given, size.rounds if timed else 0)
            del waiting
    return result


def in_ram(network, device):
    """A copy of the network whose blocks are in RAM, in pinned memory where a card will read them."""
    import torch

    blocks, network.blocks = network.blocks, torch.nn.ModuleList()
    other = copy.deepcopy(network)
    network.blocks = blocks
    # Block by block: a second network would hardly fit on most cards.
    other.blocks = torch.nn.ModuleList(copy.deepcopy(one).cpu() for one in blocks)
    if device.type == "cuda":
        for parameter in other.blocks.parameters():
            parameter.data = parameter.data.pin_memory()
    return other


def compared(resident, waiting, given: peers.Video, rounds: int) -> dict:
    """Time and memory of all; for no round, memory alone, and nothing is copied in line.

    Raises SystemExit where outputs differ.
    """
    import torch

    from pack.skyreels_v3.model.block_streaming import OneQueue, TwoQueues

    device = given.latents.device
    ahead = TwoQueues(device) if device.type == "cuda" else OneQueue(device)
    calls = {"resident": forward.steps(resident, given)[1], "streamed": streaming(waiting, given, ahead)}
    if rounds:
        calls["in line"] = streaming(waiting, given, OneQueue(device))
    peak, outputs = {}, {}
    for who, call in calls.items():

        def run(who=who, call=call):
            outputs[who] = call()

        weights = (resident if who == "resident" else waiting).parameters()
        there = sum(weight.nbytes for weight in weights if weight.device == given.latents.device)
        peak[who] = there + measure.peak_allocated(run, device)
        if not torch.equal(outputs[who], outputs["resident"]):
            raise SystemExit(f"Nothing to compare: the output of {who} differs.")
    found: dict = {"tokens": given.tokens, "peak_bytes": peak}
    if rounds:
        seconds = measure.interleaved({who: measure.waited_for(call, device) for who, call in calls.items()}, rounds)
        found["seconds"] = {who: measure.summary(times) for who, times in seconds.items()}
        found["ratio"] = {who: measure.ratios(times, seconds["resident"])["median"] for who, times in seconds.items()}
    return found


def streaming(network, given: peers.Video, queues):
    """A later step of a job, with the blocks' weights coming through `queues`."""
    from pack.skyreels_v3.model.block import plain_block
    from pack.skyreels_v3.model.block_streaming import Weight, streamed
    from pack.skyreels_v3.model.step_cache import StepCache
    from pack.skyreels_v3.model.transformer import Runtime

    kept = StepCache(2**40)

    def run():
        weights = [
            [
                Weight(module, name)
                for module in one.modules()
                for name in module._parameters
                if module._parameters[name] is not None
            ]
            for one in network.blocks
        ]
        with streamed(weights, queues) as stream:
            return peers.velocity(network, given, Runtime(step_cache=kept, run_block=stream.wrap(plain_block)))

    return run


def tables(result: dict) -> str:
    rows = []
    for name, precisions in result["cases"].items():
        for precision, case in precisions.items():
            for who in case["peak_bytes"]:
                timed = "seconds" in case
                rows.append(
                    [
                        f"{name}, {precision}: {LABELS[who]}",
                        f"{case['seconds'][who]['median_s']:.2f}" if timed else "",
                        f"**{case['ratio'][who]:.3f}**" if timed else "",
                        f"{case['peak_bytes'][who] / 1e9:.2f}",
                    ]
                )
    return measure.table(["", "one forward (s)", "of resident", "memory of the card (GB)"], rows)


if __name__ == "__main__":
    measure.main(measured)
