"""The empty places of a prompt. A text encoder fills a prompt up to 512 places with zeros; the network attends to all.

Empty places have the same key and the same value, so one of them, counted as often as there are, gives the same output.
"""

import math

import torch


def joined(text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """text [B, N, D] without the places that are zero in all prompts, but for one, and `places` for kernels.attention.

    None where there is nothing to gain: on graphics cards, whose fast attentions count every key once.
    """
    if text.device.type != "cpu":
        return None
    filled = text.any(dim=-1).any(dim=0).nonzero()
    end = int(filled[-1]) + 1 if len(filled) else 0
    empty = text.shape[1] - end
    if empty < 2:
        return None
    places = torch.zeros(end + 1)
    places[end] = math.log(empty)
    return text[:, : end + 1], places
