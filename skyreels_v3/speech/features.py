"""Features of speech on disk: minutes of them would fill the memory, and a window needs a few seconds.

Also which frames of speech condition a frame of video.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from ..digest import digest
from ..errors import InputError

AROUND = 5  # frames of speech that condition a frame of video, itself in the middle


class SpeechFeatures:
    """Features of one or two people's speech in a file; those of a window are read when it is made.

    people, frames, layers, width: how many.  key: follows from the features alone, see `digest.digest`.
    The file has no name (on Windows, none that can be deleted) and goes with this object: clearing its folder does no
    harm, and nothing is left of it after a crash.
    """

    def __init__(self, people: Iterable[Iterable[torch.Tensor]], folder: str | os.PathLike | None = None):
        """people: the features of each, layer by layer, [frames, width] float32 on the CPU, written one by one.

        folder: for the file, made where it is missing; None for the system's own.
        Raises InputError where nothing can be written to it.
        """
        self.people, written, self.key = 0, 0, digest()
        try:
            if folder is not None:
                Path(folder).mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)
            for person in people:
                self.people += 1
                for layer in person:
                    self._file.write(layer.contiguous().numpy().data)
                    self.frames, self.width = layer.shape
                    self.key = digest(self.key, layer)
                    written += 1
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"What the avatar hears cannot be written to {folder or tempfile.gettempdir()} ({error.strerror}): "
                "make room there, or make it writable."
            ) from error
        self.layers = written // self.people

    @classmethod
    def of(cls, features: torch.Tensor) -> "SpeechFeatures":
        """From features [people, frames, layers, width] that are there already."""
        return cls(person.unbind(1) for person in features)

    def of_person(self, person: int) -> Iterator[torch.Tensor]:
        """The features of one of them, layer by layer, [frames, width] float32."""
        for layer in range(self.layers):
            yield torch.from_numpy(self._stored()[person, layer].copy())

    def windows(self, indices: torch.Tensor) -> torch.Tensor:
        """The frames `indices` [n, around] of the features: [people, n, around, layers, width] float32.

        They lie close together: all from the first to the last of them are read.
        """
        first, last = indices.min().item(), indices.max().item()
        part = np.array(self._stored()[:, :, first : last + 1].swapaxes(1, 2), order="C")
        return audio_windows(torch.from_numpy(part), indices - first)

    def _stored(self) -> np.ndarray:
        # Mapped for a moment alone: the pages of a file that stays mapped count as the process's memory.
        return np.memmap(self._file, np.float32, "r", shape=(self.people, self.layers, self.frames, self.width))


def around_frames(start: int, stop: int, frames: int, around: int = AROUND) -> torch.Tensor:
    """[stop - start, around] int64: each frame start..stop with its neighbours, kept within 0..frames - 1."""
    centres = torch.arange(start, stop)[:, None]
    return (centres + torch.arange(around) - around // 2).clamp(0, frames - 1)


def mirrored(indices: torch.Tensor, frames: int) -> torch.Tensor:
    """Indices into speech of `frames` frames that goes on with its own reversed tail."""
    return torch.where(indices < frames, indices, 2 * frames - 1 - indices)


def audio_windows(features: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The frames `indices` [n, around] of features [people, F, layers, width]: [people, n, around, layers, width]."""
    return features[:, indices.to(features.device)]
