"""One progress bar, one line of text and live previews for a run of many windows."""

import time
from collections.abc import Callable, Sequence

import comfy.model_management
import comfy.utils
import latent_preview
from PIL import Image

from ...skyreels_v3.jobs.estimates.forecast import TimeLeft, duration
from ...skyreels_v3.video.preview import Filmstrip
from .. import versions

JOINED_UNSEEN = 500  # frames


class RunProgress:
    """Counts sampling steps over a whole run, and shows what is finished below what is being made.

    unit: what a window is called ("roll", "window").  windows: how many.  steps: sampling steps of each.
    ahead: seconds of each by what this machine measured before, where that is known.
    """

    def __init__(self, node_id: str | None, unit: str, windows: int, steps: int, ahead: Sequence[float] | None = None):
        self.node_id = node_id
        self.unit = unit
        self.windows = windows
        self.steps = steps
        self.window = 0
        self.bar = comfy.utils.ProgressBar(windows * steps, node_id=node_id)
        self.finished = Filmstrip()
        self.time = TimeLeft(windows, ahead)

    def start(self, window: int, what: str = "") -> None:
        """Says that a window (from 0) begins, and how long all take from here; `what` is added to the line."""
        self.window = window
        self.bar.update_absolute(window * self.steps)
        left = self.time.at(window, time.monotonic())
        about = "" if left is None else f", about {duration(left)} left"
        versions.tell(self.node_id, f"{self.unit} {window + 1} of {self.windows}{about}{': ' if what else ''}{what}")

    def show(self, frame) -> None:
        """Shows a finished window by one of its frames, uint8 [H, W, 3], and keeps it in sight. None: it has none."""
        if frame is None:
            self.bar.update_absolute((self.window + 1) * self.steps)
            return
        picture = Image.fromarray(frame.numpy())
        preview = self._preview(picture)
        self.finished.add(self.window + 1, picture)
        self.bar.update_absolute((self.window + 1) * self.steps, preview=preview)

    def show_image(self, image: Image.Image) -> None:
        """Shows a picture, and counts the window as done."""
        self.bar.update_absolute((self.window + 1) * self.steps, preview=self._preview(image))

    def sampling_callback(self, model):
        """A callback for a guider's sample() with previews of the clean latent as ComfyUI shows them."""
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

        def callback(step, denoised, x, total):
            preview = previewer.decode_latent_to_preview_image("JPEG", denoised) if previewer else None
            done = self.window * self.steps + round((step + 1) * self.steps / total)
            self.bar.update_absolute(done, preview=preview and self._preview(preview[1]))

        return callback

    def joining(self, frames: int) -> Callable[[int], None]:
        """To be told how many of the video's frames are put together. A video of seconds is there at once."""
        bar = comfy.utils.ProgressBar(frames, node_id=self.node_id)

        def joined(count: int) -> None:
            if count % JOINED_UNSEEN:
                return
            comfy.model_management.throw_exception_if_processing_interrupted()
            if count == JOINED_UNSEEN:
                versions.tell(self.node_id, "Putting the video together")
            bar.update_absolute(min(count, frames))

        return joined

    def _preview(self, picture: Image.Image) -> tuple[str, Image.Image, int]:
        """The picture with the finished windows, as ComfyUI's progress bar takes it."""
        sheet = self.finished.below(picture)
        return "JPEG", sheet, max(sheet.size)
