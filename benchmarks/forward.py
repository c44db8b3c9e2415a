"""One forward of the transformer on the CPU, beside ComfyUI's own WanModel with the same weights, in one process.

Both get ComfyUI's layers and attention (PyTorch's). Time is that of a step of a job of 8 steps: the pack makes the
prompt's keys and values in the first and keeps them, WanModel makes them in each. The floor is what no single forward
goes below: the matrix products and attentions of WanModel's alone, into memory that is there already.
Nothing is measured unless both outputs agree.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import measure

AIM_TIME, AIM_MEMORY = {"plain": 0.87, "extension": 0.80}, 0.70
STEPS = 8
TOLERANCE = 1e-4  # relative error between both outputs
TEXT_TOKENS, TEXT_WIDTH = 512, 4096


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


FULL = Size(dim=1536, heads=12, ffn=4096, layers=4, frames=7, height=30, width=26, rounds=9)
QUICK = Size(dim=128, heads=1, ffn=256, layers=2, frames=4, height=8, width=8, rounds=3)


def models(size: Size):
    """(the pack's transformer, ComfyUI's WanModel) with the same float32 weights."""
    import comfy.ldm.wan.model
    import comfy.ops
    import torch

    from pack.skyreels_v3.params import TransformerParams
    from pack.skyreels_v3.transformer import SkyReelsTransformer

    options = {"operations": comfy.ops.disable_weight_init, "device": "cpu", "dtype": torch.float32}
    sizes = {"dim": size.dim, "ffn_dim": size.ffn, "num_heads": size.heads, "num_layers": size.layers}
    own = SkyReelsTransformer(TransformerParams(**sizes), **options).eval()
    torch.manual_seed(0)
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    wan = comfy.ldm.wan.model.WanModel(
        model_type="t2v", in_dim=16, out_dim=16, text_dim=TEXT_WIDTH, **sizes, **options
    ).eval()
    wan.load_state_dict(own.state_dict())
    return own, wan


def cases(size: Size, own, wan) -> dict:
    """Case -> (call of the pack with a Runtime, call of WanModel, the predicted frames of WanModel's output)."""
    import torch

    from pack.skyreels_v3.context import Segment, extension_segments

    latents = torch.randn(1, 16, size.frames, size.height, size.width)
    text = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH)
    timestep = torch.tensor([873.0])
    prefix = size.frames // 2
    # WanModel knows clean frames by a timestep for every frame.
    by_frame = timestep.repeat(1, size.frames)
    by_frame[:, :prefix] = 0

    def plain(runtime):
        return own([Segment(latents, 0, predicted=True)], timestep, text, runtime=runtime)

    def extension(runtime):
        return own(extension_segments(latents[:, :, prefix:], latents[:, :, :prefix]), timestep, text, runtime=runtime)

    return {
        "plain": (plain, lambda: wan(latents, timestep, text), slice(0, None)),
        "extension": (extension, lambda: wan(latents, by_frame, text), slice(prefix, None)),
    }


