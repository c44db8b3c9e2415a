"""Files that appear under their name when they are whole: a run may be stopped at any moment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another name to write to; what was written there takes the place of `path` at the end."""
    unfinished = path.with_suffix(".unfinished")
    yield unfinished
    os.replace(unfinished, path)
