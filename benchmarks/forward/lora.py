"""What a LoRA of rank 64 on every linear layer costs, and how exact its effect is on packed weights.

Time: one forward of the transformer in float32 on the CPU, with the LoRA beside the layers and without. The floor is
what it adds to the layers' multiplications; it falls with the model's width.
Exactness: one layer, in float32. Its effect is the output with the LoRA less the output without; it is compared with
x @ (up @ down).T, once run beside the packed weight and once as merging has it: unpacked, added and packed again.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.forward import forward
from pack.benchmarks.harness import measure, peers
from pack.benchmarks.harness.aims import Aim

RANK = 64
EFFECT = 0.05  # size of up @ down, of the weight's
ROWS = 512  # tokens
PRECISIONS = ("bf16", "int8", "fp8", "nf4")
ROUNDS = 9  # on the CPU
WIDTH, FFN_WIDTH = 5120, 13824  # of the 14B models
CARD = forward.Size(dim=WIDTH, heads=40, ffn=FFN_WIDTH, layers=2, frames=21, height=60, width=104, rounds=10)


AIMS = [
    Aim(
        "LoRA of rank 64 beside layers of 14B: slower by",
        3,
        lambda results: 100 * (results["forward"]["ratio"]["median"] - 1),
        card=True,
        unit=" %",
        of="without",
    )
]


def share(*shapes: tuple[int, int]) -> float:
    """Multiplications of a LoRA, of those of its layers with weights of these shapes."""
    return sum(RANK * (rows + columns) for rows, columns in shapes) / sum(rows * columns for rows, columns in shapes)


def layers(quick: bool) -> dict:
    """Precision -> {"beside", "merged"}: relative error of the LoRA's effect on one layer's output."""
    import torch

    from pack.formats.encoding import Encoding
    from pack.formats.registry import format_of
    from pack.skyreels_v3.model.lora import BranchParams, Lora

    size = 256 if quick else WIDTH
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(size, size, generator=generator) / size**0.5).bfloat16().float()
    down, up = torch.randn(RANK, size, generator=generator), torch.randn(size, RANK, generator=generator)
    up *= EFFECT * weight.norm() / (up @ down).norm()
    x = torch.randn(ROWS, size, generator=generator)
    exact = x @ down.T @ up.T
    lora = Lora({"layer": BranchParams(size, size, RANK)})
    lora.load_state_dict({"layer.down.weight": down, "layer.up.weight": up}, assign=True)
    encodings = {"int8": Encoding("int8", 256), "fp8": Encoding("float8_e4m3fn"), "nf4": Encoding("nf4")}

    def linear(weight, name):
        if name == "bf16":
            return x @ weight.bfloat16().float().T
        return format_of(encodings[name]).linear(x, format_of(encodings[name]).pack(weight), size, None)

    def unpacked(name):
        if name == "bf16":
            return weight
        format = format_of(encodings[name])
        return format.unpack(format.pack(weight), size, size, torch.float32)

    def error(effect) -> float:
        return float((effect - exact).norm() / exact.norm())

    result = {}
    for name in PRECISIONS:
        without = linear(weight, name)
        beside = lora.branches["layer"](x, without.clone(), strength=1.0)
        merged = linear(unpacked(name) + up @ down, name)
        result[name] = {"beside": error(beside - without), "merged": error(merged - without)}
    return result


def forwards(quick: bool) -> dict:
    """Seconds of a forward with and without: of one thread's processor time, on a card of blocks as wide as 14B's."""
    import torch

    device = measure.device()
    card = device.type == "cuda"
    measure.enter_comfyui(cpu=not card)
    import comfy.ops

    from pack.nodes.weights.layers import branching
    from pack.skyreels_v3.model.lora import BranchParams, Lora, applied
    from pack.skyreels_v3.model.transformer import Runtime, SkyReelsTransformer

    size = forward.QUICK if quick else CARD if card else forward.FULL
    dtype = torch.bfloat16 if card else torch.float32
    options = {"operations": branching(comfy.ops.disable_weight_init), "device": device, "dtype": dtype}
    network = SkyReelsTransformer(forward.params(size), **options).eval()
    linears = {name: module for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)}
    branches = {name: BranchParams(layer.in_features, layer.out_features, RANK) for name, layer in linears.items()}
    lora = Lora(branches).to_empty(device=device).to(dtype)
    peers.fill(network)
    peers.fill(lora)
    given = forward.video(forward.Case("", (size.frames, size.height, size.width)), device, dtype)

    def run(*loras):
        with torch.inference_mode(), applied(network, loras):
            return peers.velocity(network, given, Runtime())

    calls = {"without": run, "with": lambda: run((lora, 1.0, {}))}
    if not card:
        torch.set_num_threads(1)
    waiting = {name: measure.waited_for(call, device) for name, call in calls.items()}
    seconds = measure.interleaved(
        waiting, size.rounds if quick or card else ROUNDS, time.perf_counter if card else time.thread_time
    )
    peaks = {name: measure.peak_allocated(call, device) for name, call in calls.items()}
    return {
        **{name: measure.summary(times) for name, times in seconds.items()},
        "ratio": measure.ratios(seconds["with"], seconds["without"]),
        "peak": peaks["with"] / peaks["without"],
        "floor": 1 + share(*(layer.weight.shape for layer in linears.values())),
        "floor_14b": 1 + share(*[(WIDTH, WIDTH)] * 8, *[(FFN_WIDTH, WIDTH)] * 2),
    }


def measured(quick: bool) -> dict:
    found = {"rank": RANK, "forward": forwards(quick), "layers": layers(quick)}
    return {"device": measure.device_name(measure.device()), **found}


def tables(result: dict) -> str:
    timed = result["forward"]
    cost = [
        "one forward, one thread (s)" if result.get("device", "cpu") == "cpu" else "a forward of two blocks (s)",
        *(f"{timed[name]['median_s']:.2f}" for name in ("without", "with")),
        f"**{timed['ratio']['median']:.3f}**",
        f"{timed['ratio']['min']:.3f}",
        f"{timed['floor']:.3f} ({timed['floor_14b']:.3f} at the 14B models' width)",
        f"{timed['peak']:.3f}",
    ]
    errors = [[name, f"**{case['beside']:.5%}**", f"{case['merged']:.1%}"] for name, case in result["layers"].items()]
    header = ["", "without", f"with, rank {result['rank']}", "ratio", "of the fastest runs", "floor", "peak memory"]
    return "\n\n".join(
        [
            measure.table(header, [cost]),
            measure.table(["error of the LoRA's effect", "beside the layer", "merged and stored again"], errors),
        ]
    )


if __name__ == "__main__":
    measure.main(measured)
