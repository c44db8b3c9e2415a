"""Stand-ins for the pack's Triton kernels: a launch is checked and counted, nothing is computed.

Checked are the names and devices of the arguments, that no number needs more than 64 bits and that no program reaches
beyond a tensor's memory.
"""

import importlib
from collections.abc import Callable, Mapping
from math import prod
from types import ModuleType
from typing import Any

import torch

from pack.skyreels_v3.jobs.estimates.rates import REACHED

from .meter import Meter, size_of

Given = Mapping[str, Any]
OPTIONS = ("num_warps", "num_stages")


class Kernel:
    """Where a @triton.jit function stood. check(given, grid) raises RuntimeError; moved(given) -> bytes;
    operations(given) -> of int8.
    """

    def __init__(self, kernel: Any, meter: Meter, check: Callable, moved: Callable, operations: Callable | None = None):
        self.name, self.names = kernel.__name__, set(kernel.arg_names)
        self.order = list(kernel.arg_names)
        self.meter = meter
        self.check, self.moved, self.operations = check, moved, operations

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: object, **options: object) -> None:
            given = dict(zip(self.order, args)) | {n: value for n, value in options.items() if n not in OPTIONS}
            if given.keys() != self.names:
                raise TypeError(f"{self.name} is given {sorted(given.keys() ^ self.names)} more or less than it takes")
            if not 0 < prod(grid) or grid[0] >= 2**31:
                raise RuntimeError(f"{self.name} is launched as {grid}")
            places = {value.device for value in given.values() if isinstance(value, torch.Tensor)}
            if len(places) != 1:
                raise RuntimeError(f"{self.name}: Pointer argument cannot be accessed from Triton: {places}")
            numbers = [value for value in given.values() if type(value) is int]
            if any(not -(2**63) <= number < 2**63 for number in numbers):
                raise OverflowError(f"{self.name} is given {numbers}")
            self.check(given, grid)
            operations = self.operations(given) if self.operations else 0.0
            with self.meter.of(self.name):
                self.meter.count(self.moved(given), operations, "int8", REACHED)

        return launch


def _within(given: Given, name: str, last: int) -> None:
    """Raises RuntimeError where the element `last` after the tensor's first is beyond its memory."""
    tensor = given[name]
    size = tensor.untyped_storage().nbytes() // tensor.element_size() - tensor.storage_offset()
    if last >= size:
        raise RuntimeError(f"{name}: element {last} of {size} is read or written")


def _check_modulation(g: Given, grid: tuple[int, ...]) -> None:
    batch, width = grid[0] // -(-g["length"] // g["ROWS"]), g["width"] - 1

    def far(of_batch: str, of_row: str) -> int:
        return (batch - 1) * g[of_batch] + (g["length"] - 1) * g[of_row]

    _within(g, "x", far("x_batch", "x_row") + width)
    if g["ADD"]:
        _within(g, "y", far("y_batch", "y_row") + width)
    for name in (["gate"] if g["GATED"] else []) + (["shift", "scale"] if g["NORM"] else []):
        _within(g, name, (batch - 1) * g[f"{name}_batch"] + width)
    if g["NORM"]:
        _within(g, "out", far("out_batch", "out_row") + width)
    if g["QUANTISE"]:
        _within(g, "out_scale", far("out_scale_batch", "out_scale_row"))


def _check_rope(g: Given, grid: tuple[int, ...]) -> None:
    batch, width = grid[0] // g["length"], g["heads"] * g["dim"]
    _within(g, "x", (batch - 1) * g["x_batch"] + (g["length"] - 1) * g["x_row"] + width - 1)
    _within(g, "weight", width - 1)


def _check_product(g: Given, grid: tuple[int, ...]) -> None:
    rows, columns, depth = g["rows"], g["columns"], g["depth"]
    ends = {"a": rows * depth, "b": columns * depth, "out": rows * columns, "row_scale": rows}
    for name, end in (ends | {"column_scale": 1 if g["ONE_SCALE"] else columns}).items():
        _within(g, name, end - 1)
    if grid[0] != -(-rows // g["ROWS"]) * -(-columns // g["COLUMNS"]):
        raise RuntimeError(f"{grid} programs do not cover {rows} x {columns}")


def _check_quantise(g: Given, grid: tuple[int, ...]) -> None:
    _within(g, "x", (grid[0] - 1) * g["x_row"] + g["width"] - 1)
    _within(g, "codes", (grid[0] - 1) * g["codes_row"] + g["width"] - 1)
    _within(g, "scale", grid[0] - 1)


def _modulated(g: Given) -> int:
    tokens = g["x"].shape[0] * g["length"] * g["width"]
    add, norm = bool(g["ADD"]), bool(g["NORM"])
    sizes = (1 + add) * g["x"].element_size() + add * g["y"].element_size() + norm * g["out"].element_size()
    return tokens * sizes


def _left(*_: object, **__: object) -> object:
    """A backend that leaves all to the reference."""
    return NotImplemented


def runs_on(_: object) -> bool:
    """See Operation.has_backend; of `_left`."""
    return False


def install(package: ModuleType, meter: Meter, triton: bool = True) -> None:
    """The Triton modules of the pack's `kernels` with stand-ins in the place of their kernels; without Triton they
    leave all to the references.
    """
    kind = importlib.import_module(f"{package.__name__}.dispatch").Operation
    for operation in (one for one in vars(package).values() if isinstance(one, kind)):
        given = vars(operation).setdefault("given", operation._backend)
        if isinstance(given, str) and given.startswith("triton_"):
            operation._backend = given if triton else _left
    if not triton:
        return

    def put(module: str, kernel: str, *how: Callable) -> None:
        holder = importlib.import_module(f"{package.__name__}.{module}")
        real = getattr(holder, kernel)
        setattr(holder, kernel, Kernel(getattr(real, "real", real), meter, *how))
        getattr(holder, kernel).real = getattr(real, "real", real)

    put("triton_modulation", "modulation_kernel", _check_modulation, _modulated)
    put(
        "triton_norm_rope",
        "norm_rope_kernel",
        _check_rope,
        lambda g: 2 * g["x"].shape[0] * g["length"] * g["heads"] * g["dim"] * g["x"].element_size(),
    )
    put(
        "triton_quantise",
        "quantise_kernel",
        _check_quantise,
        lambda g: size_of(g["x"]) + g["codes"].numel() + 4 * g["scale"].numel(),
    )
    put(
        "triton_int8_linear",
        "int8_kernel",
        _check_product,
        lambda g: (g["rows"] + g["columns"]) * g["depth"] + g["rows"] * g["columns"] * g["out"].element_size(),
        lambda g: 2.0 * g["rows"] * g["columns"] * g["depth"],
    )
