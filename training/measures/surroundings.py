"""Which place and time of day a frame shows, whoever stands in front of it.

Every small patch of the frame looks for the most similar patch among the renderer's own empty pictures of each place,
at about the same height; the place whose patches are nearest on the whole is the one. Patches of people are far from
all places alike, and count no more than a bound. Source: Boiman, Shechtman, Irani, In Defense of Nearest-Neighbor Based
Image Classification, 2008.
"""

from functools import lru_cache

import numpy as np

from ..world.canvas import Canvas, View
from ..world.lights import LIGHTS
from ..world.places import PLACES
from .templates import shrunk

CELLS = (24, 16)  # width, height that a frame is looked at in
PATCH = 2  # cells along each side
HEIGHT_WEIGHT = 0.8  # what standing a whole picture too high counts, beside a colour from black to white
CAP = 0.045  # a squared distance above it is as bad as any
FRAMINGS = ((0.37, 1.0), (0.37, 1.0), (0.40, 1.3), (0.43, 1.6), (0.46, 2.0), (0.08, 2.4))  # height of the middle, zoom
SPOTS = 5  # of every place, light and framing
KEPT = 800  # patches of each place and light


def place_of(frame: np.ndarray) -> tuple[str, str, float]:
    """Place, time of day and mean squared distance of its patches. frame: uint8 [H, W, 3]."""
    names, bank, sizes = _bank()
    patches = _patches(shrunk(frame, *CELLS))[::2]  # they overlap: every other one says as much
    distance = sizes + (patches * patches).sum(axis=1, keepdims=True) - 2 * (patches @ bank.T)
    nearest = distance.reshape(len(patches), len(names), -1).min(axis=2)
    fit = np.minimum(nearest, CAP).mean(axis=0)
    best = int(fit.argmin())
    return *names[best], float(fit[best])


def _patches(picture: np.ndarray) -> np.ndarray:
    """[n, values] of every patch of a picture [height, width, 3], its height in the picture last."""
    views = np.lib.stride_tricks.sliding_window_view(picture, (PATCH, PATCH), axis=(0, 1))
    down, across = views.shape[:2]
    heights = np.repeat(np.arange(down, dtype=np.float32) / down, across)[:, None]
    return np.concatenate([views.reshape(down * across, -1), HEIGHT_WEIGHT * heights], axis=1)


@lru_cache(maxsize=1)
def _bank() -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """(place, time) of every group of KEPT patches, all patches [n, values], and their squared lengths [n]."""
    names, groups = [], []
    chance = np.random.default_rng(0)
    width, height = 2 * CELLS[0], 2 * CELLS[1]
    for place, draw in PLACES.items():
        for light in LIGHTS.values():
            patches = []
            for i, (y, zoom) in enumerate(FRAMINGS):
                for spot in range(SPOTS):
                    canvas = Canvas(height, width, View(7.31 * spot + 1.7 * i, y, zoom), light)
                    draw(canvas, 0.4 * spot)
                    picture = canvas.pixels.reshape(3, CELLS[1], 2, CELLS[0], 2).mean(axis=(2, 4))
                    patches.append(_patches(picture.transpose(1, 2, 0)))
            patches = np.concatenate(patches)
            names.append((place, light.name))
            groups.append(patches[chance.permutation(len(patches))[:KEPT]])
    bank = np.concatenate(groups).astype(np.float32)
    return names, bank, (bank * bank).sum(axis=1)
