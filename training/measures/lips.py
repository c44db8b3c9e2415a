"""How far a mouth is open in a frame: how much of what changes in that face as it opens is there.

The renderer's own heads say what changes, for every character at every size, and how much of it a level is. It is a
sum over the lower face: noise averages out, and what stays the same (a beard, a collar) counts for nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ..world.canvas import Canvas, View
from ..world.figures import Pose, draw_head
from ..world.lights import LIGHTS
from ..world.looks import LOOKS
from .templates import Found, find

ACROSS = np.linspace(-0.098, 0.098, 29, dtype=np.float32)  # from the head's middle, world units
DOWN = np.linspace(-0.01, -0.16, 20, dtype=np.float32)
LEVELS = np.linspace(0, 1, 6)
ZOOMS = (0.97, 1.0, 1.03)
SHIFTS = tuple((0.008 * i, 0.008 * j) for i in (-1, 0, 1) for j in (-2, -1, 0, 1, 2))  # world units
STEP = 2  # pixels per world unit between the sizes that heads are drawn in for comparison
SMOOTH = 2  # frames before and after that steady where the head is


def openness(frame: np.ndarray, head: Found) -> float:
    """0 closed to 1 open, of a head that was found. frame: uint8 [H, W, 3]."""
    high, wide = frame.shape[:2]
    pixels = frame.astype(np.float32) / 255
    best, amount = np.inf, 0.0
    # A head is found to a third of a pixel, and the mouth of a wide shot is five wide: the face is fitted again.
    for zoom in ZOOMS:
        unit = zoom * head.zoom * high
        faces, change, amounts = _scale(head.name, head.light, STEP * round(unit / STEP))
        for dx, dy in SHIFTS:
            patch = _sampled(pixels, head.x * wide + dx * unit, head.y * high + dy * unit, unit)
            patch = (patch - patch.mean(axis=(0, 1))).reshape(-1)
            error = float(((faces - patch) ** 2).sum(axis=1).min())
            if error < best:
                best, amount = error, float(np.interp(float(patch @ change), amounts, LEVELS))
    return amount


def mouth_track(frames: np.ndarray, name: str, near: tuple[float, float] | None = None) -> np.ndarray:
    """Openness float32 [F] of a character over frames uint8 [F, H, W, 3].

    near: x of its head from, to as a share of the width, where two look alike.
    """
    return mouths(frames, track(frames, name, near))


def mouths(frames: np.ndarray, heads: Sequence[Found]) -> np.ndarray:
    """Openness float32 [F] of the heads that were found in frames uint8 [F, H, W, 3], one in each."""
    steady = []
    for i, head in enumerate(heads):
        around = heads[max(0, i - SMOOTH) : i + SMOOTH + 1]
        zoom = float(np.median([one.zoom for one in around]))
        steady.append(replace(head, zoom=zoom))
    return np.array([openness(frame, head) for frame, head in zip(frames, steady)], np.float32)


def track(frames: np.ndarray, name: str, near: tuple[float, float] | None = None) -> list[Found]:
    """Where a character's head is in every frame."""
    heads = []
    zooms = (0.0, 9.0)
    for frame in frames:
        shown = frame
        if near is not None:
            shown = frame.copy()
            wide = frame.shape[1]
            shown[:, : int(near[0] * wide)] = shown[:, int(near[1] * wide) :] = 128
        head = find(shown, "head", zooms, (name,))[0]
        zooms = (0.88 * head.zoom, 1.14 * head.zoom)
        heads.append(head)
    return heads


def _sampled(pixels: np.ndarray, x: float, y: float, unit: float) -> np.ndarray:
    """[h, w, 3] at ACROSS and DOWN from a head's middle in pixels; between pixels, and at the edge beyond it."""
    columns = np.clip(x + ACROSS * unit - 0.5, 0, pixels.shape[1] - 1.001)
    rows = np.clip(y - DOWN * unit - 0.5, 0, pixels.shape[0] - 1.001)
    left, top = columns.astype(int), rows.astype(int)
    across, down = (columns - left)[None, :, None], (rows - top)[:, None, None]
    upper = pixels[top][:, left] * (1 - across) + pixels[top][:, left + 1] * across
    lower = pixels[top + 1][:, left] * (1 - across) + pixels[top + 1][:, left + 1] * across
    return upper * (1 - down) + lower * down


@lru_cache(maxsize=512)
def _scale(name: str, light: str, unit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lower face at each of LEVELS [levels, values], what changes in it as it opens [values], and how much of the
    change is there at each level, rising. Means are taken away, so that a lighter or darker picture changes nothing.
    """
    side = round(0.6 * unit) + 4
    faces = []
    for level in LEVELS:
        canvas = Canvas(side, side, View(0.0, 0.0, unit / side), LIGHTS[light].near)
        draw_head(canvas.pen(), LOOKS[name], Pose(mouth=float(level)))
        face = _sampled(_blurred(canvas.pixels.transpose(1, 2, 0)), side / 2, side / 2, unit)
        faces.append((face - face.mean(axis=(0, 1))).reshape(-1))
    faces = np.stack(faces)
    change = faces[-1] - faces[0]
    return faces, change, np.maximum.accumulate(faces @ change + 1e-6 * np.arange(len(faces)))


def _blurred(pixels: np.ndarray) -> np.ndarray:
    """As soft as frames are that went through a codec: about 0.7 pixels."""
    for axis in (0, 1):
        pixels = 0.5 * pixels + 0.25 * (np.roll(pixels, 1, axis) + np.roll(pixels, -1, axis))
    return pixels
