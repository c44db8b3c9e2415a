"""What language models are asked for, and what their answers become."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.extension.script import CUT_SECONDS, parse_script
from pack.skyreels_v3.jobs.film.grammar.script import parse_film
from pack.skyreels_v3.jobs.writing.answer import MAX_LETTERS, Kind, read_answer, written_line
from pack.skyreels_v3.jobs.writing.brief import ANY_CUT, CUT_NAMES, EXAMPLES, Task, brief
from pack.skyreels_v3.jobs.writing.cuts import CUTS, TAGS, with_tag_mended

FOX = "continue 5s: A red fox walks through deep snow."


@pytest.mark.parametrize("task", Task)
def test_a_brief_has_the_idea_and_an_example_that_is_read(task):
    made = brief("  a fox\n in snow ", task, references=2, seconds=20, cast=[("anna", True), ("cafe", False)])
    assert made.prompt == "The idea: a fox in snow"
    assert made.together == f"{made.system}\n\n{made.prompt}"
    example = made.system.partition("Example")[2].partition(":")[2].strip().split("\n")
    if task in (Task.REFERENCE, Task.AVATAR):
        assert example[0] in EXAMPLES and len(example) == 1
    else:
        lines = (parse_film if task is Task.FILM else parse_script)("\n".join(example))
        assert len(lines) == len(example)
    assert read_answer("\n".join(example), Kind.FILM).text == "", "what is copied from the brief is left out"


def test_a_brief_says_how_many_pictures_which_cut_and_how_long():
    assert "3 pictures" in brief("a", Task.REFERENCE, references=3).system
    assert "one picture" in brief("a", Task.REFERENCE).system
    for cut in CUTS:
        told = brief("a", Task.CUT, cut=cut.name, seconds=9).system
        assert [one for one in CUTS if one.tag in told] == [cut]
        assert f"cut {CUT_SECONDS[1]}s: {cut.tag} {cut.example}" in told
    assert all(cut.tag in brief("a", Task.CUT, cut=ANY_CUT).system for cut in CUTS)
    assert CUT_NAMES[0] == ANY_CUT
    film = brief("a", Task.FILM, cast=[("anna", True), ("cafe", False)]).system
    assert "anna, cafe" in film and "These have one: anna." in film
    assert "Nobody speaks." in brief("a", Task.FILM, cast=[("cafe", False)]).system


@pytest.mark.parametrize("idea", ["", " \n\t", "a" * 20_001])
def test_no_idea_and_a_whole_book_are_refused(idea):
    with pytest.raises(InputError, match="idea"):
        brief(idea, Task.CUT)


@pytest.mark.parametrize(
    "written",
    [
        FOX,
        f"Sure! Here is your script:\n\n```\n{FOX}\n```\nLet me know if you want changes!",
        f"```text\n{FOX}\n```",
        f"<think>\nFirst cut 4s: [ZOOM_IN_CUT] no, not so.\n</think>\n\n{FOX}",
        f"I think cut 4s: a bird.\n</think>\n{FOX}",  # the host's template has opened it
        f"<|channel>thought\nHmm.<channel|>{FOX}<turn|>",
        f"<|channel|>analysis<|message|>Hmm.<|end|><|channel|>final<|message|>{FOX}<|return|>",
        f"{FOX}<|im_end|>",
        f"Certainly, I've written one shot:\n1. {FOX}\n\nNote: it is short.\nTotal: 5 seconds",
        f"**Shot 1:** {FOX}",
        f"### Shot 1: the fox\n{FOX}",
        f"**Shot 1**\n{FOX}",
        "Shot 1:\ncontinue 5s:\nA red fox walks through deep snow.",
        "continue 5s:\n\nA red fox walks through deep snow.",
        "continue 5s: A red fox walks\nthrough deep snow.",
        "> **continue 5s:** A red fox walks through deep snow.",
        "[0-5s] A red fox walks through deep snow.",
        "好的，以下是分镜：\n继续 5秒：A red fox walks through deep snow.",
        "A red fox walks through deep snow.",
        '```json\n[{"type": "continue", "seconds": 5, "prompt": "A red fox walks through deep snow."}]\n```',
        '{"a": {"shots": [{"Kind": "Continue", "duration": "5s", "text": "A red fox walks through\\ndeep snow."}]}}',
        f'Sure! ["{FOX}"] Enjoy!',
        '[{"prompt": "A red fox walks through deep snow."}]',
        "Here is a 5 second prompt:\n\nA red fox walks through deep snow.",
    ],
)
def test_what_stands_around_a_script_goes(written):
    for kind in (Kind.SCRIPT, Kind.FILM):
        assert read_answer(written, kind).text == FOX
        assert read_answer(written, kind).told == ()


@pytest.mark.parametrize(
    ("written", "script", "told"),
    [
        ("cut 9s: [ZOOM_IN_CUT] Its face.", "cut 5s: [ZOOM_IN_CUT] Its face.", "nearest"),
        ("cut 1s: [ZOOM_IN_CUT] Its face.", "cut 2s: [ZOOM_IN_CUT] Its face.", "nearest"),
        ("continue 700s: It runs.", "continue 600s: It runs.", "nearest"),
        ("cut 4s: [Zoom In] Its face.", "cut 4s: [ZOOM_IN_CUT] Its face.", ""),
        ("cut 4s: [PULL-OUT CUT] The hill.", "cut 4s: [ZOOM_OUT_CUT] The hill.", ""),
        ("cut 4s [Cutaway]: A bird.", "cut 4s: [CUT_AWAY_CUT] A bird.", ""),
        ("cut 4s: **[WIDE SHOT]** The hill.", "cut 4s: [ZOOM_OUT_CUT] The hill.", ""),
        ("cut 4s: REVERSE_SHOT_CUT The hunter.", "cut 4s: [SHOT_REVERSE_SHOT_CUT] The hunter.", ""),
        ("Shot 2: cut 4s: <multi_angle_cut> From behind.", "cut 4s: [MULTI_ANGLE_CUT] From behind.", ""),
        ("[ZOOM_IN] Its face.", "cut 5s: [ZOOM_IN_CUT] Its face.", ""),
        ("cut 4s: [WHIP_PAN_CUT] A bird.", "cut 4s: A bird.", "WHIP_PAN_CUT"),
        ("continue 4s: [ZOOM_IN_CUT] Its face.", "cut 4s: [ZOOM_IN_CUT] Its face.", "it is a cut now"),
        ("cut 4s: [Anna] waits.", "cut 4s: [Anna] waits.", ""),
        (f"{FOX}\ncontinue ten: It runs.", FOX, "Line 2 has the length"),
        (f"{FOX}\n\nThe fox is shy by nature.", FOX, "Line 3 is left out, it has no order"),
        (f"{FOX}\n| a | b |", FOX, "a table"),
        ('{"shots": [{"type": "cut"}]}', "", "JSON or YAML"),
    ],
)
def test_lines_are_mended_and_what_stays_wrong_is_told(written, script, told):
    for kind in (Kind.SCRIPT, Kind.FILM):
        answer = read_answer(written, kind)
        assert answer.text == script
        assert told in " ".join(answer.told) and bool(told) == bool(answer.told)


def test_every_word_for_a_tag_is_mended_and_official_ones_stay():
    for word, tag in TAGS.items():
        for written in (f"[{word}_CUT]", f"[{word.replace('_', ' ').title()}]", f"({word.lower()}_cut)"):
            assert with_tag_mended(f"cut 4s: {written} A fox.") == (f"cut 4s: {tag} A fox.", None)
    for cut in CUTS:
        assert with_tag_mended(f"{cut.tag} A fox.") == (f"{cut.tag} A fox.", None)
    for line in ("She reads: [a letter] lies there.", "A fox at 5:30 [morning].", "scene 5s [wide]: A fox."):
        assert with_tag_mended(line) == (line, None)


def test_a_films_lines_stay_with_all_that_they_hold():
    film = (
        "scene 30s [anna, cafe] {seed 0, takes 3, take best, lock}: Anna waits.\n"
        "speak [anna: hello.wav, ben] {together}: They talk.\nclip harbour.mp4 3s-8.5s\nclip whole.mov\n"
        "dub a.mp4 0s-2.5s [anna: b.wav] {box 0 0 1 1, start 1.5}\n"
        "cut 4s {guidance 2.5, name door}: [ZOOM_IN_CUT] A fox."
    )
    assert read_answer(film, Kind.FILM).text == film
    assert read_answer(film.replace("30s", "40s"), Kind.FILM).text == film
    told = read_answer(film, Kind.SCRIPT)
    assert told.text == "" and "Line 1 is a scene, which Film alone makes" in " ".join(told.told)


def test_lines_end_where_the_seconds_do():
    script = "continue 8s: A.\ncut 4s: [ZOOM_IN_CUT] B.\ncontinue 8s: C."
    assert read_answer(script, Kind.SCRIPT, 11).text == "continue 8s: A.\ncut 3s: [ZOOM_IN_CUT] B."
    answer = read_answer(script, Kind.SCRIPT, 9)
    assert answer.text == "continue 8s: A." and answer.seconds == 8
    assert answer.told == ("Line 2 and those behind it are left out: 9 s are full.",)
    assert read_answer(script, Kind.SCRIPT, 20).told == ()


@pytest.mark.parametrize(
    ("written", "prompt"),
    [
        ("A fox walks.", "A fox walks."),
        ("**Prompt:** A fox walks.\n\nIt stops.\n\nNote: it is short.", "A fox walks. It stops."),
        ("Sure, here's your prompt:\n```\nA fox walks.\n```\nEnjoy!", "A fox walks."),
        ("# The fox\n\n“A fox walks.”", "A fox walks."),
        ("<think>a bird</think>Final prompt: A fox walks.", "A fox walks."),
        ("continue 5s: A fox walks.", "A fox walks."),
        ("Okay the fox walks.", "Okay the fox walks."),
        ("Here a fox walks.", "Here a fox walks."),
        ('{"prompt": "A fox walks."}', "A fox walks."),
        ('{"shots": [{"type": "cut"}]}', ""),
        ("", ""),
        ("<think>and so on", ""),
    ],
)
def test_one_prompt(written, prompt):
    assert read_answer(written, Kind.PROMPT).text == prompt


def test_an_endless_answer_ends_with_a_sentence():
    words = "A fox walks on through the snow and looks up. " * 700
    for kind in Kind:
        answer = read_answer(words, kind)
        assert MAX_LETTERS // 2 < len(answer.text) <= MAX_LETTERS + 20 and answer.text.endswith("looks up.")
        assert "longer than the model reads" in answer.told[0]


PIECES = (
    "continue 5s: |cut 9s: |cut [ZOOM_IN] 3s: |scene 5s [anna]: |speak [anna: a.wav]: |clip a.mp4 3s-8s|[ZOOM_IN_CUT] |"
    "(wide shot) |She walks on|\n|\n\n|```\n|Sure! |Shot 2: |1. |- |**|<think>|</think>|: |{seed 3}|[0-2s] |"
    'A fox, 5s: |继续 5秒：|WHIP_PAN_CUT |"|# head\n|{|}|at 5:30 '
).split("|")


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@settings(max_examples=300, deadline=None)
def test_whatever_is_answered_what_comes_out_is_a_script(text):
    for kind, parse in ((Kind.SCRIPT, parse_script), (Kind.FILM, parse_film)):
        script = read_answer(text, kind).text
        if script:
            lines = parse(script)
            assert len(lines) == len(script.split("\n"))
            if kind is Kind.FILM:
                assert "\n".join(map(written_line, lines)) == script
    read_answer(text, Kind.PROMPT)
