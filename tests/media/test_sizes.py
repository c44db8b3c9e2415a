"""Buckets, snapping and lengths; the official rows are in the goldens."""

import math

import pytest

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.images.sizes import RESOLUTIONS, bucket_size, snap_frames, snap_size
from pack.skyreels_v3.recipes import Job


@pytest.mark.parametrize("job", list(Job))
@pytest.mark.parametrize("resolution", RESOLUTIONS)
@pytest.mark.parametrize("size", [(1, 1), (1920, 1080), (20, 1), (1, 20), (7680, 1), (1080, 1920), (333, 777)])
def test_every_image_has_a_bucket(job, resolution, size):
    width, height = bucket_size(*size, resolution, job)
    assert width % 16 == 0 and height % 16 == 0 and min(width, height) >= 320
    assert (width >= height) == (size[0] >= size[1])


def test_higher_resolutions_are_larger():
    for job in Job:
        areas = [math.prod(bucket_size(1920, 1080, resolution, job)) for resolution in RESOLUTIONS]
        assert areas == sorted(areas) and len(set(areas)) == 3


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (-5, 5)])
def test_sides_below_one_are_told(size):
    with pytest.raises(InputError, match="at least 1 pixel"):
        bucket_size(*size, "720P")
    with pytest.raises(InputError, match="at least 1 pixel"):
        snap_size(*size)


def test_unknown_resolution_is_told():
    with pytest.raises(InputError, match="480P, 540P, 720P"):
        bucket_size(10, 10, "1080P")


def test_snap_size():
    assert snap_size(832, 480) == (832, 480, ())
    assert snap_size(1, 1)[:2] == (16, 16)
    width, height, notes = snap_size(1080, 1001)
    assert (width, height) == (1088, 1008)
    assert notes == ("Size 1080 x 1001 became 1088 x 1008: sides come in 16 pixels.",)
    with pytest.raises(InputError, match="100000"):
        snap_size(100000, 512)


@pytest.mark.parametrize(
    "fps, length, frames, told",
    [
        (24, {"seconds": 5}, 121, False),
        (24, {"seconds": 5.1}, 125, True),
        (24, {"seconds": 0.01}, 1, True),
        (25, {"seconds": 2}, 53, True),
        (24, {"frames": 121}, 121, False),
        (24, {"frames": 120}, 121, True),
        (24, {"frames": 122}, 121, True),
        (24, {"frames": 123}, 125, True),
        (24, {"frames": 1}, 1, False),
        (24, {"seconds": 30}, 721, False),
    ],
)
def test_snap_frames(fps, length, frames, told):
    got, notes = snap_frames(fps, 30, **length)
    assert got == frames and got % 4 == 1
    assert bool(notes) == told
    if told:
        assert str(frames) in notes[0]


@pytest.mark.parametrize(
    "length",
    [
        {},
        {"seconds": 5, "frames": 121},
        {"seconds": 0},
        {"seconds": -1},
        {"seconds": 1000},
        {"seconds": math.nan},
        {"seconds": math.inf},
        {"frames": 0},
        {"frames": -4},
        {"frames": 10000},
    ],
)
def test_impossible_lengths_are_told(length):
    with pytest.raises(InputError, match="length"):
        snap_frames(24, 30, **length)
