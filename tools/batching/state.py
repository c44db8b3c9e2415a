"""The rows of a table as a batch carries them, and what is done, in a file beside the table."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.resume.lock import lock_file
from .rows import BatchError, Row

DONE, FAILED, CANCELLED, QUEUED, OPEN = "done", "failed", "cancelled", "queued", "open"
Need = tuple[str, str, str]  # node type, its input, the text that it holds


@dataclass
class Task:
    """A row with its values. record: what the state file keeps of it.  needs: what a server must have for it.

    group: the name that all takes of a row have in common.  named: files of ComfyUI's folder input that its cells name.
    brought: copies of those.
    """

    row: Row
    values: dict[tuple[str, str], object]
    uploads: dict[tuple[str, str], Path]
    key: str
    needs: frozenset[Need] = frozenset()
    record: dict = field(default_factory=lambda: {"state": OPEN})
    group: str = ""
    named: tuple[str, ...] = ()
    brought: list[Path] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.record["state"] == DONE

    @property
    def ended(self) -> bool:
        return self.record["state"] in (DONE, FAILED, CANCELLED)


class State:
    """What is done, in a file that is whole at every moment, for one process at a time."""

    _lock: int | None = None

    def __init__(self, path: Path, forget: bool = False):
        self.path = path
        self.rows: dict[str, dict] = {}
        if path.exists() and not forget:
            try:
                self.rows = dict(json.loads(path.read_text(encoding="utf-8"))["rows"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BatchError(f"{path.name} is damaged: remove it, and every row is made again.") from error

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def take(self) -> None:
        """Keeps other batches from this table until `release`. Raises BatchError where one has it."""
        in_use = f"{self.path.name} is in use by {{owner}}: wait until that batch is done, or stop it."
        try:
            self._lock = lock_file(self._lock_path, in_use)
        except InputError as error:
            raise BatchError(str(error)) from error
        except OSError as error:
            raise self._unwritable(error) from error

    def release(self) -> None:
        if self._lock is None:
            return
        if os.name == "posix":  # while it is locked: nobody else's is removed
            self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None
        if os.name != "posix":  # where an open file cannot be removed, be it ours or another's
            with contextlib.suppress(OSError):
                self._lock_path.unlink()

    def save(self) -> None:
        """Raises BatchError where the file cannot be written."""
        unfinished = self.path.with_name(f"{self.path.name}.unfinished")
        # A row a line: with `indent`, Python's slow encoder would take the longer the more rows there are.
        rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(row, ensure_ascii=False)}" for key, row in self.rows.items())
        try:
            unfinished.write_text(f'{{"rows": {{\n{rows}\n}}}}\n', encoding="utf-8")
            os.replace(unfinished, self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> BatchError:
        return BatchError(
            f"{self.path} cannot be written ({error.strerror}), and without it nobody knows what is done: make room or "
            "make the folder writable, then run the same command again."
        )
