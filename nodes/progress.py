"""One progress bar, one line of text and live previews for a job of many windows."""

import comfy.utils
import latent_preview
from PIL import Image

from . import host

PREVIEW_SIDE = 512  # pixels


class JobProgress:
    """Counts sampling steps over a whole job.

    unit: what a window is called ("roll", "window").  windows: how many.  steps: sampling steps of each.
    """

    def __init__(self, node_id: str | None, unit: str, windows: int, steps: int):
        self.node_id = node_id
        self.unit = unit
        self.windows = windows
        self.steps = steps
        self.window = 0
        self.bar = comfy.utils.ProgressBar(windows * steps, node_id=node_id)

    def start(self, window: int, what: str = "") -> None:
        """Says that a window (from 0) begins; `what` is added to the line."""
        self.window = window
        self.bar.update_absolute(window * self.steps)
        host.tell(self.node_id, f"{self.unit} {window + 1} of {self.windows}{': ' if what else ''}{what}")

    def show(self, frame) -> None:
        """Shows a finished window by one of its frames, uint8 [H, W, 3]."""
        self.show_image(Image.fromarray(frame.numpy()))

    def show_image(self, image: Image.Image) -> None:
        """Shows a picture, and counts the window as done."""
        self.bar.update_absolute((self.window + 1) * self.steps, preview=("JPEG", image, PREVIEW_SIDE))

    def sampling_callback(self, model):
        """A callback for a guider's sample() with previews of the clean latent as ComfyUI shows them."""
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

        def callback(step, denoised, x, total):
            preview = previewer.decode_latent_to_preview_image("JPEG", denoised) if previewer else None
            done = self.window * self.steps + round((step + 1) * self.steps / total)
            self.bar.update_absolute(done, preview=preview)

        return callback
