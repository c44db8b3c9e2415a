"""What is seen of a take's frames while they are written: one of them as its picture."""

from collections.abc import Callable
from pathlib import Path

import av
import torch


class Watched:
    """middle: uint8 [H, W, 3] of the frame in the middle of the take, or the last one before it."""

    middle: torch.Tensor

    def __init__(self, frames: int):
        """frames: of the whole take."""
        self.wanted, self.count = frames // 2, 0

    def skip(self, frames: int, piece: Path | None) -> None:
        """Frames that an earlier run has made; piece: the video of the last of them."""
        self.count = frames
        if piece is not None and piece.exists():
            with av.open(str(piece)) as container:
                first = next(container.decode(video=0))
                self.middle = torch.from_numpy(first.to_ndarray(format="rgb24"))

    def seen(self, write: Callable[[torch.Tensor], object]) -> Callable[[torch.Tensor], None]:
        """`write`, and a look at what it is given."""

        def both(frames: torch.Tensor) -> None:
            write(frames)
            if self.count <= self.wanted:
                self.middle = frames[min(self.wanted - self.count, len(frames) - 1)].clone()
            self.count += len(frames)

        return both