def floor(wan, call):
    """A call that does only the matrix products and attentions that `call` of WanModel does."""
    import comfy.ldm.wan.model as wan_model
    import torch

    products, attentions = [], []

    def saw_linear(module, inputs, output):
        products.append((inputs[0].flatten(0, -2).shape[0], module.weight))

    def saw_attention(q, k, v, heads, **options):
        attentions.append((q.shape[1], k.shape[1], heads, q.shape[2] // heads))
        return original(q, k, v, heads, **options)

    hooks = [
        module.register_forward_hook(saw_linear) for module in wan.modules() if isinstance(module, torch.nn.Linear)
    ]
    original, wan_model.optimized_attention = wan_model.optimized_attention, saw_attention
    try:
        call()
    finally:
        wan_model.optimized_attention = original
        for hook in hooks:
            hook.remove()
    inputs = {(rows, weight.shape[1]): torch.randn(rows, weight.shape[1]) for rows, weight in products}
    outputs = {(rows, weight.shape[0]): torch.empty(rows, weight.shape[0]) for rows, weight in products}
    heads = {
        (tokens, count, width): torch.randn(1, count, tokens, width)
        for queries, keys, count, width in attentions
        for tokens in (queries, keys)
    }

    def run():
        for rows, weight in products:
            torch.mm(inputs[rows, weight.shape[1]], weight.t(), out=outputs[rows, weight.shape[0]])
        for queries, keys, count, width in attentions:
            key = heads[keys, count, width]
            torch.nn.functional.scaled_dot_product_attention(heads[queries, count, width], key, key)

    return run


def measured(quick: bool) -> dict:
    measure.enter_comfyui()
    import torch

    size = QUICK if quick else FULL
    result = {"tokens": size.tokens, "threads": torch.get_num_threads(), "size": vars(size), "cases": {}}
    with torch.inference_mode():
        own, wan = models(size)
        for name, (pack, comfyui, predicted) in cases(size, own, wan).items():
            expected = comfyui()[:, :, predicted]
            first, later, kept = steps(pack)
            error = max(float((call() - expected).norm() / expected.norm()) for call in (first, later))
            if not error < TOLERANCE:
                raise SystemExit(f"Nothing to compare: the outputs of {name} differ by {error:.1e}.")
            calls = {"first": first, "later": later, "comfyui": comfyui, "floor": floor(wan, comfyui)}
            result["cases"][name] = {"error": error, "kept_bytes": kept.size, **compared(calls, size.rounds)}
    return result


def steps(pack):
    """(a first step, a later one, what the later one has to go by), as nodes/model.py makes them."""
    from pack.nodes.host import resident_affine
    from pack.nodes.model import host_attention
    from pack.skyreels_v3.kept import Kept
    from pack.skyreels_v3.transformer import Runtime

    def runtime(kept):
        return Runtime(attention=host_attention({}), affine=resident_affine, kept=kept)

    kept = Kept(2**40)
    return lambda: pack(runtime(Kept(2**40))), lambda: pack(runtime(kept)), kept


def compared(calls: dict, rounds: int) -> dict:
    import torch

    wall = measure.interleaved(calls, rounds)
    threads = torch.get_num_threads()
    # Processor time of a single thread hardly depends on what else the machine does.
    torch.set_num_threads(1)
    alone = measure.interleaved(calls, max(rounds // 2, 1), clock=time.thread_time)
    torch.set_num_threads(threads)
    for times in (wall, alone):
        times["pack"] = [
            (first + (STEPS - 1) * later) / STEPS for first, later in zip(times["first"], times["later"], strict=True)
        ]
    memory = {name: measure.peak_allocated(calls[call]) for name, call in (("pack", "later"), ("comfyui", "comfyui"))}
    return {
        "wall": {name: measure.summary(seconds) for name, seconds in wall.items()},
        "one_thread": {name: measure.summary(seconds) for name, seconds in alone.items()},
        "peak_bytes": memory,
        "ratio": {
            "wall": measure.ratios(wall["pack"], wall["comfyui"]),
            "one_thread": measure.ratios(alone["pack"], alone["comfyui"]),
            "memory": memory["pack"] / memory["comfyui"],
            "floor": statistics.median(wall["floor"]) / statistics.median(wall["comfyui"]),
            "floor_one_thread": statistics.median(alone["floor"]) / statistics.median(alone["comfyui"]),
        },
    }


LABELS = {"plain": "One video", "extension": "Extension (half of the frames clean)"}


def tables(result: dict) -> str:
    rows = []
    for name, case in result["cases"].items():
        ratio, wall, alone, peak = case["ratio"], case["wall"], case["one_thread"], case["peak_bytes"]
        for what, times, key, low in (
            (f"time, {result['threads']} threads (s)", wall, "wall", "floor"),
            ("processor time, one thread (s)", alone, "one_thread", "floor_one_thread"),
        ):
            seconds = [f"{times[who]['median_s']:.2f}" for who in ("comfyui", "pack")]
            shares = [f"**{ratio[key]['median']:.3f}**", f"{ratio[key]['min']:.3f}", f"{ratio[low]:.3f}"]
            rows.append([f"{LABELS[name]}: {what}", *seconds, *shares, f"≤ {AIM_TIME[name]:.2f}"])
        sizes = [f"{peak[who] / 1e6:.1f}" for who in ("comfyui", "pack")]
        shares = [f"**{ratio['memory']:.3f}**", "", ""]
        rows.append([f"{LABELS[name]}: peak of activations (MB)", *sizes, *shares, f"≤ {AIM_MEMORY:.2f}"])
        rows.append([f"{LABELS[name]}: kept between steps (MB)", "0", f"{case['kept_bytes'] / 1e6:.1f}", *[""] * 4])
    return measure.table(["", "ComfyUI", "this pack", "ratio", "of the fastest runs", "floor", "aim"], rows)


if __name__ == "__main__":
    measure.main(measured)
