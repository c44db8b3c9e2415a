"""Scaled dot-product attention without a mask, by PyTorch, which chooses among cuDNN, FlashAttention 2 and others.

attention_backends.py has those of other packages, which are called like it.
"""

import torch
import torch.nn.functional as F


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, precise: bool = False) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v.

    q: [B, L, heads, d].  k, v: [B, M, heads, d].  Returns [B, L, heads * d].
    precise: keeps this call out of 8-bit attention, for the few keys of the prompt, an image or speech: rounding them
    costs exactness and saves no time.
    """
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)
