"""Scaled dot-product attention, by PyTorch, which chooses among cuDNN, FlashAttention 2 and others.

attention_backends.py has those of other packages, which are called like it.
"""

import torch
import torch.nn.functional as F


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, precise: bool = False, key_bias: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v.

    q: [B, L, heads, d].  k, v: [B, M, heads, d].  Returns [B, L, heads * d].
    precise: keeps this call out of 8-bit attention, for the few keys of the prompt, an image or speech: rounding them
    costs exactness and saves no time.
    key_bias: float32 [M], added to each key's logits; log(n) makes it count as n equal keys. Not in other backends.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mask = None if key_bias is None else key_bias.to(q)[None, None, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)
