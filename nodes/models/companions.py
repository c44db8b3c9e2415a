"""Which of the other models that a job needs are not there."""

import folder_paths

from ...model_loaders.architecture.companions import companions
from ...skyreels_v3.recipes import Job


def missing_companions(job: Job) -> list[str]:
    """A sentence for each model that the job needs and none of ComfyUI's folders has."""
    return [
        f"This model also needs {one.kind}, and none is there: {one.place}."
        for one in companions(job)
        if not any(one.mark in name.lower().replace("-", "_") for name in _names(one.folder))
    ]


def _names(folder: str) -> list[str]:
    return folder_paths.get_filename_list(folder) if folder in folder_paths.folder_names_and_paths else []
