"""The reference job's plan, its slots and its guidance."""

import dataclasses
import math

import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.reference import encode_references, plan_reference
from pack.skyreels_v3.sampling.guidance import Branch, combine, reference_branches, text_branches
from pack.tests.support.golden import LinearVAE
from pack.tests.support.guided import guided

WIDE = (1920, 1080)


def test_the_official_size_and_length():
    plan = plan_reference([WIDE], "720P")
    assert (plan.width, plan.height, plan.frames, plan.latent_frames) == (1280, 720, 121, 31)
    assert plan.references == 1 and plan.notes == ()
    assert plan.latent_shape == (1, 16, 31, 90, 160)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.width = 1


def test_the_first_image_gives_the_shape():
    plan = plan_reference([(1080, 1920), WIDE, (1, 1)], resolution="480P", seconds=2)
    assert (plan.width, plan.height, plan.frames, plan.references) == (480, 848, 49, 3)
    assert plan == plan_reference([(1080, 1920), WIDE, (1, 1)], resolution="480P", seconds=2)


def test_what_was_snapped_is_told():
    plan = plan_reference([WIDE] * 4, width=1000, height=500, frames=100)
    assert (plan.width, plan.height, plan.frames) == (1008, 496, 101)
    assert len(plan.notes) == 2
    assert "1008 x 496" in plan.notes[0] and "101 frames" in plan.notes[1]


@pytest.mark.parametrize(
    "arguments, told",
    [
        ({"image_sizes": []}, "0 reference images"),
        ({"image_sizes": [WIDE] * 5}, "5 reference images"),
        ({"image_sizes": [(0, 5)]}, "0 x 5"),
        ({"width": 0, "height": 480}, "0 x 480"),
        ({"width": 832}, "together"),
        ({"height": 480}, "together"),
        ({"width": 832, "height": 480, "resolution": "480P"}, "together"),
        ({"resolution": "4K"}, "4K"),
        ({"seconds": 0}, "above 0"),
        ({"seconds": 1000}, "30 s"),
        ({"seconds": math.nan}, "above 0"),
        ({"seconds": 5, "frames": 121}, "one of the two"),
        ({"frames": 0}, "above 0"),
    ],
)
def test_impossible_plans_are_told(arguments, told):
    with pytest.raises(InputError, match=told):
        plan_reference(**{"image_sizes": [WIDE], **arguments})


def test_references_are_encoded_one_by_one_into_four_slots():
    plan = plan_reference([(96, 64), (10, 200)], width=96, height=64, frames=13)
    images = [torch.rand(1, 64, 96, 3), torch.rand(2, 200, 10, 4)]
    vae, seen = LinearVAE("test"), []

    def encode(pixels):
        seen.append(pixels)
        return vae.encode(pixels)

    slots = encode_references(images, plan, encode)
    assert slots.shape == (1, 16, 4, 8, 12)
    assert [tuple(pixels.shape) for pixels in seen] == [(1, 3, 1, 64, 96)] * 2
    assert all(pixels.min() >= -1 and pixels.max() <= 1 for pixels in seen)
    assert (seen[1][..., 0] == 1).all()  # the white beside the tall image
    assert slots[:, :, :2].any() and not slots[:, :, 2:].any()
    assert torch.equal(slots[:, :, :1], vae.encode(seen[0]))


def test_references_that_do_not_fit_are_told():
    plan = plan_reference([(96, 64)], width=96, height=64, frames=13)
    image = torch.rand(1, 64, 96, 3)
    with pytest.raises(InputError, match="1 reference images, but 2"):
        encode_references([image, image], plan, LinearVAE("test").encode)
    with pytest.raises(InputError, match=r"1 x 4 x 1 x 8 x 12.*wan_2.1_vae"):
        encode_references([image], plan, lambda pixels: torch.zeros(1, 4, 1, 8, 12))


ANSWERS = {branch: torch.randn(4, dtype=torch.float64) for branch in Branch}


def run_guidance(branches):
    asked = []

    def predict(branch):
        asked.append(branch)
        return ANSWERS[branch]

    return guided(predict, branches), asked


def test_no_guidance_is_one_forward():
    for text, image in ((1, 1), (0, 0), (1, 0.5), (0.5, 1)):
        got, asked = run_guidance(reference_branches(text, image))
        assert asked == [Branch.POSITIVE] and got is ANSWERS[Branch.POSITIVE]
    assert run_guidance(text_branches(1))[1] == [Branch.POSITIVE]


@pytest.mark.parametrize("text, image, forwards", [(4, 2.5, 3), (4, 1, 2), (3, 3, 2), (1.5, 0, 3), (7.5, 5, 3)])
def test_dual_guidance_is_the_official_formula(text, image, forwards):
    positive, negative, none = (ANSWERS[b] for b in (Branch.POSITIVE, Branch.NEGATIVE, Branch.NONE))
    got, asked = run_guidance(reference_branches(text, image))
    assert torch.allclose(got, none + image * (negative - none) + text * (positive - negative))
    assert len(asked) == forwards


def test_image_guidance_alone_keeps_the_prompt():
    positive, without = ANSWERS[Branch.POSITIVE], ANSWERS[Branch.PROMPT_ALONE]
    got, asked = run_guidance(reference_branches(1, 3))
    assert torch.allclose(got, without + 3 * (positive - without))
    assert all(branch.uses_prompt for branch in asked)
    assert [branch.uses_references for branch in asked] == [True, False]


def test_text_guidance_is_plain():
    positive, negative = ANSWERS[Branch.POSITIVE], ANSWERS[Branch.NEGATIVE]
    got, _ = run_guidance(text_branches(5))
    assert torch.allclose(got, negative + 5 * (positive - negative))


@pytest.mark.parametrize("text, image", [(1, 1), (1, 4), (5, 1), (5, 2), (2, 2)])
def test_weights_sum_to_one(text, image):
    assert sum(reference_branches(text, image).values()) == pytest.approx(1)


def test_half_precision_is_summed_in_float32():
    a = torch.full((2,), 300.0, dtype=torch.float16)
    got = combine([a, a], [400.0, -399.0])  # 300 x 400 does not fit into float16
    assert got.dtype == torch.float16 and torch.allclose(got, a)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_guidance_that_is_no_number_is_told(bad):
    with pytest.raises(InputError, match="text guidance"):
        reference_branches(bad, 1)
    with pytest.raises(InputError, match="image guidance"):
        reference_branches(1, bad)
