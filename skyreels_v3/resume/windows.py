"""A long video made window by window: each window is on disk before the next starts, and a run can go on from there.

A window is a roll of an extension or a window of an avatar. What it leaves is a piece of video and a state (tensors)
that the next one starts from; both are one part of a RunFolder, so that an interrupt, a crash or kill -9 loses only
the window that is being made.
"""

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path

import torch

from ..cpu_memory import trim
from ..video.join import join
from ..video.rates import resample_indices
from ..video.sources.source import Sound
from ..video.writer import DEFAULT_CODEC, VideoWriter
from .folder import RunFolder

State = dict[str, torch.Tensor]


class LongRun:
    """One run: the pieces of its video in a RunFolder.

    width, height: pixels.  made_rate: frames a second of what windows make.  file_rate: of the video that is written;
    frames are picked by time.  codec: h264 or lossless.
    """

    def __init__(
        self,
        folder: RunFolder,
        width: int,
        height: int,
        made_rate: Fraction | int,
        file_rate: Fraction | int | None = None,
        codec: str = DEFAULT_CODEC,
    ):
        self.folder = folder
        self.size = width, height
        self.made_rate = Fraction(made_rate)
        self.file_rate = self.made_rate if file_rate is None else Fraction(file_rate)
        self.codec = codec

    def finished(self, keys: Sequence[str]) -> int:
        """How many of the windows `keys`, from the first on, are done, up to one whose state is kept.

        That of the last of all counts too: where a script was shortened, it was dropped in the middle of a line.
        """
        done = next((index for index, key in enumerate(keys) if not self.folder.done(key)), len(keys))
        while done and not self.folder.info(keys[done - 1])["state"]:
            done -= 1
        return done

    def state(self, key: str) -> State:
        """What the window after `key` starts from."""
        # Copies: a mapped file cannot be deleted on Windows.
        return {name: tensor.clone() for name, tensor in self.folder.get_tensors(_state_name(key)).items()}

    @contextmanager
    def window(self, key: str, frames: int, before: int) -> Generator["WindowWriter"]:
        """Keeps the window that the block makes: its frames are written as they come, its state at the end.

        frames: how many it will have.  before: frames that earlier windows made. A window that is done already, behind
        one that was damaged, is replaced. Where the block fails nothing is kept.
        """
        shown = resample_indices(frames, self.made_rate, self.file_rate, before)
        with ExitStack() as stack:
            window = WindowWriter(lambda: stack.enter_context(self._writer(key)), shown)
            yield window
            if window.state is None or window.frames != frames:
                raise ValueError(f"The window {key} has {window.frames} frames of {frames}, or no state.")
            if self.folder.done(key):
                self.drop_state(key)
            self.folder.put_tensors(_state_name(key), window.state)
        files = [_state_name(key), *([_piece_name(key)] if shown else [])]
        self.folder.commit(key, files, {"frames": len(shown), "state": True})
        trim()  # else a run of hours holds what its windows left behind in the heap

    def drop_state(self, key: str) -> None:
        """Gives back the disk of a state that no window starts from any more."""
        info = self.folder.info(key)
        if info["state"]:
            self.folder.commit(key, [_piece_name(key)] if info["frames"] else [], {**info, "state": False})
            self.folder.path(_state_name(key)).unlink(missing_ok=True)

    def pieces(self, keys: Sequence[str]) -> Iterator[Path]:
        """The finished pieces of video among `keys`, in order."""
        for key in keys:
            if self.folder.done(key) and self.folder.info(key)["frames"]:
                yield self.folder.path(_piece_name(key))

    def join(
        self,
        lead: Sequence[Path],
        keys: Sequence[str],
        out: Path,
        sound: Sound | None = None,
        on_frame: Callable[[int], object] | None = None,
    ) -> int:
        """Writes `lead` and what is done of `keys` to `out` and returns its frames. Raises InputError where nothing is.

        lead: pieces of video to come before the windows, at the file's rate.  on_frame: see `video.join.join`.
        """
        return join([*lead, *self.pieces(keys)], out, self.file_rate, sound, on_frame)

    def _writer(self, key: str) -> VideoWriter:
        return VideoWriter(self.folder.path(_piece_name(key)), *self.size, self.file_rate, self.codec)


class WindowWriter:
    """A window that is being made.

    last: its newest frame, uint8 [H, W, 3].  state: what the next window starts from.
    """

    def __init__(self, opened: Callable[[], VideoWriter], shown: Sequence[int]):
        """opened: opens the video, when there is something to write.  shown: which frames it shows, rising."""
        self.opened = opened
        self.shown = shown
        self.video: VideoWriter | None = None
        self.frames = 0
        self.last: torch.Tensor | None = None
        self.state: State | None = None

    def write(self, frames: torch.Tensor) -> None:
        """The next frames, uint8 [n, H, W, 3]; those that the file's rate selects are written, some of them twice."""
        first, self.frames = self.frames, self.frames + len(frames)
        for index in self.shown[bisect_left(self.shown, first) : bisect_left(self.shown, self.frames)]:
            self.video = self.video or self.opened()
            self.video.write(frames[index - first])
        self.last = frames[-1]


def _piece_name(key: str) -> str:
    return f"{key}.mp4"


def _state_name(key: str) -> str:
    return f"{key}.safetensors"
