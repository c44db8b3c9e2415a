"""ggml's blocks, decoded: bytes [..., bytes of a block] uint8 -> numbers [..., elements of a block] float32.

Source: the layouts in ggml-common.h and dequantize_row_* in ggml-quants.c. A block is `code * scale` or `code * scale
- minimum`, where K-quants (256 numbers) have integer scales for groups of 16 or 32 and a float16 for all of them.
"""

import torch

from .lookup import lookup

IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _f16(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0)


def _bf16(b: torch.Tensor) -> torch.Tensor:
    return b.contiguous().view(torch.bfloat16).float()


def _q8_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * b[..., 2:].view(torch.int8)


def _q4_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * (_nibbles(b[..., 2:]).float() - 8)


def _q4_1(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * _nibbles(b[..., 4:]) + _half(b, 2)


def _q5_0(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * (_five_bits(b[..., 2:]).float() - 16)


def _q5_1(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * _five_bits(b[..., 4:]) + _half(b, 2)


def _iq4_nl(b: torch.Tensor) -> torch.Tensor:
    return _half(b, 0) * _iq4(b[..., 2:])


def _iq4_xs(b: torch.Tensor) -> torch.Tensor:
    high, low = b[..., 2:4], b[..., 4:8]
    scales = _fields(low, 4, dim=-1).flatten(-2) | _fields(high, 2, dim=-1).flatten(-2) << 4
    return _grouped(_half(b, 0) * (scales.float() - 32), _iq4(b[..., 8:].unflatten(-1, (8, 16))).flatten(-2))


def _q2_k(b: torch.Tensor) -> torch.Tensor:
    scales = b[..., :16]
    scale, minimum = _half(b, 80) * (scales & 15), _half(b, 82) * (scales >> 4)
    return _grouped(scale, _pairs_of_bits(b[..., 16:80]), minimum)


def _q3_k(b: torch.Tensor) -> torch.Tensor:
    low, high = b[..., 96:104], b[..., 104:108]
    scales = _nibbles(low) | _fields(high, 2).flatten(-2) << 4
    codes = _pairs_of_bits(b[..., 32:96]) | _fields(b[..., :32], 1).flatten(-2) << 2
    return _grouped(_half(b, 108) * (scales.float() - 32), codes.float() - 4)


def _q4_k(b: torch.Tensor) -> torch.Tensor:
    scale, minimum = _six_bit_scales(b)
    return _grouped(scale, _nibbles(b[..., 16:].unflatten(-1, (4, 32))).flatten(-2), minimum)


def _q5_k(b: torch.Tensor) -> torch.Tensor:
    scale, minimum = _six_bit_scales(b)
    codes = _nibbles(b[..., 48:].unflatten(-1, (4, 32))).flatten(-2) | _fields(b[..., 16:48], 1).flatten(-2) << 4
    return _grouped(scale, codes, minimum)


def _q6_k(b: torch.Tensor) -> torch.Tensor:
    low = _nibbles(b[..., :128].unflatten(-1, (2, 64))).flatten(-2)
    codes = low | _pairs_of_bits(b[..., 128:192]) << 4
    return _grouped(_half(b, 208) * b[..., 192:208].view(torch.int8), codes.float() - 32)


DECODERS = {
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}


def _half(b: torch.Tensor, at: int) -> torch.Tensor:
    """The float16 at this byte, [..., 1] float32."""
    return b[..., at : at + 2].contiguous().view(torch.float16).float()


def _fields(b: torch.Tensor, bits: int, dim: int = -2) -> torch.Tensor:
    """[..., n] -> the bit fields of every byte, the lowest first, along a new dim: in front of the bytes or behind."""
    return torch.stack([b >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)], dim)


def _nibbles(b: torch.Tensor) -> torch.Tensor:
    """[..., n] -> [..., 2 n]: all low halves, then all high ones."""
    return _fields(b, 4).flatten(-2)


def _pairs_of_bits(b: torch.Tensor) -> torch.Tensor:
    """[..., 64] -> [..., 256]: of 32 bytes the lowest two bits of all, then the next two; then the other 32 bytes."""
    return _fields(b.unflatten(-1, (2, 32)), 2).flatten(-3)


def _five_bits(b: torch.Tensor) -> torch.Tensor:
    """Four bytes with the fifth bits of 32 codes, then the codes' nibbles -> [..., 32]."""
    return _nibbles(b[..., 4:]) | _fields(b[..., :4], 1, dim=-1).flatten(-2) << 4


def _six_bit_scales(b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and minima of the eight groups of a Q4_K or Q5_K, [..., 8] float32 each.

    Six bits each in 12 bytes: four scales, four minima, then nibbles of the others, whose upper two bits fill the first
    eight bytes.
    """
    scales, minima, rest = b[..., 4:16].split(4, dim=-1)
    scale = torch.cat([scales & 63, rest & 15 | scales >> 6 << 4], dim=-1)
    minimum = torch.cat([minima & 63, rest >> 4 | minima >> 6 << 4], dim=-1)
    return _half(b, 0) * scale, _half(b, 2) * minimum


def _iq4(b: torch.Tensor) -> torch.Tensor:
    """[..., n] -> the values of the nibbles, [..., 2 n] float32."""
    return lookup(torch.tensor(IQ4_VALUES, dtype=torch.float32, device=b.device), _nibbles(b))


def _grouped(scale: torch.Tensor, codes: torch.Tensor, minimum: torch.Tensor | None = None) -> torch.Tensor:
    """codes * scale - minimum.  codes: [..., 256].  scale, minimum: [..., groups], for as many codes in a row each."""
    groups = codes.unflatten(-1, (scale.shape[-1], -1)) * scale.unsqueeze(-1)
    return (groups if minimum is None else groups - minimum.unsqueeze(-1)).flatten(-2)
