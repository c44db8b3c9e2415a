"""Cards, with what each can do and refuses.

Sources: NVIDIA's whitepapers and data sheets (dense rates with 32-bit sums, which GeForce cards halve), AMD's data
sheets.
"""

from dataclasses import dataclass

TERA, GIB = 1e12, 2**30


@dataclass(frozen=True)
class Card:
    """A graphics card. Rates are operations a second of its matrix units, 0 where it has none for them.

    memory: bytes.  bandwidth, link, pageable: bytes a second of its memory, and from pinned and other memory of the
    host.  kind: "nvidia" or "amd".
    """

    device = "cuda"  # torch's word, AMD's cards included

    name: str
    memory: int
    bandwidth: float
    half: float
    int8: float = 0.0
    fp8: float = 0.0
    capability: tuple[int, int] = (0, 0)
    kind: str = "nvidia"
    arch: str = ""  # of AMD
    windows: bool = False
    link: float = 25e9
    pageable: float = 6e9

    @property
    def has_bfloat16(self) -> bool:
        return self.kind != "nvidia" or self.capability >= (8, 0)

    @property
    def has_triton(self) -> bool:
        return not self.windows

    @property
    def scales_fp8_by_row(self) -> bool:
        """No wheel for Windows has the product with a scale per row; Ada and later have it elsewhere."""
        return self.fp8 > 0 and self.kind == "nvidia" and not self.windows

    @property
    def unfolds(self) -> bool:
        """ComfyUI switches MIOpen off for RDNA 3 and later."""
        return self.arch.startswith(("gfx11", "gfx12"))


def _windows(card: Card) -> Card:
    return Card(**{**vars(card), "windows": True})


def _nvidia(name: str, gib: float, gb_s: float, half: float, int8: float, fp8: float, capability: tuple[int, int]):
    name = f"NVIDIA {name}"
    return Card(name, int(gib * GIB), gb_s * 1e9, half * TERA, int8 * TERA, fp8 * TERA, capability)


CARDS = {
    "2080Ti": _nvidia("GeForce RTX 2080 Ti", 11, 616, 54, 215, 0, (7, 5)),
    "3060": _nvidia("GeForce RTX 3060", 12, 360, 51, 101, 0, (8, 6)),
    "3090": _nvidia("GeForce RTX 3090", 24, 936, 71, 284, 0, (8, 6)),
    "4060": _nvidia("GeForce RTX 4060", 8, 272, 60, 242, 121, (8, 9)),
    "4090": _nvidia("GeForce RTX 4090", 24, 1008, 165, 660, 330, (8, 9)),
    "5090": _nvidia("GeForce RTX 5090", 32, 1792, 210, 838, 419, (12, 0)),
    "A100": _nvidia("A100-SXM4-80GB", 80, 2039, 312, 624, 0, (8, 0)),
    "H200": _nvidia("H200", 131, 4800, 800, 1600, 1600, (9, 0)),
    "7900XTX": Card("AMD Radeon RX 7900 XTX", 24 * GIB, 960e9, 123 * TERA, 123 * TERA, kind="amd", arch="gfx1100"),
}
CARDS |= {f"{name} on Windows": _windows(CARDS[name]) for name in ("4060", "4090", "5090")}
