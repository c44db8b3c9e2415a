"""From the name of a format to the format."""

from functools import cache

import torch

from ..skyreels_v3.errors import InputError
from .base import Format
from .encoding import Encoding
from .fp8 import Float8
from .gguf import Gguf
from .gguf_blocks import DECODERS
from .int8 import Int8
from .mxfp8 import Mxfp8
from .nf4 import Nf4
from .nvfp4 import Nvfp4

_MAKERS = {
    "float8_e4m3fn": lambda _: Float8(torch.float8_e4m3fn),
    "float8_e5m2": lambda _: Float8(torch.float8_e5m2),
    "int8": lambda encoding: Int8(encoding.rotation),
    "nf4": lambda _: Nf4(),
    "mxfp8": lambda _: Mxfp8(),
    "nvfp4": lambda _: Nvfp4(),
    **dict.fromkeys(DECODERS, lambda encoding: Gguf(encoding.kind)),
}
# Every kind that an Encoding can have here.
KINDS = tuple(_MAKERS)


@cache
def format_of(encoding: Encoding) -> Format:
    """The format of an encoding, the same object each time. Raises InputError for kinds that cannot be read."""
    if encoding.kind not in _MAKERS:
        raise InputError(
            f"A weight is stored as {encoding.kind}, which cannot be read: use a file in bf16, fp8, int8 or a GGUF "
            "file in Q8_0 or Q4_K."
        )
    return _MAKERS[encoding.kind](encoding)
