"""The avatar's attention to speech, as it is computed and with its products in another order.

A frame of the video meets 32 tokens of speech, so the layer before the queries could be multiplied into the keys, and
the layer behind the values into the values: a product with 32 x heads rows instead of one with the whole width, twice.
Real numbers do not care, rounded ones do: this measures what is won and what is lost. One frame of 480p, float32 for
the time and bfloat16 for the error; a quarter of the 14B networks' width, where the share of both orders is the same.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure


@dataclass(frozen=True)
class Size:
    dim: int
    heads: int
    video_tokens: int
    rounds: int
    speech_tokens: int = 32


FULL = Size(dim=1536, heads=12, video_tokens=1560, rounds=9)
QUICK = Size(dim=256, heads=2, video_tokens=64, rounds=2)


def inputs(size: Size) -> dict:
    """x [n, D], the weights and biases of the layer before the queries and of the last one, keys and values."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def normal(*shape, scale=1.0):
        return torch.randn(shape, generator=generator) * scale

    dim, speech = size.dim, (size.heads, size.speech_tokens, size.dim // size.heads)
    layer = {"q": normal(dim, dim, scale=dim**-0.5), "q_bias": normal(dim, scale=0.1)}
    last = {"o": normal(dim, dim, scale=dim**-0.5), "o_bias": normal(dim, scale=0.1)}
    return {"x": normal(size.video_tokens, dim), **layer, **last, "k": normal(*speech), "v": normal(*speech)}


def as_computed(x, q, q_bias, o, o_bias, k, v):
    import torch.nn.functional as F

    queries = F.linear(x, q, q_bias).unflatten(-1, (len(k), -1)).transpose(0, 1)
    met = F.scaled_dot_product_attention(queries[None], k[None], v[None])[0]
    return F.linear(met.transpose(0, 1).flatten(1), o, o_bias)


def reordered(x, q, q_bias, o, o_bias, k, v):
    import torch
    import torch.nn.functional as F

    heads, _, width = k.shape
    k = k * width**-0.5
    keys = torch.bmm(k, q.unflatten(0, (heads, width))).flatten(0, 1)
    offset = torch.bmm(k, q_bias.reshape(heads, width, 1)).flatten()
    values = torch.bmm(v, o.unflatten(1, (heads, width)).permute(1, 2, 0)).flatten(0, 1)
    shares = F.linear(x, keys, offset).unflatten(-1, (heads, -1)).softmax(-1)
    return torch.addmm(o_bias, shares.flatten(1), values)


NO_BF16 = "unmeasured: this processor has no units for it"
ORDERS = {"as computed": as_computed, "reordered": reordered}


def bf16_errors(given: dict) -> dict[str, float]:
    """Order -> relative error when computed in bfloat16."""
    rounded = {name: tensor.bfloat16() for name, tensor in given.items()}
    exact = as_computed(**{name: tensor.double() for name, tensor in rounded.items()})
    return {name: float((order(**rounded) - exact).norm() / exact.norm()) for name, order in ORDERS.items()}


def measured(quick: bool) -> dict:
    import torch

    from pack.kernels.half_precision import in_hardware

    torch.set_num_threads(1)
    size = QUICK if quick else FULL
    with torch.inference_mode():
        given = inputs(size)
        calls = {name: lambda order=order: order(**given) for name, order in ORDERS.items()}
        seconds = measure.interleaved(calls, size.rounds, time.thread_time)
        errors = bf16_errors(given) if in_hardware(torch.bfloat16) else dict.fromkeys(ORDERS)
    return {
        "size": vars(size),
        "orders": {name: {**measure.summary(seconds[name]), "bf16_error": errors[name]} for name in ORDERS},
        "ratio": measure.ratios(seconds["reordered"], seconds["as computed"]),
    }


def tables(result: dict) -> str:
    rows = [
        [name, f"{one['median_s'] * 1e3:.1f}", f"{100 * error:.2f}%" if (error := one["bf16_error"]) else NO_BF16]
        for name, one in result["orders"].items()
    ]
    rows[1][1] += f" (**{result['ratio']['median']:.2f}**)"
    return measure.table(["attention to speech, one frame", "float32, one thread (ms)", "error in bfloat16"], rows)


if __name__ == "__main__":
    measure.main(measured)
