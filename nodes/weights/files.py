"""Looks at the files of a model and its LoRAs before weights are taken from their pages."""

from collections.abc import Iterable

from comfy.patcher_extension import WrappersMP

from ...model_loaders.files.stamps import FileStamp, check_unchanged
from .. import versions
from .lora_branches import AppliedLora, attached


def watch_files(patcher) -> None:
    """Lets samplings of a patcher end in a sentence where a file was written to: before any weight is brought to the
    card, and before every forward, because a sampling may take hours."""
    patcher.add_wrapper(WrappersMP.PREPARE_SAMPLING, _before_loading)
    patcher.add_wrapper(WrappersMP.APPLY_MODEL, _before_forward)


def _before_loading(executor, patcher, *args, **kwargs):
    _look(patcher.model.files, attached(patcher))
    return executor(patcher, *args, **kwargs)


def _before_forward(executor, *args, **kwargs):
    model = executor.class_obj
    _look(model.files, model.diffusion_model.loras)
    return executor(*args, **kwargs)


def _look(files: Iterable[FileStamp], loras: Iterable[AppliedLora]) -> None:
    """Raises InputError where one was written to; files that are not mapped may change."""
    if versions.maps_files():
        # Only ComfyUI's reader maps LoRAs too; of each the first file has the weights.
        of_loras = [file for lora in loras for file in lora.files[:1]] if versions.file_reader() else []
        check_unchanged([*files, *of_loras])
