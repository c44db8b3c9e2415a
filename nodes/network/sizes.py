"""The sizes of a MODEL's network, for plans and for how long it takes."""

import torch

from ...formats.kinds import SMALLER
from ...skyreels_v3.jobs.budget import Network
from ..weights.layers import Packed
from .model import skyreels_model

PLAIN = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def network_of(patcher) -> Network:
    """The sizes of a MODEL. Raises InputError for a model of another loader."""
    model = skyreels_model(patcher)
    stored = model.get_dtype()
    computed = stored if model.manual_cast_dtype is None else model.manual_cast_dtype
    formats = {layer.format.name for layer in model.diffusion_model.modules() if isinstance(layer, Packed)}
    precision = " + ".join(sorted(formats)) or PLAIN.get(stored, str(stored))
    return Network(model.params, model.job, computed.itemsize, patcher.model_size(), precision, SMALLER)
