"""The picture of what is finished: the newest windows below what is being made."""

import numpy as np
import pytest
from PIL import Image

from pack.skyreels_v3.video.preview import COLUMNS, PREVIEW_SIDE, Filmstrip


def plain(width: int, height: int, red: int) -> Image.Image:
    return Image.new("RGB", (width, height), (red, 0, 0))


def test_without_finished_windows_it_is_the_picture():
    assert Filmstrip().below(plain(104, 60, 9)).size == (PREVIEW_SIDE, round(PREVIEW_SIDE * 60 / 104))
    assert Filmstrip().below(plain(60, 104, 9)).size == (round(PREVIEW_SIDE * 60 / 104), PREVIEW_SIDE)


def test_finished_windows_stand_below_in_order():
    strip = Filmstrip()
    for number in range(1, 4):
        strip.add(number, plain(832, 480, 60 * number))
    sheet = np.asarray(strip.below(plain(104, 60, 250)))
    top, wide = round(PREVIEW_SIDE * 60 / 104), PREVIEW_SIDE // COLUMNS
    assert sheet.shape[1] == PREVIEW_SIDE and (sheet[:top, :, 0] == 250).all()
    bottom = sheet[-8]  # below the numbers
    assert [bottom[wide * index + wide // 2, 0] for index in range(COLUMNS)] == [60, 120, 180, 0, 0, 0]
    assert (sheet[top : top + 16, :wide, 1] > 128).any()  # the number, in white


@pytest.mark.parametrize("size", [(832, 480), (480, 832), (512, 512), (2000, 10), (10, 2000), (3, 2)])
def test_the_newest_stay_and_the_picture_keeps_its_size(size):
    strip = Filmstrip()
    sizes = set()
    for number in range(1, 3 * COLUMNS):
        picture = plain(*size, number)
        strip.add(number, picture)
        sizes.add(strip.below(picture).size)
    assert picture.size == size
    assert len(sizes) <= COLUMNS and max(max(sheet) for sheet in sizes) <= PREVIEW_SIDE + PREVIEW_SIDE // COLUMNS
    sheet = np.asarray(strip.below(plain(*size, 0)))
    assert sheet[..., 0].min() == 0 and (sheet == 3 * COLUMNS - 1).any()
