"""Rows of activations to 8-bit codes, the columns mixed first."""

import torch

from .dispatch import normal, operation
from .quantised_rows import Quantisation, QuantisedRows, chunk_rows, quantise_rows, rows_like
from .rotation import rotate


def _sample(x, how):
    return (normal(5, x.shape[-1], dtype=x.dtype), how), {}


@operation("triton_quantise:quantised", _sample)
def quantised(x: torch.Tensor, how: Quantisation) -> QuantisedRows:
    """x [..., K] in any floating dtype -> its rows in 8 bits; K a multiple of the rotation."""
    out = rows_like(x, how).rows()
    size = chunk_rows(x.shape[-1])
    for chunk, place in zip(x.reshape(-1, x.shape[-1]).split(size), out.split(size)):
        quantise_rows(rotate(chunk, how.rotation), how.kind, place)
    return out.map(lambda tensor: tensor.reshape(*x.shape[:-1], tensor.shape[-1]))
