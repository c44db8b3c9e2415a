"""Features of speech on disk: minutes of them would fill the memory, and a window hears a few seconds."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ..digest import digest
from ..errors import InputError
from ..jobs.avatar.plan import audio_windows


class SpeechFeatures:
    """What one or two people say, as the transformer hears it, in a file; a window's are read when it is made.

    people, frames, layers, width: how many.  key: follows from the features alone, see `digest.digest`.
    The file has no name (on Windows, none that can be deleted) and goes with this object: clearing its folder does no
    harm, and nothing is left of it after a crash.
    """

    def __init__(self, people: Iterable[Iterable[torch.Tensor]], folder: str | os.PathLike | None = None):
        """people: what each of them says, as layers [frames, width] float32 on the CPU, written one by one.

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
                    self._file.write(layer.contiguous().numpy())
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

    def windows(self, indices: torch.Tensor) -> torch.Tensor:
        """What the network hears at the frames `indices` [n, around]: [people, n, around, layers, width] float32.

        They lie close together: all between the first and the last of them are read.
        """
        first, last = indices.min().item(), indices.max().item()
        # Mapped for this moment alone: the pages of a file that stays mapped count as the process's memory.
        stored = np.memmap(self._file, np.float32, "r", shape=(self.people, self.layers, self.frames, self.width))
        part = np.array(stored[:, :, first : last + 1].swapaxes(1, 2), order="C")
        return audio_windows(torch.from_numpy(part), indices - first)
