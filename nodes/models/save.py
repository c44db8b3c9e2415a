"""Save Model: a SkyReels-V3 MODEL, with its LoRAs, as one file in ComfyUI's own format."""

import os
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ...formats.kinds import PACKED, Precision
from ...model_loaders.architecture.params import expected_shapes
from ...model_loaders.checkpoints.checkpoint import Checkpoint, open_checkpoint
from ...model_loaders.save import SavePlan
from ...model_loaders.tensors.file_tensors import DTYPES
from ...model_loaders.tensors.safetensors_writer import PARTIAL
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.units import gb
from .. import versions
from ..network.model import skyreels_model
from ..network.shared.patcher import is_shared
from .load import PLAIN_DTYPES, resolve
from .weight_changes import changes_in_words, weight_changes

AS_LOADED = "as loaded"
SAVED = {*PLAIN_DTYPES, *(precision for precision, kind in PACKED.items() if kind.is_saved)}
PRECISIONS = [AS_LOADED, *(precision.value for precision in Precision if precision in SAVED)]
ENDING = ".safetensors"
COPIES = 6  # of a weight in float32 that packing it on a graphics card may take


def checkpoint_of(model) -> Checkpoint:
    """The checkpoint behind a MODEL. Raises InputError if another one lies there by now."""
    path = Path(model.cached_patcher_init[1].path)
    checkpoint = open_checkpoint(path, model.model.job)
    if checkpoint.params != model.model.params:
        raise InputError(f"{path.name} is not the file any more that was loaded: load the model again.")
    return checkpoint


def chosen_precision(choice: str, model, checkpoint: Checkpoint) -> tuple[Precision, torch.dtype]:
    """(what the weights will be stored in, dtype of those that stay plain numbers)."""
    if choice == AS_LOADED:
        precision, _ = resolve(Precision(model.cached_patcher_init[1].precision), checkpoint, model.load_device)
        return precision, model.model.get_dtype()
    precision, own = Precision(choice), DTYPES[checkpoint.plain_dtype]
    return precision, PLAIN_DTYPES.get(precision, own if own in PLAIN_DTYPES.values() else torch.bfloat16)


def free_path(prefix: str) -> Path:
    """Where a file with this prefix goes: in the output folder, with a counter that no file has.

    Raises InputError for a prefix that leaves the output folder or whose folder cannot be made.
    """
    name = prefix.strip().replace("\\", "/")
    if not name.strip("/.") or "\0" in name:
        raise InputError(f"filename_prefix is {prefix!r}, which is no name: write one, such as diffusion_models/mine.")
    try:
        folder, name, counter, *_ = folder_paths.get_save_image_path(name, folder_paths.get_output_directory())
    except OSError as error:
        raise InputError(
            f"The folder of {prefix} cannot be made ({error.strerror}): choose another filename_prefix."
        ) from error
    except Exception as error:  # ComfyUI has no exception of its own for it
        raise InputError(
            f"{prefix} leads out of the output folder: write a filename_prefix without a drive, a leading / and .. in "
            "it."
        ) from error
    # ComfyUI's counter misses names that end in a slash.
    while any(os.path.exists(f"{_numbered(folder, name, counter)}{end}") for end in ("", PARTIAL)):
        counter += 1
    return _numbered(folder, name, counter)


def _numbered(folder: str, name: str, counter: int) -> Path:
    return Path(folder, f"{name}_{counter:05}_{ENDING}")


class SaveModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsSaveModel",
            display_name="SkyReels-V3 Save Model",
            description="Saves a SkyReels-V3 model with its LoRAs as one file that also ComfyUI's own loader opens.",
            search_aliases=["save model", "ModelSave", "convert", "quantize", "merge lora", "export", "skyreels save"],
            inputs=[
                io.Model.Input("model", tooltip="A model from SkyReels-V3 Load Model, with LoRAs or without."),
                io.String.Input(
                    "filename_prefix",
                    default="diffusion_models/SkyReels-V3",
                    tooltip="Folder and name in ComfyUI's output folder. Load Model lists what is in "
                    "output/diffusion_models.",
                ),
                io.Combo.Input(
                    "precision",
                    options=PRECISIONS,
                    default=AS_LOADED,
                    tooltip="How the weights are stored. as loaded takes what Load Model shows. fp8 and int8 take half "
                    "the space of bf16; int8 is the more exact one.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file lies.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, filename_prefix: str, precision: str) -> io.NodeOutput:
        skyreels_model(model)
        if is_shared(model):
            raise InputError(
                "Save Model needs the weights in ComfyUI's own process, but several cards share this model: set gpus "
                "to 1 in Load Model."
            )
        if precision not in PRECISIONS:
            raise InputError(f"The precision is {precision!r}, but it must be one of {', '.join(PRECISIONS)}.")
        checkpoint = checkpoint_of(model)
        changes = weight_changes(model)
        plan = SavePlan(checkpoint, *chosen_precision(precision, model, checkpoint), changes)
        path = free_path(filename_prefix)
        bar = comfy.utils.ProgressBar(len(checkpoint.weights), node_id=cls.hidden.unique_id)

        def before_each() -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(1)

        plan.write(path, packing_device(model, checkpoint), before_each)
        stored = open_checkpoint(path, checkpoint.job)
        words = changes_in_words(model, changes)
        versions.tell(
            cls.hidden.unique_id, f"{path}", f"{gb(plan.size)}, {stored.precision}", *([words] if words else [])
        )
        return io.NodeOutput(str(path))


def packing_device(model, checkpoint: Checkpoint) -> torch.device | str:
    """Where weights are packed: a graphics card, in which room is made, else the processor. As Load Model does it."""
    device = model.load_device
    if device.type != "cuda":
        return "cpu"
    largest = max(torch.Size(shape).numel() for shape in expected_shapes(checkpoint.params).values())
    comfy.model_management.free_memory(COPIES * 4 * largest, device)
    return device
