"""What a block does between its matrix products, operation by operation, beside ComfyUI's way and the official one.

ComfyUI's is the code of its WanModel. The official form is that of SkyworkAI/SkyReels-V3 at 28c771e: statistics and
modulation in float32, rotary positions as complex128 numbers whose grid is made anew for every query and key, and in
the extension a row of modulation for every token. Nothing is measured unless all three agree.

On the CPU the pack runs its eager references, and processor time of one thread is measured. On a graphics card it runs
its own kernels: then every operation is measured beside its reference as well, and so are the 8-bit layers.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.harness.aims import Aim

AIM = {"comfyui": 0.5, "official": 0.2}
EPS = 1e-6
# How often a block does an operation: what stands in the row of the sum.
IN_A_BLOCK = {"norm and rotary": 2, "norm and modulation": 2, "gated residual": 2}
TWO_ROWS = "norm and modulation, half of the frames clean"


def _of_block(dtype: str, who: str):
    return lambda results: block(results["dtypes"][dtype])["ratio"][who]["median"]


AIMS = [
    Aim("norm, rope and modulation, float32: time", 0.5, _of_block("float32", "comfyui"), of="ComfyUI's"),
    Aim("norm, rope and modulation, float32: time", 0.2, _of_block("float32", "official"), of="the official form's"),
    Aim("norm, rope and modulation, bf16: time", 0.5, _of_block("bfloat16", "comfyui"), card=True, of="ComfyUI's"),
    Aim(
        "norm, rope and modulation, bf16: time",
        0.2,
        _of_block("bfloat16", "official"),
        card=True,
        of="the official form's",
    ),
]


@dataclass(frozen=True)
class Size:
    frames: int
    height: int
    width: int
    heads: int
    rounds: int
    ffn: int
    head_dim: int = 128

    @property
    def tokens(self) -> int:
        return self.frames * self.height * self.width

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim


CPU = Size(frames=8, height=12, width=16, heads=40, rounds=9, ffn=13824)
CARD = Size(frames=21, height=30, width=52, heads=40, rounds=20, ffn=13824)
QUICK = Size(frames=2, height=4, width=6, heads=2, rounds=3, ffn=256)


def inputs(size: Size, dtype, device) -> dict:
    import torch

    from pack.skyreels_v3.model.rope import rotary_angles

    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(device)

    side = 2 * (size.head_dim // 6)
    axes = [(size.frames, size.head_dim - 2 * side), (size.height, side), (size.width, side)]
    axis_angles = [rotary_angles(torch.arange(count), dim) for count, dim in axes]
    grid = (size.frames, size.height, size.width, -1)
    views = [(slice(None), None, None), (None, slice(None), None), (None, None, slice(None))]
    angles = torch.cat([a[view].expand(grid) for a, view in zip(axis_angles, views, strict=True)], dim=-1).flatten(0, 2)
    cos, sin = angles.cos().float().to(device), angles.sin().float().to(device)
    return {
        "x": normal(1, size.tokens, size.dim).to(dtype),
        "y": normal(1, size.tokens, size.dim).to(dtype),
        "weight": normal(size.dim),
        "rows": normal(2, 3, size.dim) * 0.1,  # noisy and clean: shift, scale, gate
        "table": torch.stack([cos, sin], dim=-1),
        "matrices": torch.stack([cos, -sin, sin, cos], dim=-1).unflatten(-1, (2, 2))[None, :, None],
        "complex": [torch.polar(torch.ones_like(a), a) for a in axis_angles],
    }


def operations(size: Size, given: dict) -> dict:
    """Operation -> who -> a function of x that returns the result, and may write to x."""
    import comfy.ldm.wan.model as wan
    import comfy.ops
    import torch
    import torch.nn.functional as F

    from pack import kernels

    x, y, weight, table = given["x"], given["y"], given["weight"], given["table"]
    shift, scale, gate = (row[None] for row in given["rows"][0])
    clean = given["rows"][1]
    half = size.frames // 2
    tokens_of_half = half * size.height * size.width
    shape = (1, size.tokens, size.heads, size.head_dim)
    options = {"device": x.device, "dtype": x.dtype}
    rms = comfy.ops.disable_weight_init.RMSNorm(size.dim, eps=EPS, elementwise_affine=True, **options)
    rms.weight.data.copy_(weight)
    norm = comfy.ops.disable_weight_init.LayerNorm(size.dim, EPS, elementwise_affine=False, **options)
    low = [part.to(x.dtype)[:, None] for part in (shift, scale, gate)]
    # [B, frames, D]: ComfyUI's form where frames have timesteps of their own.
    by_frame = [
        torch.cat([clean[i].expand(half, -1), given["rows"][0, i].expand(size.frames - half, -1)])[None]
        for i in range(2)
    ]
    by_token = [part.repeat_interleave(size.height * size.width, dim=1) for part in by_frame]
    low_by_frame = [part.to(x.dtype) for part in by_frame]

    def official_rotary(x):
        normed = x.float()
        normed = (normed * torch.rsqrt(normed.pow(2).mean(dim=-1, keepdim=True) + EPS)).type_as(x) * weight.to(x.dtype)
        time, row, column = given["complex"]
        count = (size.frames, size.height, size.width, -1)
        grid = [
            time[:, None, None].expand(count),
            row[None, :, None].expand(count),
            column[None, None].expand(count),
        ]
        turns = torch.cat(grid, dim=-1).reshape(size.tokens, 1, -1).to(x.device)
        pairs = torch.view_as_complex(normed.view(shape).to(torch.float64).unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)

    def official_norm(x, shift, scale):
        normed = F.layer_norm(x.float(), (size.dim,), None, None, EPS)
        return (normed * (1 + scale) + shift).to(x.dtype)

    def pack_two_rows(x, modulate=kernels.norm_modulate):
        out = kernels.rows_like(x, None)
        for span, row in ((slice(0, tokens_of_half), clean), (slice(tokens_of_half, None), given["rows"][0])):
            modulate(x[:, span], row[None, 0], row[None, 1], EPS, out=out[:, span])
        return out

    return {
        "norm and rotary": {
            "comfyui": lambda x: wan.apply_rope1(rms(x).view(shape), given["matrices"]),
            "official": official_rotary,
            "pack": lambda x: kernels.rms_norm_rope_(x, weight, table, size.heads, EPS),
            "reference": lambda x: kernels.rms_norm_rope_.eager(x, weight, table, size.heads, EPS),
        },
        "norm and modulation": {
            "comfyui": lambda x: torch.addcmul(low[0], norm(x), 1 + low[1]),
            "official": lambda x: official_norm(x, shift[:, None], scale[:, None]),
            "pack": lambda x: kernels.norm_modulate(x, shift, scale, EPS),
            "reference": lambda x: kernels.norm_modulate.eager(x, shift, scale, EPS),
        },
        TWO_ROWS: {
            "comfyui": lambda x: torch.addcmul(
                wan.repeat_e(low_by_frame[0], x), norm(x), 1 + wan.repeat_e(low_by_frame[1], x)
            ),
            "official": lambda x: official_norm(x, *by_token),
            "pack": pack_two_rows,
            "reference": lambda x: pack_two_rows(x, kernels.norm_modulate.eager),
        },
        "gated residual": {
            "comfyui": lambda x: torch.addcmul(x, y, low[2]),
            "official": lambda x: (x.float() + y.float() * gate[:, None]).to(x.dtype),
            "pack": lambda x: kernels.add_gated_(x, y, gate),
            "reference": lambda x: kernels.add_gated_.eager(x, y, gate),
        },
    }


def card_only(size: Size, given: dict) -> dict:
    """Operation -> who: what has no counterpart in ComfyUI's model, and layers beside a bf16 layer of their size."""
    import torch
    import torch.nn.functional as F

    from pack import kernels
    from pack.kernels.quantised_rows import quantise_rows
    from pack.kernels.rotation import rotate

    x, y = given["x"], given["y"]
    shift, scale, gate = (row[None] for row in given["rows"][0])
    how = kernels.Quantisation("int8", 256)
    found = {
        "gate, norm, modulation and int8 rows": {
            "pack": lambda x: kernels.add_gated_norm_modulate_(x, y, gate, shift, scale, EPS, how).codes,
            "reference": lambda x: kernels.add_gated_norm_modulate_.eager(x, y, gate, shift, scale, EPS, how).codes,
        }
    }
    weight = torch.randn(size.ffn, size.dim, device=x.device) / size.dim**0.5
    plain = weight.to(x.dtype)
    int8, int8_scale = quantise_rows(rotate(weight, 256))
    fp8, fp8_scale = quantise_rows(weight, "fp8")
    codes = kernels.quantised(x, how)
    layers = {
        "int8 layer": (kernels.int8_linear, (int8, int8_scale, None, 256)),
        "fp8 layer": (kernels.fp8_linear, (fp8, fp8_scale)),
    }
    for name, (layer, arguments) in layers.items():
        found[name] = {
            "plain": lambda x: F.linear(x, plain),
            "pack": lambda x, layer=layer, arguments=arguments: layer(x, *arguments),
            "reference": lambda x, layer=layer, arguments=arguments: layer.eager(x, *arguments),
        }
    found["int8 layer of rows that are int8 already"] = {
        "plain": lambda x: F.linear(x, plain),
        "pack": lambda x: kernels.int8_linear(codes, int8, int8_scale, None, 256),
        "reference": lambda x: kernels.int8_linear.eager(codes, int8, int8_scale, None, 256),
    }
    return found


