"""The name of a format and what else must be known of it; read from headers, so it needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoding:
    """How one weight is stored.

    kind: "float8_e4m3fn", "float8_e5m2", "int8", "nf4", "mxfp8", "nvfp4", or a GGUF type such as "Q4_K".
    rotation: width of the blocks whose columns a Hadamard matrix has mixed (int8), 0 for none.
    """

    kind: str
    rotation: int = 0
