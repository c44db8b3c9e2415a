"""The decoder of a Wan 2.1 VAE without ComfyUI's classes: layers found by the names of their weights, for `causal`."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

PARTS = "conv2.", "decoder."  # how the names of a decoder's weights begin
STRIDES = {4: (1, 1), 5: (1, 1, 1)}  # of a decoder's convolutions, by their weights' dimensions


class _Named:
    """Layers by name, or by number as in a list, in which those without weights are left out."""

    shortcut = nn.Identity()  # where a residual has no convolution there

    def __getitem__(self, number: int) -> Any:
        return vars(self)[str(number)]

    def __iter__(self):
        return (self[number] for number in sorted(map(int, vars(self))))

    @staticmethod
    def optimized_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Of pictures [1, C, h, w], of which k and v may have more rows than q, by one head."""
        queries, keys, values = (one.flatten(2).transpose(1, 2)[:, None] for one in (q, k, v))
        return F.scaled_dot_product_attention(queries, keys, values)[:, 0].transpose(1, 2).reshape(q.shape)


class _Layer:
    """A convolution, or a norm over the root mean square: what `causal` asks of them."""

    weight: torch.Tensor
    gamma: torch.Tensor
    bias: torch.Tensor | None = None

    @property
    def kernel_size(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    @property
    def stride(self) -> tuple[int, ...]:
        return STRIDES[self.weight.ndim]

    @property
    def scale(self) -> float:
        return self.gamma.shape[0] ** 0.5


def is_decoders(name: str) -> bool:
    """Whether a weight of a VAE is one of its decoder's."""
    return name.startswith(PARTS)


def plain_decoder(weights: Mapping[str, torch.Tensor]) -> Any:
    """What `causal.Decoder` takes for a network. weights: those of the decoder, by their names in checkpoints."""
    network = _Named()
    for name, tensor in weights.items():
        *path, layer, part = name.split(".")
        place = network
        for step in path:
            place = vars(place).setdefault(step, _Named())
        setattr(vars(place).setdefault(layer, _Layer()), part, tensor)
    return network
