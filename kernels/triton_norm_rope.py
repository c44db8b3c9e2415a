"""Triton: RMS norm over the full width and rotary positions per head, in place, in one pass."""

import triton
import triton.language as tl


@triton.jit
def norm_rope_kernel(
    x, weight, cos_sin, length, heads, dim, eps, x_batch, x_row,
    ROPE: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """One token. A head is a row of the tile [HEADS, DIM], the next powers of two above heads and dim."""
    batch = (tl.program_id(0) // length).to(tl.int64)
    row = (tl.program_id(0) % length).to(tl.int64)
    head, column = tl.arange(0, HEADS)[:, None], tl.arange(0, DIM)[None, :]
    inside = (head < heads) & (column < dim)
    offsets = head * dim + column
    place = x + batch * x_batch + row * x_row + offsets
    v = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    weights = tl.load(weight + offsets, mask=inside, other=0.0)
    inverse = tl.rsqrt(tl.sum(v * v) / (heads * dim) + eps)
    # Rounded where the reference rounds, and the official code before it.
    v = (v * inverse).to(x.dtype.element_ty).to(tl.float32) * weights
    if ROPE:
        v = v.to(x.dtype.element_ty).to(tl.float32)
        even, odd = tl.split(tl.reshape(v, (HEADS, DIM // 2, 2)))
        angles = tl.load(cos_sin + row * dim + column, mask=column < dim, other=0.0)
        cos, sin = tl.split(tl.reshape(angles, (1, DIM // 2, 2)))
        v = tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (HEADS, DIM))
    tl.store(place, v.to(x.dtype.element_ty), mask=inside)


def tile(heads: int, dim: int) -> dict:
    """Options of the kernel: at most 32 numbers a thread up to a width of 16384."""
    sizes = {"HEADS": triton.next_power_of_2(heads), "DIM": triton.next_power_of_2(dim)}
    return {**sizes, "num_warps": min(16, max(1, sizes["HEADS"] * sizes["DIM"] // 1024))}


def rms_norm_(x, weight, eps):
    """As the reference; leaves numbers that do not lie side by side to it."""
    return _run(x, weight, None, 1, eps)


def rms_norm_rope_(x, weight, cos_sin, heads, eps):
    """As the reference; leaves numbers that do not lie side by side to it."""
    out = _run(x, weight, cos_sin, heads, eps)
    return out if out is NotImplemented else out.unflatten(-1, (heads, -1))


def _run(x, weight, cos_sin, heads, eps):
    batch, length, width = x.shape
    dim = width // heads
    if x.stride(-1) != 1 or weight.stride(0) != 1 or (cos_sin is not None and not cos_sin.is_contiguous()):
        return NotImplemented
    if len(weight) != width or (cos_sin is not None and cos_sin.shape != (length, dim // 2, 2)):
        raise ValueError(f"weight {tuple(weight.shape)} and cos_sin do not belong to {tuple(x.shape)}")
    if x.numel():
        norm_rope_kernel[(batch * length,)](
            x, weight, weight if cos_sin is None else cos_sin, length, heads, dim, eps, x.stride(0), x.stride(1),
            ROPE=cos_sin is not None, **tile(heads, dim),
        )  # fmt: skip
    return x
