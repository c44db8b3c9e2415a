"""The matrix products in 8 bits: which way of multiplying is exact, which is fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from pack.benchmarks.card.bench import Bench, Row, relative
from pack.kernels.quantised_rows import QuantisedRows, quantise_rows
from pack.skyreels_v3.model.params import TransformerParams

SIZES = TransformerParams()
ROWS, SOME = 8192, 256  # of what is timed, and of what is compared
SHAPES = [(SIZES.dim, SIZES.ffn_dim), (SIZES.ffn_dim, SIZES.dim), (SIZES.dim, SIZES.dim)]


def fp8_products(bench: Bench) -> Iterator[Row]:
    """fp8 with fast and exact sums, scaled by row and as a whole: error and size beside the exact product."""
    for depth, columns in bench.while_there_is_time(SHAPES):
        a, a_scale = quantise_rows(torch.randn(ROWS, depth, device=bench.device), "fp8")
        b, b_scale = quantise_rows(torch.randn(columns, depth, device=bench.device), "fp8")
        scales = a_scale, b_scale.t().contiguous()
        for by_row in (True, False):
            for fast in (True, False):
                what: Row = {"product": f"{depth} to {columns}", "scale": "row" if by_row else "whole"}
                what["sums"] = "fast" if fast else "exact"
                yield bench.tried(what, partial(_fp8, bench, a, b, scales, by_row, fast))


def _fp8(bench: Bench, a: torch.Tensor, b: torch.Tensor, scales: tuple, by_row: bool, fast: bool) -> Row:
    one = torch.ones((), device=bench.device)
    multiply: Any = torch._scaled_mm

    def call() -> torch.Tensor:
        given = scales if by_row else (one, one)
        return multiply(a, b.t(), *given, out_dtype=torch.bfloat16, use_fast_accum=fast)

    factor = scales[0][:SOME] * scales[1]
    exact = (a[:SOME].double() @ b.double().t()).float() * factor
    own = call()[:SOME].float()
    own = own if by_row else own * factor
    size = float((own * exact).sum() / exact.square().sum())
    return {"error": relative(own, exact), "size": size, **_rate(bench, call, a.numel() * len(b))}


def int8_tiles(bench: Bench) -> Iterator[Row]:
    """The int8 product by every tile, beside PyTorch's own and 16 bits."""
    try:
        from pack.kernels import triton_int8_linear as triton
    except ImportError:
        triton = None
        yield {"way": "tiles", "failed": "Triton is not installed"}
    if triton and not triton.compiles_for(triton.capability(bench.device)):
        triton = None
        yield {"way": "tiles", "failed": "this Triton has no int8 product for this card"}
    int_mm: Any = torch._int_mm
    for depth, columns in bench.while_there_is_time(SHAPES):
        weight, scale = quantise_rows(torch.randn(columns, depth, device=bench.device))
        rows = QuantisedRows(*quantise_rows(torch.randn(ROWS, depth, device=bench.device)), 0, bench.dtype)
        x, plain = bench.normal(ROWS, depth), bench.normal(columns, depth)
        ways = {
            f"16 bits ({str(bench.dtype).removeprefix('torch.')})": partial(F.linear, x, plain),
            "torch._int_mm": partial(int_mm, rows.codes, weight.t()),
        }
        what: Row = {"product": f"{depth} to {columns}"}
        for name, call in ways.items():
            yield bench.tried({**what, "way": name}, partial(_rate, bench, call, x.numel() * columns))
        for tile in dict.fromkeys((*triton.tiles(triton.capability(bench.device)), triton.LARGE)) if triton else ():
            multiply = partial(triton.multiply, rows, weight, scale[:, 0], None, False, tile=tile)
            name = f"tile {' '.join(map(str, tile))}"
            yield bench.tried({**what, "way": name}, partial(_tile, bench, multiply, rows, weight, scale))


def _tile(bench: Bench, multiply: Callable, rows: QuantisedRows, weight: torch.Tensor, scale: torch.Tensor) -> Row:
    out = bench.normal(len(rows), len(weight))
    found = _rate(bench, lambda: multiply(out), rows.codes.numel() * len(weight))
    exact = (rows.codes[:SOME].double() @ weight.double().t()).float() * rows.scale[:SOME] * scale[:, 0]
    return {**found, "error": relative(out[:SOME], exact)}


def _rate(bench: Bench, call: Callable[[], object], multiplied: int) -> Row:
    seconds = bench.seconds(call)
    return {"ms": 1e3 * seconds, "TOP/s": 2 * multiplied / seconds / 1e12}
