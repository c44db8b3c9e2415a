"""Scripts as the editor on the node shows them: times, and what is wrong with which line."""

import json

import pytest

from pack.skyreels_v3.jobs.extension.script import parse_script
from pack.skyreels_v3.jobs.extension.script_check import MAX_TEXT, check_script


def test_lines_run_one_after_the_other():
    checked = check_script("# a park\ncontinue 8s: She walks.\n\ncut 2.5s: [ZOOM_IN_CUT] Her face.\nShe smiles.")
    assert [(line.number, line.kind, line.start, line.stop, line.rolls) for line in checked.lines] == [
        (2, "continue", 0, 8, 2),
        (4, "cut", 8, 10.5, 1),
        (5, "continue", 10.5, 15.5, 1),
    ]
    assert checked.problem is None and checked.notes == ()
    assert json.loads(json.dumps(checked.as_dict()))["lines"][1]["stop"] == 10.5


def test_wrong_lines_stand_in_their_place_and_take_no_time():
    checked = check_script("continue 1s: a\ncut 9s: b\ncontinue 2s: c\ncontin 3s: d")
    assert [(line.number, line.stop, bool(line.wrong)) for line in checked.lines] == [
        (1, 1, False),
        (2, 0, True),
        (3, 3, False),
        (4, 0, True),
    ]
    assert "cut of 9 s" in checked.lines[1].wrong and "'contin'" in checked.lines[3].wrong
    assert checked.problem is None


def test_all_wrong_lines_are_told():
    assert sum(line.wrong is not None for line in check_script("cut 9s: x\n" * 8).lines) == 8


@pytest.mark.parametrize(
    ("text", "told"), [("", "is empty"), ("# later", "is empty"), ("continue 300s: x\n" * 3, "900 s long in all")]
)
def test_what_is_wrong_with_the_whole_script_is_told(text, told):
    assert told in check_script(text).problem


def test_a_model_that_is_not_connected_is_told_beside_the_times():
    checked = check_script("continue 1s: a\ncut 2s: [ZOOM_IN_CUT] b", has_shot_model=False)
    assert "Line 2 is a cut, but nothing is connected to shot_model" in checked.problem and checked.lines[1].stop == 3
    assert "nothing is connected to model" in check_script("walks on", has_model=False).problem
    assert check_script("walks on", has_shot_model=False).problem is None


def test_official_lengths_and_hints_are_told():
    checked = check_script("continue 5s: a", official=True)
    assert checked.lines[0].stop == 132 / 24 and "as in the official code" in checked.notes[0]
    (note,) = check_script("cut 4s: Her face.").notes
    assert note.startswith("Line 1 is a cut without a tag")


@pytest.mark.parametrize("text", ["\ufeff", "a\rb\r\nc\n\nd", "cut\ncontinue\n5s: x", "继续走。", "\x00"])
def test_it_agrees_with_the_node(text):
    checked = check_script(text)
    try:
        lines = parse_script(text)
    except ValueError:
        assert checked.problem or any(line.wrong for line in checked.lines)
    else:
        assert [line.number for line in checked.lines] == [line.number for line in lines] and not checked.problem


def test_a_book_is_not_read():
    assert "characters" in check_script("x" * (MAX_TEXT + 1)).problem
    assert len(check_script("continue 0.05s: x\n" * 5000).lines) == 5000
