"""Load Model: a SkyReels-V3 checkpoint from disk as a native MODEL."""

import logging
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

from ..model_loaders import folders
from ..model_loaders.checkpoint import Checkpoint, open_checkpoint
from ..model_loaders.shards import find_files
from ..skyreels_v3.errors import InputError
from ..skyreels_v3.recipes import Job
from . import host
from .model import Config, Model

log = logging.getLogger(__name__)

FOLDER = "diffusion_models"
AUTO = "auto"
JOBS = [AUTO, *(job.value for job in Job)]


def load_patcher(path: str, job: str = AUTO, disable_dynamic: bool = False):
    """A ModelPatcher for the checkpoint file or folder at `path`; `job` is a Job's value or auto.

    Also what ComfyUI calls again to get an untouched copy (deep clones, devices of their own).
    Raises InputError for whatever is wrong with the file.
    """
    if job not in JOBS:
        raise InputError(f"The job is {job!r}, but it must be one of {', '.join(JOBS)}.")
    checkpoint = open_checkpoint(Path(path), None if job == AUTO else Job(job))
    log.info("SkyReels-V3: %s", checkpoint.why)
    config = Config(checkpoint.params, checkpoint.job)
    load_device = comfy.model_management.get_torch_device()
    dtype = weight_dtype(checkpoint, config, load_device)
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    model = Model(config)
    patcher = host.patcher_class(dynamic=not disable_dynamic)(
        model, load_device=load_device, offload_device=comfy.model_management.unet_offload_device()
    )
    # Mapped tensors become the parameters themselves: nothing is copied until a weight is needed.
    weights = checkpoint.state_dict(reader=host.file_reader())
    for name, weight in weights.items():
        if weight.dtype != dtype:
            weights[name] = weight.to(dtype)
    model.diffusion_model.load_state_dict(weights, assign=True)
    patcher.cached_patcher_init = (load_patcher, (path, job))
    return patcher


def weight_dtype(checkpoint: Checkpoint, config: Config, device: torch.device) -> torch.dtype:
    """The dtype that weights are kept in: the file's own, but a float32 file follows what the card computes in."""
    if checkpoint.dtype in (torch.bfloat16, torch.float16):
        return checkpoint.dtype
    return comfy.model_management.unet_dtype(
        device=device,
        model_params=checkpoint.parameters,
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=checkpoint.dtype,
    )


def entry_path(entry: str) -> Path:
    """Where an entry of the list lies. Raises InputError for one that is gone or leaves the model folders."""
    return folders.entry_path(entry, folder_paths.get_folder_paths(FOLDER))


def checkpoint_files(path: Path) -> list[Path]:
    """Every file that a checkpoint is made of: all of a folder, all shards beside one, or the file itself."""
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file()]
    return list(find_files(path).paths)


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        entries = folders.model_entries(folder_paths.get_filename_list(FOLDER))
        return host.schema(
            node_id="SkyReelsLoadModel",
            display_name="SkyReels-V3 Load Model",
            description="Loads a SkyReels-V3 checkpoint: a single file, or Skywork's folder as downloaded.",
            search_aliases=["skyreels loader", "r2v", "v2v", "a2v", "skyreels checkpoint", "unet loader"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=entries,
                    tooltip="A file or folder in models/diffusion_models. A folder as downloaded from Skywork is one "
                    "entry that ends in a slash.",
                ),
                io.Combo.Input(
                    "job",
                    options=JOBS,
                    default=AUTO,
                    tooltip="What the checkpoint was trained for. auto reads it from the weights, the file's name and "
                    "its folder, and the log says which was taken and why.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For any ComfyUI sampler.")],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, job: str):
        path = entry_path(model)
        files = checkpoint_files(path)
        return [job, *((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)]

    @classmethod
    def execute(cls, model: str, job: str = AUTO) -> io.NodeOutput:
        return io.NodeOutput(load_patcher(str(entry_path(model)), job))
