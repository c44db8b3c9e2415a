"""Formats whose columns a Hadamard matrix may have mixed before they were rounded.

Source: ConvRot (arXiv 2512.03673).
"""

from ..kernels.int8_linear import is_power_of_4
from ..skyreels_v3.errors import InputError
from .base import Format
from .encoding import Encoding


class Rotated(Format):
    """rotation: width of the groups of columns that are mixed, a power of 4; 0 for none."""

    def __init__(self, rotation: int = 0):
        if rotation and not is_power_of_4(rotation):
            raise InputError(
                f"A weight is stored as {self.name} with columns mixed in groups of {rotation}, but a power of 4 is "
                "needed: the file is damaged or not made by ComfyUI, use another one."
            )
        self.rotation = rotation

    @classmethod
    def of(cls, encoding: Encoding) -> "Rotated":
        return cls(encoding.rotation)
