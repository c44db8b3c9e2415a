"""Which person a part of the picture belongs to, where two speak: frame by frame, or as the official code."""

import pytest
import torch

from pack import kernels
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.model.sequence import avatar_segments, layout_of
from pack.skyreels_v3.model.speaker_map import BACKGROUND_POSITION, PERSON_POSITIONS, PositionMap, SpeakerMap

FRAMES, TOKENS, HEADS = 21, 16, 40  # a window of the real model, small in size
STANDING, CHANGING = torch.zeros(FRAMES, dtype=torch.long), torch.arange(FRAMES) * TOKENS // FRAMES


def positions(shown: torch.Tensor, form: PositionMap | None, heads: int = HEADS) -> torch.Tensor:
    """Positions [frames, tokens, heads or 1], where token n of frame t shows the token shown[t, n] of the first."""
    latents = torch.zeros(1, 16, len(shown), 2, 2 * TOKENS)
    layout = layout_of(avatar_segments(latents, torch.zeros(1, 20, len(shown), 2, 2 * TOKENS)), (1, 2, 2))
    masks = torch.zeros(3, 1, TOKENS)
    masks[0, :, : TOKENS // 4], masks[1, :, -TOKENS // 4 :] = 1, 1
    masks[2] = 1 - masks[0] - masks[1]
    of = {} if form is None else {"position_map": form}
    speakers = SpeakerMap.of(layout, torch.zeros(2, 1), masks, kernels.attention, **of)
    tokens = 20 * torch.eye(TOKENS)[shown.flatten()][None, :, None].expand(-1, -1, heads, -1)
    return speakers.positions(tokens, tokens).unflatten(1, (len(shown), TOKENS))[0]


def belongs(shown: torch.Tensor) -> torch.Tensor:
    """The person that each token shows: 0, 1, or 2 for the background."""
    person = torch.full((TOKENS,), 2)
    person[: TOKENS // 4], person[-TOKENS // 4 :] = 0, 1
    return person[shown]


def person_of(position: torch.Tensor) -> torch.Tensor:
    """0 or 1 in the range of a person, 2 in the background's."""
    inside = [(position >= low) & (position <= high) for low, high in PERSON_POSITIONS]
    return torch.where(inside[0], 0, torch.where(inside[1], 1, 2))


def shown(moved: torch.Tensor) -> torch.Tensor:
    """What every token shows where the people are `moved` tokens on in each frame; who leaves comes in again."""
    return (torch.arange(TOKENS) - moved[:, None]) % TOKENS


@pytest.mark.parametrize("moved", [STANDING, CHANGING], ids=["standing", "moving"])
def test_every_head_goes_by_its_own_frame(moved):
    found = positions(shown(moved), None)
    assert found.shape == (FRAMES, TOKENS, 1) and (found == BACKGROUND_POSITION).any()
    assert torch.equal(person_of(found[..., 0]), belongs(shown(moved)))


@pytest.mark.parametrize(("frames", "heads"), [(FRAMES, HEADS), (5, 3), (4, 8), (1, 2)])
def test_the_official_map_is_that_of_its_reshape(frames, heads):
    """Of queries [frames, heads, tokens] that become [heads, frames * tokens] without being permuted."""
    moved = CHANGING[:frames] if frames > 5 else torch.arange(frames) * 3
    own = positions(shown(moved), PositionMap.OWN_FRAME, heads)[..., 0]
    expected = own.flatten().expand(heads, -1).reshape(frames, heads, TOKENS).transpose(1, 2)
    assert torch.equal(positions(shown(moved), PositionMap.OFFICIAL, heads), expected)


def test_the_official_map_mistakes_people_only_while_they_move():
    """The reason for the other form: with the real sizes most heads look at another frame."""
    still = positions(shown(STANDING), PositionMap.OFFICIAL)
    assert torch.equal(person_of(still), belongs(shown(STANDING))[..., None].expand_as(still))
    moving = person_of(positions(shown(CHANGING), PositionMap.OFFICIAL))
    wrong = (moving != belongs(shown(CHANGING))[..., None]).float().mean()
    assert wrong > 0.4


def test_a_small_mask_has_the_token_that_it_touches():
    """A token is 16 pixels wide, of which only the first was looked at."""
    latents = torch.zeros(1, 16, 1, 4, 2 * TOKENS)
    layout = layout_of(avatar_segments(latents, torch.zeros(1, 20, 1, 4, 2 * TOKENS)), (1, 2, 2))
    masks = torch.zeros(3, 32, 16 * TOKENS)
    masks[0, 20:26, 85:90] = 1
    masks[1, :, 200:] = 1
    masks[2] = 1 - masks[0] - masks[1]
    weights = SpeakerMap.of(layout, torch.zeros(2, 1), masks, kernels.attention).weights.unflatten(1, (2, TOKENS))
    assert weights[0].nonzero().tolist() == [[1, 5]] and weights[0].sum() == 1
    large = torch.nn.functional.interpolate(masks[None, 1:], size=(2, TOKENS), mode="nearest")[0]
    assert torch.equal(weights[1:] > 0, large > 0), "as officially"
    masks[0] = 0
    assert not SpeakerMap.of(layout, torch.zeros(2, 1), masks, kernels.attention).weights[0].any()


def company(ranges: torch.Tensor | None, people: int = 3, **options) -> torch.Tensor:
    """Positions [frames, tokens] of people of four tokens each who move along, each in its range of every frame."""
    latents = torch.zeros(1, 16, FRAMES, 2, 2 * TOKENS)
    layout = layout_of(avatar_segments(latents, torch.zeros(1, 20, FRAMES, 2, 2 * TOKENS)), (1, 2, 2))
    masks = torch.zeros(people + 1, 1, TOKENS)
    for person in range(people):
        masks[person, :, 5 * person : 5 * person + 4] = 1
    masks[-1] = 1 - masks[:-1].sum(dim=0)
    speakers = SpeakerMap.of(layout, torch.zeros(2, 1), masks, kernels.attention, ranges=ranges, **options)
    tokens = 20 * torch.eye(TOKENS)[shown(CHANGING).flatten()][None, :, None].expand(-1, -1, 2, -1)
    return speakers.positions(tokens, tokens).unflatten(1, (FRAMES, TOKENS))[0, ..., 0]


def test_a_company_takes_turns_in_the_two_ranges():
    """Whoever has a range in a frame is in it there, wherever they have moved; the others are the background."""
    chance = torch.Generator().manual_seed(0)
    ranges = torch.stack([torch.randperm(3, generator=chance) for _ in range(FRAMES)])
    found = company(ranges)
    person = shown(CHANGING) // 5
    nobody = (shown(CHANGING) % 5 == 4) | (person == 3)
    expected = torch.where(nobody, 2, ranges.gather(1, person.clamp(max=2)))
    assert torch.equal(person_of(found), expected)
    assert (found[expected == 2] == BACKGROUND_POSITION).all()


def test_two_with_ranges_of_their_own_are_as_two_without():
    """To the bit: what a company computes is what the network knows."""
    assert torch.equal(company(torch.tensor([[0, 1]] * FRAMES), 2), company(None, 2))


def test_ranges_that_do_not_fit_are_told():
    with pytest.raises(InputError, match=f"told for 3 latent frames, but the video has {FRAMES}"):
        company(torch.zeros(3, 3, dtype=torch.long))
    with pytest.raises(InputError, match="official, which knows two people, but 3 were given: choose own frame"):
        company(torch.zeros(FRAMES, 3, dtype=torch.long), position_map=PositionMap.OFFICIAL)
