"""What NVIDIA's cards keep up in arithmetic, by their generation and number of processors.

Sources: NVIDIA's whitepapers (operations a clock of one processor, clocks under load); for attention what is published
of FlashAttention 2 and 3, cuDNN and SageAttention 2 at heads of 128 channels, such as 165 to 173 TFLOP/s exact and
about twice as much in 8 bits on an RTX 4090. None of it was measured with this pack.
"""

from dataclasses import dataclass

REACHED = 0.6  # of the rate of int8 products; those of floats come close to theirs
LAPTOP = 0.75  # of the clock that the same chip keeps on a desk
GEFORCE = ("geforce", "titan")  # which have half of the rate of 16-bit floats with sums in 32 bits, and of 8-bit floats


@dataclass(frozen=True)
class Rates:
    """In a second: operations of products in 16 bits, int8 and fp8 (0 where there are none), of exact attention and of
    attention in 8 bits; bytes of the card's memory.
    """

    half: float
    int8: float
    fp8: float
    attention: float
    attention8: float
    bandwidth: float


@dataclass(frozen=True)
class _Generation:
    """clock: Hz.  half, int8, fp8: operations a clock of one processor, of cards for work.  attention, attention8: the
    parts of the rate in 16 bits that attention reaches, exact and in 8 bits.  bytes: of memory for an int8 operation.
    halved: whether GeForce cards have half of `half` and `fp8`.
    """

    clock: float
    half: int
    int8: int
    fp8: int
    attention: float
    attention8: float
    bytes: float
    halved: bool = True


# Capability -> its generation. An attention beyond 1 is of GeForce cards' halved rate in 16 bits.
_GENERATIONS = {
    (7, 5): _Generation(1.55e9, 1024, 2048, 0, 0.6, 1.2, 2.85e-3),
    (8, 0): _Generation(1.41e9, 2048, 4096, 0, 0.7, 1.05, 3.3e-3, halved=False),
    (8, 6): _Generation(1.72e9, 1024, 2048, 0, 0.9, 1.7, 3.2e-3),
    (8, 9): _Generation(2.52e9, 1024, 2048, 2048, 0.95, 1.9, 1.7e-3),
    (9, 0): _Generation(1.48e9, 4096, 8192, 8192, 0.75, 1.1, 3.0e-3, halved=False),
    (10, 0): _Generation(1.5e9, 8192, 16384, 16384, 0.65, 0.9, 1.8e-3, halved=False),
    (12, 0): _Generation(2.42e9, 1024, 2048, 2048, 0.95, 2.0, 2.3e-3),
}
_WORK = 0.75  # what is left of the parts of attention where the rate in 16 bits is whole


def rates(name: str, capability: tuple[int, int], processors: int, bandwidth: float = 0.0) -> Rates | None:
    """Of a card; None for one of a generation that is not known.

    name: as torch tells it.  processors: SMs.  bandwidth: of its memory, 0 where torch does not tell it yet.
    """
    generation = _GENERATIONS.get(capability)
    if generation is None:
        return None
    words = name.lower()
    halved = generation.halved and any(word in words for word in GEFORCE)
    clocks = processors * generation.clock * (LAPTOP if "laptop" in words else 1.0)
    half = clocks * generation.half / (2 if halved else 1)
    whole = _WORK if generation.halved and not halved else 1.0
    return Rates(
        half=half,
        int8=clocks * generation.int8,
        fp8=clocks * generation.fp8 / (2 if halved else 1),
        attention=half * generation.attention * whole,
        attention8=half * generation.attention8 * whole,
        bandwidth=bandwidth or clocks * generation.int8 * generation.bytes,
    )
