"""Weights that loading makes, in a file instead of RAM.

What is packed or cast while a model loads is in no file. Kept in memory it stays there until the model goes, or is
swapped out; pages of a file are dropped where RAM is short, and read again. The file has no name where the system
allows that, and goes with the last of its weights or with the process, however that ends.
"""

import logging
import mmap
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from .file_tensors import marked

log = logging.getLogger(__name__)

SEGMENT = 2**30  # bytes that are mapped at once; each mapping holds a handle of the file


class CopiesOnDisk:
    """A new file for the weights of one model. folder: where it lies, on a disk. Raises OSError if it cannot be."""

    def __init__(self, folder: Path):
        self.file = tempfile.TemporaryFile(dir=folder)
        self.start = self.end = 0  # of the segment that is being written
        self.waiting: list[tuple[dict[str, torch.Tensor], str, int]] = []  # of it: tensors, name, place in the file
        self.is_full = False

    def take(self, tensors: dict[str, torch.Tensor], name: str) -> None:
        """Write tensors[name]; `finish` at the latest puts a tensor over the file's pages into its place.

        Where the file cannot be written any more, the log says so and what comes stays in memory.
        """
        if self.is_full:
            return
        tensor = tensors[name]
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        try:
            place = self._skip_to(tensor.element_size())
            self.file.write(content.numpy().data)
            self.end = place + len(content)
            self.waiting.append((tensors, name, place))
            if self.end - self.start >= SEGMENT:
                self._map()
        except OSError as error:
            self._give_up(error)

    def finish(self) -> None:
        """Puts what waits over the file's pages; nothing can be taken any more."""
        try:
            if self.waiting:
                self._map()
        except OSError as error:
            self._give_up(error)
        with suppress(OSError):  # what still waits to be written is not needed any more
            self.file.close()  # the mappings hold it

    def _give_up(self, error: OSError) -> None:
        self.is_full = True
        self.waiting.clear()
        log.warning(
            "SkyReels-V3: ComfyUI's temp folder takes no more weights (%s): what is left stays in RAM. Make room on "
            "that disk.",
            error.strerror or error,
        )

    def _skip_to(self, alignment: int) -> int:
        """The next place in the file at a multiple of `alignment`."""
        self.file.write(bytes(-self.end % alignment))
        self.end += -self.end % alignment
        return self.end

    def _map(self) -> None:
        """Give what waits its place on the pages of this segment, and begin the next."""
        self.file.flush()
        # Writable, so that what another node does to a weight in place is no crash.
        pages = mmap.mmap(self.file.fileno(), self.end - self.start, access=mmap.ACCESS_WRITE, offset=self.start)
        content = marked(torch.frombuffer(pages, dtype=torch.uint8))
        for tensors, name, place in self.waiting:
            old, begin = tensors[name], place - self.start
            tensors[name] = content[begin : begin + old.nbytes].view(old.dtype).reshape(old.shape)
        self.waiting.clear()
        self.start = self._skip_to(mmap.ALLOCATIONGRANULARITY)
