"""What is seen of a take's frames while they are written: one of them as its picture, and what can be measured."""

from collections.abc import Callable

import torch

from ....skyreels_v3.measures.seams import NEAR, Seam, frame_change

KEPT = "watched."  # begins the names of what is kept


class Watched:
    """middle: uint8 [H, W, 3] of the frame in the middle of the take, or the last one before it."""

    middle: torch.Tensor

    def __init__(self, frames: int, before: torch.Tensor | None):
        """frames: of the whole take.  before: uint8 [n, H, W, 3], the frames that it goes on from without a cut."""
        self.wanted, self.count = frames // 2, 0
        self.before, self.start = before, torch.empty(0)
        self._last: torch.Tensor | None = None
        self._changes: list[float] = []

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that was seen so far, to be kept with the state that the next window starts from."""
        last = torch.empty(0) if self._last is None else self._last
        changes = torch.tensor(self._changes, dtype=torch.float64)
        seen = {"count": torch.tensor(self.count), "start": self.start, "middle": self.middle}
        return {f"{KEPT}{name}": kept for name, kept in {**seen, "last": last, "changes": changes}.items()}

    def go_on(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Takes what an earlier run saw out of a kept state, and gives back the rest of it."""
        seen = {name.removeprefix(KEPT): kept for name, kept in state.items() if name.startswith(KEPT)}
        self.count, self.start, self.middle = int(seen["count"]), seen["start"], seen["middle"]
        self._last, self._changes = seen["last"] if self.count else None, seen["changes"].tolist()
        return {name: kept for name, kept in state.items() if not name.startswith(KEPT)}

    def seen(self, write: Callable[[torch.Tensor], object]) -> Callable[[torch.Tensor], None]:
        """`write`, and a look at what it is given."""

        def both(frames: torch.Tensor) -> None:
            write(frames)
            if len(self.start) < NEAR:
                self.start = torch.stack([*self.start, *frames[: NEAR - len(self.start)]])
            if self.count <= self.wanted:
                self.middle = frames[min(self.wanted - self.count, len(frames) - 1)].clone()
            for frame in frames:
                if self._last is not None:
                    self._changes.append(frame_change(self._last, frame))
                self._last = frame
            self._last = None if self._last is None else self._last.clone()
            self.count += len(frames)

        return both

    @property
    def motion(self) -> float | None:
        """Mean change from one frame to the next, in steps of 8 bits; None where it was not watched."""
        return sum(self._changes) / len(self._changes) if self._changes else None

    @property
    def seam(self) -> Seam | None:
        """Over the first frame; None behind a cut, and where it was not watched."""
        if self.before is None or not len(self.start):
            return None
        return Seam.of(self.before, self.start, self.motion or 0.0)
