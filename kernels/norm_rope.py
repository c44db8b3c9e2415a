"""RMS norm over the full width, then rotary positions per head: the way of every query and key."""

import torch

from .dispatch import normal, operation
from .modulation import CHUNK_TOKENS


def _sample_norm(x, weight, eps):
    return (normal(2, 5, x.shape[-1], dtype=x.dtype), normal(x.shape[-1]), eps), {}


def _sample_norm_rope(x, weight, cos_sin, heads, eps):
    (some, weights, _), _ = _sample_norm(x, weight, eps)
    angles = normal(5, x.shape[-1] // heads // 2)
    return (some, weights, torch.stack([angles.cos(), angles.sin()], dim=-1), heads, eps), {}


@operation("triton_norm_rope:rms_norm_", _sample_norm)
def rms_norm_(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x / rms(x) * weight over the last dim, statistics in float32, written into x.

    x: [B, L, D].  weight: [D] float32.
    """
    for chunk in x.split(CHUNK_TOKENS, dim=1):
        # Of half precision and float32: computed in float32 and rounded, without a float32 copy of x.
        chunk.mul_(_inverse_rms(chunk, eps)).mul_(weight)
    return x


def rotate_(x: torch.Tensor, cos_sin: torch.Tensor) -> torch.Tensor:
    """Turns neighbouring pairs of every head by the token's angles, in float32, written into x.

    x: [B, L, heads, d].  cos_sin: (cos, sin) [B or 1, L, heads or 1, d / 2, 2] float32.
    """
    as_complex = _turns_complex(x)
    size = CHUNK_TOKENS if as_complex else max(1, CHUNK_TOKENS // 2)
    for chunk, angles in zip(x.split(size, dim=1), cos_sin.split(size, dim=1), strict=True):
        if as_complex:
            turned = torch.view_as_complex(chunk.float().unflatten(-1, (-1, 2))).mul_(torch.view_as_complex(angles))
            if chunk.dtype != torch.float32:
                chunk.copy_(torch.view_as_real(turned).flatten(-2))
            del turned  # before the next chunk's
            continue
        cos, sin = angles.unbind(-1)
        even, odd = chunk.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
        chunk.copy_(turned.flatten(-2))
        del even, odd, turned
    return x


@operation("triton_norm_rope:rms_norm_rope_", _sample_norm_rope)
def rms_norm_rope_(
    x: torch.Tensor, weight: torch.Tensor, cos_sin: torch.Tensor, heads: int, eps: float
) -> torch.Tensor:
    """Norm over the full width, split into heads, rotate; written into x.

    x: [B, L, heads * d], contiguous.  weight: [heads * d] float32.  cos_sin: (cos, sin) [L, d / 2, 2] float32.
    Returns [B, L, heads, d].
    """
    if not _turns_complex(x):
        return rotate_(rms_norm_.eager(x, weight, eps).unflatten(-1, (heads, -1)), cos_sin[None, :, None])
    # Passes over memory are the cost: the norm's factor rides on the rotation.
    size = x.shape[1] if x.dtype == torch.float32 else CHUNK_TOKENS
    for chunk, angles in zip(x.split(size, dim=1), cos_sin.split(size), strict=True):
        turn = torch.view_as_complex(angles) * _inverse_rms(chunk, eps)
        weighted = chunk.mul_(weight) if x.dtype == torch.float32 else chunk * weight
        turned = torch.view_as_complex(weighted.unflatten(-1, (heads, -1, 2))).mul_(turn.unsqueeze(-2))
        if x.dtype != torch.float32:
            chunk.copy_(torch.view_as_real(turned).flatten(-3))
        del turn, weighted, turned  # before the next chunk's
    return x.unflatten(-1, (heads, -1))


def _turns_complex(x: torch.Tensor) -> bool:
    """Whether pairs are turned as complex numbers: one pass instead of seven, where they are supported."""
    return x.device.type in ("cpu", "cuda") and x.is_contiguous() and not torch.compiler.is_compiling()


def _inverse_rms(x: torch.Tensor, eps: float) -> torch.Tensor:
    """1 / sqrt(mean(x^2) + eps), [..., 1] float32."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
