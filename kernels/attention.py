"""Scaled dot-product attention without a mask."""

import torch
import torch.nn.functional as F


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, precise: bool = False) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v.

    q: [B, L, heads, d].  k, v: [B, M, heads, d].  Returns [B, L, heads * d].
    precise: keeps this call out of 8-bit attention, for few keys with large values.
    """
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)
