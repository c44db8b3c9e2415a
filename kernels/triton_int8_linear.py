"""Triton: the product of int8 rows with an int8 weight; scales, bias and GELU are applied to the sums in registers."""

from itertools import pairwise

import torch
import triton
import triton.language as tl

from .int8_linear import flat_rows
from .quantise import quantised
from .quantised_rows import Quantisation, QuantisedRows

# Rows of x that are quantised at a time: fills a large card, and bounds the codes.
CHUNK_ROWS = 32768
# Rows of tiles that take turns over the columns, so that what they read stays in the cache.
GROUP = 8
# (rows, columns, depth of a tile, warps, stages), the first for few rows; each in the 99 KB of shared memory that
# GeForce cards have. The others are timed on the first product of a size, because cards differ in what they like.
# Larger ones spill registers.
TILES = ((64, 64, 128, 4, 4), (64, 128, 128, 4, 3), (128, 128, 64, 8, 4), (128, 128, 128, 8, 3))
# For Hopper's instructions alone: it takes 147 KB, and spills registers on others.
LARGE, HOPPER = (128, 256, 128, 8, 3), (9, 0)
FEW_ROWS = 1024
ROUNDS = 3  # in which a tile is timed: the fastest counts
TURING = (7, 5)
WITHOUT_TURING = (3, 3)  # from this version on Triton does not compile products of int8 for it

_fastest: dict[tuple, tuple] = {}


@triton.jit
def int8_kernel(
    a, b, out, row_scale, column_scale, bias, rows, columns, depth,
    ONE_SCALE: tl.constexpr, BIAS: tl.constexpr, GELU: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One tile of out [rows, columns] = a [rows, depth] b [columns, depth]^T, all contiguous."""
    tiles_down, tiles_across = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    program = tl.program_id(0)
    group = program // (GROUP * tiles_across)
    height = min(tiles_down - group * GROUP, GROUP)
    down = group * GROUP + program % (GROUP * tiles_across) % height
    across = program % (GROUP * tiles_across) // height
    row = down.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = across.to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    # Rows beyond the end read the first ones again, and are not stored.
    step = tl.arange(0, DEPTH)
    a_place = a + (row % rows)[:, None] * depth + step[None, :]
    b_place = b + (column % columns)[None, :] * depth + step[:, None]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    for start in range(0, depth, DEPTH):
        left = tl.load(a_place, mask=(start + step)[None, :] < depth, other=0)
        right = tl.load(b_place, mask=(start + step)[:, None] < depth, other=0)
        total = tl.dot(left, right, total, out_dtype=tl.int32)
        a_place += DEPTH
        b_place += DEPTH
    v = total.to(tl.float32) * tl.load(row_scale + row, mask=row < rows, other=0.0)[:, None]
    if ONE_SCALE:
        v *= tl.load(column_scale)
    else:
        v *= tl.load(column_scale + column, mask=column < columns, other=0.0)[None, :]
    if BIAS:
        v += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    if GELU:
        # (1 + tanh(u)) / 2 is the sigmoid of 2 u.
        v *= tl.sigmoid(1.5957691216057308 * (v + 0.044715 * v * v * v))
    place = out + row[:, None] * columns + column[None, :]
    tl.store(place, v.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (column < columns)[None, :])


def capability(device: torch.device) -> tuple[int, int] | None:
    """The compute capability of a card of NVIDIA; None for other devices."""
    nvidia = device.type == "cuda" and torch.version.hip is None
    return torch.cuda.get_device_capability(device) if nvidia else None


def compiles_for(capability: tuple[int, int] | None) -> bool:
    """Whether this Triton compiles the product: trying prints pages of its inner language."""
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return capability is None or capability > TURING or version < WITHOUT_TURING


def runs_on(device: torch.device) -> bool:
    """See Operation.has_backend."""
    return compiles_for(capability(device))


def tiles(capability: tuple[int, int] | None) -> tuple[tuple, ...]:
    """What is timed on a card."""
    return (*TILES, LARGE) if capability == HOPPER else TILES


def options(tile: tuple) -> dict:
    """The kernel's options for one of TILES."""
    rows, columns, depth, warps, stages = tile
    return {"ROWS": rows, "COLUMNS": columns, "DEPTH": depth, "GROUP": GROUP, "num_warps": warps, "num_stages": stages}


def int8_linear(x, weight, scale, bias=None, rotation=0, gelu=False):
    """As the reference; leaves a weight that is not contiguous to it, and cards that Triton has no product for."""
    flat = flat_rows(x, rotation)
    if not weight.is_contiguous() or not runs_on(x.device):
        return NotImplemented
    if flat.shape[-1] != weight.shape[1]:
        raise ValueError(f"{tuple(x.shape)} is multiplied with a weight {tuple(weight.shape)}")
    out = torch.empty(len(flat), len(weight), dtype=x.dtype, device=x.device)
    for chunk, place in zip(flat.split(CHUNK_ROWS), out.split(CHUNK_ROWS)):
        rows = chunk if isinstance(chunk, QuantisedRows) else quantised(chunk, Quantisation("int8", rotation))
        if len(place):
            multiply(rows, weight, scale, bias, gelu, place)
    return out.reshape(*x.shape[:-1], len(weight))


def multiply(rows: QuantisedRows, weight, scale, bias, gelu: bool, out: torch.Tensor, tile: tuple | None = None):
    """Writes the product of [M, K] rows into out [M, N]; by the tile that is the fastest here unless one is given."""
    codes = rows.codes.contiguous()
    (count, depth), columns = codes.shape, len(weight)
    row_scale, scale = rows.scale.contiguous(), scale.contiguous()

    def launch(tile: tuple) -> None:
        grid = (triton.cdiv(count, tile[0]) * triton.cdiv(columns, tile[1]),)
        int8_kernel[grid](
            codes, weight, out, row_scale, scale, scale if bias is None else bias, count, columns, depth,
            ONE_SCALE=scale.numel() == 1, BIAS=bias is not None, GELU=gelu, **options(tile),
        )  # fmt: skip

    if tile is None and (count <= FEW_ROWS or out.device.type == "cpu"):
        tile = TILES[0]
    size = (out.device, columns, depth)
    if tile is None and size not in _fastest:
        _fastest[size] = min(tiles(capability(out.device)), key=lambda tile: _seconds(lambda: launch(tile)))
    launch(tile or _fastest[size])


def _seconds(call) -> float:
    """How long the device needs for a call, infinite where it cannot; the first call compiles and does not count."""
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(ROUNDS + 1)]
    try:
        call()
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        marks[-1].synchronize()
    except triton.runtime.errors.OutOfResources:
        return float("inf")
    return min(begin.elapsed_time(end) for begin, end in pairwise(marks))
