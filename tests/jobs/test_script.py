"""Scripts as artists write them, and every way to get a line wrong."""

from fractions import Fraction

import pytest

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.extension.script import MAX_SECONDS, Line, has_cut_tag, parse_script


def one(text):
    (line,) = parse_script(text)
    return line


def test_a_whole_script():
    script = (
        "# the park\n"
        "continue 8s: She walks on, the camera drifting left.\n"
        "\n"
        "cut 4s: [ZOOM_IN_CUT] Close-up of her face: a smile.  \r\n"
        "   # later\n"
        "\tCONTINUE 12.5 sec :\tShe looks up. # 3 birds\n"
        "[SHOT_REVERSE_SHOT_CUT] What she sees.\n"
        "The birds fly away.\n"
    )
    assert parse_script(script) == (
        Line(2, "continue", Fraction(8), "She walks on, the camera drifting left."),
        Line(4, "cut", Fraction(4), "[ZOOM_IN_CUT] Close-up of her face: a smile."),
        Line(6, "continue", Fraction(25, 2), "She looks up. # 3 birds"),
        Line(7, "cut", Fraction(5), "[SHOT_REVERSE_SHOT_CUT] What she sees.", automatic=True),
        Line(8, "continue", Fraction(5), "The birds fly away.", automatic=True),
    )


@pytest.mark.parametrize(
    "length, seconds",
    [
        ("5s", 5), ("5", 5), ("5 s", 5), ("5sec", 5), ("5 seconds", 5), ("1 second", 1), ("5 SECONDS", 5), ("+5s", 5),
        ("2,5s", "5/2"), ("2.5s", "5/2"), (".5s", "1/2"), ("8.s", 8), ("0.1s", "1/10"), ("600s", 600), ("007s", 7),
        ("\uff15s", 5), ("\uff12\uff0e\uff15\uff53", "5/2"), ("5.1s", "51/10"),
    ],
)  # fmt: skip
def test_lengths_are_exact(length, seconds):
    for colon in (":", " : ", "\uff1a"):
        line = one(f"continue {length}{colon}go on")
        assert line.seconds == Fraction(seconds) and line.prompt == "go on"


@pytest.mark.parametrize("written", ["continue: go on", "continue : go on", "Continue\uff1ago on"])
def test_a_keyword_without_a_length_is_5_s(written):
    assert one(written) == Line(1, "continue", Fraction(5), "go on")


@pytest.mark.parametrize("seconds", ["2", "2.5", "3", "4,75", "5"])
def test_cuts_of_2_to_5_s(seconds):
    assert one(f"cut {seconds}s: x").kind == "cut"


def test_close_writing_and_other_signs():
    assert one("cut4s:[zoom_in_cut]A face") == Line(1, "cut", Fraction(4), "[ZOOM_IN_CUT] A face")
    assert (
        one("\ufeff\u3000cut\u30004s\uff1a\u3010ZOOM_IN_CUT\u3011她的脸：微笑").prompt == "[ZOOM_IN_CUT] 她的脸：微笑"
    )
    assert one("\uff03 x\ncontinue 5s: 她，继续走。").prompt == "她，继续走。"
    assert [line.number for line in parse_script("a\rb\r\nc\n\nd")] == [1, 2, 3, 5]
    assert one("a\u2028b\x0bc").prompt == "a\u2028b\x0bc"  # no line ends where the text box shows none


@pytest.mark.parametrize(
    "prompt",
    [
        "Continue walking down the street.",
        "Cut flowers stand on a table: roses.",
        "Cutting bread",
        "continues to walk: slowly",
        "At 12:30 the bell rings",
        "Scene 3: the harbour",
        "8s later",
        "[haircut] A barber",
        "A face [ZOOM_IN_CUT]",
    ],
)
def test_prompts_that_look_like_orders(prompt):
    line = one(prompt)
    assert line == Line(1, "continue", Fraction(5), prompt, automatic=True)
    assert one(f"continue 8s: {prompt}").prompt == prompt


@pytest.mark.parametrize("prompt", ["12:30 on the clock", "8s: 9s", "3", ":-)"])
def test_prompts_behind_the_colon_are_kept(prompt):
    assert one(f"continue 8s: {prompt}").prompt == prompt


def test_cut_tags():
    assert has_cut_tag("[ZOOM_IN_CUT] x") and has_cut_tag("[ cut_away_cut ]")
    assert not has_cut_tag("x [ZOOM_IN_CUT]") and not has_cut_tag("[CUT_AWAY] x")


@pytest.mark.parametrize("text", ["", " \n\t\r\n", "# only\n#comments", "\ufeff"])
def test_an_empty_script_is_told(text):
    with pytest.raises(InputError, match=r"is empty, .* `continue 5s"):
        parse_script(text)


@pytest.mark.parametrize(
    "written, told",
    [
        ("continue 0s: x", "1/24 s"),
        ("continue 0.01s: x", "1/24 s"),
        ("continue -3s: x", "-3s long"),
        ("continue \u22123s: x", "1/24 s"),
        ("cut 9s: x", "cut of 9 s, but a cut takes 2 to 5 s"),
        ("cut 1.9s: x", "cut of 1.9 s"),
        ("cut 0s: x", "1/24 s"),
        ("continue 601s: x", "601 s long, but at most 600 s"),
        ("continue 1e9s: x", "'1e9s', but lengths are in seconds"),
        (f"continue {'9' * 5000}s: x", "5000 digits"),
        ("continue 8m: x", "'8m', but lengths are in seconds"),
        ("continue 100 frames: x", "'100 frames'"),
        ("continue 8.5.2s: x", "'8.5.2s'"),
        ("continue 1:30: x", "minutes"),
        ("continue 8s x", "no colon"),
        ("continue 5s x: y", "no colon"),
        ("continue 8s:", "no prompt"),
        ("continue 8s", "no prompt"),
        ("continue", "no prompt"),
        ("cut:", "no prompt"),
        ("cut 4s: [ZOOM_IN_CUT]  ", "no prompt"),
        ("[ZOOM_IN_CUT]", "no prompt"),
        ("continue eight: x", "length 'eight'"),
        ("continue five s: x", "length 'five s'"),
        ("contine 8s: x", "'contine', but the keywords are"),
        ("zoom 4 sec: x", "'zoom'"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(written, told):
    with pytest.raises(InputError) as caught:
        parse_script(f"# first\ncontinue 5s: fine\n{written}\nfine too")
    message = str(caught.value)
    assert message.startswith("Line 3 ") and told in message
    assert message.endswith(".") and len(message) < 250


def test_all_wrong_lines_are_told_up_to_five():
    with pytest.raises(InputError) as caught:
        parse_script("cut 9s: x\nfine\ncontinue 0s: x\n")
    assert str(caught.value).count("Line ") == 2 and "Line 3 " in str(caught.value)
    with pytest.raises(InputError, match=r"Line 5 .* 3 more lines are wrong\.") as caught:
        parse_script("cut 9s: x\n" * 8)
    assert "Line 6" not in str(caught.value)


def test_a_script_has_a_limit():
    assert sum(line.seconds for line in parse_script("continue 300s: x\n" * 2)) == MAX_SECONDS
    with pytest.raises(InputError, match="605 s long in all, but at most 600 s"):
        parse_script("continue 300s: x\n" * 2 + "x")
