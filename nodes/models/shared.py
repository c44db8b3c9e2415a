"""A MODEL that several cards share: opened here, loaded by their processes."""

from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from ...distributed.cluster import stand_ins
from ...formats.kinds import Precision
from ...model_loaders.checkpoints.checkpoint import Checkpoint
from ...model_loaders.placement import weight_bytes
from ...skyreels_v3.digest import digest
from ...skyreels_v3.errors import InputError
from .. import versions
from ..network.model import Config, Model
from ..network.shared.groups import group_of, interrupted
from ..network.shared.patcher import SharedPatcher


def shared_patcher(
    path: str,
    config: Config,
    checkpoint: Checkpoint,
    precision: Precision,
    dtype: torch.dtype,
    products: str,
    gpus: int,
) -> tuple[Model, SharedPatcher]:
    """The model and its patcher for a checkpoint at `path`, whose weights will be in the processes of a group.

    config: with the dtypes set.  precision, dtype: of packed and of plain weights.  gpus: cards, 0 for all.
    Raises InputError where there are not so many cards, or what they need is missing.
    """
    if gpus < 0:
        raise InputError(f"gpus is {gpus}, but it must be 0, for all cards, or their number.")
    manager = comfy.model_management
    device = manager.get_torch_device()
    if device.type != "cuda" and not stand_ins():  # AMD's are called so too
        raise InputError(
            "Several cards share a model only where ComfyUI runs on one of NVIDIA or AMD, but it runs on "
            f"{device}: set gpus to 1."
        )
    group = group_of(gpus, config.params.num_heads)
    group.start(interrupted)
    model = Model(config, (group.describe(),), checkpoint.stamps)
    network: Any = model.diffusion_model  # a SharedNetwork
    spec = {
        "path": str(Path(path).absolute()),
        "job": checkpoint.job.value,
        "precision": precision.value,
        "products": products,
        "dtype": str(dtype).removeprefix("torch."),
        "maps": versions.maps_files(),
    }
    network.hand_to(group, digest(spec, [stamp.key for stamp in checkpoint.stamps]), spec, checkpoint.stamps)
    if precision is not Precision.AUTO or checkpoint.is_packed:
        network.precision = checkpoint.precision if precision is Precision.AUTO else precision.value
    network.weights = weight_bytes(checkpoint, precision, dtype)
    return model, SharedPatcher(model, load_device=device, offload_device=manager.unet_offload_device())
