"""Guidance in one process: the weighted sum of a model's forwards, which in ComfyUI its own sampler runs."""

from collections.abc import Callable

import torch

from pack.skyreels_v3.sampling.guidance import Branch, combine


def guided(predict: Callable[[Branch], torch.Tensor], branches: dict[Branch, float]) -> torch.Tensor:
    """Weighted sum of predict(branch) over the branches; a single prediction is passed through."""
    if len(branches) == 1:
        return predict(*branches)
    return combine([predict(branch) for branch in branches], list(branches.values()))
