"""The padding of a prompt as one token: text encoders pad to 512 tokens with zeros, and the network attends to all.

Padding tokens have the same key and the same value, so that one of them, with a bias on its attention logits, gives
the output of all.
"""

import math

import torch


def merge_padding(text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """text [B, N, D] -> (text [B, n, D] with one padding token, the last; `key_bias` [n] for kernels.attention).

    Padding is what is zero in all prompts. None where nothing is gained: for fewer than two padding tokens, and on
    graphics cards, whose fast attentions take no bias.
    """
    if text.device.type != "cpu":
        return None
    filled = text.any(dim=-1).any(dim=0).nonzero()
    end = int(filled[-1]) + 1 if len(filled) else 0
    padding = text.shape[1] - end
    if padding < 2:
        return None
    key_bias = torch.zeros(end + 1)
    key_bias[end] = math.log(padding)
    return text[:, : end + 1], key_bias
