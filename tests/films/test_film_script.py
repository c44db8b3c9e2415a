"""The script of a film: what its lines mean, what is told of wrong ones, and how cards change it."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.extension.script import parse_script
from pack.skyreels_v3.jobs.film.film_check import check_film
from pack.skyreels_v3.jobs.film.grammar.check import Known, missing
from pack.skyreels_v3.jobs.film.grammar.edit import edited
from pack.skyreels_v3.jobs.film.grammar.line import BEST, FilmLine, Options, Voice
from pack.skyreels_v3.jobs.film.grammar.script import parse_film, read_film
from pack.skyreels_v3.recipes import Job

FILM = """\
# the café
scene 5s [anna, cafe]: Anna comes into the cafe and looks round.
continue 8s: She walks to the window.
cut 4s {seed 7}: [ZOOM_IN_CUT] The scene cuts from the room to her hands.
speak [anna: hello.wav]: Anna talks to somebody outside the window.
speak [anna: question.wav, ben: answer.wav] {together}: They talk.
scene 5s [anna, last] {takes 3, take best, name door}: She opens the door.
clip harbour.mp4 3s-8s
"""


def test_a_whole_film():
    lines = parse_film(FILM)
    assert [line.kind for line in lines] == ["scene", "continue", "cut", "speak", "speak", "scene", "clip"]
    assert [line.number for line in lines] == [2, 3, 4, 5, 6, 7, 8]
    assert lines[0].references == ("anna", "cafe") and lines[0].seconds == 5
    assert lines[2].options == Options(seed=7)
    assert lines[3].voices == (Voice("anna", "hello.wav"),)
    assert lines[4].voices[1] == Voice("ben", "answer.wav") and lines[4].options.together
    assert lines[5].options == Options(takes=3, take=BEST, name="door")
    assert lines[5].options.numbers == (1, 2, 3)
    assert (lines[6].file, lines[6].start, lines[6].stop) == ("harbour.mp4", 3, 8)
    assert [line.job for line in lines][-2:] == [Job.REFERENCE, None]


@pytest.mark.parametrize(
    "written",
    [
        "continue 5s: She walks on.\ncut 4s: [ZOOM_IN_CUT] Close-up of her face.",
        "Shot 2: cut 4s: [ZOOM_IN_CUT] Her face.",
        "[0-2s] She waits.\n[2-4s] She walks.",
        "Scene 2: She walks on.",
        "Speak softly to her, please: that is all.",
        "Clip of a man walking.",
        "She {walks|runs} on.",
        "Scene 1: continue 5s: She walks.",
        "继续 8秒：她走。\n切 4秒：[ZOOM_IN_CUT] 她的脸。",
        "Speakers: two big boxes.\nScenery: wide hills.\nLight [warm]: soft.\nThe clip shows a man.",
        "continue 5s: Scene 5 people talk in [a room]: they laugh.",
    ],
)
def test_the_script_of_extend_video_means_the_same(written):
    old = [(line.number, line.kind, line.seconds, line.prompt) for line in parse_script(written)]
    assert [(line.number, line.kind, line.seconds, line.prompt) for line in parse_film(written)] == old


@pytest.mark.parametrize(
    "written, same",
    [
        ("Scene 5 sec [ anna ,cafe ] : x", "scene 5s [anna, cafe]: x"),
        ("scene [anna, cafe] 5s: x", "scene 5s [anna, cafe]: x"),
        ("- **scene 5s [anna, cafe]:** x", "scene 5s [anna, cafe]: x"),
        ("场景 5秒 【anna，cafe】：x", "scene 5s [anna, cafe]: x"),
        ("cut {seed=7} 4s: x", "cut 4s {seed 7}: x"),
        ("Shot 3: cut 4s {seed: 7}: x", "cut 4s {seed 7}: x"),
        ("[ZOOM_IN_CUT] {seed 7} x", "cut 5s {seed 7}: [ZOOM_IN_CUT] x"),
        ("clip [harbour.mp4] 0:03 - 0:08", "clip harbour.mp4 3s-8s"),
        ("clip 'my harbour.mp4' 2s", "clip my harbour.mp4 0s-2s"),
        ("片段 harbour.mp4 3秒-", "clip harbour.mp4 3-"),
        ("Shot 3: scene 5s [anna]: x", "scene 5s [anna]: x"),
        ("Scene 1 - speak [anna] {lock}: x", "speak [anna] {lock}: x"),
        ("3 | clip harbour.mp4 3s-8s", "clip harbour.mp4 3s-8s"),
    ],
)
def test_ways_to_write_the_same(written, same):
    assert parse_film(written) == parse_film(same)


@pytest.mark.parametrize(
    "written, told",
    [
        ("scene 5s: x", "without pictures"),
        ("scene 5s [a, b, c, d, e]: x", "names 5 pictures"),
        ("scene 31s [a]: x", "at most 30 s"),
        ("scene 1,500s [a]: x", "of thousands"),
        ("scene soon [a]: x", "the length 'soon'"),
        ("scene 5s [a", "not closed"),
        ("scene 5s [a] She walks.", "no colon"),
        ("scene 5s [a]:", "no prompt"),
        ("scene 5s [a: b.wav]: x", "recordings are for `speak`"),
        ("scene 5s [a] [b]: x", "two brackets"),
        ("scene 5s [a]: x. cut 4s: y", "inside of its prompt"),
        ("continue 5s [anna]: x", "pictures are for a `scene`"),
        ("continue 5s: She walks. {seed 7}", "before the colon"),
        ("continue 5s {sed 7}: x", "the option 'sed'"),
        ("continue 5s {seed}: x", "without a value"),
        ("continue 5s {seed 7, seed 8}: x", "twice"),
        ("continue 5s {seed -1}: x", "a whole number"),
        ("continue 5s {steps 0}: x", "a whole number"),
        ("continue 5s {guidance 50}: x", "a number from 1 to 30"),
        ("continue 5s {lock yes}: x", "stands alone"),
        ("continue 5s {takes 3, take 5}: x", "take 5 of 3"),
        ("continue 5s {take best}: x", "makes only one"),
        ("continue 5s {name last}: x", "the last frame so far"),
        ("continue 5s {together}: x", "`speak` alone"),
        ("continue 5s {lock: x", "not closed"),
        ("cut 6s {lock}: x", "2 to 5 s"),
        ("speak [a: b.wav, c: d.wav, e: f.wav]: x", "3 voices"),
        ("speak 5s [a: b.wav]: x", "the recording says"),
        ("speak [a:]: x", "a name and a file"),
        ("speak: x", "without a voice"),
        ("clip harbour.mp4 8s-3s", "the later one"),
        ("clip harbour.mp4 {seed 3}", "nothing is made"),
        ("clip harbour.mp4: She walks.", "no prompt"),
        ("clip", "without a file"),
        ("cut 4s {seed 7} {lock}: x", "two braces"),
        ("scene 5s [a]: x. scene 5s [b]: y", "inside of its prompt"),
        ("continue 5s: x speak [a]: y", "inside of its prompt"),
        ("continue 5s: x clip harbour.mp4", "inside of its prompt"),
        *((line, "begins like a scene") for line in ("scene 0:05 [a]: x", "scene 5s (a): x", "scene 5s", "scene")),
        *((line, "begins like a speak") for line in ("speak a: x", "speak (a): x", "speak 5s: x", "speaks [a]: x")),
        *(
            (f"clip {rest}", "begins like a clip")
            for rest in ("a.mp4 3..8", "a.mp4 -3s", "a.mp4 (3s-8s)", "[a.mp4]: x")
        ),
        ("szene 5s [a]: x", "begins with 'szene'"),
        ("clips a.mp4", "begins with 'clips'"),
        ("dubs a.mp4 [a]: x", "begins with 'dubs'"),
        ("clip a.mp4 0:03-0:08 {name sea}: x", "no prompt"),
        ("dub my clip.mov", "without a voice"),
        ("dub a.mp4 0:03-0:08: She talks [softly]", "without a voice"),
        ("dub [a.wav]: x", "without footage"),
        ("dub a.mp4 [a.wav, b.wav]: x", "2 voices, but one person"),
        ("dub a.mp4 [a.wav] 0:03-0:08: x", "behind its voice"),
        ("dub a.mp4 [a.wav] She talks", "behind its voice"),
        ("dub a.mp4 8s-3s [a.wav]: x", "the later one"),
        ("dub a.mp4 [a.wav] {box 0.3 0 0.2 1}: x", "the box '0.3 0 0.2 1'"),
        ("dub a.mp4 [a.wav] {box}: x", "left, top, right, bottom"),
        ("dub a.mp4 [a.wav] {strength 2}: x", "a number from 0.05 to 1"),
        ("dub a.mp4 [a.wav] {start 1s-2s}: x", "seconds into the footage"),
        ("dub a.mp4 [a.wav]: x {seed 7}", "before the colon"),
        ("dub a.mp4 (a.wav): x", "begins like a dub"),
        ("dubs a.mp4 3s-8s [a.wav]", "begins with 'dubs'"),
        ("continue 5s: x dub a.mp4 [a.wav]", "inside of its prompt"),
        ("speak [a.wav] {box 0 0 1 1}: x", "`dub` alone"),
    ],
)
def test_a_wrong_line_is_told_in_one_sentence(written, told):
    lines, wrong = read_film(f"# a comment\n{written}\ncontinue 5s: This one is right.")
    assert [line.number for line in lines] == [3]
    assert list(wrong) == [2] and wrong[2].startswith("Line 2 ") and told in wrong[2], wrong
    assert wrong[2].endswith(".") and "\n" not in wrong[2]


def test_a_script_of_200_lines_and_one_that_is_too_long():
    assert len(parse_film("scene 3s [anna]: She waits.\n" * 200)) == 200
    with pytest.raises(InputError, match="at most 600 s"):
        parse_film("scene 5s [anna]: She waits.\n" * 200)
    with pytest.raises(InputError, match="195 more lines are wrong"):
        parse_film("scene 5s: She waits.\n" * 200)


KNOWN = Known(
    {"Anna": True, "Ben": False, "cafe": False},
    {"harbour.mp4", "hello.wav", "dog.png"}.__contains__,
    set(Job),
    audio_encoder=True,
    clip_vision=True,
)


@pytest.mark.parametrize(
    "written, told",
    [
        ("continue 5s: x", "nothing comes before it"),
        ("speak [anna]: x", "nothing comes before it"),
        ("scene [anna, last]: x", "nothing comes before it"),
        ("scene [ana]: x", "the picture 'ana'"),
        ("scene [door]: x\ncontinue 5s {name door}: y", "which is line 2"),
        ("scene [anna] {name ben}: x", "a picture of the cast"),
        ("scene [anna] {name door}: x\ncut 4s {name Door}: y", "the name of line 1"),
        ("clip sea.mp4", "the file 'sea.mp4'"),
        ("scene [anna]: x\nspeak [ben]: y", "no recording"),
        ("scene [anna]: x\nspeak [eva: hello.wav]: y", "the person 'eva'"),
        ("scene [anna]: x\nspeak [anna: bye.wav]: y", "the file 'bye.wav'"),
        ("dub sea.mp4 [anna]", "the file 'sea.mp4'"),
        ("dub harbour.mp4 [bye.wav]", "the file 'bye.wav'"),
        ("dub harbour.mp4 [ben]", "as in `dub harbour.mp4 [ben: hello.wav]"),
        ("dub harbour.mp4 [eva]", "the person 'eva'"),
    ],
)
def test_what_is_missing_is_told_with_its_line(written, told):
    (sentence,) = missing(parse_film(written), KNOWN).values()
    assert sentence.startswith("Line ") and told in sentence


def test_a_dialogue_is_alone_on_its_line_and_needs_no_audio_encoder():
    known = Known(
        {"Table": True, "anna": True}, audio_encoder=False, clip_vision=True, source=True, dialogues=["Table"]
    )
    assert missing(parse_film("speak [table]: x"), known) == {}
    assert check_film("speak [table]: x", known).lines[1].models == ("avatar_model", "clip_vision")
    for line, told in (
        ("speak [table, anna]: x", "beside another voice"),
        ("dub a.mp4 [table]", "is a dialogue"),
        ("speak [anna]: x", "audio_encoder"),
        ("speak [table: a.wav]: x", "audio_encoder"),
    ):
        assert told in missing(parse_film(line), known)[1]


def test_what_is_there_is_not_missing():
    written = "scene [ANNA, cafe, dog.png] {name door}: x\nspeak [anna]: y\nscene [door, last]: z\nclip harbour.mp4"
    assert missing(parse_film(written), KNOWN) == {}
    assert missing(parse_film("continue 5s: x"), Known(source=True)) == {}
    assert missing(parse_film("dub harbour.mp4 [eva: hello.wav]\ncontinue 2s: x"), KNOWN) == {}, "eva is in the footage"
    assert missing(parse_film("scene [who]: x\nspeak [she]: y\nclip a.mp4"), Known()) == {}, "a page knows little"


@pytest.mark.parametrize(
    "kind, job, entry",
    [
        ("cut 4s", Job.SHOT, "shot_model"),
        ("speak [anna]", Job.AVATAR, "avatar"),
        ("dub harbour.mp4 [anna]", Job.AVATAR, "avatar_model"),
    ],
)
def test_a_line_without_its_model(kind, job, entry):
    lines = parse_film(f"clip harbour.mp4\n{kind}: x")
    (sentence,) = missing(lines, Known(KNOWN.cast, KNOWN.has_file, set(Job) - {job})).values()
    assert sentence.startswith("Line 2 ") and entry in sentence
    (sentence,) = missing(parse_film("clip harbour.mp4\nspeak [anna]: x"), Known(audio_encoder=False)).values()
    assert "audio_encoder" in sentence


@pytest.mark.parametrize(
    "line, word, value, becomes",
    [
        ("cut 4s: x", "seed", "8", "cut 4s {seed 8}: x"),
        ("cut 4s {seed 7}: x", "seed", "8", "cut 4s {seed 8}: x"),
        ("cut 4s {seed 7, lock}: x", "lock", None, "cut 4s {seed 7}: x"),
        ("cut 4s {lock}: x", "lock", None, "cut 4s: x"),
        ("  - scene [anna] : a: {b}", "lock", "", "  - scene [anna] {lock}: a: {b}"),
        ("speak [anna: a.wav]: x", "takes", "3", "speak [anna: a.wav] {takes 3}: x"),
        ("clip harbour.mp4 3s-8s", "name", "sea", "clip harbour.mp4 3s-8s {name sea}"),
        ("dub a.mp4 0:03-0:08 [b.wav]: x", "seed", "8", "dub a.mp4 0:03-0:08 [b.wav] {seed 8}: x"),
        ("dub a.mp4 [b.wav] {box 0.3, 0, 0.7, 1}", "lock", "", "dub a.mp4 [b.wav] {box 0.3, 0, 0.7, 1, lock}"),
        ("继续 8秒：她走。", "take", "2", "继续 8秒 {take 2}：她走。"),
        ("Shot 2: cut 4s: x", "seed", "8", "Shot 2: cut 4s {seed 8}: x"),
        ("3 - Shot 2: scene [anna] {lock}: x", "lock", None, "3 - Shot 2: scene [anna]: x"),
        ("She walks on.", "seed", "8", "She walks on."),  # has no place for it
        ("cut 40s: x", "seed", "8", "cut 40s: x"),  # is wrong
    ],
)
def test_a_card_changes_one_option_of_one_line(line, word, value, becomes):
    text = f"# first\r\n{line}\ncontinue 5s: {{y}} stays"
    assert edited(text, 2, word, value) == f"# first\r\n{becomes}\ncontinue 5s: {{y}} stays"


def test_what_is_seen_while_it_is_written():
    text = (
        "scene 5s [anna]: x\ncontinue 2.5s {takes 2}: y\nspeak [anna]: z\ncut 9s: no\nclip harbour.mp4 3s-8s {name a}"
    )
    checked = check_film(text, KNOWN)
    assert [(one.kind, one.start, one.length, one.missing) for one in checked.lines] == [
        ("scene", 0, 5, 1),
        ("continue", 5, 2.5, 2),
        ("speak", 7.5, None, 1),
        ("", None, None, 1),
        ("clip", None, 5, 1),
    ]
    assert "2 to 5 s" in (checked.lines[3].wrong or "") and checked.to_make == 3
    assert checked.lines[2].models == ("avatar_model", "audio_encoder", "clip_vision")
    assert {line.state for line in checked.lines} == {"planned"} and checked.lines[4].models == ()
    assert check_film(FILM, Known()).loads == 5 and check_film("", KNOWN).lines == ()
    files = {"a.wav": 2.5, "b.wav": 1.0, "harbour.mp4": 9.0}
    timed = "clip harbour.mp4 3s-\nspeak [anna: a.wav, ben: b.wav]: x\nspeak [a.wav, b.wav] {together}: y"
    lengths = [line.length for line in check_film(f"{timed}\nspeak [c.wav]: z", Known(seconds=files.get)).lines]
    assert lengths == [6.0, 3.5, 2.5, None]
    dubbed = check_film("dub harbour.mp4 [a.wav]\ndub harbour.mp4 3s-8s [c.wav]: x", Known(seconds=files.get)).lines
    assert [(line.length, line.start, line.text) for line in dubbed] == [(9.0, 0, "harbour.mp4"), (5.0, 9.0, "x")]
    assert dubbed[0].models == ("avatar_model", "audio_encoder", "clip_vision")
    first, second = check_film("continue 5s: x", Known(source=True)).lines
    assert (first.number, first.kind, second.start) == (0, "clip", None)
    assert "at most 600 s" in (check_film("continue 400s: x\ncontinue 400s: y", Known(source=True)).problem or "")
    assert "characters" in (check_film("x" * 200_000, KNOWN).problem or "")


PIECES = ["scene", "speak", "clip", "continue", "cut", "[", "]", "{", "}", ":", ",", " ", "5s", "anna", "a.wav", "lock"]
PIECES += ["seed 7", "take best", "[ZOOM_IN_CUT]", "3s-8s", "harbour.mp4", "：", "【", "\n", "last", "-", "\N{SNOWMAN}"]
PIECES += ["dub", "box 0 0 1 1", "start 1"]


@settings(deadline=None)  # machines stall
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=200))
def test_any_text_is_read_or_told(text):
    lines, wrong = read_film(text)
    assert not {line.number for line in lines} & set(wrong)
    for number, sentence in wrong.items():
        assert f"Line {number} " in sentence
    for line in lines:
        assert isinstance(line, FilmLine) and (line.prompt or line.kind in ("clip", "dub"))
        assert line.stop is None or line.stop > line.start
        assert line.seconds is None or line.seconds >= Fraction(1, 24)
        changed = edited(text, line.number, "seed", "123")
        again = {one.number: one for one in read_film(changed)[0]}
        assert again[line.number].prompt == line.prompt, "a card never changes the prompt"


def test_a_line_dubs_footage():
    options = "{box 0.3, 0, 70%, .8, strength 1, start 0:01.5}"
    (line,) = parse_film(f"dub harbour.mp4 3s-8s [Anna: hello.wav] {options}: She talks")
    assert (line.kind, line.job, line.file, line.start, line.stop) == ("dub", Job.AVATAR, "harbour.mp4", 3, 8)
    assert line.voices == (Voice("Anna", "hello.wav"),) and line.prompt == "She talks"
    assert line.options == Options(box="0.3, 0, 70%, .8", strength=1, start=Fraction(3, 2))
    (bare,) = parse_film("配音 my harbour.mp4 0:03-0:08【hello.wav】")
    assert (bare.file, bare.start, bare.stop, bare.prompt) == ("my harbour.mp4", 3, 8, "")
    assert parse_film("Shot 3: dub a.mp4 [v.wav]: x") == parse_film("dub a.mp4 [v.wav]: x")
    assert parse_film("dub a.mp4 {box 0 0 1 1} [v.wav]: x") == parse_film("dub a.mp4 [v.wav] {box 0 0 1 1} : x")
    for prompt in ("Dub reggae plays. 3 people dance.", "Dubious men walk in.", "dub: a man dances", "Dub vol.22: x"):
        (line,) = parse_film(prompt)
        assert line.kind == "continue", prompt
