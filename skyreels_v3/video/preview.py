"""What a run has made so far, as one picture to look at while it goes on: the last frames of finished windows."""

from collections import deque

from PIL import Image, ImageDraw

PREVIEW_SIDE = 512  # pixels of the large picture's longer side
COLUMNS = 6  # finished windows shown, the newest ones


class Filmstrip:
    """A large picture with the finished windows below it, each with its number. Pictures are RGB PIL images."""

    def __init__(self):
        self._finished: deque[tuple[int, Image.Image]] = deque(maxlen=COLUMNS)

    def add(self, number: int, picture: Image.Image) -> None:
        """A window is done; number: from 1, as the artist counts.  picture: its last frame."""
        thumbnail = picture.copy()
        thumbnail.thumbnail((PREVIEW_SIDE // COLUMNS, PREVIEW_SIDE // COLUMNS), reducing_gap=2.0)
        self._finished.append((number, thumbnail))

    def below(self, picture: Image.Image) -> Image.Image:
        """The picture, its longer side PREVIEW_SIDE pixels, with the finished windows in a row below it."""
        scale = PREVIEW_SIDE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        if not self._finished:
            return picture
        wide = max(thumbnail.width for _, thumbnail in self._finished)
        high = max(thumbnail.height for _, thumbnail in self._finished)
        sheet = Image.new("RGB", (max(width, wide * len(self._finished)), height + high))
        sheet.paste(picture, (0, 0))
        draw = ImageDraw.Draw(sheet)
        for index, (number, thumbnail) in enumerate(self._finished):
            place = (index * wide, height)
            sheet.paste(thumbnail, place)
            draw.text((place[0] + 4, place[1] + 2), str(number), fill="white", stroke_width=1, stroke_fill="black")
        return sheet