def check(name: str, ways: dict, x) -> None:
    """Raises SystemExit unless all ways compute the same, as far as x's dtype and 8 bits go."""
    import torch

    results = {who: way(x.clone()).flatten().float() for who, way in ways.items()}
    reference = results["reference"]
    tolerance = 0.06 if "layer" in name or "rows" in name else 3 * max(torch.finfo(x.dtype).eps, 1e-6)
    for who, result in results.items():
        error = float((result - reference).norm() / reference.norm())
        if not error < tolerance:
            raise SystemExit(f"Nothing to compare: {name} of {who} differs by {error:.1e}.")


def measured(quick: bool) -> dict:
    measure.enter_comfyui()
    import torch

    from pack.kernels.half_precision import in_hardware

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_card = device.type == "cuda"
    size = QUICK if quick else CARD if on_card else CPU
    if not on_card:
        torch.set_num_threads(1)
    result = {
        "device": torch.cuda.get_device_name() if on_card else "cpu",
        "size": vars(size),
        "tokens": size.tokens,
        "dtypes": {},
    }
    with torch.inference_mode():
        for dtype in filter(partial(in_hardware, device=device), (torch.float32, torch.bfloat16)):
            given = inputs(size, dtype, device)
            ways = operations(size, given) | (card_only(size, given) if on_card else {})
            found = result["dtypes"][str(dtype).removeprefix("torch.")] = {}
            for name, called in ways.items():
                check(name, called, given["x"])
                if not on_card:
                    called.pop("reference")  # it is what the pack runs
                found[name] = timed(called, given["x"], size.rounds)
    return result


