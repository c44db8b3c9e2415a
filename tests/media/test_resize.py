"""Frames on their way to the size of the video."""

import numpy as np
import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.images.resize import FITS, Box, crop_box, fit_frame, picture_box

RNG = np.random.RandomState(0)


def noise(height, width):
    return RNG.randint(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height, width):
    """Red grows to the right, green downwards."""
    rows, columns = np.mgrid[:height, :width]
    frame = np.stack([columns / max(width - 1, 1), rows / max(height - 1, 1), 0 * rows + 0.5], axis=-1)
    return (frame * 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(1080, 1920), (480, 640), (33, 77), (7, 5), (100, 64), (31, 333)])
@pytest.mark.parametrize("target", [(96, 64), (48, 112), (320, 16)])
def test_stretch_is_the_official_interpolation(size, target):
    frame = noise(*size)
    width, height = target
    official = torch.nn.functional.interpolate(
        torch.from_numpy(frame).permute(2, 0, 1)[None, :, None].float(), size=(1, height, width)
    )
    wanted = official[0, :, 0].permute(1, 2, 0).to(torch.uint8).numpy()
    assert np.array_equal(fit_frame(frame, width, height, "stretch"), wanted)


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (2, 3), (1079, 1917), (480, 832)])
def test_every_size_becomes_the_videos(how, size):
    fitted = fit_frame(noise(*size), 832, 480, how)
    assert fitted.shape == (480, 832, 3) and fitted.dtype == np.uint8


def test_a_frame_of_the_right_size_is_left_alone():
    frame = noise(32, 48)
    for how in FITS:
        assert np.array_equal(fit_frame(frame, 48, 32, how), frame)


def test_crop_keeps_the_middle_in_shape():
    fitted = fit_frame(smooth(200, 400), 100, 100).astype(int)
    row, column = fitted[50, :, 0], fitted[:, 50, 1]
    assert abs(row[0] - 64) <= 2 and abs(row[-1] - 191) <= 2  # a quarter is lost on either side
    assert column[0] <= 2 and column[-1] >= 253
    assert (np.diff(row) >= 0).all() and (np.diff(column) >= 0).all()
    assert crop_box(400, 200, 100, 100) == Box(100, 0, 200, 200)
    assert crop_box(200, 400, 100, 100) == Box(0, 100, 200, 200)


def test_letterbox_keeps_everything_and_says_where():
    frame = np.full((200, 400, 3), 200, dtype=np.uint8)
    fitted = fit_frame(frame, 96, 96, "letterbox")
    box = picture_box(400, 200, 96, 96)
    assert box == Box(0, 24, 96, 48)
    picture = fitted[box.top : box.top + box.height, box.left : box.left + box.width]
    assert (picture == 200).all()
    assert fitted.sum() == picture.sum()  # the bars are black
    assert picture_box(400, 200, 96, 96, "crop") == Box(0, 0, 96, 96)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1917, 1079), (333, 777), (832, 480), (7, 5)])
def test_the_picture_between_the_bars_can_be_encoded(size):
    box = picture_box(*size, 832, 480)
    sides = (box.left, box.top, box.width, box.height)
    assert all(side % 2 == 0 for side in sides) and min(box.width, box.height) >= 2
    assert box.left + box.width <= 832 and box.top + box.height <= 480
    assert box.width == 832 or box.height == 480


def test_what_cannot_be_fitted_is_told():
    with pytest.raises(InputError, match=r"'squeeze'.*crop, letterbox, stretch"):
        fit_frame(noise(4, 4), 16, 16, "squeeze")
    for bad in (noise(4, 4)[..., 0], noise(4, 4)[..., :2], noise(4, 4).astype(np.float32), noise(4, 4)[:0]):
        with pytest.raises(InputError, match="height x width x 3"):
            fit_frame(bad, 16, 16)
