"""The sizes of a MODEL's network, for plans and for how long it takes."""

from dataclasses import replace

import torch

from ...formats.kinds import SMALLER
from ...skyreels_v3.jobs.estimates.budget import LoadedModel, Machine
from ...skyreels_v3.jobs.estimates.sharing import Sharing
from ...skyreels_v3.model.memory import LayerCopies
from ..weights.layers import Packed
from .machine import machine_of
from .model import skyreels_model
from .shared.network import SharedNetwork

PLAIN = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def network_of(patcher) -> LoadedModel:
    """The sizes of a MODEL. Raises InputError for a model of another loader."""
    model = skyreels_model(patcher)
    stored = model.get_dtype()
    computed = stored if model.manual_cast_dtype is None else model.manual_cast_dtype
    inner = model.diffusion_model
    formats = {layer.format.name for layer in inner.modules() if isinstance(layer, Packed)}
    packed = inner.precision if isinstance(inner, SharedNetwork) else " + ".join(sorted(formats))
    precision = packed or PLAIN.get(stored, str(stored))
    weights = inner.weights if isinstance(inner, SharedNetwork) else patcher.model_size()
    copies = LayerCopies() if isinstance(inner, SharedNetwork) else inner.copies(patcher.load_device, computed)
    cards = cards_of(patcher)
    return LoadedModel(model.params, model.job, computed.itemsize, weights, precision, SMALLER, cards, copies)


def cards_of(patcher) -> int:
    """How many cards share each forward of a MODEL."""
    sharing = sharing_of(patcher)
    return 1 if sharing is None else sharing.cards


def sharing_of(patcher) -> Sharing | None:
    """The cards that share each forward of a MODEL; None where there is one."""
    network = skyreels_model(patcher).diffusion_model
    return Sharing(network.group.size, network.group.rate) if isinstance(network, SharedNetwork) else None


def machine_for(patcher) -> Machine:
    """The machine that computes a MODEL's forwards; of several cards, one as small as the smallest."""
    machine, network = machine_of(patcher.load_device), skyreels_model(patcher).diffusion_model
    smallest = network.group.smallest if isinstance(network, SharedNetwork) else 0
    if not smallest:
        return machine
    used = machine.vram - machine.vram_free
    return replace(machine, vram=smallest, vram_free=max(0, smallest - used))
