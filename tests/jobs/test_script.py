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


@pytest.mark.parametrize(
    "written",
    [
        "- continue 3s: She walks on.", "* continue 3s: She walks on.", "• continue 3s: She walks on.",
        "-continue 3s: She walks on.", "– continue 3s: She walks on.", "> continue 3s: She walks on.",
        "1. continue 3s: She walks on.", "1) continue 3s: She walks on.", "(1) continue 3s: She walks on.",
        "12.continue 3s: She walks on.", "1、continue 3s: She walks on.", "① continue 3s: She walks on.",
        "- [ ] continue 3s: She walks on.", "- 1. **continue 3s:** She walks on.", "**continue 3s**: She walks on.",
        "**continue** 3s: She walks on.", "**continue 3s: She walks on.**", "*continue 3s:* She walks on.",
        "`continue 3s`: She walks on.", "`continue 3s: She walks on.`", "__continue 3s:__ She walks on.",
        '"continue 3s: She walks on."', '"continue 3s: She walks on.",', "'continue 3s: She walks on.'",
        "“continue 3s: She walks on.”", "「continue 3s：She walks on.」", 'continue 3s: "She walks on."',
        "Shot 1: continue 3s: She walks on.", "**Shot 1:** continue 3s: She walks on.",
        "Scene 2 - continue 3s: She walks on.", "镜头1：继续 3秒：She walks on.", "1: continue 3s: She walks on.",
        "Continue for 3 seconds: She walks on.", "continue (3s): She walks on.", "continue [3s]: She walks on.",
        "continue (3 s) She walks on.", "continue: 3s: She walks on.", "[continue 3s] She walks on.",
        "[continue 3s: She walks on.]", "[CONTINUE] 3s: She walks on.", "(continue, 3s): She walks on.",
        "继续 3秒：She walks on.", "继续3秒：She walks on.", "继续（3秒）：She walks on.",
        "繼續 3 秒钟：She walks on.", "续写 3：She walks on.", "continue 3秒: She walks on.",
        "\ufeffcontinue 3s: She walks on.", "\u200bcontinue 3s: She walks on.",
        "con\u200btinue\u2060 3s: She walks on.",
        "\u200e\u202acontinue 3s: She walks on.\u202c", "\u200dcontinue 3s: She walks on.",
    ],
)  # fmt: skip
def test_what_stands_around_a_line_is_left_out(written):
    assert one(written) == Line(1, "continue", Fraction(3), "She walks on.")


@pytest.mark.parametrize(
    "written",
    [
        "cut 2s: [ZOOM_IN_CUT] Her face.", "- cut 2s: [ZOOM_IN_CUT] Her face.", "[ZOOM_IN_CUT] 2s: Her face.",
        "cut [ZOOM_IN_CUT] 2s: Her face.", "cut: [ZOOM_IN_CUT] 2s: Her face.", "cut 2s: **[ZOOM_IN_CUT]** Her face.",
        "cut 2s: [zoom in cut] Her face.", "cut 2s: [Zoom-In-Cut] Her face.", '"cut 2s: [ZOOM_IN_CUT] Her face.",',
        "切 2秒：[ZOOM_IN_CUT] Her face.", "切换 2秒：【ZOOM_IN_CUT】Her face.", "切镜头2秒：[ZOOM_IN_CUT] Her face.",
        "[0-2s] cut: [ZOOM_IN_CUT] Her face.", "**[cut 2s]** [ZOOM_IN_CUT] Her face.",
        "cut 2s: `[ZOOM_IN_CUT]` Her face.", "切 [ZOOM_IN_CUT] 2秒：Her face.",
        "1\ufe0f\u20e3 cut 2s: [ZOOM_IN_CUT] Her face.",
        "cut for 2 seconds: [ZOOM_IN_CUT] Her face.",
    ],
)  # fmt: skip
def test_cuts_in_every_writing(written):
    line = one(written)
    assert (line.kind, line.seconds, line.prompt) == ("cut", 2, "[ZOOM_IN_CUT] Her face.")


@pytest.mark.parametrize(
    "written",
    [
        "[0-2s] A\n[2-4s] B", "[0s-2s] A\n[2s-4s] B", "0-2s: A\n2-4s: B", "(0–2s) A\n(2–4s) B",
        "[00:00-00:02] A\n[00:02-00:04] B", "0:00 - 0:02: A\n0:02 - 0:04: B", "[0-2s]: A\n[2-4s]: B",
        "[0-2s: A]\n[2-4s: B]", "**[0-2s]** A\n**[2-4s]** B", "- 0:00–0:02 | A\n- 0:02–0:04 | B",
        "【0-2秒】A\n【2-4秒】B", "0到2秒：A\n2到4秒：B", "[0 to 2 sec] A\n[2 to 4 sec] B",
        "[00:00:00 → 00:00:02] A\nB",
    ],
)  # fmt: skip
def test_times_from_when_to_when(written):
    first, second = parse_script(written)
    assert (first.prompt, first.seconds, first.kind, first.automatic) == ("A", 2, "continue", True)
    assert second.prompt == "B" and second.seconds in (2, 5)


