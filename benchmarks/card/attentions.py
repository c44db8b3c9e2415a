"""Self-attention of 10 of the 40 heads, as long sequences take them, by everything that is installed."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pack.benchmarks.card.bench import Bench, Row
from pack.benchmarks.forward import attention
from pack.skyreels_v3.model.params import TransformerParams

SIZES = TransformerParams()
LENGTHS, HEADS = (32_760, 75_600, 126_000), 10
MEAN = attention.CASES["mean"]  # of the keys' channels, in standard deviations, which 8 bits find hard


def attentions(bench: Bench) -> Iterator[Row]:
    """Attention by each backend: time, and error beside float32 for normal keys and for keys with a mean."""
    for length in bench.sizes(LENGTHS):
        shape = (1, length, SIZES.num_heads, SIZES.head_dim)
        size = 2 * length * SIZES.dim
        if 5 * size > bench.room():
            yield {"tokens": length, "failed": f"needs {5 * size / 2**30:.1f} GiB of the card"}
            return
        torch.manual_seed(0)
        q, k, v = (bench.normal(*shape)[:, :, :HEADS] for _ in "qkv")
        for name, way in bench.while_there_is_time(attention.ways(bench.device).items()):

            def measured(name=name, way=way, q=q, k=k, v=v) -> Row:
                seconds = bench.seconds(lambda: way(q, k.clone() if name == "SageAttention" else k, v))
                hard = k + MEAN * bench.normal(HEADS, SIZES.head_dim)
                return {
                    "ms": 1e3 * seconds,
                    "TFLOP/s": 4 * q.shape[1] ** 2 * HEADS * SIZES.head_dim / seconds / 1e12,
                    "error": attention.errors({name: way}, [q, k, v])[name],
                    "error, keys with a mean": attention.errors({name: way}, [q, hard, v])[name],
                }

            yield bench.tried({"tokens": length, "attention": name}, measured)
