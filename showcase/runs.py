"""What the demo has made so far: of every workflow that it ran the videos and how long they took, with their inputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pack.dev.drawing import frames_of, loudness_of, seconds_of
from pack.showcase.jobs import DEMOS, Demo

MADE = "made.json"  # in the demo's folder


@dataclass(frozen=True)
class Run:
    """What the demo gave to a workflow and got from it.

    folder: that of the demo.  videos: relative to it.  seconds: until they were there.
    """

    name: str
    folder: Path
    videos: tuple[str, ...]
    seconds: float

    @property
    def demo(self) -> Demo:
        return DEMOS[self.name]

    @property
    def pictures(self) -> list[Path]:
        return self._inputs(".png")

    @property
    def clips(self) -> list[Path]:
        return self._inputs(".mp4")

    @property
    def recordings(self) -> list[Path]:
        """In the order in which they speak."""
        return self._inputs(".wav")

    def _inputs(self, ending: str) -> list[Path]:
        return [self.folder / "input" / name for name in self.demo.inputs if name.endswith(ending)]

    def frames(self, video: int = 0) -> list[Image.Image]:
        return frames_of(self.folder / self.videos[video])

    def parts(self) -> list[list[Image.Image]]:
        """The frames of each part of the first video."""
        frames, parts = self.frames(), []
        for part in self.demo.parts:
            parts.append(frames[: part.frames])
            frames = frames[part.frames :]
        return parts

    def turns(self) -> list[tuple[float, float]]:
        """From which frame of the first video to which each recording is heard: in a row, with pauses of one length."""
        demo, kinds = self.demo, [part.kind for part in self.demo.parts]
        first = sum(part.frames for part in demo.parts[: kinds.index("spoken")]) if self.recordings else 0
        spoken = sum(part.frames for part in demo.parts if part.kind == "spoken")
        lengths = [seconds_of(path) * demo.fps for path in self.recordings]
        pause = max(0.0, spoken - sum(lengths)) / max(1, len(lengths) - 1)
        starts = [first + sum(lengths[:turn]) + turn * pause for turn in range(len(lengths))]
        return [(start, start + length) for start, length in zip(starts, lengths)]

    def loudest(self, recording: int = 0) -> Image.Image:
        """The frame in which a recording is loudest."""
        start, stop = map(round, self.turns()[recording])
        frames = self.frames()[start:stop]
        heard = loudness_of(self.recordings[recording], len(frames))
        return frames[heard.index(max(heard))]


def runs(folder: Path) -> dict[str, Run]:
    """Name of a workflow -> its last run."""
    path = folder / MADE
    made = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {name: Run(name, folder, tuple(one["videos"]), one["seconds"]) for name, one in made.items()}


def note(run: Run) -> None:
    """Keep a run, in place of an earlier one of the same workflow."""
    made = {**runs(run.folder), run.name: run}
    notes = {name: {"videos": one.videos, "seconds": one.seconds} for name, one in made.items()}
    (run.folder / MADE).write_text(json.dumps(notes, indent=1), encoding="utf-8")
