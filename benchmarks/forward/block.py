"""One block of the 14B transformer on a graphics card, by itself, in every precision.

Beside it stand ComfyUI's WanAttentionBlock and diffusers' WanTransformerBlock in bf16, with the same weights and
inputs, and the floor: the matrix products and attentions alone. Whole networks of one block run once, and their outputs
must agree; what they gave their blocks is what the blocks are timed with. This pack's block is timed as in every step
but the first of a job: the prompt's keys and values are there.

Without a card this runs in tiny sizes only, to show that it runs.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.forward import forward
from pack.benchmarks.forward.forward import Case
from pack.benchmarks.harness import measure, peers
from pack.benchmarks.harness.aims import Aim

CARD_ONLY = True
PRECISIONS = ("bf16", "int8", "fp8")
TOLERANCE = {"bf16": 5e-2, "int8": 8e-2, "fp8": 1e-1}
LATENTS = {
    "32,760": (21, 60, 104),
    "75,600": (21, 90, 160),
    "126,000": (35, 90, 160),
}  # tokens -> frames, height, width
CARD = forward.Size(dim=5120, heads=40, ffn=13824, layers=1, frames=0, height=0, width=0, rounds=10)
QUICK = forward.Size(dim=256, heads=2, ffn=512, layers=1, frames=0, height=0, width=0, rounds=2)
PARTS = ("linear layers", "attention", "the rest")


def _ratio(tokens: str, precision: str, who: str):
    return lambda results: results["cases"][tokens]["ratio"][precision][who]


AIMS = [
    Aim(f"one block, {precision}, {tokens} tokens: time", limit, _ratio(tokens, precision, who), card=True, of=name)
    for tokens, precision, limit in (("32,760", "bf16", 0.8), ("126,000", "bf16", 0.9), ("32,760", "fp8", 0.65))
    for who, name in (("comfyui", "ComfyUI's in bf16"), ("diffusers", "diffusers' in bf16"))
]


def measured(quick: bool) -> dict:
    import torch

    device = measure.device()
    missing = peers.enter(cpu=device.type == "cpu")
    from pack.kernels.half_precision import computed_in

    size = QUICK if quick else CARD
    dtype = computed_in(torch.bfloat16, device)  # on a processor it is only shown to run
    latents = {"24": (2, 6, 16)} if quick else LATENTS
    result = {"device": measure.device_name(device), "size": vars(size), "missing": missing, "cases": {}}
    with torch.inference_mode():
        own = peers.own(forward.params(size), device, dtype, "comfyui" not in missing)
        others = {"comfyui": peers.Comfyui, "diffusers": peers.Diffusers}
        others = {who: other(own) for who, other in others.items() if who not in missing}
        packed = {precision: own if precision == "bf16" else in_8_bits(own, precision) for precision in PRECISIONS}
        for name, latent in latents.items():
            given = forward.video(Case(name, latent), device, dtype)
            result["cases"][name] = compared(packed, others, given, size.rounds)
    return result


def in_8_bits(network, precision: str):
    """The same network with the matrices of its blocks packed."""
    import copy

    network = copy.deepcopy(network)
    pack(network, precision)
    return network


def pack(network, kind: str, exact: bool = False) -> None:
    """Packs the matrices of its blocks as Load Model packs them: "int8", "fp8" or "nf4". exact: see PackedLinear."""
    from pack.formats.encoding import Encoding, rotation_for
    from pack.formats.linear import PackedLinear
    from pack.formats.registry import format_of
    from pack.model_loaders.tensors.precision import MATRICES

    for name, layer in list(network.named_modules()):
        if MATRICES.match(f"{name}.weight"):
            rows, columns = layer.weight.shape
            encodings = {"int8": Encoding("int8", rotation_for(columns)), "fp8": Encoding("float8_e4m3fn")}
            format = format_of(encodings.get(kind) or Encoding(kind))
            packed = PackedLinear(columns, rows, format, format.pack(layer.weight), layer.bias, exact)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, packed)


def block_call(network, run):
    """What `run` gives the first block of a network, as a call of that block, and the whole network's output."""
    seen = {}

    def look(block, args, kwargs):
        seen["call"] = partial(
            block, *(given.clone() if hasattr(given, "clone") else given for given in args), **kwargs
        )

    hook = network.blocks[0].register_forward_pre_hook(look, with_kwargs=True)
    output = run()
    hook.remove()
    return seen["call"], output


