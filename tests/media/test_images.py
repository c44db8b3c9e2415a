"""Images as artists have them: grey, transparent, tiny, panoramas, broken. Official pixels are in the goldens."""

import math

import numpy as np
import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.images.convert import picture_to_signed, to_rgb8
from pack.skyreels_v3.images.resize import cover_crop, letterbox


def test_eight_bit_images_come_back_as_they_were():
    steps = torch.arange(256).float() / 255
    image = steps[None, :, None, None].expand(1, 256, 2, 3)
    assert (to_rgb8(image)[:, 0, 0] == np.arange(256)).all()
    assert np.array_equal(to_rgb8(torch.from_numpy(to_rgb8(image))), to_rgb8(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_works(dtype):
    assert to_rgb8(torch.full((1, 2, 2, 3), 0.5, dtype=dtype)).tolist()[0][0] == [128, 128, 128]


def test_grey_becomes_rgb_and_the_first_of_a_batch_counts():
    batch = torch.stack([torch.zeros(2, 3, 1), torch.ones(2, 3, 1)])
    assert to_rgb8(batch).shape == (2, 3, 3)
    assert not to_rgb8(batch).any()
    assert (to_rgb8(batch[1]) == 255).all()


def test_transparency_is_laid_over_white():
    image = torch.zeros(1, 1, 3, 4)
    image[..., 0, 3], image[..., 1, 3], image[..., 2, 3] = 0, 1, 0.5
    assert to_rgb8(image)[0].tolist() == [[255] * 3, [0] * 3, [128] * 3]
    assert to_rgb8(image[..., 2:])[0].tolist() == [[255] * 3, [0] * 3, [128] * 3]
    assert to_rgb8((image * 255).to(torch.uint8))[0, 0].tolist() == [255] * 3


def test_values_outside_are_clipped():
    assert to_rgb8(torch.tensor([[[[-1.0, 2.0, 1e6]]]])).tolist() == [[[0, 255, 255]]]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_pixels_that_are_no_numbers_are_told(bad):
    image = torch.zeros(1, 4, 4, 3)
    image[0, 2, 2, 1] = bad
    with pytest.raises(InputError, match="no numbers"):
        to_rgb8(image)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 0, 4, 3), (1, 4, 0, 3), (4, 4), (1, 1, 4, 4, 3), (1, 4, 4, 5)])
def test_what_is_no_image_is_told(shape):
    with pytest.raises(InputError, match="The image"):
        to_rgb8(torch.zeros(shape))


SIZES = [(1, 1), (2, 2), (20, 1), (400, 20), (20, 400), (5000, 1), (1, 5000), (96, 64), (97, 63)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(96, 64), (848, 480), (320, 1280), (16, 16)])
@pytest.mark.parametrize("fit", [letterbox, cover_crop])
def test_any_shape_becomes_the_target(fit, size, target):
    pixels = np.full((size[1], size[0], 3), 200, dtype=np.uint8)
    got = fit(pixels, *target)
    assert got.shape == (target[1], target[0], 3) and got.dtype == np.uint8
    colours = np.unique(got)
    assert 200 in colours and set(colours) <= ({200, 255} if fit is letterbox else {200})


def test_letterbox_is_centred():
    got = letterbox(np.zeros((10, 40, 3), dtype=np.uint8), 40, 21)
    rows = (got == 0).all(axis=(1, 2))
    assert rows.tolist() == [False] * 5 + [True] * 10 + [False] * 6


def test_an_extreme_panorama_keeps_its_middle():
    pixels = np.zeros((1, 5001, 3), dtype=np.uint8)
    pixels[:, 2490:2511] = 100
    assert (cover_crop(pixels, 64, 64)[:, 30:34] == 100).all()


def test_to_signed_is_what_a_vae_takes():
    pixels = np.array([[[0, 255, 51]]], dtype=np.uint8)
    signed = picture_to_signed(pixels)
    assert signed.shape == (1, 3, 1, 1, 1) and signed.dtype == torch.float32
    assert torch.allclose(signed.flatten(), torch.tensor([-1.0, 1.0, -0.6]))
