"""One forward of the transformer, beside ComfyUI's WanModel and diffusers' with the same weights, in one process.

Time is that of a step of a job of 8 steps: the pack makes the prompt's keys and values in the first and keeps them, the
others make them in each. The prompt has 128 tokens and zeros after them up to 512, as ComfyUI's text encoder gives it;
on a processor the pack attends to the zeros as one. All run PyTorch's attention. The floor is the matrix products and
attentions of a whole forward alone, into memory that is there already; only by leaving out some of them can a step go
below. Nothing is measured unless all outputs agree.

On the CPU: float32, a network of 4 layers. On a graphics card: bf16, the 14B network.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure, peers, turns
from pack.benchmarks.harness.aims import Aim
from pack.benchmarks.harness.peers import TEXT_TOKENS, TEXT_WIDTH, Video

STEPS = 8
PROMPT = 128  # tokens
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # relative error between two outputs


@dataclass(frozen=True)
class Size:
    dim: int
    heads: int
    ffn: int
    layers: int
    frames: int
    height: int
    width: int
    rounds: int

    @property
    def tokens(self) -> int:
        return self.frames * self.height * self.width // 4


FULL = Size(dim=1536, heads=12, ffn=4096, layers=4, frames=7, height=30, width=26, rounds=4)
CARD = Size(dim=5120, heads=40, ffn=13824, layers=40, frames=21, height=60, width=104, rounds=2)
QUICK = Size(dim=128, heads=1, ffn=256, layers=2, frames=4, height=8, width=8, rounds=2)
SECONDS = {"wall": 60, "one_thread": 40}  # after which a busy machine begins no further round of a case


@dataclass(frozen=True)
class Case:
    """aims: of time against ComfyUI's, of memory, and of time against the floor."""

    label: str
    latent: tuple[int, int, int]  # frames, height, width
    prefix: int = 0
    time: float | None = None
    memory: float | None = None
    floor: float | None = None


def _ratio(case: str, how: str, who: str):
    return lambda results: results["cases"][case]["ratio"][how][who]


COMFYUI = "ComfyUI's WanModel"
AIMS = [
    Aim("one forward: time of a step", 0.87, _ratio("plain", "wall", "comfyui"), of=COMFYUI),
    Aim("one forward: peak of activations", 0.7, _ratio("plain", "memory", "comfyui"), of=COMFYUI),
    Aim("with a timestep per frame: time of a step", 0.8, _ratio("extension", "wall", "comfyui"), of=COMFYUI),
    Aim("with a timestep per frame: peak of activations", 0.7, _ratio("extension", "memory", "comfyui"), of=COMFYUI),
    Aim("full forward, 480p: time", 1.25, _ratio("480p", "wall", "floor"), card=True, of="the floor"),
    Aim("full forward, 720p: time", 1.15, _ratio("720p", "wall", "floor"), card=True, of="the floor"),
]


