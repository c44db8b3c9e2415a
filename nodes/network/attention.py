"""Which attention the forward of a MODEL runs: the one that another node set, ComfyUI's, or one of kernels/."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import comfy.ldm.modules.attention
import torch

from ...kernels import attention
from ...kernels.attention_backends import FLASH_2, FLASH_3, INT8, SAGE, Backend, fastest_exact
from ...skyreels_v3.errors import InputError
from .. import versions

log = logging.getLogger(__name__)

OVERRIDE = "optimized_attention_override"  # ComfyUI's, in transformer_options
AUTO, COMFYUI, SDPA = "auto", "comfyui", "sdpa"
BACKENDS = {"flash": (FLASH_3, FLASH_2), "sage": (SAGE,), "int8": (INT8,)}
CHOICES = [AUTO, COMFYUI, SDPA, *BACKENDS]

# ComfyUI's functions -> (what they are called, whether they are exact, whether they are made of PyTorch alone).
COMFYUI_FUNCTIONS = {
    "attention_basic": ("basic", True, True),
    "attention_sub_quad": ("sub-quadratic", True, True),
    "attention_split": ("split", True, True),
    "attention_pytorch": ("PyTorch", True, True),
    "attention_xformers": ("xFormers", True, False),
    "attention_flash": ("FlashAttention", True, False),
    "attention_sage": ("SageAttention", False, False),
    "attention3_sage": ("SageAttention 3", False, False),
    "attention_comfy_kitchen_int8": ("comfy-kitchen int8", False, False),
}
PYTORCH = "PyTorch's attention"


@dataclass(frozen=True)
class Chosen:
    """The attention of a forward, and why it was chosen."""

    run: Callable[..., torch.Tensor]  # see kernels.attention
    name: str  # for artists, as is why
    why: str
    exact: bool = True  # as exact as PyTorch's, as far as is known
    backend: object = None  # what is disabled where its results are not finite; None: made of PyTorch alone

    def sentence(self) -> str:
        rounded = "" if self.exact else "; it rounds to 8 bits, so that the video differs a little from the exact one"
        return f"Attention: {self.name}, {self.why}{rounded}."


# (device, backend) whose results were not finite.
_disabled: list[tuple[torch.device, object]] = []


def disable(chosen: Chosen, device: torch.device) -> None:
    """From now on PyTorch's attention runs on `device` instead of this one."""
    _disabled.append((device, chosen.backend))
    log.warning(
        "SkyReels-V3: %s gave numbers that are not finite on %s; PyTorch's attention runs from this step on.",
        chosen.name,
        device,
    )


def choose(choice: str, device: torch.device, options: Mapping) -> Chosen:
    """The attention of a forward on `device`: choice is one of CHOICES, and options are its transformer_options.

    Raises InputError for a choice that is unknown or whose package is missing.
    """
    chosen = _wanted(choice, device, options)
    if any(where == device and backend is chosen.backend for where, backend in _disabled):
        return Chosen(attention, PYTORCH, f"since {chosen.name} gave numbers that are not finite")
    return chosen


def check(choice: str) -> None:
    """Raises InputError for a choice that is unknown or whose package is missing."""
    if choice not in CHOICES:
        raise InputError(f"The attention is {choice!r}, but it must be one of {', '.join(CHOICES)}.")
    backends = BACKENDS.get(choice)
    if backends and not any(backend.installed() for backend in backends):
        backend = backends[-1]
        raise InputError(
            f"The attention {choice} needs the package {backend.package}, which is not installed here: install it into "
            f"ComfyUI's Python (python -m pip install {backend.install}), or choose auto."
        )


def _wanted(choice: str, device: torch.device, options: Mapping) -> Chosen:
    check(choice)
    if OVERRIDE in options:
        return Chosen(_comfyui(options, True), "that of another node", "which always wins", backend=options[OVERRIDE])
    if choice == SDPA:
        return Chosen(attention, PYTORCH, "as chosen")
    if choice in BACKENDS:
        return _named(choice, device)
    function = comfy.ldm.modules.attention.optimized_attention
    known = function.__module__ == comfy.ldm.modules.attention.__name__
    name, exact, own = COMFYUI_FUNCTIONS.get(function.__name__ if known else "", ("set by another pack", False, False))
    why = "as chosen" if choice == COMFYUI else _why_comfyuis(known, device)
    if why is not None:
        return Chosen(_comfyui(options, exact), f"ComfyUI's ({name})", why, exact, None if own else function)
    backend = fastest_exact(device)
    if backend is None:
        return Chosen(attention, PYTORCH, "chosen by auto")
    return Chosen(backend, backend.name, "chosen by auto", backend=backend)


def _named(choice: str, device: torch.device) -> Chosen:
    backends: tuple[Backend, ...] = BACKENDS[choice]
    for backend in backends:
        if backend.runs_on(device) and backend.installed():
            return Chosen(backend, backend.name, "as chosen", backend.exact, backend)
    return Chosen(attention, PYTORCH, f"because {backends[-1].name} does not run on this device ({device.type})")


def _why_comfyuis(known: bool, device: torch.device) -> str | None:
    """Why auto takes ComfyUI's attention; None where it does not."""
    flag = versions.attention_flag()
    if flag is not None:
        return f"because it was started with {flag}"
    if not known:
        return "because that pack set it for all models"
    if device.type == "cpu" or (device.type == "cuda" and torch.version.hip is None):
        return None
    return "which suits this graphics card"  # ComfyUI tells cards of AMD and others apart


def _comfyui(options: Mapping, exact: bool) -> Callable[..., torch.Tensor]:
    """ComfyUI's attention, or the one that a node set, in the shape of kernels.attention."""
    function = comfy.ldm.modules.attention.optimized_attention

    def run(q, k, v, precise=False):
        if precise and not exact:  # ComfyUI 0.3.75 would round these as well
            return attention(q, k, v)
        return function(
            q.flatten(2),
            k.flatten(2),
            v.flatten(2),
            heads=q.shape[2],
            transformer_options=options,
            low_precision_attention=not precise,
        )

    return run
