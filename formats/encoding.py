"""How one weight is stored; read from headers, so it needs no torch."""

from dataclasses import dataclass

from .kinds import KINDS


@dataclass(frozen=True)
class Encoding:
    """A format and what of it differs from weight to weight."""

    kind: str  # its name in kinds.KINDS, such as "int8" or "Q4_K"
    rotation: int = 0  # width of the blocks whose columns a Hadamard matrix has mixed (int8), 0 for none
    exact: bool = False  # whether its file wants inputs left as they are

    def fits(self, columns: int) -> bool:
        """Whether a weight with so many columns can be stored so."""
        return columns % KINDS[self.kind].block == 0 and (not self.rotation or columns % self.rotation == 0)


def rotation_for(columns: int) -> int:
    """The widest rotation for so many columns: the largest power of 4 up to 256 that divides them, 0 if only 1 does."""
    width = KINDS["int8"].rotation
    while columns % width:
        width //= 4
    return width if width > 1 else 0


def rectangle(size: int, count: int) -> int:
    """How long each of `count` pieces is that a side of `size` is cut into, the last one perhaps shorter; 0 if none
    fits. A power of 2 where one does, as every known file has."""
    if count < 1 or count > size:
        return 0
    power = 1 << (-(-size // count) - 1).bit_length()
    if -(-size // power) == count:
        return power
    return size // count if size % count == 0 else 0
