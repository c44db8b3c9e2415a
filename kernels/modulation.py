"""Adaptive layer norm and gated residuals whose scale, shift and gate differ by token range, never by token.

Source: DiT (arXiv 2212.09748), adaLN-zero. A sequence has at most two rows of modulation (the sampler's timestep
and timestep 0), so the parameters stay [rows, D] and are never spread over the tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F

from .dispatch import normal, operation
from .quantise import quantised
from .quantised_rows import Quantisation, QuantisedRows, rows_like

# Tokens whose float32 copy exists at a time where x is of half precision: bounds what an eager pass needs.
CHUNK_TOKENS = 2048


def _sample_norm(x, shift, scale, eps, quantise=None, out=None):
    shift, scale = normal(2, 2, x.shape[-1]).unbind()
    return (normal(2, 5, x.shape[-1], dtype=x.dtype), shift, scale, eps, quantise), {}


def _sample_add(x, y, gate):
    stream, addend = normal(2, 2, 5, x.shape[-1], dtype=x.dtype).unbind()
    return (stream, addend, None if gate is None else normal(2, x.shape[-1])), {}


def _sample_add_norm(x, y, gate, shift, scale, eps, quantise=None, out=None):
    (_, *rest), _ = _sample_norm(x, shift, scale, eps, quantise)
    return (*_sample_add(x, y, gate)[0], *rest), {}


@operation("triton_modulation:norm_modulate", _sample_norm)
def norm_modulate(
    x: torch.Tensor,
    shift: torch.Tensor,
    scale: torch.Tensor,
    eps: float,
    quantise: Quantisation | None = None,
    out: torch.Tensor | QuantisedRows | None = None,
) -> torch.Tensor | QuantisedRows:
    """layer_norm(x) * (1 + scale) + shift, computed in float32, returned in x's dtype or as 8-bit rows.

    x: [B, L, D].  shift, scale: [1 or B, D] float32.  out: where the result goes, such as a part of rows_like().
    """
    if quantise is None and out is None:
        if x.dtype == torch.float32:
            return _norm_modulate(x, shift, scale, eps)
        if x.shape[1] <= CHUNK_TOKENS:
            return _norm_modulate(x.float(), shift, scale, eps).to(x.dtype)
    out = rows_like(x, quantise) if out is None else out
    for chunk, place in zip(x.split(CHUNK_TOKENS, dim=1), out.split(CHUNK_TOKENS, dim=1), strict=True):
        # No name for what is made: it would live on beside the next chunk's.
        place.copy_(_as_wanted(_norm_modulate(chunk.float(), shift, scale, eps).to(x.dtype), quantise))
    return out


def _as_wanted(y: torch.Tensor, quantise: Quantisation | None) -> Any:
    return y if quantise is None else quantised(y, quantise)


def _norm_modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
    if shift.shape[0] == 1:
        # Modulation by one row is the affine part of a layer norm: one pass over x.
        return F.layer_norm(x, x.shape[-1:], 1 + scale[0], shift[0], eps)
    return torch.addcmul(shift[:, None], F.layer_norm(x, x.shape[-1:], None, None, eps), 1 + scale[:, None])


@operation("triton_modulation:add_gated_", _sample_add)
def add_gated_(x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor | None) -> torch.Tensor:
    """x += y * gate in place, computed in float32 and rounded once.

    x, y: [B, L, D].  gate: [1 or B, D] float32; None for 1.
    """
    if gate is None:
        return x.add_(y)
    for chunk, addend in zip(x.split(CHUNK_TOKENS, dim=1), y.split(CHUNK_TOKENS, dim=1), strict=True):
        chunk.addcmul_(addend, gate[:, None])  # in float32, as the gate is
    return x


@operation("triton_modulation:add_gated_norm_modulate_", _sample_add_norm)
def add_gated_norm_modulate_(
    x: torch.Tensor,
    y: torch.Tensor,
    gate: torch.Tensor | None,
    shift: torch.Tensor,
    scale: torch.Tensor,
    eps: float,
    quantise: Quantisation | None = None,
    out: torch.Tensor | QuantisedRows | None = None,
) -> torch.Tensor | QuantisedRows:
    """add_gated_(x, y, gate), then norm_modulate of the new x, which is returned: one pass over x instead of two.

    A layer norm with weight and bias is one with scale = weight - 1 and shift = bias, [1, D] float32.
    """
    add_gated_.eager(x, y, gate)
    return norm_modulate.eager(x, shift, scale, eps, quantise, out)
