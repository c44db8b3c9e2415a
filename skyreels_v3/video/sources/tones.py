"""HDR (PQ, HLG) as the SDR that the model knows: BT.2100's light on a display of 1000 nits, white at 203 nits as in
BT.2408, what is brighter rolled off as in BT.2390, BT.2020's colours in those of BT.709, shown by BT.1886.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageFilter

PQ, HLG = 16, 18  # AVColorTransferCharacteristic
NAMES = {PQ: "HDR (PQ)", HLG: "HDR (HLG)"}
PEAK, WHITE_NITS, PQ_NITS = 1000.0, 203.0, 10000.0
GRID = 65  # colours a side of the table
GAMMA = 2.4  # BT.1886
TO_709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
LUMA_2020 = np.array([0.2627, 0.6780, 0.0593])
M1, M2, C1, C2, C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
A, B, C = 0.17883277, 0.28466892, 0.55991073


def to_sdr(pixels: np.ndarray, transfer: int) -> np.ndarray:
    """uint8 [H, W, 3], BT.2020 as stored by `transfer` (PQ or HLG) -> uint8 [H, W, 3], BT.709."""
    return np.asarray(Image.fromarray(pixels).filter(_table(transfer)))


def sdr_of(colours: np.ndarray, transfer: int) -> np.ndarray:
    """The same of colours from 0 to 1, [..., 3]."""
    nits = _pq_nits(colours) if transfer == PQ else _hlg_nits(colours)
    light = np.clip(nits @ TO_709.T, 0, None)
    brightest = np.clip(light.max(axis=-1, keepdims=True), 1e-6, None)
    return np.clip(light * (_rolled_off(np.minimum(brightest, PEAK)) / brightest / WHITE_NITS), 0, 1) ** (1 / GAMMA)


@cache
def _table(transfer: int) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, GRID)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # red changes fastest
    colours = sdr_of(np.stack([red, green, blue], axis=-1), transfer)
    return ImageFilter.Color3DLUT(GRID, colours.astype(np.float32).reshape(-1))


def _pq_nits(code: np.ndarray) -> np.ndarray:
    root = code ** (1 / M2)
    return PQ_NITS * (np.maximum(root - C1, 0) / (C2 - C3 * root)) ** (1 / M1)


def _pq_code(nits: np.ndarray | float) -> np.ndarray:
    root = (np.asarray(nits) / PQ_NITS) ** M1
    return ((C1 + C2 * root) / (1 + C3 * root)) ** M2


def _hlg_nits(code: np.ndarray) -> np.ndarray:
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - C) / A) + B) / 12)
    luminance = scene @ LUMA_2020
    return PEAK * scene * luminance[..., None] ** 0.2  # a display of 1000 nits: gamma 1.2


def _rolled_off(nits: np.ndarray) -> np.ndarray:
    """BT.2390's curve from PEAK to WHITE_NITS; what is darker than half of white stays as it is."""
    peak = _pq_code(PEAK)
    code, white = _pq_code(nits) / peak, _pq_code(WHITE_NITS) / peak
    knee = 1.5 * white - 0.5
    t = np.clip((code - knee) / (1 - knee), 0, 1)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    return _pq_nits(np.where(code < knee, code, bent) * peak)
