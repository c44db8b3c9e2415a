"""Rolls, prefixes and printed plans of an extension; the official frame counts are in the goldens."""

import dataclasses
from fractions import Fraction

import pytest

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.extension.plan import PlanSource, continue_rolls, cut_roll, plan_extension, prefix_of
from pack.skyreels_v3.jobs.extension.script import Line, parse_script
from pack.skyreels_v3.recipes import Job

CLIP = PlanSource(width=1920, height=1080, frames=240)
SCRIPT = parse_script(
    "continue 8s: She walks on.\ncut 4s: [ZOOM_IN_CUT] Close-up of her face.\ncontinue 12.5s: The birds fly away.\n"
)


@pytest.mark.parametrize(
    "available, wanted, frames",
    [(240, 25, 25), (25, 25, 25), (24, 25, 21), (10, 25, 9), (9, 9, 9), (8, 9, 5), (5, 25, 5), (4, 25, 1), (1, 33, 1)],
)
def test_prefixes_are_the_most_that_fit(available, wanted, frames):
    assert prefix_of(available, wanted) == frames


@pytest.mark.parametrize(
    "seconds, frames",
    [
        ("5", [120]),
        ("10", [120, 120]),
        ("12", [120, 120, 48]),
        ("8", [120, 72]),
        ("6", [72, 72]),
        ("5.1", [64, 58]),  # not 120 and 2
        ("11", [120, 72, 72]),
        ("0.5", [12]),
        ("0.1", [2]),
        ("1/24", [1]),
        ("12.5", [120, 120, 60]),
        ("4.99", [120]),
        ("7", [120, 48]),
        ("6.8", [84, 79]),
    ],
)
def test_continues_are_exact(seconds, frames):
    rolls = continue_rolls(Fraction(seconds))
    assert [roll.new_frames for roll in rolls] == frames


