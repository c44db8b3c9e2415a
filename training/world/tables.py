"""Three people side by side, who listen and speak in turns: more than a scene of the prompts has."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .acting import pose_at
from .canvas import Canvas, View
from .figures import draw_figure
from .lights import LIGHTS
from .looks import LOOKS
from .places import PLACES
from .render import SIZE, to_bytes
from .scenes import Actor, Scene

APART = 0.5  # world units between two of them
VIEW = View(0.0, 0.37, 1.0)  # of a wide shot


@dataclass(frozen=True)
class Table:
    """names: of the characters, from the left."""

    names: tuple[str, str, str]
    place: str = "beach"
    time: str = "day"
    seed: int = 0

    def render(self, mouths: Sequence[float] = (0.0, 0.0, 0.0), size: tuple[int, int] = SIZE) -> np.ndarray:
        """The picture, uint8 [height, width, 3]. mouths: openness of each, 0 to 1."""
        canvas = self._canvas(size)
        canvas.view = replace(VIEW, x=VIEW.x + 7.0 * self.seed)
        PLACES[self.place](canvas, 0.0)
        canvas.view, canvas.light = VIEW, canvas.light.near
        for index in range(len(self.names)):
            self._draw(canvas, index, mouths[index])
        return to_bytes(canvas.pixels)

    def masks(self, size: tuple[int, int] = SIZE) -> np.ndarray:
        """Where each of them is, float32 [3, height, width] of 0 and 1."""
        made = []
        for index in range(len(self.names)):
            canvas = self._canvas(size)
            canvas.track_cover()
            self._draw(canvas, index, 0.0)
            made.append(canvas.covered > 0.5)
        return np.stack(made).astype(np.float32)

    def _canvas(self, size: tuple[int, int]) -> Canvas:
        return Canvas(size[1], size[0], VIEW, LIGHTS[self.time])

    def _draw(self, canvas: Canvas, index: int, mouth: float) -> None:
        scene = Scene((Actor(self.names[index]),), self.place, self.time, seed=self.seed)
        pose = replace(pose_at(scene, 0, 0.0, mouth), x=APART * (index - 1), facing=0.4 * (1 - index))
        draw_figure(canvas.pen(), LOOKS[self.names[index]], pose)
