"""The files of a table's rows, brought from the servers into one folder under the names of the rows."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from .rows import BatchError
from .server import ComfyUI
from .state import State, Task


class Results:
    """A folder that gets each row's files once: `cat.mp4`, `cat_2.png` for a further one.

    A file is there as a whole or not at all, and none that was there before is written over.
    """

    def __init__(self, folder: Path, state: State):
        self.folder = folder
        self._state = state
        self._naming = threading.Lock()

    def bring(self, server: ComfyUI, task: Task, there: Sequence[str], note: Callable) -> list[str]:
        """Brings the files `there` of a row, `subfolder/name`, and returns what they are called here.

        note: takes what is to be kept of the row.  Raises Away, Refused for a file that is gone, BatchError.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._naming:
                names = self._names(task, there)
                # Noted first: where this process ends in between, the same names are taken again.
                note(task, here=names)
            for far, name in zip(there, names):
                unfinished = self.folder / f"{name}.unfinished"
                try:
                    with unfinished.open("wb") as file:
                        server.fetch(far, file)
                    os.replace(unfinished, self.folder / name)
                finally:
                    unfinished.unlink(missing_ok=True)
        except ConnectionError:
            raise
        except OSError as error:
            raise BatchError(
                f"{self.folder} cannot be written ({error.strerror}): make room or make it writable, then run the "
                "same command again, which goes on."
            ) from error
        return names

    def _names(self, task: Task, there: Sequence[str]) -> list[str]:
        mine = task.record.get("here", [])
        records = list(self._state.rows.values())  # other servers' threads add to them meanwhile
        taken = {name.casefold() for record in records for name in record.get("here", [])}
        taken |= {path.name.casefold() for path in self.folder.iterdir()}
        taken -= {name.casefold() for name in mine}
        names: list[str] = []
        for far in there:
            end = re.sub(r"[^.\w]", "", PurePosixPath(far).suffix)
            number, name = 1, f"{task.row.name}{end}"
            while name.casefold() in taken:
                number += 1
                name = f"{task.row.name}_{number}{end}"
            taken.add(name.casefold())
            names.append(name)
        return names
