"""The progress of one take within that of its film."""

from PIL import Image

from ..progress import RunProgress


class PartProgress:
    """What a take tells of its passes, counted on from those before it. See `RunProgress`."""

    def __init__(self, whole: RunProgress, first: int):
        self.whole, self.first = whole, first

    def start(self, window: int, what: str = "") -> None:
        self.whole.start(self.first + window, what)

    def show(self, frame) -> None:
        self.whole.show(frame)

    def show_image(self, image: Image.Image) -> None:
        self.whole.show_image(image)

    def sampling_callback(self, model):
        return self.whole.sampling_callback(model)
