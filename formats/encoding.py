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


def rotation_for(columns: int) -> int:
    """The widest rotation for so many columns: the largest power of 4 up to 256 that divides them, 0 if only 1 does."""
    return next((width for width in (256, 64, 16, 4) if columns % width == 0), 0)
