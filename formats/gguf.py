"""The quantised types of GGUF files."""

import torch

from ..skyreels_v3.errors import InputError
from .base import Format, Parts
from .encoding import Encoding
from .gguf_blocks import DECODERS
from .gguf_types import TYPES


class Gguf(Format):
    """Read only. kind: ggml's name of the type ("Q4_K"), one of DECODERS.

    weight: uint8 [rows, bytes per row], the blocks of a row one after the other.
    """

    def __init__(self, kind: str):
        if kind not in DECODERS:
            raise InputError(
                f"A weight is stored as {kind}, which cannot be read: use another GGUF file, such as Q8_0 or Q4_K_M."
            )
        self.name = kind
        self._type = TYPES[kind]
        self._decode = DECODERS[kind]

    @classmethod
    def of(cls, encoding: Encoding) -> "Gguf":
        return cls(encoding.kind)

    def decode(self, parts: Parts, columns: int) -> torch.Tensor:
        return self._decode(parts["weight"].unflatten(1, (-1, self._type.bytes))).flatten(1)
