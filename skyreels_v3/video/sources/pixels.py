"""Decoded video frames as the artist sees them: 8-bit RGB, upright, with square pixels.

The file's own matrix (BT.601, BT.709, BT.2020) and range (limited, full) are undone. A file that names no matrix is
taken as Chromium takes it, by its height, so that colours are those of ComfyUI's page. HDR (PQ, HLG) becomes SDR, see
tones.py. Transparency is laid over white, as in images/convert.py.
"""

from fractions import Fraction
from typing import Any

import av
import numpy as np

from .tones import NAMES, to_sdr

WHITE = 255
MAX_ASPECT = 8  # pixels more stretched than this are a mistake in the file

# FFmpeg's numbers: matrices of AVColorSpace as swscale counts them, AVColorRange, AVColorTransferCharacteristic.
BT709, BT601 = 1, 5
MATRICES = {1: BT709, 4: 4, 5: BT601, 6: BT601, 7: 7, 9: 9, 10: 9}
HD_HEIGHT = 720  # from here on an unnamed matrix is BT.709 (Chromium's rule)
LIMITED, FULL = 1, 2
# BICUBIC | FULL_CHR_H_INT | ACCURATE_RND: without the last two, 4:2:0 is off by up to 2 of 255 and its colours
# are not interpolated. Given as a number, since older av has no names for them.
EXACT = 0x4 | 0x2000 | 0x40000


# Clockwise degrees -> (transposed, mirrored, upside down), in this order.
TURNS = {
    0: (False, False, False),
    90: (True, True, False),
    180: (False, True, True),
    270: (True, False, True),
}


class Converter:
    """Turns the frames of one stream into pixels of one size: that of the first frame it is made from.

    width, height: in pixels as displayed.  rotation: clockwise degrees (0, 90, 180, 270) in the file, undone;
    mirroring is done too.  hdr: what kind of HDR the file is, empty for SDR.  plain: frames are shown as they are.
    transparent: the first frame is, somewhere; all are laid over white.
    """

    def __init__(self, first: av.VideoFrame, aspect: Fraction | None):
        """aspect: width / height of a pixel; None or 0 is square."""
        self._flips = _orientation(first)
        transposed = self._flips[0]
        stretch = Fraction(aspect or 1)
        if not Fraction(1, MAX_ASPECT) <= stretch <= MAX_ASPECT:
            stretch = Fraction(1)
        self._coded = max(1, round(first.width * stretch)), first.height
        self.width, self.height = self._coded[::-1] if transposed else self._coded
        self.rotation = next((angle for angle, flips in TURNS.items() if flips == self._flips), 0)
        self._transfer = int(getattr(first, "color_trc", 0) or 0)
        self.hdr = NAMES.get(self._transfer, "")
        self.transparent = _is_transparent(first)
        self.plain = not (any(self._flips) or self.hdr) and self._coded == (first.width, first.height)

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 [height, width, 3] of one frame."""
        pixels = self._rgb(frame)
        if self.hdr:
            pixels = to_sdr(pixels, self._transfer)
        transposed, mirrored, upside_down = self._flips
        if transposed:
            pixels = pixels.transpose(1, 0, 2)
        if mirrored:
            pixels = pixels[:, ::-1]
        if upside_down:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self._coded
        has_alpha = _has_alpha(frame.format.name)
        wanted = "rgba" if has_alpha else "rgb24"
        options: dict[str, Any] = {"width": width, "height": height, "format": wanted, "interpolation": EXACT}
        if not frame.format.is_rgb and not frame.format.has_palette:
            matrix = MATRICES.get(int(frame.colorspace))
            if matrix is None:
                matrix = BT709 if frame.height >= HD_HEIGHT else BT601
            full = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
            options["src_colorspace"] = matrix
            # Means nothing for RGB, but av 14 forgets the range and the matrix where both sides have the same.
            options["dst_colorspace"] = BT601 if matrix == BT709 else BT709
            options["src_color_range"] = FULL if full else LIMITED
            options["dst_color_range"] = FULL
        pixels = frame.reformat(**options).to_ndarray()
        if not has_alpha:
            return pixels
        alpha = pixels[..., 3:].astype(np.uint16)
        return ((pixels[..., :3] * alpha + WHITE * (WHITE - alpha) + WHITE // 2) // WHITE).astype(np.uint8)


def _has_alpha(name: str) -> bool:
    """Whether pixels of this format can be transparent. av 14 does not say so of a format."""
    return name.startswith(("yuva", "rgba", "argb", "abgr", "bgra", "gbrap", "ya8", "ya16", "pal8", "ayuv", "vuya"))


def _is_transparent(frame: av.VideoFrame) -> bool:
    if not _has_alpha(frame.format.name):
        return False
    return bool((frame.reformat(format="rgba").to_ndarray()[..., 3] < WHITE).any())


def _orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transposed, mirrored, upside down), in this order, by the frame's display matrix."""
    try:
        side_data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # av 18 knows no name for the EXIF data beside it, and then of none; mirroring is not in this
        return TURNS.get(round(-frame.rotation) % 360, TURNS[0])
    if side_data is None:
        return TURNS[0]
    a, b, _, c, d, *_ = np.frombuffer(bytes(side_data), dtype=np.int32).tolist()
    # x' = a x + c y, y' = b x + d y: rows become columns where b and c weigh more.
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0