def cases(size: Size, card: bool) -> dict[str, Case]:
    latent = (size.frames, size.height, size.width)
    if not card:
        return {
            "plain": Case("One video", latent, time=0.87, memory=0.7),
            "extension": Case("Extension (half of the frames clean)", latent, size.frames // 2, time=0.8, memory=0.7),
        }
    larger = (size.frames, size.height * 3 // 2, size.width * 20 // 13 // 2 * 2)
    return {
        "480p": Case("832 x 480, 81 frames", latent, floor=1.25),
        "480p extension": Case("832 x 480, a third of the 81 frames clean", latent, size.frames // 3, floor=1.25),
        "720p": Case("1280 x 720, 81 frames", larger, floor=1.15),
    }


def params(size: Size):
    from pack.skyreels_v3.model.params import TransformerParams

    return TransformerParams(dim=size.dim, ffn_dim=size.ffn, num_heads=size.heads, num_layers=size.layers)


def video(case: Case, device, dtype) -> Video:
    import torch

    def normal(*shape):
        return torch.randn(*shape).to(device, dtype)

    torch.manual_seed(1)
    latents, text = normal(1, 16, *case.latent), normal(1, TEXT_TOKENS, TEXT_WIDTH)
    text[:, PROMPT:] = 0
    return Video(
        latents,
        text,
        torch.tensor([873.0], device=device),
        case.prefix,
    )


def steps(network, given: Video) -> tuple[Callable, Callable, object]:
    """(a first step, a later one, what the later one has to go by); the later one's first call fills that."""
    from pack.skyreels_v3.model.step_cache import StepCache
    from pack.skyreels_v3.model.transformer import Runtime

    kept = StepCache(2**40)
    return (
        lambda: peers.velocity(network, given, Runtime(step_cache=StepCache(2**40))),
        lambda: peers.velocity(network, given, Runtime(step_cache=kept)),
        kept,
    )


def floor(network, tokens: int) -> tuple[Callable[[], None], int]:
    """(a call that does only the matrix products and attentions of a forward, its floating point operations)."""
    import torch
    import torch.nn.functional as F

    weight = network.head.head.weight
    options = {"device": weight.device, "dtype": weight.dtype}
    rows_of = {"text_embedding": TEXT_TOKENS, "time_embedding": 1, "time_projection": 1}
    products = []
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear):
            of_text = name.endswith(("cross_attn.k", "cross_attn.v"))
            products.append((TEXT_TOKENS if of_text else rows_of.get(name.split(".")[0], tokens), layer.weight))
    inputs = {shape: torch.randn(*shape, **options) for shape in {(rows, weight.shape[1]) for rows, weight in products}}
    outputs = {
        shape: torch.empty(*shape, **options) for shape in {(rows, weight.shape[0]) for rows, weight in products}
    }
    heads, dim, layers = network.params.num_heads, network.params.dim, network.params.num_layers
    q, text = (torch.randn(1, heads, length, dim // heads, **options) for length in (tokens, TEXT_TOKENS))

    def run() -> None:
        for rows, weight in products:
            turns.pause()
            torch.mm(inputs[rows, weight.shape[1]], weight.t(), out=outputs[rows, weight.shape[0]])
        for key in (q, text):
            for _ in range(layers):
                turns.pause()
                F.scaled_dot_product_attention(q, key, key)

    operations = sum(2 * rows * weight.numel() for rows, weight in products)
    return run, operations + 4 * layers * tokens * (tokens + TEXT_TOKENS) * dim


def measured(quick: bool) -> dict:
    import torch

    device = measure.device()
    card = device.type == "cuda"
    missing = peers.enter(cpu=not card)
    size = QUICK if quick else CARD if card else FULL
    dtype = torch.bfloat16 if card else torch.float32
    result = {
        "device": measure.device_name(device),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "size": vars(size),
        "missing": missing,
        "cases": {},
    }
    with torch.inference_mode():
        network = peers.own(params(size), device, dtype, "comfyui" not in missing)
        others = {"comfyui": peers.Comfyui, "diffusers": peers.Diffusers}
        others = {who: other(network) for who, other in others.items() if who not in missing}
        if not card:
            for one in (network, *(other.network for other in others.values())):
                turns.pause_before(layers_of(one))
        for name, case in cases(size, card).items():
            given = video(case, device, dtype)
            result["cases"][name] = {"tokens": given.tokens, **compared(network, others, given, size.rounds)}
    return result


def layers_of(network) -> list:
    """A network's blocks and their linear layers."""
    import torch

    return [
        module
        for block in network.blocks
        for module in block.modules()
        if module is block or isinstance(module, torch.nn.Linear)
    ]


def compared(network, others: dict, given: Video, rounds: int) -> dict:
    """Error, time and memory of everyone for one case. Raises SystemExit where the outputs differ."""
    weight = network.head.head.weight
    first, later, kept = steps(network, given)
    calls = {"first": first, "later": later}
    calls |= {who: lambda other=other: other(given) for who, other in others.items()}
    error = largest_error(calls)
    if not error < TOLERANCE[str(weight.dtype).removeprefix("torch.")]:
        raise SystemExit(f"Nothing to compare: the outputs differ by {error:.1e}.")
    peak = {
        who: measure.peak_allocated(calls["later" if who == "pack" else who], weight.device)
        for who in ("pack", *others)
    }
    calls["floor"], operations = floor(network, given.tokens)
    timed = on_card if weight.device.type == "cuda" else on_cpu
    found = {
        "error": error,
        "kept_bytes": kept.size,
        "operations": operations,
        **timed(calls, rounds, weight.device),
        "peak_bytes": peak,
    }
    found["ratio"] = {
        how: {who: found[how]["pack"]["steady_s"] / found[how][who]["steady_s"] for who in (*others, "floor")}
        for how in ("wall", "one_thread")
        if how in found
    } | {"memory": {who: peak["pack"] / peak[who] for who in others}}
    return found


def largest_error(calls: dict) -> float:
    """Between the outputs of the calls, for the frames that all predict."""
    outputs = {who: call().float() for who, call in calls.items()}
    frames = outputs["first"].shape[2]
    outputs = {who: output[:, :, -frames:] for who, output in outputs.items()}
    reference = outputs["first"]
    return max(float((output - reference).norm() / reference.norm()) for output in outputs.values())


def on_cpu(calls: dict, rounds: int, device) -> dict:
    """All threads, then one alone, of which processor time is counted."""
    import torch

    threads = torch.get_num_threads()
    times = turns.in_turns(calls, rounds, SECONDS["wall"])
    wall = {who: timing.wall for who, timing in times.items()}
    torch.set_num_threads(1)
    times = turns.in_turns(calls, max(rounds // 2, 1), SECONDS["one_thread"])
    torch.set_num_threads(threads)
    return {"wall": per_step(wall), "one_thread": per_step({who: timing.processor for who, timing in times.items()})}


def on_card(calls: dict, rounds: int, device) -> dict:
    waiting = {who: measure.waited_for(call, device) for who, call in calls.items()}
    times = measure.interleaved(waiting, rounds)
    return {"wall": per_step({who: [[seconds] for seconds in times[who]] for who in times})}


def per_step(times: dict) -> dict:
    """Seconds of everyone; the pack's are those of a step among STEPS."""
    found = {
        who: {
            "steady_s": turns.steady(rounds),
            "median_s": statistics.median(turns.totals(rounds)),
            "rounds": len(rounds),
        }
        for who, rounds in times.items()
    }
    first, later = found.pop("first"), found.pop("later")
    share = {"steady_s", "median_s"}
    pack = {key: (first[key] + (STEPS - 1) * later[key]) / STEPS for key in share}
    return {"pack": {**pack, "rounds": later["rounds"]}, "first": first, "later": later, **found}


def tables(result: dict) -> str:
    size, missing = result["size"], result["missing"]
    card = result["device"] != "cpu"
    rows = []
    for name, case in result["cases"].items():
        known = cases(Size(**size), card)[name]
        ways = [("wall", "time, s" if card else f"time, {result['threads']} threads (s)")]
        ways += [] if card else [("one_thread", "processor time, one thread (s)")]
        for how, what in ways:
            seconds = [seconds_of(case[how], who, missing) for who in (*peers.WHO, "floor")]
            shares = [share_of(case["ratio"][how], who) for who in ("comfyui", "diffusers", "floor")]
            aim = (
                f"≤ {known.time:.2f} of ComfyUI"
                if known.time
                else f"≤ {known.floor:.2f} x the floor"
                if known.floor
                else ""
            )
            rows.append([f"{known.label}: {what}", *seconds, *shares, aim])
        sizes = [missing.get(who) or f"{case['peak_bytes'][who] / 1e6:.1f}" for who in peers.WHO]
        shares = [share_of(case["ratio"]["memory"], who) for who in ("comfyui", "diffusers")]
        aim = f"≤ {known.memory:.2f} of ComfyUI" if known.memory else ""
        rows.append([f"{known.label}: peak of activations (MB)", *sizes, "", *shares, "", aim])
        kept = f"{case['kept_bytes'] / 1e6:.1f}"
        rows.append(
            [
                f"{known.label}: kept between steps (MB)",
                *["" if who in missing else "0" for who in others()],
                kept,
                *[""] * 5,
            ]
        )
    head = ["", *peers.WHO.values(), "floor", "of ComfyUI", "of diffusers", "of the floor", "aim"]
    return measure.table(head, rows)


def others() -> list[str]:
    return [who for who in peers.WHO if who != "pack"]


def seconds_of(times: dict, who: str, missing: dict) -> str:
    return missing.get(who) or f"{times[who]['steady_s']:.2f}"


def share_of(ratios: dict, who: str) -> str:
    return f"**{ratios[who]:.3f}**" if who in ratios else ""


if __name__ == "__main__":
    measure.main(measured)
