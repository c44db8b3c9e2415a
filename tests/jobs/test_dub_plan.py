"""Which frames of footage are made anew: clocks, windows, shots, the crop that follows a head."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.avatar.plan import KEY_COPIES, Timing
from pack.skyreels_v3.jobs.dub.clock import Clock
from pack.skyreels_v3.jobs.dub.crops import back, cut_out, follow
from pack.skyreels_v3.jobs.dub.heads import Heads, Rect
from pack.skyreels_v3.jobs.dub.paste import matched, put_back, soft_edge
from pack.skyreels_v3.jobs.dub.plan import Copied, DubPlan, DubWindow, plan_parts, plan_shots, reach, spoken_frames
from pack.skyreels_v3.video.cuts import hard_cuts, last_cut, look

RATES = ("25", "24", "24000/1001", "30", "60000/1001", "12", "50", "120")
TIMING = Timing(window=21, motion=5, drop=8)


def clock(rate="25", start="0"):
    return Clock(Fraction(rate), Fraction(start))


def planned(clock, frames, speech, cuts=(), timing=TIMING):
    spoken = spoken_frames(clock, frames, speech)
    shots = plan_shots(clock, frames, cuts)
    parts = plan_parts(clock, shots, spoken, timing)
    return DubPlan(64, 48, frames, clock, timing, speech, spoken, shots, parts)


@pytest.mark.parametrize("rate", RATES)
def test_clocks_agree_at_any_length(rate):
    for start in ("0", "1/3", "7.04"):
        one = clock(rate, start)
        for made in (*range(-6, 60), 90000, 90001):
            shown = one.shown(made)
            assert abs(Fraction(shown) / one.rate - one.start - Fraction(made, 25)) < Fraction(1, 25) + 1 / one.rate
            assert one.first_made(shown) <= made < one.first_made(shown + 1)
        for shown in (*range(80), 200000):
            made = one.made(shown)
            assert one.first_shown(made) <= shown < one.first_shown(made + 1)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("start", "length"), [("0", 13), ("0", 200), ("0.2", 3), ("0.2", 60), ("1", 14)])
@pytest.mark.parametrize("cuts", [(), (30, 31, 70)])
def test_parts_cover_the_footage_once(rate, start, length, cuts):
    one = clock(rate, start)
    frames = 150
    plan = planned(one, frames, length, cuts)
    done = 0
    for part in plan.parts:
        assert part.first == done < part.stop
        done = part.stop
    assert done == frames
    for window in plan.windows:
        shot = plan.shots[window.shot]
        assert shot.first <= window.first and window.stop <= shot.stop
        assert 1 <= window.motion <= TIMING.motion and window.new_start <= window.new_stop <= window.given
        assert window.given <= TIMING.window - KEY_COPIES
        for shown in range(window.first, window.stop):
            heard = one.made(shown)
            assert 0 <= heard < plan.spoken
            made = plan.made_of(window, shown)
            # Beside a cut alone, where no frame of the model lies between, the nearest one of the same shot is taken.
            near = min(shown - shot.first, shot.stop - 1 - shown) <= one.rate / 25
            assert made == heard or (abs(made - heard) == 1 and near)
    spoken = {shown for shown in range(frames) if 0 <= one.made(shown) < plan.spoken}
    made = {shown for window in plan.windows for shown in range(window.first, window.stop)}
    assert made <= spoken
    # So short are only shots between two frames of the model, and what is left of the speech behind a cut.
    for shot in plan.shots:
        left = [shown for shown in spoken - made if shot.first <= shown < shot.stop]
        assert len(left) <= one.rate / 25


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("timing", [Timing(21, 13, 7), Timing(17, 9, 6), Timing(17, 1, 14)])
def test_each_window_goes_on_from_the_one_before_it_however_short(rate, timing):
    """Some have no frame of slow footage of their own."""
    for length in (20, 41, 69, 83, 111):
        windows = planned(clock(rate), 300, length, timing=timing).windows
        assert all(one.start + one.new_stop == after.start + after.new_start for one, after in pairwise(windows))
        assert [one.first for one in windows[1:]] == [one.stop for one in windows[:-1]]
        assert windows[-1].new_frames, "nothing is made that no one sees or goes on from"


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("start", ["0", "2", "5.7"])
def test_windows_read_only_what_is_looked_through_for_cuts(rate, start):
    """Also where they go on behind the end of a shot, mirrored."""
    one, frames = clock(rate, start), int(6 * Fraction(rate))
    for length in (1, 13, 60):
        for cuts in ((), (30, 31, 70)):
            plan = planned(one, frames, length, cuts, Timing())
            first, stop = reach(one, plan.spoken, frames)
            for window in plan.windows:
                shot = plan.shots[window.shot]
                made = range(window.start, window.start + plan.timing.window)
                shown = [min(max(one.shown(shot.within(frame)), shot.first), shot.stop - 1) for frame in made]
                assert first <= min(shown) and max(shown) < stop


def test_windows_start_and_end_on_the_footage():
    plan = planned(clock(start="1"), 150, 60)
    windows = plan.windows
    assert [window.fresh for window in windows] == [True] + [False] * (len(windows) - 1)
    assert windows[0].start == -TIMING.motion and windows[0].motion == TIMING.motion
    # Behind what is spoken, the last window is given exactly the frames that go on.
    last = windows[-1]
    assert last.start + last.given == 60 == last.start + last.new_stop
    assert last.start + TIMING.window == 60 + KEY_COPIES
    for window, following in pairwise(windows):
        assert window.start + window.new_stop == following.start + following.new_start
        assert window.new_stop <= TIMING.window - TIMING.drop
    # At the footage's own ends there is nothing to go over into: its first frame is the portrait, its end is no end
    alone = planned(clock(), 60, 60).windows
    assert alone[0].motion == 1 and alone[0].new_start == 0 and alone[0].start == 0
    assert alone[-1].start + TIMING.window == 60 + TIMING.drop


def test_short_speech_is_one_window_that_ends_on_the_footage():
    (window,) = planned(clock(start="1"), 150, 4).windows
    assert (window.start, window.given, window.new_start, window.new_stop) == (-5, 9, 5, 9)


def test_speech_and_footage_of_other_lengths():
    assert spoken_frames(clock(), 100, 101) == 100
    assert spoken_frames(clock(), 100, 60) == 60
    assert spoken_frames(clock("12", "8"), 100, 100) == 8
    with pytest.raises(InputError, match=r"starts at 4 s, but the footage is 4\.00 s long"):
        spoken_frames(clock(start="4"), 100, 10)
    assert reach(clock(), 10, 20) == (0, 20)
    assert len(planned(clock(), 5, 5).parts) == 1


def test_long_footage_is_copied_in_pieces():
    parts = planned(clock("24", "100"), 24 * 600, 25).parts
    copies = [part for part in parts if isinstance(part, Copied)]
    assert max(part.new_frames for part in copies) == 480 and sum(isinstance(part, DubWindow) for part in parts) == 3
    text = planned(clock("24", "100"), 24 * 600, 25).describe()
    assert "14400 frames at 24 a second, of which 100.00 to 101.00 s are spoken anew" in text


def test_speech_outside_of_the_recording_is_mirrored():
    plan = planned(clock(start="1"), 150, 4)
    indices = plan.speech_indices(plan.windows[0])
    assert indices.shape == (21, 5) and indices.min() == 0 and indices.max() == 3
    assert indices[5, 2] == 0 and indices[8, 2] == 3 and indices[9, 2] == 3


def test_all_cuts_are_found_as_the_last_one_is():
    rng = np.random.default_rng(1)
    scenes = [rng.integers(0, 256, (6, 8, 3)) for _ in range(4)]
    frames = []
    for scene, length in zip(scenes, (9, 4, 12, 7)):
        big = np.kron(scene, np.ones((6, 6, 1))).astype(np.uint8)
        frames += [np.roll(big, step, axis=1) for step in range(length)]
    looks = [look(frame) for frame in frames]
    found = list(hard_cuts(iter(looks)))
    assert found[-1] == last_cut(frames) == 25 and found == [9, 13, 25]
    assert last_cut(frames[:9]) is None
    assert list(hard_cuts([])) == list(hard_cuts(looks[:1])) == list(hard_cuts(looks[:9])) == []


def boxes(centres, size=20):
    return [None if one is None else Rect(one - size / 2, 30, one + size / 2, 30 + size) for one in centres]


def test_a_crop_follows_softly_and_holds_the_head():
    rng = np.random.default_rng(2)
    centres = np.linspace(40, 160, 60) + rng.normal(0, 2, 60)
    heads = boxes(centres)
    path = follow(heads, 10, 25.0, (200, 100), 1.0, 2.0)
    crops = [path.at(shown) for shown in range(10, 70)]
    assert len({(round(crop.width, 6), round(crop.height, 6)) for crop in crops}) == 1
    for crop, head in zip(crops, heads):
        assert crop.left <= head.left and head.right <= crop.right and 0 <= crop.left and crop.right <= 200
        assert crop.top <= head.top and head.bottom <= crop.bottom
    shake = np.diff([crop.left for crop in crops], n=2)
    assert np.abs(shake).max() < np.abs(np.diff(centres, n=2)).max() / 5
    assert path.at(0) == path.at(10) and path.at(99) == path.at(69)


def test_a_crop_stays_in_the_picture_and_over_gaps():
    heads = boxes([10, None, None, 30, 195, 195])
    path = follow(heads, 0, 25.0, (200, 100), 1.6, 3.0)
    for shown in range(6):
        crop = path.at(shown)
        assert crop.left >= 0 and crop.top >= 0 and crop.right <= 200 + 1e-9 and crop.bottom <= 100 + 1e-9
    whole = follow([Rect(0, 0, 200, 100)] * 3, 0, 25.0, (200, 100), 1.73, 2.0)
    assert whole.at(1) == Rect(0, 0, 200, 100)


def test_masks_that_vanish():
    masks = torch.zeros(60, 20, 40)
    masks[:20, 5:10, 10:20] = masks[24:30, 5:10, 14:24] = 1
    heads = Heads(80, 40, masks)
    found = heads.look(0, 60, 25.0)
    assert found[0] == Rect(20, 10, 40, 20) and found[21] == found[0] and found[22] == found[24]
    assert found[40] is None and heads.empty == list(range(30, 60))
    assert heads.mask(21, Rect(0, 0, 80, 40)).sum() == 200 and heads.mask(40, Rect(0, 0, 80, 40)).sum() == 0
    assert Heads(80, 40, masks).look(30, 40, 25.0) == [None] * 10
    with pytest.raises(InputError, match="The mask shows no one: paint over the head"):
        Heads(80, 40, torch.zeros(1, 4, 4))
    with pytest.raises(InputError, match="frames x height x width is needed"):
        Heads(80, 40, torch.zeros(1, 2, 4, 4))
    with pytest.raises(InputError, match="holds numbers that are none"):
        Heads(80, 40, torch.full((1, 4, 4), torch.nan))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.bool, torch.uint8])
def test_masks_of_every_kind_of_number(kind):
    masks = torch.zeros(2, 400, 400, dtype=kind)
    masks[:, 10:350, 10:390] = 1  # the sum of these is none that a half can hold
    assert Heads(400, 400, masks).look(0, 2, 25.0) == [Rect(10, 10, 390, 350)] * 2


def test_boxes_and_the_whole_picture():
    heads = Heads(80, 40, box="0.25, 0.5, 0.5, 1")
    assert heads.look(3, 5, 25.0) == [Rect(20, 20, 40, 40)] * 2 and heads.fixed and not heads.everywhere
    assert Heads(80, 40).everywhere
    with pytest.raises(InputError, match="left, top, right, bottom are needed"):
        Heads(80, 40, box="0.5, 0, 0.2, 1")
    assert Heads(80, 40, box="0, 0, 0.001, 0.001").look(0, 1, 25.0) == [Rect(0, 0, 1, 1)]


def test_a_soft_edge_lies_inside():
    mask = torch.zeros(40, 60)
    mask[10:30, :30] = 1
    taken = soft_edge(mask, 4)
    assert (taken[mask == 0] == 0).all() and taken[20, 10] == 1 and taken[20, 0] == 1
    assert taken[20, 29] < taken[20, 27] < 1 and taken[10, 10] < 0.3
    assert torch.equal(soft_edge(mask, 0), mask)
    pixels = np.random.default_rng(3).integers(0, 256, (50, 70, 3), np.uint8)
    mixed = put_back(pixels, np.zeros((40, 60, 3), np.uint8), taken, Rect(5, 6, 65, 46))
    changed = (mixed != pixels).any(axis=-1)
    assert changed[26, 15] and not changed[:16].any() and not changed[36:].any() and not changed[:, 35:].any()


def test_a_mask_that_fades_beyond_the_crop_ends_softly():
    faint = torch.full((30, 40), 0.4)
    assert torch.equal(soft_edge(faint, 5), faint), "the edge of the picture is none"
    taken = soft_edge(faint, 5, (True, False, False, True))
    assert taken[:, 0].max() < 0.05 and taken[-1].max() < 0.05 and (taken.diff(dim=1) > -1e-6).all()
    assert torch.equal(taken[:-5, 5:], faint[:-5, 5:])


def test_colours_meet_at_the_border():
    footage = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(4)) - 0.5
    taken = torch.zeros(48, 64)
    taken[16:32, 20:44] = 1
    darker = footage - 0.1
    assert (matched(darker, footage, taken) - footage).abs().max() < 1e-3
    everywhere = torch.ones(48, 64)
    assert abs((matched(darker, footage, everywhere) - footage).mean()) < 1e-3
    other = darker.clone()
    other[:, taken > 0] = 0.3
    assert abs(matched(other, footage, taken)[:, 24, 32] - 0.4).max() < 1e-3, "what is inside counts for nothing"


def test_a_crop_comes_back_where_it_was():
    y, x = np.mgrid[0:60, 0:80]
    pixels = np.stack([128 + 60 * np.sin(x / 9), 128 + 60 * np.cos(y / 8), 2 * x], axis=-1).astype(np.uint8)
    crop, part = Rect(10.3, 5.6, 58.3, 41.6), Rect(11, 6, 58, 41)
    placed = back(cut_out(pixels, crop, 96, 72), crop, part)
    assert np.abs(placed.astype(int) - pixels[6:41, 11:58]).max() <= 3
