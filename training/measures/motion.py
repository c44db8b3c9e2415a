"""Numbers of a clip: where its subject goes, and what becomes of its colours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .lips import track
from .templates import Found

STEP = 0.06  # picture heights: whoever is there moves less from one frame to the next, whatever the camera does
MOSTLY = 0.8  # share of the steps; a single frame may be misread


@dataclass(frozen=True)
class Path:
    """x, y: of the head in every frame, in picture heights, y down, float32 [F].  zoom: of the camera, [F].

    error: how badly the character fits, [F].  fps: frames a second.
    """

    x: np.ndarray
    y: np.ndarray
    zoom: np.ndarray
    error: np.ndarray
    fps: float

    @property
    def velocity(self) -> tuple[float, float]:
        """Picture heights a second, of the straight line that fits best."""
        if len(self.x) < 2:
            return 0.0, 0.0
        t = np.arange(len(self.x)) / self.fps
        return float(np.polyfit(t, self.x, 1)[0]), float(np.polyfit(t, self.y, 1)[0])

    @property
    def jumps(self) -> np.ndarray:
        """How far the head moves from frame to frame, [F - 1]: a seam shows as a peak."""
        return np.hypot(np.diff(self.x), np.diff(self.y))

    @property
    def steady(self) -> bool:
        """Whether it is somebody's way at all: in noise the best fit is somewhere else in every frame."""
        return len(self.x) < 2 or float(np.quantile(self.jumps, MOSTLY)) <= STEP


def path_of(frames: np.ndarray, name: str, fps: float = 24) -> Path:
    """The way of a character's head through frames uint8 [F, H, W, 3]."""
    return path_through(track(frames, name), frames.shape[2] / frames.shape[1], fps)


def path_through(heads: Sequence[Found], ratio: float, fps: float = 24) -> Path:
    """The way through heads, one of each frame. ratio: of the frames' width to their height."""
    columns = [(head.x * ratio, head.y, head.zoom, head.error) for head in heads]
    return Path(*np.array(columns, np.float32).T, fps)


def colours(frames: np.ndarray) -> np.ndarray:
    """Of every frame the mean of red, green and blue, their standard deviation and the saturation, float32 [F, 7]."""
    pixels = frames.astype(np.float32).reshape(len(frames), -1, 3) / 255
    saturation = (pixels.max(axis=2) - pixels.min(axis=2)).mean(axis=1, keepdims=True)
    return np.concatenate([pixels.mean(axis=1), pixels.std(axis=1), saturation], axis=1)


def colour_drift(frames: np.ndarray, part: int = 12) -> float:
    """How far `colours` of the last `part` frames are from those of the first, root mean square."""
    rows = colours(frames)
    return float(np.sqrt(((rows[:part].mean(axis=0) - rows[-part:].mean(axis=0)) ** 2).mean()))
