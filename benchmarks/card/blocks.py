"""A block of the 14B networks in every precision, and the memory of a forward beside what Plan counts."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pack.benchmarks.card.bench import Bench, Row, relative
from pack.benchmarks.forward import block, forward
from pack.benchmarks.harness import measure, peers
from pack.skyreels_v3.model import memory
from pack.skyreels_v3.model.params import TransformerParams

# precision -> (the weight's kind, whether inputs stay in 16 bits where the card multiplies 8)
PRECISIONS = {
    "16 bits": (None, False),
    "int8": ("int8", False),
    "fp8, products in 8 bits": ("fp8", False),
    "fp8, products in 16 bits": ("fp8", True),
    "nf4": ("nf4", False),
}


def blocks(bench: Bench) -> Iterator[Row]:
    """One block: time, error beside 16 bits, and a forward's peak beside the bytes that Plan counts."""
    params = TransformerParams(num_layers=1)
    weights = 2 * memory.block_numbers(params)
    exact: dict[str, torch.Tensor] = {}
    cases = [(precision, tokens) for precision in PRECISIONS for tokens in bench.sizes(block.LATENTS)]
    network, made = None, ""
    for precision, tokens in bench.while_there_is_time(cases):
        if precision != made:
            network = None
            network, made = peers.own(params, bench.device, bench.dtype, False), precision
            kind, plain = PRECISIONS[precision]
            if kind:
                block.pack(network, kind, plain)
        what: Row = {"tokens": tokens, "precision": precision}
        planned = memory.forward_bytes(params, int(tokens.replace(",", "")), 2)
        if 1.1 * planned + weights > bench.room():
            yield {**what, "failed": f"needs {(planned + weights) / 2**30:.1f} GiB of the card"}
            continue

        def measured(network=network, tokens=tokens, planned=planned) -> Row:
            given = forward.video(forward.Case(tokens, block.LATENTS[tokens]), bench.device, bench.dtype)
            _, later, _ = forward.steps(network, given)
            later()
            call, output = block.block_call(network, later)
            peak = measure.peak_allocated(later, bench.device)
            return {
                "ms": 1e3 * bench.seconds(call),
                "peak (GB)": peak / 1e9,
                "peak, of the plan": peak / planned,
                "error": relative(output, exact.setdefault(tokens, output)),
            }

        yield bench.tried(what, measured)
