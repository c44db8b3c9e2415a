"""A block of the 14B networks in every precision, and the memory of a forward beside what Plan counts."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from pack.benchmarks.card.bench import Bench, Row, relative
from pack.benchmarks.forward import block, forward
from pack.benchmarks.harness import measure, peers
from pack.skyreels_v3.jobs.estimates.modelled import Way, seconds
from pack.skyreels_v3.jobs.estimates.rates import rates
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
WAYS = {
    "16 bits": Way(),
    "int8": Way("int8"),
    "fp8, products in 8 bits": Way("fp8"),
    "fp8, products in 16 bits": Way(unpacks=True),
    "nf4": Way(unpacks=True),
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
        copies = network.copies(bench.device, bench.dtype)
        planned = memory.forward_bytes(params, int(tokens.replace(",", "")), 2, copies=copies)
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


def slower_than_modelled(found: Mapping[str, Any]) -> float | None:
    """By which factor a card's blocks took longer than Plan models them; None where no rows of it tell.

    found: what card.json holds.
    """
    on = {row["what"]: row["value"] for row in found["sections"].get("machine", {}).get("rows", [])}
    kind, name = str(on.get("kind", "")), found["identity"]["card"]
    capability = (int(kind[3:-1]), int(kind[-1])) if kind.startswith("sm_") else (0, 0)
    speed = rates(name, capability, int(on.get("processors", 0)))
    if speed is None:
        return None
    factors = []
    for row in found["sections"].get("blocks", {}).get("rows", []):
        way = replace(WAYS[row["precision"]], fused=found["identity"]["triton"] != "none")
        if "ms" in row and (speed.fp8 or way.products != "fp8"):
            tokens = int(row["tokens"].replace(",", ""))
            factors.append(row["ms"] / 1e3 / seconds(TransformerParams(num_layers=1), tokens, way, speed))
    return round(statistics.median(factors), 3) if factors else None
