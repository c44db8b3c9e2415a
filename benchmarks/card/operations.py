"""Every operation of kernels/ at the sizes of the 14B networks, beside its eager reference on the same card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from pack import kernels
from pack.benchmarks.card.bench import Bench, Row, reason, relative
from pack.kernels.dispatch import Operation
from pack.kernels.norm_rope import rms_norm_
from pack.kernels.quantised_rows import Quantisation, QuantisedRows, quantise_rows
from pack.kernels.rotation import rotate
from pack.skyreels_v3.model.params import TransformerParams

SIZES = TransformerParams()
TOKENS, SOME = 32_760, 2048  # of what is timed, and of what is compared
EPS = 1e-6

Case = tuple[Operation, str, Callable[[int], tuple]]  # with its arguments for so many tokens


def cases(bench: Bench) -> Iterator[Case]:
    """What a block runs, in the order of its share of a step."""
    from pack.formats.encoding import rotation_for

    dim, ffn = SIZES.dim, SIZES.ffn_dim
    fp8 = Quantisation("fp8")
    bias = {width: bench.normal(width) for width in (dim, ffn)}

    def int8_of(width: int) -> Quantisation:
        return Quantisation("int8", rotation_for(width))

    for depth, width in ((dim, dim), (dim, ffn), (ffn, dim)):
        matrix = torch.randn(width, depth, device=bench.device) / depth**0.5
        how = int8_of(depth)
        int8, fp8_weight = quantise_rows(rotate(matrix, how.rotation)), quantise_rows(matrix, "fp8")
        gelu = width == ffn
        yield (
            kernels.int8_linear,
            f"{depth} to {width}",
            lambda n, depth=depth, int8=int8, how=how, width=width, gelu=gelu: (
                kernels.quantised(bench.normal(1, n, depth), how), *int8, bias[width], how.rotation, gelu,
            ),
        )  # fmt: skip
        yield (
            kernels.fp8_linear,
            f"{depth} to {width}",
            lambda n, depth=depth, weight=fp8_weight, width=width: (
                kernels.quantised(bench.normal(1, n, depth), fp8), *weight, bias[width],
            ),
        )  # fmt: skip
    for width in (dim, ffn):
        for how in (int8_of(width), fp8):
            yield (
                kernels.quantised,
                f"{width}, {how.kind}",
                lambda n, width=width, how=how: (bench.normal(1, n, width), how),
            )
    row, weight = torch.randn(4, 1, dim, device=bench.device), torch.randn(dim, device=bench.device)
    for how in (None, int8_of(dim), fp8):
        label = f"{dim}, {how.kind if how else 'plain'}"
        yield kernels.norm_modulate, label, lambda n, how=how: (bench.normal(1, n, dim), row[0], row[1], EPS, how)
        yield (
            kernels.add_gated_norm_modulate_,
            label,
            lambda n, how=how: (*bench.normal(2, 1, n, dim).unbind(), row[2], row[0], row[1], EPS, how),
        )
    yield kernels.add_gated_, str(dim), lambda n: (*bench.normal(2, 1, n, dim).unbind(), row[2])
    yield rms_norm_, str(dim), lambda n: (bench.normal(1, n, dim), weight, EPS)

    def turned(n: int) -> tuple:
        angles = torch.randn(n, SIZES.head_dim // 2, device=bench.device)
        return bench.normal(1, n, dim), weight, torch.stack([angles.cos(), angles.sin()], -1), SIZES.num_heads, EPS

    yield kernels.rms_norm_rope_, str(dim), turned


def operations(bench: Bench) -> Iterator[Row]:
    """Each kernel: taken or refused, its error beside the reference, and the time of both."""
    for operation, label, given in bench.while_there_is_time(cases(bench)):
        what: Row = {"operation": operation.__name__, "of": label}
        yield bench.tried(what, partial(_measured, bench, operation, given))


def _measured(bench: Bench, operation: Operation, given: Callable[[int], tuple]) -> Row:
    some = given(SOME)
    whole = given(TOKENS)
    found: Row = {"taken": "yes", "eager (ms)": 1e3 * bench.seconds(lambda: operation.eager(*whole))}
    try:
        fast = operation.trial(*some)
        own, reference = _copied(some), _copied(some)
        result = operation.on_device(fast, *own)
        if result is NotImplemented:
            return found | {"taken": "left to the reference"}
        # The arguments too, since some are written to.
        pairs = zip([result, *own], [operation.eager(*reference), *reference], strict=True)
        errors = [relative(_plain(mine), _plain(theirs)) for mine, theirs in pairs if _plain(theirs) is not None]
        found["error"] = max(errors, key=lambda error: (error != error, error))  # NaN is the worst
        found["kernel (ms)"] = 1e3 * bench.seconds(lambda: operation.on_device(fast, *whole))
        return found
    except Exception as error:
        torch.cuda.synchronize(bench.device)  # raises where the card answers nothing any more
        return found | {"taken": f"refused: {reason(error)}"}


def _plain(value: object) -> torch.Tensor | None:
    if isinstance(value, QuantisedRows):
        return value.unpacked()
    return value if isinstance(value, torch.Tensor) and value.dtype != torch.int8 else None


def _copied(given: tuple) -> list:
    return [
        value.clone()
        if isinstance(value, torch.Tensor)
        else value.map(torch.clone)
        if isinstance(value, QuantisedRows)
        else value
        for value in given
    ]
