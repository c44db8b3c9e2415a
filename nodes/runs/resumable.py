"""One run of a job that takes hours: what an earlier run left in the run's folder is kept, the rest is made.

A run of this kind is a class of `ResumableRun` that says what its windows are, what they follow from, and how one of
them is made; everything between the run's folder and the finished video is here.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import av
import torch

from ...skyreels_v3.digest import chain_keys, digest
from ...skyreels_v3.resume.folder import RunFolder, finished_parts
from ...skyreels_v3.resume.windows import LongRun
from ...skyreels_v3.video.sources.source import Sound
from .. import versions
from .folders import runs_folder
from .identity import Node
from .lead import Lead, LeadWriting
from .progress import RunProgress
from .results import RESULT, keep_used, leave_playable, prune_runs

LAYOUT = 1  # of a run's folder; another number makes every kept run anew


class Planned(Protocol):
    """A window in the plan: one sampling."""

    @property
    def new_frames(self) -> int:
        """How many it adds to the video, at the rate at which windows are made."""
        ...


class WindowState(Protocol):
    """What the next window starts from. The class takes its own tensors by name: `State(**state.tensors())`."""

    def tensors(self) -> dict[str, torch.Tensor]: ...


Window = TypeVar("Window", bound=Planned)
State = TypeVar("State", bound=WindowState)


@dataclass(frozen=True)
class VideoFile:
    """The video that a run writes."""

    width: int  # pixels
    height: int
    made_rate: Fraction | int  # frames a second of what windows make
    rate: Fraction | int  # frames a second of the file
    codec: str


@dataclass(frozen=True)
class Finished(Generic[State]):
    """What a run comes to."""

    path: Path  # of the video
    frames: int  # of the video, at the file's rate
    state: State  # after the last window
    folder: RunFolder
    kept: int  # windows that were made before
    windows: int
    seconds: float  # that this run took


class ResumableRun(ABC, Generic[Window, State]):
    """A long run. `name` begins its folder's name, `unit` is what a window is called and begins the windows' keys."""

    name: ClassVar[str]
    unit: ClassVar[str]
    beside: ClassVar[tuple[str, ...]] = ()  # keys of what is kept in the folder beside the windows
    notes: Sequence[str] = ()  # on what is given, for the artist
    state_type: type[State]

    node: Node
    plan: Any  # with `describe()`, to be read before the run starts
    windows: Sequence[Window]  # of the plan, in order
    file: VideoFile
    progress: RunProgress

    @abstractmethod
    def memory(self) -> str:
        """What a window needs, in words. Raises InputError where no card like this can hold it."""

    @abstractmethod
    def identity(self, by_time: bool) -> tuple:
        """All that every window follows from, see `digest.digest`: what changes here makes the whole run anew.

        by_time: of `model_stamps`.
        """

    def identity_of(self, window: Window, by_time: bool) -> Any:
        """What a window adds to those before it: a change makes it and those behind it anew."""
        return window

    @abstractmethod
    def prepare(self, folder: RunFolder, done: int) -> State:
        """Gets ready for the windows from number `done` on, and says what the very first one starts from."""

    @abstractmethod
    def make(self, index: int, start: State, folder: RunFolder, write: Callable[[torch.Tensor], object]) -> State:
        """Makes a window, hands its frames, uint8 [n, H, W, 3], to `write`, and says what the next one starts from."""

    def keeps_state(self, window: Window) -> bool:
        """Whether a window's state stays after the next one is made, because another may be made from it."""
        return False

    def lead(self) -> Lead | None:
        """What comes before the windows in the video."""
        return None

    @abstractmethod
    def sound(self, so_far: bool) -> Sound | None:
        """Of the video, to be read once. so_far: of what an interrupted run has made, of which parts may be missing."""

    def sound_key(self) -> Any:
        """What the sound follows from beside the windows and the lead, see `digest.digest`."""
        return None

    def resume(self) -> Finished[State]:
        """Makes what is not made yet, and the video of all of it."""
        started = time.perf_counter()
        versions.tell(self.node.id, self.plan.describe(), self.memory(), *self.notes)
        base, keys = self._keys()
        lead = self.lead()
        order = [lead.key, *keys] if lead else keys
        prune_runs()
        with RunFolder(runs_folder(), f"{self.name}-{base}") as folder:
            file = self.file
            run = LongRun(folder, file.width, file.height, file.made_rate, file.rate, file.codec)
            result = f"{RESULT}{digest(order, self.sound_key())}"
            keep_used(folder, [*self.beside, *keys, result])
            done = run.finished(keys)
            if done:
                versions.tell(self.node.id, f"{done} of {len(keys)} {self.unit}s are kept from before")
            path = folder.path(f"{result}.mp4")
            with LeadWriting(None if folder.done(result) else lead, self.node.id) as writing:
                try:
                    state = self._made(run, keys, done)
                    before = writing.pieces()
                except BaseException:
                    leave_playable(folder, self.node.id, partial(self._join_so_far, run, writing, keys))
                    raise
            if not folder.done(result):
                with folder.writing():
                    frames = lead.count if lead else 0
                    frames += sum(folder.info(key)["frames"] for key in keys)
                    count = run.join(before, keys, path, self.sound(so_far=False), self.progress.joining(frames))
                folder.commit(result, [path.name], {"frames": count})
            count = folder.info(result)["frames"]
            folder.finish()
        return Finished(path, count, state, folder, done, len(keys), time.perf_counter() - started)

    def _join_so_far(self, run: LongRun, writing: LeadWriting, keys: Sequence[str], path: Path) -> bool:
        if not list(run.pieces(keys)):
            return False
        run.join(writing.so_far(), keys, path, self.sound(so_far=True))
        return True

    def _keys(self) -> tuple[str, list[str]]:
        """The key of the run and those of its windows; the ones it would once have had, if it was begun with them."""
        now = self._keys_by(False)
        if self._begun(*now):
            return now
        once = self._keys_by(True)
        return once if self._begun(*once) else now

    def _begun(self, base: str, keys: Sequence[str]) -> bool:
        return not {keys[0], *self.beside}.isdisjoint(finished_parts(runs_folder(), f"{self.name}-{base}"))

    def _keys_by(self, by_time: bool) -> tuple[str, list[str]]:
        # Pieces of two versions of the encoder cannot be joined.
        base = digest((self.name, LAYOUT, av.__version__), *self.identity(by_time))
        parts = [self.identity_of(one, by_time) for one in self.windows]
        return base, [f"{self.unit}-{key}" for key in chain_keys(base, parts)]

    def report(self, finished: Finished[State], *lines: str) -> str:
        """The plan, what this run made of it, and `lines`."""
        kept, took = f"{finished.kept} of {finished.windows}", f"{finished.seconds:.0f} s"
        made = f"{kept} {self.unit}s were made before; this run took {took}."
        # The page shows text as Markdown, which would otherwise make one line of all: two spaces keep lines apart.
        return "\n".join(
            line if not line or line.startswith("|") else f"{line}  "
            for line in [*self.plan.describe().split("\n"), made, *lines]
        )

    def _made(self, run: LongRun, keys: Sequence[str], done: int) -> State:
        """Makes the windows from number `done` on, and returns the state after the last one."""
        if done == len(keys):
            return self.state_type(**run.state(keys[-1]))
        state = self.prepare(run.folder, done)
        if done:
            state = self.state_type(**run.state(keys[done - 1]))
        before = sum(window.new_frames for window in self.windows[:done])
        for index, window in enumerate(self.windows[done:], start=done):
            with run.window(keys[index], window.new_frames, before) as video:
                state = self.make(index, state, run.folder, video.write)
                video.state = state.tensors()
            self.progress.show(video.last)
            before += window.new_frames
            if index and not self.keeps_state(self.windows[index - 1]):
                run.drop_state(keys[index - 1])
        return state
