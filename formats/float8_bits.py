"""torch's 8-bit floats, also where a device has none: there their bits are kept as uint8 and read by a table."""

from functools import cache

import torch

from .lookup import lookup


def has_float8(device: torch.device) -> bool:
    """Whether tensors of 8-bit floats can be on this device."""
    return device.type != "mps"


def is_float8(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.itemsize == 1


def portable(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor or, if it is of 8-bit floats and the device has none, its bits: either can be moved there."""
    return tensor.view(torch.uint8) if is_float8(tensor) and not has_float8(device) else tensor


def to_float8(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x, float32 within the dtype's range, rounded to the dtype; its bits as uint8 on devices without."""
    if has_float8(x.device):
        return x.to(dtype)
    return x.cpu().to(dtype).view(torch.uint8).to(x.device)


def from_float8(codes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of 8-bit floats, or those of this dtype as bits in uint8 -> a new float32 tensor of that shape."""
    if has_float8(codes.device):
        return (codes if is_float8(codes) else codes.view(dtype)).float()
    return lookup(_table(dtype, codes.device), codes)


@cache
def _table(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The values of all 256 codes, float32."""
    return torch.arange(256).to(torch.uint8).view(dtype).float().to(device)