def compared(packed: dict, others: dict, given: peers.Video, rounds: int) -> dict:
    """Time, memory and parts of every block. Raises SystemExit where outputs differ."""
    calls, outputs, device = {}, {}, given.latents.device
    for precision, network in packed.items():
        _, later, _ = forward.steps(network, given)
        later()
        calls[precision], outputs[precision] = block_call(network, later)
    for who, other in others.items():
        calls[who], outputs[who] = block_call(other.network, lambda other=other: other(given))
    reference = outputs["bf16"].float()
    errors = {who: float((output.float() - reference).norm() / reference.norm()) for who, output in outputs.items()}
    for who, error in errors.items():
        if not error < TOLERANCE.get(who, TOLERANCE["bf16"]):
            raise SystemExit(f"Nothing to compare: the output of {who} differs by {error:.1e}.")
    outputs.clear()
    peak = {who: measure.peak_allocated(call, device) for who, call in calls.items()}
    parts = {precision: parts_of(network.blocks[0], calls[precision]) for precision, network in packed.items()}
    calls["floor"], operations = forward.floor(packed["bf16"], given.tokens)
    waiting = {who: measure.waited_for(call, device) for who, call in calls.items()}
    seconds = measure.interleaved(waiting, rounds)
    return {
        "tokens": given.tokens,
        "operations": operations,
        "errors": errors,
        "seconds": {who: measure.summary(times) for who, times in seconds.items()},
        "parts": parts,
        "peak_bytes": peak,
        "ratio": {
            precision: {who: measure.ratios(seconds[precision], seconds[who])["median"] for who in (*others, "floor")}
            for precision in packed
        },
    }


def parts_of(block, call) -> dict[str, float]:
    """Seconds of the parts of this pack's block, each waited for: together a little more than the block takes."""
    import torch

    on_card = next(block.parameters()).device.type == "cuda"
    started, spent = [], {}

    def now() -> float:
        if on_card:
            torch.cuda.synchronize()
        return time.perf_counter()

    def start(*_) -> None:
        started.append(now())

    def stop(part: str) -> None:
        spent[part] += now() - started.pop()

    x, step, *more = call.args
    plain = step.runtime.attention

    def attention(*args, **options):
        start()
        out = plain(*args, **options)
        stop("attention")
        return out

    step = dataclasses.replace(step, runtime=dataclasses.replace(step.runtime, attention=attention))
    layers = [layer for layer in block.modules() if hasattr(layer, "in_features")]
    hooks = [layer.register_forward_pre_hook(start) for layer in layers]
    hooks += [layer.register_forward_hook(lambda *_: stop("linear layers")) for layer in layers]
    for _ in range(2):  # the first time does not count
        spent.update(dict.fromkeys(PARTS[:2], 0.0))
        begin = now()
        block(x, step, *more, **call.keywords)
        whole = now() - begin
    for hook in hooks:
        hook.remove()
    return {**spent, "the rest": whole - sum(spent.values())}


def tables(result: dict) -> str:
    missing = result["missing"]
    rows, parts = [], []
    for name, case in result["cases"].items():
        for precision in PRECISIONS:
            seconds, ratio = case["seconds"], case["ratio"][precision]
            times = [missing.get(who) or f"{seconds[who]['median_s'] * 1e3:.1f}" for who in ("comfyui", "diffusers")]
            times += [f"{seconds[who]['median_s'] * 1e3:.1f}" for who in (precision, "floor")]
            shares = [f"**{ratio[who]:.3f}**" if who in ratio else "" for who in ("comfyui", "diffusers", "floor")]
            rate = case["operations"] / seconds[precision]["median_s"] / 1e12
            peak = f"{case['peak_bytes'][precision] / 1e9:.2f}"
            rows.append([f"{name} tokens, {precision}", *times, *shares, f"{rate:.0f}", peak])
            milliseconds = [f"{case['parts'][precision][part] * 1e3:.1f}" for part in PARTS]
            parts.append([f"{name} tokens, {precision}", *milliseconds])
    head = ["one block (ms)", "ComfyUI, bf16", "diffusers, bf16", "this pack", "floor, bf16", "of ComfyUI"]
    head += ["of diffusers", "of the floor", "TFLOP/s", "peak (GB)"]
    return measure.table(head, rows) + "\n\n" + measure.table(["this pack's block (ms)", *PARTS], parts)


if __name__ == "__main__":
    measure.main(measured)
