"""By what the best take of a film's shot is chosen. None says whether a shot is good: it compares takes of one line."""

from collections.abc import Sequence

import torch


def likeness(frame: torch.Tensor, pictures: Sequence[torch.Tensor]) -> float:
    """How like a frame is to the most unlike of the pictures, up to 1: cosine of the means of CLIP's tokens.

    All are tokens [1, n, width], the first one that of the whole picture.
    """
    looks = [tokens[:, 1:].mean(dim=1) for tokens in (frame, *pictures)]
    return min(float(torch.cosine_similarity(looks[0], look, dim=1)) for look in looks[1:])
