"""scaled_dot_product_attention of a fused kernel: what it asks of its arguments, what it returns, what it takes."""

from collections.abc import Sequence

import torch

from .meter import Meter, size_of
from .profiles import Card

OFFSETS = 2**31  # beyond them kernels that count in 32 bits are wrong


def attention(
    card: Card,
    meters: Sequence[Meter],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """As torch's. Raises RuntimeError where no fused kernel of the card takes the arguments."""
    problem = _refused(card, q, k, v)
    if problem:
        raise RuntimeError(problem)
    batch, heads, length, width = q.shape
    # In the order [B, L, heads, d], as fused kernels write.
    out = torch.empty(batch, length, heads, v.shape[-1], dtype=q.dtype, device=q.device).transpose(1, 2)
    sums = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    if q.device.type == card.device:
        operations = 4.0 * batch * heads * length * k.shape[2] * width
        rate = ("half", 1 / 16) if q.dtype == torch.float32 else ("attention", 1.0)
        for meter in meters:
            with meter.of("attention"):
                meter.count(sum(map(size_of, (q, k, v, out))), operations, *rate)
    del sums
    return out


def attention_in_8_bits(meters: Sequence[Meter], q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """In the place of a backend of the pack that rounds; see kernels.attention for its arguments."""
    codes = [torch.empty(part.shape, dtype=torch.int8, device=part.device) for part in (q, k, v)]
    out = torch.empty(*q.shape[:2], q.shape[2] * v.shape[3], dtype=q.dtype, device=q.device)
    for meter in meters:
        with meter.of("quantising"):
            for part in (q, k, v):
                meter.count(1.5 * size_of(part))
        with meter.of("attention"):
            operations = 4.0 * q.numel() * k.shape[1]
            meter.count(sum(map(size_of, (*codes, out))), operations, "attention8")
    return out


def _refused(card: Card, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> str | None:
    if not q.device == k.device == v.device:
        return f"q, k, v on {q.device}, {k.device}, {v.device}"
    if not q.dtype == k.dtype == v.dtype:
        return f"Expected query, key, and value to have the same dtype, but got {q.dtype}, {k.dtype}, {v.dtype}"
    if q.device.type != card.device:
        return None
    for part in (q, k, v):
        if part.stride(-1) != 1:
            return "a last dimension that does not lie side by side takes the way without a kernel"
        strides = part.stride()[:-1] if part.dtype.itemsize == 2 else ()
        if any(stride * 2 % 16 for stride in strides) or part.storage_offset() * part.element_size() % 16:
            return f"strides {part.stride()} at {part.storage_offset()} are no multiples of 16 bytes"
    if q.dtype == torch.bfloat16 and not card.has_bfloat16:
        return "bfloat16 takes the way without a kernel on this card"
    reach = max((size - 1) * stride for size, stride in zip(k.shape, k.stride()))
    return "keys beyond offsets of 32 bits" if reach >= OFFSETS else None