def timed(ways: dict, x, rounds: int) -> dict:
    """Who -> seconds, and the ratios of the pack to all others."""
    import torch

    x, on_card = x.clone(), x.device.type == "cuda"

    def call(way):
        way(x)
        if on_card:
            torch.cuda.synchronize()

    clock = time.perf_counter if on_card else time.thread_time
    seconds = measure.interleaved({who: lambda way=way: call(way) for who, way in ways.items()}, rounds, clock)
    others = [who for who in seconds if who != "pack"]
    return {
        "seconds": {who: measure.summary(times) for who, times in seconds.items()},
        "rounds": seconds,
        "ratio": {who: measure.ratios(seconds["pack"], seconds[who]) for who in others},
    }


def block(operations: dict) -> dict:
    """The operations of one block together: seconds of everyone and the pack's ratios, median over the rounds."""
    whole = {
        who: [
            sum(count * operations[name]["rounds"][who][i] for name, count in IN_A_BLOCK.items())
            for i in range(min(len(operations[name]["rounds"][who]) for name in IN_A_BLOCK))
        ]
        for who in ("comfyui", "official", "pack")
    }
    return {
        "seconds": {who: measure.summary(times) for who, times in whole.items()},
        "ratio": {who: measure.ratios(whole["pack"], whole[who]) for who in AIM},
    }


def tables(result: dict) -> str:
    parts = []
    for dtype, operations in result["dtypes"].items():
        rows = []
        common = {name: one for name, one in operations.items() if "comfyui" in one["seconds"]}
        for name, one in [*common.items(), ("**all of one block**", block(operations))]:
            milliseconds = [f"{one['seconds'][who]['median_s'] * 1e3:.2f}" for who in ("comfyui", "official", "pack")]
            shares = [f"{one['ratio'][who]['median']:.3f}" for who in AIM]
            aims = [f"≤ {aim:.1f}" for aim in AIM.values()] if name.startswith("**") else ["", ""]
            rows.append([name, *milliseconds, shares[0], aims[0], shares[1], aims[1]])
        head = [f"{dtype} (ms)", "ComfyUI", "official form", "this pack", "of ComfyUI", "aim", "of the official", "aim"]
        parts.append(measure.table(head, rows))
        beside = {name: one for name, one in operations.items() if "reference" in one["seconds"]}
        if beside:
            rows = [[name, *_beside(one)] for name, one in beside.items()]
            head = [f"{dtype} (ms)", "unquantised layer", "reference", "this pack", "of the reference"]
            parts.append(measure.table(head, rows))
    where = "the CPU, the eager references" if result["device"] == "cpu" else result["device"]
    return f"On {where}; {result['tokens']:,} tokens.\n\n" + "\n\n".join(parts)


def _beside(one: dict) -> list[str]:
    times = [one["seconds"].get(who) for who in ("plain", "reference", "pack")]
    return [f"{t['median_s'] * 1e3:.2f}" if t else "" for t in times] + [f"{one['ratio']['reference']['median']:.3f}"]


if __name__ == "__main__":
    measure.main(measured)
