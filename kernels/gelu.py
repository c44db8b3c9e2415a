"""GELU in its tanh form, as the transformer's feed-forward has it."""

import torch


def gelu_(x: torch.Tensor) -> torch.Tensor:
    """x of any floating dtype and shape, changed in place."""
    return torch.ops.aten.gelu_(x, approximate="tanh")
