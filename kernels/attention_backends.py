"""Attention by optional packages, each behind a trial against PyTorch's: see dispatch.py for when one is given up.

Sources of the calls: flash-attention (flash_attn 2, hopper/flash_attn_interface), SageAttention 1.0.6 and 2.2,
comfy-kitchen 0.2.31.
"""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .attention import attention
from .dispatch import Operation, normal

DTYPES = (torch.float16, torch.bfloat16)
# Relative error beside PyTorch's on normal numbers. Far above what each has, far below that of a wrong result.
EXACT, EIGHT_BITS = 0.01, 0.1


class Backend:
    """An attention called like kernels.attention, which runs whatever this one does not take or fails at.

    key: its name for programs.  name: its name for people.  package: the module it needs.  install: pip's name of it.
    exact: as exact as PyTorch's; the others round to 8 bits and leave `precise` calls to PyTorch.
    fits: whether a card is one that it has kernels for.  run: the call of the package, with no way out.
    """

    def __init__(self, key: str, name: str, package: str, install: str, exact: bool, fits: Callable, run: Callable):
        self.key = key
        self.name = name
        self.package = package
        self.install = install
        self.exact = exact
        self.fits = fits
        self.run = run
        self.operation = Operation(attention, run, _sample, EXACT if exact else EIGHT_BITS, name=name)

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, precise: bool = False) -> torch.Tensor:
        """See kernels.attention."""
        if q.dtype not in DTYPES or (precise and not self.exact):
            return attention(q, k, v)
        if torch.compiler.is_compiling() and _opaque is not None:
            return _opaque(q, k, v, self.key)
        return self.operation(q, k, v)

    def installed(self) -> bool:
        """Whether its package is there; nothing is imported, so that it may still be broken."""
        return importlib.util.find_spec(self.package) is not None

    def runs_on(self, device: torch.device) -> bool:
        return device.type in self.operation.devices and self.fits(device)


def _sample(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[tuple, dict]:
    # Enough keys for the kernels of long sequences, and no multiple of their blocks.
    k, v, q = normal(3, 1, 1100, 2, q.shape[-1], dtype=q.dtype)
    return (q[:, :300].contiguous(), k, v), {}


def _flash_2(q, k, v):
    out = importlib.import_module("flash_attn").flash_attn_func(q, k, v)
    return out.flatten(2)


def _flash_3(q, k, v):
    out = importlib.import_module("flash_attn_interface").flash_attn_func(q, k, v)
    return (out[0] if isinstance(out, tuple) else out).flatten(2)  # its early versions return the sums as well


def _sage(q, k, v):
    # Version 1 takes the keys' mean off the keys in place: no result depends on it, and they are not used again.
    return importlib.import_module("sageattention").sageattn(q, k, v, tensor_layout="NHD", is_causal=False).flatten(2)


def _kitchen(q, k, v):
    out = importlib.import_module("comfy_kitchen").int8_attention(*(part.transpose(1, 2) for part in (q, k, v)))
    return out.transpose(1, 2).flatten(2)


def _cudnn(q, k, v):
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        return attention(q, k, v)


def _nvidia(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None


def _ampere_or_amd(device: torch.device) -> bool:
    return not _nvidia(device) or torch.cuda.get_device_capability(device) >= (8, 0)


def _has_cudnn(device: torch.device) -> bool:
    ordered = "set_priority" in inspect.signature(sdpa_kernel).parameters  # since torch 2.6
    return ordered and _nvidia(device) and torch.cuda.get_device_capability(device) >= (8, 0)


def _hopper(device: torch.device) -> bool:
    return _nvidia(device) and torch.cuda.get_device_capability(device)[0] == 9


def _turing_or_amd(device: torch.device) -> bool:
    return not _nvidia(device) or torch.cuda.get_device_capability(device) >= (7, 5)


FLASH_3 = Backend("flash3", "FlashAttention 3", "flash_attn_interface", "flash-attn-3", True, _hopper, _flash_3)
FLASH_2 = Backend("flash2", "FlashAttention 2", "flash_attn", "flash-attn", True, _ampere_or_amd, _flash_2)
SAGE = Backend("sage", "SageAttention", "sageattention", "sageattention", False, _ampere_or_amd, _sage)
INT8 = Backend(
    "int8", "comfy-kitchen's int8 attention", "comfy_kitchen", "comfy-kitchen", False, _turing_or_amd, _kitchen
)
CUDNN = Backend("cudnn", "PyTorch's attention by cuDNN", "torch", "torch", True, _has_cudnn, _cudnn)
BACKENDS = {backend.key: backend for backend in (FLASH_3, FLASH_2, SAGE, INT8, CUDNN)}


def fastest_exact(device: torch.device) -> Backend | None:
    """The fastest attention as exact as PyTorch's that is there for a device; None: PyTorch's own."""
    if not _nvidia(device):
        return None
    if FLASH_3.runs_on(device) and FLASH_3.installed():
        return FLASH_3
    # PyTorch has FlashAttention 2 built in, but not on Windows: there its attention is half as fast, and cuDNN's runs
    # only where it is asked for.
    built_in = getattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)()
    if not built_in and FLASH_2.runs_on(device) and FLASH_2.installed():
        return FLASH_2
    # FlashAttention 2 makes half of what these cards can; from 2.11 on PyTorch knows.
    half = torch.__version__ < "2.11" and torch.cuda.get_device_capability(device) in ((9, 0), (10, 0))
    return CUDNN if (half or not built_in) and CUDNN.runs_on(device) else None


def _registered():
    """One call of a backend as an operator that torch.compile does not look into; None where torch has none yet."""
    if not hasattr(torch.library, "custom_op"):
        return None

    # Operators are global: each copy of this module that is loaded has its own.
    @torch.library.custom_op(f"{re.sub(r'[^a-zA-Z0-9]', '_', str(__package__))}::attention", mutates_args=())
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, backend: str) -> torch.Tensor:
        return BACKENDS[backend].operation(q, k, v)

    attend.register_fake(lambda q, k, v, backend: q.new_empty(*q.shape[:2], q.shape[2] * q.shape[3]))
    return attend


_opaque = _registered()
