"""The colour match; the official frames are in the goldens."""

import math

import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.images.colour import ColourMatch, lab_to_rgb, rgb_to_lab
from pack.skyreels_v3.measures.colours import lab_distance
from pack.tests.support.golden import normal


def match_colour(frames, reference, strength=1.0):
    return ColourMatch(reference, strength)(frames)


def clip(key, frames=3, height=24, width=32, contrast=0.3, shift=0.0):
    return (normal(f"colour test/{key}", (1, 3, frames, height, width)) * contrast + shift).clamp(-1, 1)


# CIE Lab (D65, 2 degrees) of the corners of sRGB, to the digits the rounded constants allow.
@pytest.mark.parametrize(
    "rgb, lab",
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1, 1, 1), (100, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_lab_is_cie_lab(rgb, lab):
    got = rgb_to_lab(torch.tensor(rgb, dtype=torch.float64)[:, None])[:, 0]
    assert torch.allclose(got, torch.tensor(lab, dtype=torch.float64), atol=0.03)


def test_lab_and_back():
    rgb = torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0))
    assert (lab_to_rgb(rgb_to_lab(rgb)) - rgb).abs().max() < 1e-4
    far = lab_to_rgb(torch.tensor([[50.0], [200.0], [-300.0]]))
    assert far.min() >= 0 and far.max() <= 1


def test_matched_frames_have_the_references_statistics():
    reference = clip("reference", frames=1, height=40, width=20, contrast=0.2, shift=0.1)
    matched = match_colour(clip("source", shift=-0.2), reference)
    wanted = rgb_to_lab((reference[0] + 1) / 2).flatten(1)
    for index in range(3):
        got = rgb_to_lab((matched[0, :, index] + 1) / 2).flatten(1)
        # What leaves sRGB is clipped, which moves the statistics a little.
        assert torch.allclose(got.mean(1), wanted.mean(1), atol=1.5)
        assert torch.allclose(got.std(1), wanted.std(1), atol=2.5)


def test_strength_is_a_blend():
    source, reference = clip("source"), clip("reference", frames=1)
    full = match_colour(source, reference, 1)
    assert match_colour(source, reference, 0) is source
    assert torch.allclose(match_colour(source, reference, 0.25), source + (full - source) * 0.25, atol=1e-6)
    assert torch.equal(source, clip("source")) and torch.equal(reference, clip("reference", frames=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtype_stays(dtype):
    source, reference = clip("source"), clip("reference", frames=1)
    got = match_colour(source.to(dtype), reference)
    assert got.dtype == dtype
    assert (got.float() - match_colour(source, reference)).abs().max() < 0.05


def test_a_flat_clip_is_moved_but_not_blown_up():
    reference = clip("reference", frames=1)
    for level in (-1.0, 0.123, 1.0):
        flat = torch.full((1, 3, 1, 64, 96), level)
        matched = match_colour(flat, reference)
        assert matched.isfinite().all()
        assert matched.flatten(2).std(dim=2).max() < 0.01
    grey = clip("grey")[:, :1].expand(-1, 3, -1, -1, -1)
    matched = rgb_to_lab((match_colour(grey, reference)[0] + 1) / 2)
    assert matched[1:].flatten(1).std(1).max() < 8  # no blotches of colour; the reference's spread is 30
    assert match_colour(clip("source"), torch.zeros(1, 3, 1, 8, 8)).flatten(2).std(2).max() < 0.01


def test_distance_measures_a_cast_and_a_loss_of_contrast_but_not_motion():
    frames = clip("drift", frames=4)
    assert lab_distance(frames[:, :, 2:3].flip(3, 4), frames[:, :, 2:3]) == pytest.approx(0, abs=1e-3)
    assert lab_distance(frames, frames) <= lab_distance(frames * 0.8, frames) < lab_distance(frames * 0.4, frames)
    grey, lighter = torch.zeros(1, 3, 2, 8, 8), torch.full((1, 3, 5, 4, 4), 0.2)
    wanted = rgb_to_lab(torch.tensor([[0.6]] * 3))[0] - rgb_to_lab(torch.tensor([[0.5]] * 3))[0]
    assert lab_distance(lighter, grey) == pytest.approx(wanted.item(), abs=1e-2)
    drifted = frames + torch.tensor([0.2, 0.0, -0.2]).view(1, 3, 1, 1, 1)
    before = lab_distance(drifted, frames)
    assert lab_distance(match_colour(drifted, frames[:, :, :1]), frames) < 0.2 * before


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_a_strength_outside_its_range_is_told(strength):
    with pytest.raises(InputError, match=r"0 \(off\) to 1"):
        match_colour(clip("source"), clip("reference"), strength)


@pytest.mark.parametrize("shape", [(3, 2, 8, 8), (1, 4, 2, 8, 8), (2, 3, 2, 8, 8), (1, 3, 0, 8, 8)])
def test_clips_of_another_shape_are_told(shape):
    good = clip("source")
    for arguments in ((torch.zeros(shape), good), (good, torch.zeros(shape))):
        with pytest.raises(InputError, match="1 x 3 x frames"):
            match_colour(*arguments)
        with pytest.raises(InputError, match="1 x 3 x frames"):
            lab_distance(*arguments)
