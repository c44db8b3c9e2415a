"""Cards, with what each can do and refuses.

Sources: NVIDIA's, AMD's and Apple's data sheets; what NVIDIA's compute in a second is that of the product.
"""

from dataclasses import dataclass

from pack.skyreels_v3.jobs.estimates.rates import Rates, rates

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """A graphics card.

    memory: bytes.  processors: that torch tells.  link, pageable: bytes a second from pinned and other memory of the
    host.  kind: "nvidia", "amd" or "apple", whose memory is the host's.
    """

    name: str
    memory: int
    processors: int
    rates: Rates
    capability: tuple[int, int] = (0, 0)
    kind: str = "nvidia"
    arch: str = ""  # of AMD
    windows: bool = False
    link: float = 25e9
    pageable: float = 6e9

    @property
    def device(self) -> str:
        """torch's word, by which AMD's cards are CUDA's."""
        return "mps" if self.kind == "apple" else "cuda"

    @property
    def has_bfloat16(self) -> bool:
        return self.kind != "nvidia" or self.capability >= (8, 0)

    @property
    def has_triton(self) -> bool:
        return not self.windows and self.kind != "apple"

    @property
    def scales_fp8_by_row(self) -> bool:
        """No wheel for Windows has the product with a scale per row; Ada and later have it elsewhere."""
        return self.rates.fp8 > 0 and self.kind == "nvidia" and not self.windows

    @property
    def unfolds(self) -> bool:
        """ComfyUI switches MIOpen off for RDNA 3 and later."""
        return self.arch.startswith(("gfx11", "gfx12"))


def _windows(card: Card) -> Card:
    return Card(**{**vars(card), "windows": True})


def _nvidia(name: str, gib: float, processors: int, gb_s: float, capability: tuple[int, int], link: float = 25e9):
    name = f"NVIDIA {name}"
    computed = rates(name, capability, processors, gb_s * 1e9)
    assert computed is not None, capability
    return Card(name, int(gib * GIB), processors, computed, capability, link=link)


CARDS = {
    "2080Ti": _nvidia("GeForce RTX 2080 Ti", 11, 68, 616, (7, 5), 12e9),
    "3060": _nvidia("GeForce RTX 3060", 12, 28, 360, (8, 6)),
    "3090": _nvidia("GeForce RTX 3090", 24, 82, 936, (8, 6)),
    "4060": _nvidia("GeForce RTX 4060", 8, 24, 272, (8, 9), 12e9),
    "4090": _nvidia("GeForce RTX 4090", 24, 128, 1008, (8, 9)),
    "5090": _nvidia("GeForce RTX 5090", 32, 170, 1792, (12, 0), 50e9),
    "A100": _nvidia("A100-SXM4-80GB", 80, 108, 2039, (8, 0)),
    "H200": _nvidia("H200", 131, 132, 4800, (9, 0), 50e9),
    # Its attention as FlashAttention 2 is published for it; in 8 bits nothing is.
    "7900XTX": Card(
        "AMD Radeon RX 7900 XTX",
        24 * GIB,
        48,
        Rates(123e12, 123e12, 0.0, 48e12, 0.0, 960e9),
        kind="amd",
        arch="gfx1100",
    ),
    "M3 Max": Card("Apple M3 Max", 64 * GIB, 40, Rates(28e12, 0.0, 0.0, 14e12, 0.0, 400e9), kind="apple"),
}
CARDS |= {f"{name} on Windows": _windows(CARDS[name]) for name in ("4060", "4090", "5090")}
