"""Three people at a table, each with lines of their own: whose mouth follows whom, and who keeps still."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...skyreels_v3.measures.lag import sync
from ..world.prompts import write
from ..world.scenes import Actor, Scene
from ..world.tables import Table
from ..world.voices import Speech, say
from .scores import Clip

FPS = 25
WINDOW = 33
SIZE = (144, 96)  # pixels: so that a head is more than a token
TOGETHER = 1.0 / 3  # of the width: each one's part of the picture
NAMES = ("anna", "ben", "carl")


@dataclass(frozen=True)
class Line:
    """speaker: from 0.  start: seconds."""

    speaker: int
    start: float
    speech: Speech


@dataclass(frozen=True)
class Conversation:
    """The lines of a table, with so many seconds between them, and the noise's seed."""

    table: Table
    lines: tuple[Line, ...]
    pause: float
    seed: int = 0

    @classmethod
    def of(cls, table: Table, order: Sequence[int], each: float, pause: float, seed: int) -> "Conversation":
        """Lines of so many seconds each, one after the other, by the people in `order`."""
        lines = [
            Line(person, number * (each + pause), say(table.names[person], each, seed + number, [(0.05, each - 0.05)]))
            for number, person in enumerate(order)
        ]
        return cls(table, tuple(lines), pause, seed)

    @property
    def script(self) -> str:
        """Of Dialogue; anna sits on the left."""
        lines = [f"{NAMES[line.speaker]}: audio_{number}" for number, line in enumerate(self.lines, start=1)]
        return f"\npause {self.pause:g}s\n".join(lines)

    @property
    def frames(self) -> int:
        """Whole ones of the video."""
        last = self.lines[-1]
        return int((last.start + last.speech.seconds) * FPS)

    @property
    def prompt(self) -> str:
        """The world's prompts name two at most."""
        actors = tuple(Actor(name, "talks") for name in self.table.names[:2])
        return write(Scene(actors, self.table.place, self.table.time))

    @property
    def portrait(self) -> np.ndarray:
        return self.table.render(size=SIZE)

    @property
    def masks(self) -> np.ndarray:
        """Of each from the left, float32 [3, H, W]."""
        return self.table.masks(SIZE)

    def mouths(self, frames: int) -> np.ndarray:
        """How far each mouth is open in each frame, float32 [people, frames]."""
        made = np.zeros((len(self.table.names), frames), np.float32)
        for line in self.lines:
            first = round(line.start * FPS)
            part = line.speech.mouth(round(line.speech.seconds * FPS), FPS)[: frames - first]
            made[line.speaker, first : first + len(part)] = part
        return made


@dataclass(frozen=True)
class Told:
    """own: a mouth's correlation with its own speech.  better: by how much than the best of the others'.

    still: mean opening while somebody else speaks.  speaks: while they speak themselves; a mouth is 0 to 1 open.
    """

    own: float
    better: float
    still: float
    speaks: float


def told(frames: np.ndarray, conversation: Conversation) -> list[Told]:
    """Of each of the people; all zeros where a face is not to be found."""
    clip, heard = Clip(frames), conversation.mouths(len(frames))
    found = []
    for person, name in enumerate(conversation.table.names):
        mouth = clip.mouth(name, (person * TOGETHER, (person + 1) * TOGETHER))
        if mouth is None:
            found.append(Told(0.0, 0.0, 0.0, 0.0))
            continue
        own, *others = (sync(mouth, heard[one], 1)[0] for one in (person, *(i for i in range(3) if i != person)))
        speaks, others_speak = heard[person] > 0.2, np.delete(heard, person, axis=0).max(axis=0) > 0.2
        still = mouth[others_speak & ~speaks]
        found.append(Told(own, own - max(others), _mean(still), _mean(mouth[speaks])))
    return found


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def conversations() -> list[Conversation]:
    """Of other people each, slow and quick, one line a window and three."""
    asked = (
        (("fox", "robot", "pirate"), (0, 1, 2, 1, 0, 2), 0.8, 0.2),
        (("king", "frog", "girl"), (1, 0, 2, 0, 2, 1), 0.6, 0.05),
        (("robot", "fox", "wizard"), (2, 1, 0, 1, 2, 0), 0.7, 0.0),
    )
    return [
        Conversation.of(Table(names, seed=number), order, each, pause, 100 * number)
        for number, (names, order, each, pause) in enumerate(asked)
    ]
