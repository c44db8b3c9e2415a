"""Trials filmed and measured in several processes, each with a ComfyUI of its own; twins in the same one."""

import logging
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .scores import Clip, singles, summary
from .studio import Settings, Studio
from .trials import Trial, swapped

Make = Callable[[Trial, Settings], np.ndarray]


@dataclass(frozen=True)
class Take:
    """frames: what was made for a trial, uint8 [F, H, W, 3].  values: of scores.singles.

    control: the same of its twin's frames.
    """

    trial: Trial
    frames: np.ndarray
    values: dict[str, float]
    control: dict[str, float]


@dataclass(frozen=True)
class Results:
    """What was measured of all takes, and of their controls: name of a measure -> value."""

    values: dict[str, float]
    controls: dict[str, float]

    @classmethod
    def of(cls, takes: Sequence[Take]) -> "Results":
        return cls(summary(take.values for take in takes), summary(take.control for take in takes))


def film_twins(make: Make, twins: Sequence[Trial], settings: Settings) -> list[Take]:
    """Make the clips of twins and measure each against its own trial and against the other's."""
    clips = [Clip(make(trial, settings)) for trial in twins]
    return [
        Take(trial, clip.frames, singles(trial, clip), singles(trial, other))
        for trial, clip, other in zip(twins, clips, swapped(clips))
    ]


class Crew:
    """Studios in `workers` processes. models: a folder as `nano/`. Use it as a context."""

    def __init__(self, models: Path, workers: int = 2):
        spawned = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, spawned, _open_studio, (models,))

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(cancel_futures=True)

    def film(self, trials: Sequence[Trial], settings: Settings = Settings()) -> list[Take]:  # noqa: B008 - frozen
        """The takes of trials, in their order. Raises what a studio raises."""
        twins = [trials[i : i + 2] for i in range(0, len(trials), 2)]
        longest_first = sorted(range(len(twins)), key=lambda i: -sum(trial.cost for trial in twins[i]))
        futures = {i: self._pool.submit(_film, twins[i], settings) for i in longest_first}
        return [take for i in range(len(twins)) for take in futures[i].result()]


_studio: list = []  # of a process: its Studio, or why there is none


def _open_studio(models: Path) -> None:
    # One thread each: two would wait for each other longer than these models take.
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    try:
        _studio.append(Studio(models))
    except Exception as error:  # an initialiser that raises would only break the pool
        _studio.append(error)


def _film(twins: Sequence[Trial], settings: Settings) -> list[Take]:
    if isinstance(_studio[0], Exception):
        raise _studio[0]
    return film_twins(_studio[0].make, twins, settings)
