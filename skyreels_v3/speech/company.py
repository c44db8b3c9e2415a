"""More than two people in a picture, of whom the network drives two: who is in its two ranges, latent frame by frame.

A latent frame hears its own speech alone, and a person is as far from theirs in one range as in the other
(`SpeakerMap.of`): so the ranges are given to whoever speaks. Where one person speaks, all others are in the other
range, where it is silent; where two do, the others are told nothing, as what is around people always is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..model.speaker_map import BACKGROUND
from ..recipes import AT_ONCE, FRAMES_PER_LATENT
from .features import SpeechFeatures
from .turns import Turn, spoken

NEAR = 2 * FRAMES_PER_LATENT  # frames before and after their words in which a person already and still hears them


@dataclass(frozen=True)
class Driven:
    """Of a window. ranges: which each person has in each latent frame, int64 [T, people], see `SpeakerMap.of`.

    heard: whose speech each of the two ranges hears in each frame of video, int64 [2, frames]; a number beyond the
    people stands for nobody's.
    """

    ranges: torch.Tensor
    heard: torch.Tensor

    def of(self, speech: torch.Tensor) -> torch.Tensor:
        """What the ranges hear, [2, frames, ...], of the speech of all and of nobody [people + 1, frames, ...]."""
        return torch.stack([speech[one, torch.arange(len(one))] for one in self.heard])


class Heard(NamedTuple):
    """What a window hears. speech: [1 or 2 ranges, frames, around, layers, width].  ranges: see `Driven`, or None."""

    speech: torch.Tensor
    ranges: torch.Tensor | None


@dataclass(frozen=True)
class Company:
    """speaking: see `spoken`, of the whole recording."""

    speaking: torch.Tensor

    @classmethod
    def of(cls, turns: Sequence[Turn], people: int, frames: int) -> "Company":
        return cls(spoken(turns, people, frames))

    @property
    def people(self) -> int:
        return self.speaking.shape[1]

    def driven(self, indices: torch.Tensor) -> Driven:
        """Who is driven in a window of 4n + 1 frames. indices: which of the recording they hear, int64 [frames]."""
        words = self._by_latent(self.speaking[indices])
        near = F.max_pool1d(self.speaking.T[None], 2 * NEAR + 1, 1, NEAR)[0].T
        near = self._by_latent(near[indices])
        chosen = [self._chosen(*both) for both in zip(words, near)]
        nobody, range_of, before = self.people, {}, ()
        ranges, heard = [], []
        for pair in chosen:
            if pair:
                self._seat(pair, before, range_of)
            here = [BACKGROUND if len(pair) == AT_ONCE else 0] * self.people
            listens = [nobody] * AT_ONCE
            if len(pair) == 1:
                here = [1 - range_of[pair[0]]] * self.people
            for person in pair:
                here[person] = range_of[person]
                listens[range_of[person]] = person
            ranges.append(here)
            heard.append(listens)
            before = pair or before
        each = torch.tensor(heard).T
        frames = torch.cat([each[:, :1], each[:, 1:].repeat_interleave(FRAMES_PER_LATENT, dim=1)], dim=1)
        return Driven(torch.tensor(ranges), frames)

    @staticmethod
    def _by_latent(amounts: torch.Tensor) -> torch.Tensor:
        """Amounts [4n + 1 frames, people] summed in each latent frame, [n + 1, people]."""
        later = amounts[1:].unflatten(0, (-1, FRAMES_PER_LATENT)).sum(dim=1)
        return torch.cat([amounts[:1], later])

    @staticmethod
    def _chosen(words: torch.Tensor, near: torch.Tensor) -> tuple[int, ...]:
        """The two at most who say most in a latent frame; where fewer speak, those who are about to or just have."""
        order = sorted(range(len(words)), key=lambda person: (-words[person].item(), -near[person].item(), person))
        return tuple(sorted(person for person in order[:AT_ONCE] if near[person] > 0))

    @staticmethod
    def _seat(pair: Sequence[int], before: Sequence[int], range_of: dict[int, int]) -> None:
        """Gives those who are driven ranges of their own in `range_of`; whoever has had one keeps it if they can."""
        first, *second = sorted(pair, key=lambda one: one not in before)
        taken = range_of.get(second[0], 1) if second else 1
        range_of.setdefault(first, 1 - taken)
        for person in second:
            range_of[person] = 1 - range_of[first]


def heard(features: SpeechFeatures, company: Company | None, indices: torch.Tensor) -> Heard:
    """What a window hears. indices: which frames of speech are around each of its own, int64 [frames, around].

    company: of more than two people, with features of nobody behind theirs; None for one or two.
    """
    speech = features.windows(indices)
    if company is None:
        return Heard(speech, None)
    driven = company.driven(indices[:, indices.shape[1] // 2])
    return Heard(driven.of(speech), driven.ranges)
