"""The way of weights that wait in RAM: copies to the card, by themselves and beside what the card computes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pack.benchmarks.card.bench import Bench, Row

BYTES, SIDE, PRODUCTS = 2**28, 4096, 32


def transfers(bench: Bench) -> Iterator[Row]:
    """Copies from pinned and pageable memory, and whether they slow the products down beside them."""
    target = torch.empty(BYTES, dtype=torch.uint8, device=bench.device)
    a, side = bench.normal(SIDE, SIDE), torch.cuda.Stream(bench.device)

    def products() -> None:
        for _ in range(PRODUCTS):
            torch.mm(a, a)

    yield bench.tried({"what": "products alone"}, lambda: {"ms": 1e3 * bench.seconds(products)})
    for kind in ("pinned", "pageable"):

        def alone(kind=kind) -> Row:
            source = torch.zeros(BYTES, dtype=torch.uint8, pin_memory=kind == "pinned")
            seconds = bench.seconds(lambda: target.copy_(source, non_blocking=True))
            return {"ms": 1e3 * seconds, "GB/s": BYTES / seconds / 1e9}

        def beside(kind=kind) -> Row:
            source = torch.zeros(BYTES, dtype=torch.uint8, pin_memory=kind == "pinned")

            def both() -> None:
                products()
                with torch.cuda.stream(side):
                    target.copy_(source, non_blocking=True)
                torch.cuda.current_stream().wait_stream(side)

            return {"ms": 1e3 * bench.seconds(both)}

        yield bench.tried({"what": f"copy of {BYTES >> 20} MiB, {kind}"}, alone)
        yield bench.tried({"what": f"products with that copy beside them, {kind}"}, beside)
