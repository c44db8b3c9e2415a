"""Adaptive layer norm and gated residuals whose scale, shift and gate differ by token range, never by token.

Source: DiT (arXiv 2212.09748), adaLN-zero. A sequence has at most two rows of modulation (the sampler's timestep
and timestep 0), so the parameters stay [rows, D] and are never spread over the tokens.
"""

import torch
import torch.nn.functional as F


def norm_modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    """layer_norm(x) * (1 + scale) + shift, computed in float32, returned in x's dtype.

    x: [B, L, D].  shift, scale: [1 or B, D] float32.
    """
    if shift.shape[0] == 1:
        # Modulation by one row is the affine part of a layer norm: one pass over x.
        weight, bias = (1 + scale[0]), shift[0]
        if x.dtype == torch.float32:
            return F.layer_norm(x, x.shape[-1:], weight, bias, eps)
        return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).to(x.dtype)
    y = F.layer_norm(x.float(), x.shape[-1:], None, None, eps)
    return torch.addcmul(shift[:, None], y, 1 + scale[:, None]).to(x.dtype)


def add_gated_(x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """x += y * gate in place, computed in float32 and rounded once.

    x, y: [B, L, D].  gate: [1 or B, D] float32.
    """
    if x.dtype == torch.float32:
        return x.addcmul_(y, gate[:, None])
    return x.copy_(torch.addcmul(x.float(), y.float(), gate[:, None]))
