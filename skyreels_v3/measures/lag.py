"""How far one track follows another, and by how many frames it is late."""

import numpy as np


def sync(mouth: np.ndarray, heard: np.ndarray, lags: int = 5) -> tuple[float, int]:
    """The best correlation of two tracks [F] and the lag in frames where it is (above 0: the mouth is late)."""
    scores = {}
    for lag in range(-lags, lags + 1):
        a = mouth[max(0, lag) : len(mouth) + min(0, lag)]
        b = heard[max(0, -lag) : len(heard) + min(0, -lag)]
        scores[lag] = float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-6 and b.std() > 1e-6 else 0.0
    best = max(scores, key=lambda lag: (scores[lag], -abs(lag)))
    return scores[best], best
