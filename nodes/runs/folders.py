"""Where long runs keep their results."""

from pathlib import Path

import folder_paths

ROOT, SOURCES = "skyreels_v3_jobs", "sources"


def runs_folder() -> Path:
    """Where unfinished and recently finished runs are kept: visible to the artist, and not cleared at start-up."""
    return Path(folder_paths.get_output_directory()) / ROOT


def sources_folder() -> Path:
    """Where the sources of runs are kept as they are written, each once for all runs."""
    return runs_folder() / SOURCES
