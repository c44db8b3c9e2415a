"""The pictures that ComfyUI's registry shows: `docs/icon.png` and `docs/banner.png`, named in pyproject.toml.

.venv/bin/python showcase/registry.py

The frames are of the loops of README.md, which the nano models made.
"""

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.dev.drawing import ACCENT, DIM, EDGE, SCALE, Card
from pack.dev.setup.downloads import ROOT

DOCS = ROOT / "docs"
ICON = 400  # pixels; the registry takes up to 800 x 400
BANNER = (1260, 540)  # 21:9
SHOWN = (384, 256)  # of a loop: the frame, above what is written below it
# Loop -> the frame of it, and what it stands for.
FRAMES = {
    "reference_to_video": (8, "reference to video"),
    "storyboard_extension": (50, "extension and cuts"),
    "talking_avatar": (15, "talking avatar"),
    "dialogue": (24, "dialogue and dubbing"),
}


def frame(name: str) -> Image.Image:
    with Image.open(DOCS / f"{name}.webp") as loop:
        loop.seek(FRAMES[name][0])
        return loop.convert("RGB").crop((0, 0, *SHOWN))


def icon() -> Card:
    """A frame as one of a strip of film, that goes on to the right."""
    card = Card(ICON, ICON)
    for top in (18, ICON - 46):
        for index in range(6):
            card.plate(22 + 64 * index, top, 36, 28, EDGE)
    card.picture(frame("talking_avatar"), 22, 66, ICON - 44, ICON - 132)
    card.draw.polygon([side * SCALE for side in (296, 252, 296, 316, 352, 284)], fill=ACCENT)
    return card


def banner() -> Card:
    card = Card(*BANNER)
    card.words("SkyReels-V3", 56, 150, 66)
    card.words("for ComfyUI", 56, 232, 40, ACCENT)
    for index, (_, title) in enumerate(FRAMES.values()):
        card.words(title, 58, 320 + 34 * index, 24, DIM)
    for index, name in enumerate(FRAMES):
        card.picture(frame(name), 520 + 364 * (index % 2), 24 + 250 * (index // 2), 350, 240)
    return card


def main() -> None:
    for name, card in (("icon", icon()), ("banner", banner())):
        path = DOCS / f"{name}.png"
        card.image.resize(card.size, Image.Resampling.LANCZOS).quantize(256).save(path, optimize=True)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