def test_an_answer_of_a_language_model():
    answer = (
        "```text\n1. **continue 2s:** She walks on, **slowly**.\n---\n2. **cut 2s:** [ZOOM_IN_CUT] Her face.\n```\n"
    )
    assert [(line.number, line.seconds, line.prompt) for line in parse_script(answer)] == [
        (2, 2, "She walks on, **slowly**."),
        (4, 2, "[ZOOM_IN_CUT] Her face."),
    ]
    with pytest.raises(InputError, match=r"^Line 1 stands outside of the code fence.*Line 7 stands outside"):
        parse_script(f"Here it is!\n{answer}Enjoy it.")
    with pytest.raises(InputError, match=r"^Line 1 ends with a colon"):
        parse_script("Here is your script:\ncontinue 2s: She walks on.")
    assert len(parse_script("~~~\nShe walks on.\n~~~\ncut 2s: Her face.")) == 2
    assert len(parse_script("She walks on.\n```")) == 1  # half a fence
    listed = '[\n  "continue 2s: She says \\"no\\".",\n  "cut 2s: Her face."\n]'
    assert [line.prompt for line in parse_script(listed)] == ['She says "no".', "Her face."]


@pytest.mark.parametrize("end", "\u2028 \u2029 \x0b \x0c \x85 \r \r\n".split(" "))
def test_lines_end_as_other_programs_end_them(end):
    assert [line.kind for line in parse_script(f"continue 2s: a{end}cut 2s: b")] == ["continue", "cut"]


@pytest.mark.parametrize(
    "prompt",
    [
        '"Hello," she says, and "goodbye".', "3 birds fly.", "She is 8.5 m tall.", "继续走。", "切3个苹果放进碗里",
        "继续走在街上：她微笑", "切菜的手", "A clock shows 10:30 - 11:00 o'clock.", "[1-2 people] A street",
        "Cut grass - 5 cm high", "The 5s of a card game", "She counts to 3-2-1: go!", "👨\u200d👩\u200d👧 walk",
        "A 5 second rule", "In 2024: a street", "10-20 people walk", "Cut to black.",
    ],
)  # fmt: skip
def test_more_prompts_that_look_like_orders(prompt):
    assert one(prompt) == Line(1, "continue", Fraction(5), prompt, automatic=True)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("[3s: She walks on.]", "has the time '[3s:' and no keyword"),
        ("[5s] She walks on.", "has the time '[5s]'"),
        ("(5s) She walks on.", "has the time '(5s)'"),
        ("8s: She walks on.", "has the time '8s:'"),
        ("- 8s: She walks on.", "has the time '8s:'"),
        ("8秒：她走。", "has the time '8秒:'"),
        ("Shot 1 (5s): She walks on.", "has the time 'Shot 1 (5s):'"),
        ("She walks on. (5s)", "inside of its prompt"),
        ("continue: She walks on. [5 sec].", "inside of its prompt"),
        ("continue 5s: a; cut 4s: b", "'cut 4s:' inside of its prompt"),
        ("Then we continue 4s: b", "'continue 4s:' inside"),
        ("延长 5秒：她走。", "'延长', but the keywords"),
        ("weiter 5s: x", "'weiter'"),
        ("Continue the shot for 8 seconds: x", "'the shot for 8 seconds'"),
        ("继续八秒：x", "length '八秒'"),
        ("continue 1,000s: x", "'1,000s', where the comma"),
        ("continue 2,125s: x", "where the comma"),
        ("continue 1 000s: x", "'1 000s'"),
        ("[2-1s] x", "the second time must be the later"),
        ("[3-5s] x", "begins at 3 s, but the lines before it end at 0 s"),
        ("[0-3s] continue 2s: x", "the times 0 to 3 and a length of 2 s"),
        ("[0-9s] cut: x", "cut of 9 s"),
        ('{"type": "cut", "seconds": 2, "prompt": "x"}', "begins with JSON"),
        ('["continue 1s: a", "cut 2s: b"]', "begins with JSON"),
        ("- type: cut\n  seconds: 2\n  prompt: x", "begins with JSON or YAML"),
        ('[\n {\n  "prompt": "x"\n }\n]', "begins with JSON"),
        ("| 1 | cut | 2s | x |\n|---|---|---|---|", "begins with a table"),
        ("Scene 1:", "ends with a colon"),
    ],
)
def test_near_misses_are_told_and_never_prompts(written, told):
    with pytest.raises(InputError) as caught:
        parse_script(written)
    message = str(caught.value)
    assert message.startswith("Line ") and told in message and message.count("Line ") == 1
    assert message.endswith(".") and len(message) < 250
