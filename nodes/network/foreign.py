"""What nodes for ComfyUI's own Wan network put in place of its parts: run here where it can be, else refused."""

import inspect
import logging
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.model_sampling
import comfy.utils
import torch

from ...model_loaders.files.tensor_info import short
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.block import BlockInputs
from ...skyreels_v3.model.rope import Rope

log = logging.getLogger(__name__)

CROSS_ATTENTION = re.compile(r"diffusion_model\.blocks\.\d+\.cross_attn\.forward")
FEED_FORWARD = re.compile(r"diffusion_model\.blocks\.(\d+)\.ffn\.forward")
SIGMA = torch.tensor([0.5])  # any one
# Raised by code that finds another network than it was written for.
MISFITS = (AttributeError, IndexError, KeyError, TypeError, ValueError)

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher as Mixed
else:
    Mixed = object  # the patcher stands behind it in the order of classes


class ForeignPatches(Mixed):
    """A patcher that looks at what other nodes replace inside of the network."""

    def add_object_patch(self, name, obj):
        """As ComfyUI's. Raises InputError for a part of the network that is not as in ComfyUI's Wan network."""
        super().add_object_patch(name, fitting(self.model, name, obj))


class WanCrossAttention:
    """The forward that a node wrote for the cross-attention of ComfyUI's Wan network, called as ours is."""

    def __init__(self, forward: Callable):
        self.forward = forward

    def __call__(self, x: torch.Tensor, keys: list, inputs: BlockInputs) -> torch.Tensor:
        """x [B, n, D] -> [B, n, D]; the node makes keys and values itself.

        Row by row: of a batch such code guesses which rows are the positive ones, and NAG takes it for one pair.
        """
        rows = [self._row(x, inputs, row) for row in range(len(x))]
        return torch.cat(rows) if len(rows) > 1 else rows[0]

    def _row(self, x: torch.Tensor, inputs: BlockInputs, row: int) -> torch.Tensor:
        own = slice(row, row + 1)
        context, image = inputs.text[own], inputs.image
        if image is not None:
            context = torch.cat([image[own], context], dim=1)
        image_tokens = None if image is None else image.shape[1]
        options = dict(inputs.runtime.foreign_options or {})
        for option in ("cond_or_uncond", "uuids"):  # ComfyUI's, one for the rows of each conditioning
            if option in options:
                options[option] = [options[option][row * len(options[option]) // len(x)]]
        try:
            return self.forward(x[own], context, context_img_len=image_tokens, transformer_options=options)
        except MISFITS as error:
            raise misfit(self.forward, "a cross-attention", error) from error


def fitting(model, name: str, obj: Any) -> Any:
    """The object of an object patch in the form that this network needs. Raises InputError where there is none."""
    if CROSS_ATTENTION.fullmatch(name):
        return WanCrossAttention(obj)
    feed_forward = FEED_FORWARD.fullmatch(name)
    if feed_forward:
        if feed_forward[1] == "0":
            log.warning(
                "SkyReels-V3: %s replaces the feed-forward without effect: it runs in chunks anyway.", owner(obj)
            )
        return obj
    if name == "model_sampling":
        _check_sampling(model.model_sampling, obj)
    if name.startswith("diffusion_model.") and name != "diffusion_model.forward":
        path, _, attribute = name.rpartition(".")
        try:
            part = comfy.utils.get_attr(model, path)
            found = getattr(part, attribute)
        except AttributeError:
            raise _refused(name, obj) from None
        if inspect.ismethod(found) and next(part.children(), None) is not None:
            raise _refused(name, obj)
    return obj


def _check_sampling(own: Any, obj: Any) -> None:
    """Raises InputError where the timestep that the network is told would not match the noise of what it is given."""
    try:
        same = isinstance(obj, comfy.model_sampling.CONST) and torch.equal(obj.timestep(SIGMA), own.timestep(SIGMA))
    except MISFITS:
        same = False
    if not same:
        raise InputError(
            "A node gives the model the sampling of another family (ModelSamplingAuraFlow, ModelSamplingFlux and "
            "ModelSamplingDiscrete do), with which SkyReels-V3 models make only noise: remove that node; "
            "ModelSamplingSD3 changes the shift."
        )


def rope_of(options: dict, embed: Callable | None) -> Rope:
    """The rotary positions that nodes ask for: `rope_options` of ComfyUI's ScaleROPE, and a Wan network's embedder."""
    asked = options.get("rope_options") or {}

    def axes(what: str, default: float) -> tuple[float, float, float]:
        time, height, width = (float(asked.get(f"{what}_{axis}", default)) for axis in "tyx")
        return time, height, width

    return Rope(axes("scale", 1), axes("shift", 0), embed)


def owner(function: Any) -> str:
    """The name of the node, or of its class, that a function comes from."""
    names = getattr(function, "__qualname__", type(function).__qualname__)
    return names.split(".")[0]


def misfit(function: Any, place: str, error: Exception) -> InputError:
    """What to tell where a node's function in place of a part of the network fails. An InputError stays as it is."""
    if isinstance(error, InputError):
        return error
    return InputError(
        f"{owner(function)}, which a node put in place of {place}, does not run on SkyReels-V3 models ({error}): "
        "remove that node."
    )


def _refused(name: str, obj: Any) -> InputError:
    by = owner(obj) if callable(obj) else f"by {short(repr(obj))}"  # a setting says nothing of the node
    return InputError(
        f"A node replaces {name.removeprefix('diffusion_model.')} of ComfyUI's Wan network ({by}), which "
        "SkyReels-V3 models do not have in that form: remove that node."
    )
