"""The source at the head of a run's video: written once for all seeds and scripts, while the windows are made."""

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import comfy.model_management
import comfy.utils
import numpy as np
import torch

from ...skyreels_v3.digest import digest
from ...skyreels_v3.images.resize import fit_frame
from ...skyreels_v3.resume.folder import RunFolder
from ...skyreels_v3.resume.lead import write_pieces
from ...skyreels_v3.resume.lock import FolderInUse
from ...skyreels_v3.video.join import fits
from ...skyreels_v3.video.sources.source import Source, frames
from ...skyreels_v3.video.writer import VideoWriter
from .. import versions
from .folders import sources_folder

LAYOUT = 1  # of a source's folder; another number makes every one anew
PIECE_SECONDS = 20  # what a stop loses at most
LOOK_AGAIN = 0.5  # seconds


class Stopped(Exception):
    """The run that a lead is written for is over."""


@dataclass(frozen=True)
class Lead:
    """A source as it is written. width, height: pixels.  rate: frames a second."""

    source: Source
    width: int
    height: int
    fit: str
    rate: Fraction
    codec: str

    @cached_property
    def key(self) -> str:
        """Of all that its frames and their encoding follow from."""
        made = self.width, self.height, self.fit, self.rate, self.codec
        return f"source-{digest(LAYOUT, av.__version__, self.source.content(), *made)}"

    def as_it_is(self) -> Path | None:
        """The source's own file, where the video goes on from it without a frame encoded anew."""
        path = self.source.plain
        if path is None:
            return None
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder) / "own.mp4"
            with self.writer(own) as writer:
                writer.write(np.zeros((self.height, self.width, 3), dtype=np.uint8))
            return path if fits(path, own, self.rate) else None

    @property
    def count(self) -> int:
        """Of its frames; of a large file an estimate."""
        return self.source.info.frames_at(self.rate)

    @property
    def piece(self) -> int:
        """Frames of a piece of it."""
        return round(PIECE_SECONDS * self.rate)

    def fitted(self, first: int) -> Iterator[np.ndarray]:
        """uint8 [height, width, 3] of each frame from number `first` on."""
        for pixels in frames(self.source, self.rate, first):
            yield self.fitted_frame(pixels)

    def fitted_frame(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [height, width, 3] of a frame of the source."""
        return fit_frame(pixels, self.width, self.height, self.fit)

    def writer(self, path: Path) -> VideoWriter:
        """Of a piece."""
        return VideoWriter(path, self.width, self.height, self.rate, self.codec)


class LeadWriting:
    """A context in which a lead is written beside everything else; left before it is whole, its pieces are kept."""

    def __init__(self, lead: Lead | None, node_id: str | None):
        self.lead, self.node_id = lead, node_id
        self._count = 0  # frames that are there
        self._stop = threading.Event()
        self._written: Future[list[Path]] = Future()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "LeadWriting":
        if self.lead is None:
            self._written.set_result([])
        else:
            self._thread = threading.Thread(target=self._run, args=[self.lead], name="SkyReels-V3 source", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def so_far(self) -> list[Path]:
        """Its pieces if it is whole and what it was, else none."""
        try:
            return self._pieces() if self._written.done() else []
        except BaseException:
            return []

    def pieces(self) -> list[Path]:
        """Its pieces of video in order; what is still missing is waited for, with a progress bar."""
        if self.lead is not None and not self._written.done():
            versions.tell(self.node_id, "Writing the source")
            total = self.lead.count
            bar = comfy.utils.ProgressBar(total, node_id=self.node_id)
            while not self._written.done():
                comfy.model_management.throw_exception_if_processing_interrupted()
                bar.update_absolute(min(self._count, total))
                wait([self._written], LOOK_AGAIN)
        return self._pieces()

    def _pieces(self) -> list[Path]:
        pieces = self._written.result()
        if self.lead is not None:
            self.lead.source.check()  # hours later; its sound is read now, and where it is taken as it is, all of it
        return pieces

    def _run(self, lead: Lead) -> None:
        try:
            path = lead.as_it_is()
            if path is not None:
                self._written.set_result([path])
                return
            with torch.inference_mode(), self._folder(lead.key) as folder:
                check = lead.source.check
                pieces = write_pieces(folder, lead.piece, lead.fitted, lead.writer, self._counted, check)
                self._written.set_result(pieces)
        except BaseException as error:
            self._written.set_exception(error)

    def _folder(self, key: str) -> RunFolder:
        """The source's own folder, as soon as no other ComfyUI writes the same source."""
        while True:
            try:
                return RunFolder(sources_folder(), key)
            except FolderInUse:
                if self._stop.wait(LOOK_AGAIN):
                    raise

    def _counted(self, count: int) -> None:
        self._count = count
        if self._stop.is_set():
            raise Stopped
