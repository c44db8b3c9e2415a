"""From the name of a format to the format."""

from functools import cache
from importlib import import_module

from ..skyreels_v3.errors import InputError
from .base import Format
from .encoding import Encoding
from .gguf import Gguf
from .gguf_blocks import DECODERS
from .kinds import KINDS


@cache
def format_of(encoding: Encoding) -> Format:
    """The format of an encoding, the same object each time. Raises InputError for kinds that cannot be read."""
    if encoding.kind in DECODERS:
        return Gguf.of(encoding)
    place = KINDS[encoding.kind].format if encoding.kind in KINDS else ""
    if not place:
        raise InputError(
            f"A weight is stored as {encoding.kind}, which cannot be read: use a file in bf16, fp8, int8 or a GGUF "
            "file in Q8_0 or Q4_K."
        )
    module, _, name = place.partition(":")
    maker: type[Format] = getattr(import_module(f".{module}", __package__), name)
    return maker.of(encoding)
