"""Whether a processor computes in 16 bits, or only stores them: without units for it a product takes 90 times as long.

Asked wherever the pack chooses the dtype of a computation. How weights are stored is another matter: 16-bit weights
are fine on any processor and are made float32 layer by layer.
"""

import functools
import platform

import torch

HALF = (torch.bfloat16, torch.float16)
X86 = ("x86_64", "amd64")


def in_hardware(dtype: torch.dtype, device: torch.device | str = "cpu") -> bool:
    """Whether products and convolutions in `dtype` run in hardware on `device`.

    For processors only: True for every other device, about which ComfyUI decides, and for every dtype but the 16-bit
    ones. As torch and oneDNN see the processor, ONEDNN_MAX_CPU_ISA included.
    """
    return torch.device(device).type != "cpu" or dtype not in HALF or _on_this_processor(dtype)


def computed_in(dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.dtype:
    """The dtype to compute in where weights are stored in `dtype`: the same, or float32."""
    return dtype if in_hardware(dtype, device) else torch.float32


@functools.cache
def _on_this_processor(dtype: torch.dtype) -> bool:
    library = torch.ops.mkldnn
    if dtype == torch.float16:
        return bool(library._is_mkldnn_fp16_supported())
    # oneDNN takes bfloat16 on any AVX-512, and emulates what the processor lacks.
    emulated = platform.machine().lower() in X86 and not (_has("avx512_bf16") or _has("amx_tile"))
    return bool(library._is_mkldnn_bf16_supported()) and not emulated


def _has(feature: str) -> bool:
    """A flag of torch's; the oldest versions do not have all of them."""
    ask = getattr(torch.cpu, f"_is_{feature}_supported", None)
    return ask is not None and bool(ask())
