"""Adaptive layer norm and gated residuals whose scale, shift and gate differ by token range, never by token.

Source: DiT (arXiv 2212.09748), adaLN-zero. A sequence has at most two rows of modulation (the sampler's timestep
and timestep 0), so the parameters stay [rows, D] and are never spread over the tokens.
"""

import torch
import torch.nn.functional as F

# Tokens whose float32 copy exists at a time where x is of half precision: bounds what an eager pass needs.
CHUNK_TOKENS = 8192


def norm_modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """layer_norm(x) * (1 + scale) + shift, computed in float32, returned in x's dtype.

    x: [B, L, D].  shift, scale: [1 or B, D] float32.
    """
    if x.dtype == torch.float32:
        return _norm_modulate(x, shift, scale, eps)
    if x.shape[1] <= CHUNK_TOKENS:
        return _norm_modulate(x.float(), shift, scale, eps).to(x.dtype)
    out = torch.empty_like(x)
    for part, place in zip(x.split(CHUNK_TOKENS, dim=1), out.split(CHUNK_TOKENS, dim=1), strict=True):
        place.copy_(_norm_modulate(part.float(), shift, scale, eps))
    return out


def _norm_modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    if shift.shape[0] == 1:
        # Modulation by one row is the affine part of a layer norm: one pass over x.
        return F.layer_norm(x, x.shape[-1:], 1 + scale[0], shift[0], eps)
    return torch.addcmul(shift[:, None], F.layer_norm(x, x.shape[-1:], None, None, eps), 1 + scale[:, None])


def add_gated_(x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """x += y * gate in place, computed in float32 and rounded once.

    x, y: [B, L, D].  gate: [1 or B, D] float32.
    """
    if x.dtype == torch.float32:
        return x.addcmul_(y, gate[:, None])
    for part, addend in zip(x.split(CHUNK_TOKENS, dim=1), y.split(CHUNK_TOKENS, dim=1), strict=True):
        part.copy_(torch.addcmul(part.float(), addend.float(), gate[:, None]))
    return x