def test_any_length_is_made_of_good_rolls():
    for frames in range(1, 1500):
        rolls = continue_rolls(Fraction(frames, 24))
        assert sum(roll.new_frames for roll in rolls) == frames
        for roll in rolls:
            assert 1 <= roll.new_frames <= 120
            assert roll.prefix_frames == 25 and roll.decoded_frames == 25 + 4 * roll.latent_frames
            assert roll.latent_frames == -(-roll.new_frames // 4)
        assert all(roll.new_frames % 4 == 0 for roll in rolls[:-1])
        if frames > 120:
            assert rolls[-1].new_frames >= 45
        assert len(rolls) == -(-frames // 120)


def test_a_continue_of_5_s_is_132_frames_in_the_official_code():
    (roll,) = continue_rolls(5, official=True)
    assert (roll.latent_frames, roll.new_frames, roll.decoded_frames) == (33, 132, 157)
    assert all(
        roll.new_frames == 4 * roll.latent_frames > 0
        for tenths in range(1, 400)
        for available in (1, 5, 9, 17, 25)
        for roll in continue_rolls(Fraction(tenths, 10), official=True, available=available)
    )


@pytest.mark.parametrize(
    "seconds, official, rolls",
    [
        ("2", False, (9, 13, 49, 48)),
        ("5", False, (33, 31, 121, 120)),
        ("5", True, (33, 31, 121, 121)),
        ("2.5", False, (17, 16, 61, 60)),
        ("2.5", True, (17, 16, 61, 61)),
        ("3.01", False, (25, 19, 73, 72)),
        ("2.3", False, (17, 15, 57, 55)),
        ("2.3", True, (17, 15, 57, 57)),
    ],
)
def test_cuts(seconds, official, rolls):
    assert cut_roll(Fraction(seconds), official) == rolls


def test_a_script_becomes_rolls():
    plan = plan_extension(SCRIPT, CLIP, "720P")
    assert (plan.width, plan.height, plan.notes) == (1280, 720, ())
    assert [(roll.line, roll.kind, roll.part, roll.parts) for roll in plan.rolls] == [
        (0, "continue", 1, 2),
        (0, "continue", 2, 2),
        (1, "cut", 1, 1),
        (2, "continue", 1, 3),
        (2, "continue", 2, 3),
        (2, "continue", 3, 3),
    ]
    assert [roll.job for roll in plan.rolls[1:4]] == [Job.EXTENSION, Job.SHOT, Job.EXTENSION]
    assert plan.new_frames == 588 and plan.seconds == Fraction(49, 2) and plan.steps == 48
    first, cut = plan.rolls[0], plan.rolls[2]
    assert (first.prefix_latents, first.new_start, plan.latent_shape(first)) == (7, 25, (1, 16, 30, 90, 160))
    assert (cut.prefix_latents, cut.new_start, plan.latent_shape(cut)) == (7, 0, (1, 16, 25, 90, 160))
    assert plan.tokens == 37 * 45 * 80
    assert plan == plan_extension(SCRIPT, CLIP, "720P")
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.width = 1


def test_the_official_plan_of_a_script_says_its_lengths():
    plan = plan_extension(SCRIPT, CLIP, official=True, steps=4)
    assert [roll.new_frames for roll in plan.rolls] == [132, 68, 97, 132, 132, 36]
    assert plan.steps == 24
    assert [note.split(" s long")[0] for note in plan.notes] == ["Line 1 is 8.33", "Line 2 is 4.04"]


def test_sizes():
    assert plan_extension(SCRIPT, CLIP, resolution="480P").width == 848 == plan_extension(SCRIPT, CLIP).width
    plan = plan_extension(SCRIPT, CLIP, width=1000, height=500)
    assert (plan.width, plan.height) == (1008, 496) and "1008 x 496" in plan.notes[0]
    for size in ({"width": 832}, {"height": 480}, {"width": 832, "height": 480, "resolution": "480P"}):
        with pytest.raises(InputError, match="together"):
            plan_extension(SCRIPT, CLIP, **size)
    with pytest.raises(InputError, match="4K"):
        plan_extension(SCRIPT, CLIP, resolution="4K")
    with pytest.raises(InputError, match="0 x 5"):
        plan_extension(SCRIPT, PlanSource(0, 5, 10))


def test_a_short_source_shows_what_it_has():
    lines = parse_script("continue 6s: x\ncut 5s: [ZOOM_IN_CUT] x")
    plan = plan_extension(lines, PlanSource(640, 480, 10))
    assert [roll.prefix_frames for roll in plan.rolls] == [9, 25, 33]
    assert plan.rolls[0].decoded_frames == 9 + 4 * plan.rolls[0].latent_frames
    assert plan.notes == ("Line 1 is shown 9 frames of the past instead of 25, because there are only 10.",)
    still = plan_extension(lines[1:], PlanSource(640, 480, 1))
    assert still.rolls[0].prefix_frames == 1 and "1 frame of the past" in still.notes[0]
    with pytest.raises(InputError, match="no frames"):
        plan_extension(lines, PlanSource(640, 480, 0))


def test_a_prefix_does_not_reach_over_a_cut():
    # What a short cut leaves is all that the next line may see.
    plan = plan_extension(parse_script("cut 2s: [A_CUT] x\ncut 5s: [A_CUT] x\ncontinue 5s: x"), CLIP)
    assert [roll.prefix_frames for roll in plan.rolls] == [9, 33, 25]

    for shot, prefix, told in ((12, 9, "only what comes after"), (9, 9, "only"), (40, 25, ""), (4, 25, "before it is")):
        source = dataclasses.replace(CLIP, shot_frames=shot)
        plan = plan_extension(SCRIPT, source)
        assert plan.rolls[0].prefix_frames == prefix and plan.rolls[1].prefix_frames == 25
        assert told in " ".join(plan.notes) and bool(plan.notes) == bool(told)
    # Frames made by the first line belong to the same shot.
    source = dataclasses.replace(CLIP, shot_frames=12)
    plan = plan_extension(parse_script("continue 0.5s: x\ncontinue 5s: y"), source)
    assert [roll.prefix_frames for roll in plan.rolls] == [9, 21]


def test_a_line_without_its_model_is_told():
    with pytest.raises(InputError, match="Line 2 is a cut, but nothing is connected to shot_model"):
        plan_extension(SCRIPT, CLIP, has_shot_model=False)
    with pytest.raises(InputError, match="Line 1 continues a shot, but nothing is connected to model"):
        plan_extension(SCRIPT, CLIP, has_model=False)
    assert plan_extension(SCRIPT[1:2], CLIP, has_model=False).rolls
    assert plan_extension(SCRIPT[:1], CLIP, has_shot_model=False).rolls


def test_impossible_lines_are_told():
    with pytest.raises(InputError, match="no lines"):
        plan_extension([], CLIP)
    with pytest.raises(InputError, match="Line 4 is a cut of 9 s"):
        plan_extension([Line(4, "cut", Fraction(9), "x")], CLIP)
    with pytest.raises(InputError, match="Line 4 is 0 s long"):
        plan_extension([Line(4, "continue", Fraction(0), "x")], CLIP)


def test_tags_in_odd_places_are_noted():
    plan = plan_extension(parse_script("cut 4s: a face\ncontinue 5s: [ZOOM_IN_CUT] a face"), CLIP)
    assert "Line 1 is a cut without a tag" in plan.notes[0] and "Line 2 continues" in plan.notes[1]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_plan_can_be_read():
    lines = parse_script("continue 5.1s: " + "very " * 50 + "long\ncut 2s: 她的脸")
    text = plan_extension(lines, CLIP, "720P").describe()
    head, _, titles, rule, *rows, _, note = text.splitlines()
    assert head == "1280 x 720 pixels, 170 new frames (7.08 s at 24 a second), 3 rolls of 8 steps"
    assert len(rows) == 3 and note.startswith("Line 2 is a cut without")
    assert cells(titles) == "roll line shot part frames seconds past prompt".split()
    assert cells(rows[0])[:7] == ["1", "1", "continue", "1 of 2", "64", "2.67", "25"]
    assert [row.rindex("|", 0, -1) for row in (titles, rule, *rows)] == [titles.rindex("|", 0, -1)] * 5
    assert {part.strip("-") for part in cells(rule)} == {":", ""} and max(map(len, rows)) <= 130
    piped = plan_extension(parse_script("continue 1s: one | two"), CLIP).describe()
    assert piped.splitlines()[4].endswith("| one \\| two |")
    assert "official" in plan_extension(lines, CLIP, official=True).describe().splitlines()[0]
