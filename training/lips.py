"""How far a mouth is open in a frame: how much of the face below the nose has the mouth's colour.

Areas do not change with blur, and noise averages out over them. The same area in the renderer's own heads says how
much openness it means for a character.
"""

from functools import lru_cache

import numpy as np

from .canvas import Canvas, View
from .figures import Pose, draw_head
from .looks import LOOKS
from .templates import Found, find

ACROSS = np.linspace(-0.098, 0.098, 29, dtype=np.float32)  # from the head's middle, world units
DOWN = np.linspace(-0.036, -0.15, 18, dtype=np.float32)
MIDDLE = np.abs(ACROSS) <= 0.076  # where the mouth is; beside it, the face
LEVELS = np.linspace(0, 1, 6)
DRAWN = 150  # pixels per world unit of the heads that say what an area means
SMOOTH = 2  # frames before and after that steady where the head is


def openness(frame: np.ndarray, head: Found) -> float:
    """0 closed to 1 open, of a head that was found. frame: uint8 [H, W, 3]. A little beyond is possible."""
    high, wide = frame.shape[:2]
    patch = _sampled(frame.astype(np.float32) / 255, head.x * wide, head.y * high, head.zoom * high)
    areas = _areas_of(head.name)
    return float(np.interp(_dark(patch), areas, LEVELS, left=0.0, right=1.0))


def mouth_track(frames: np.ndarray, name: str, near: tuple[float, float] | None = None) -> np.ndarray:
    """Openness float32 [F] of a character over frames uint8 [F, H, W, 3].

    near: x of its head from, to as a share of the width, where two look alike.
    """
    heads = track(frames, name, near)
    steady = []
    for i, head in enumerate(heads):
        around = heads[max(0, i - SMOOTH) : i + SMOOTH + 1]
        zoom = float(np.median([one.zoom for one in around]))
        steady.append(Found(name, head.x, head.y, zoom, head.error, head.light))
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


def _dark(patch: np.ndarray) -> float:
    """Mean share of the mouth's colour in the middle of a patch [h, w, 3], the face beside it being none."""
    face = patch[:, ~MIDDLE].reshape(-1, 3).mean(axis=0)
    return float(((face - patch[:, MIDDLE]) @ (face / max(1e-3, float(face @ face)))).mean())


def _sampled(pixels: np.ndarray, x: float, y: float, unit: float) -> np.ndarray:
    """[h, w, 3] at ACROSS and DOWN from a head's middle in pixels; between pixels, and at the edge beyond it."""
    columns = np.clip(x + ACROSS * unit - 0.5, 0, pixels.shape[1] - 1.001)
    rows = np.clip(y - DOWN * unit - 0.5, 0, pixels.shape[0] - 1.001)
    left, top = columns.astype(int), rows.astype(int)
    across, down = (columns - left)[None, :, None], (rows - top)[:, None, None]
    upper = pixels[top][:, left] * (1 - across) + pixels[top][:, left + 1] * across
    lower = pixels[top + 1][:, left] * (1 - across) + pixels[top + 1][:, left + 1] * across
    return upper * (1 - down) + lower * down


@lru_cache(maxsize=32)
def _areas_of(name: str) -> np.ndarray:
    """What `_dark` says of a character's head at each of LEVELS, rising."""
    side = round(0.6 * DRAWN)
    areas = []
    for level in LEVELS:
        canvas = Canvas(side, side, View(0.0, 0.0, DRAWN / side))
        draw_head(canvas.pen(), LOOKS[name], Pose(mouth=float(level)))
        areas.append(_dark(_sampled(canvas.pixels.transpose(1, 2, 0), side / 2, side / 2, DRAWN)))
    return np.maximum.accumulate(np.array(areas) + 1e-6 * np.arange(len(areas)))
