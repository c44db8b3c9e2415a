"""Dialogues: what lines mean, when they are heard, who is driven in a window, and what is told of wrong ones."""

import random
import re
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.images.lettering import lettered
from pack.skyreels_v3.jobs.avatar.plan import plan_avatar
from pack.skyreels_v3.jobs.dialogue.layout import laid_out, part_of, timed
from pack.skyreels_v3.jobs.dialogue.places import read_places
from pack.skyreels_v3.jobs.dialogue.script import Dialogue, Pause, Said, named_files, parse_dialogue, read_dialogue
from pack.skyreels_v3.model.speaker_map import BACKGROUND
from pack.skyreels_v3.speech.company import Company
from pack.skyreels_v3.speech.recording import FPS
from pack.skyreels_v3.speech.speakers import Recording, in_turns, speech_of, speech_of_turns
from pack.skyreels_v3.speech.timeline import COLOURS, timeline
from pack.skyreels_v3.speech.turns import Turn, spoken

SCRIPT = """\
# at the table
anna: hello.wav
pause 0.4s
Ben: audio_1 1:02.5-1:04
ANNA + ben: laugh.wav 1.5s
- 安娜：你好.wav
"""


def test_a_whole_dialogue():
    dialogue = parse_dialogue(SCRIPT)
    assert dialogue == Dialogue(
        (
            Said(2, ("anna",), "hello.wav"),
            Pause(3, Fraction("0.4")),
            Said(4, ("Ben",), "audio_1", Fraction("62.5"), Fraction(64)),
            Said(5, ("anna", "Ben"), "laugh.wav", Fraction(0), Fraction("1.5")),
            Said(6, ("安娜",), "你好.wav"),
        ),
        ("anna", "Ben", "安娜"),
    )
    assert not dialogue.of_one_recording and named_files(SCRIPT) == ["hello.wav", "laugh.wav", "你好.wav"]


@pytest.mark.parametrize(
    ("line", "sound", "start", "stop"),
    [
        ("anna: my take 3.wav", "my take 3.wav", 0, None),
        ("anna: voices/a b.mp3 3s-", "voices/a b.mp3", 3, None),
        ('anna: "hello.wav" 3-5', "hello.wav", 3, 5),
        ("1. **anna**: hello.wav", "hello.wav", 0, None),
        ("anna: Audio 2", "audio_2", 0, None),
        ("anna：audio3 1秒", "audio_3", 0, 1),
        ("anna & ben: 2s to 3.5 sec", "", 2, Fraction("3.5")),
    ],
)
def test_lines_in_every_writing(line, sound, start, stop):
    (said,) = parse_dialogue(line).said
    assert (said.sound, said.start, said.stop) == (sound, start, stop)
    assert said.names[0] == "anna"


@pytest.mark.parametrize("line", ["pause 0.4s", "Pause: 0,4", "pause for .4 sec", "停顿 0.4 秒", "- pause 0.4s"])
def test_pauses_in_every_writing(line):
    assert read_dialogue(line)[0].lines == (Pause(1, Fraction("0.4")),)
    assert read_dialogue("pause −0.4s")[0].lines == (Pause(1, Fraction("-0.4")),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "The script is empty, but it needs a line for each recording, such as `anna: hello.wav`"),
        ("pause 2s", "The script is empty"),
        ("anna", "Line 1 is 'anna', but each line is who and what, such as `anna: hello.wav`, or `pause 0.4s`"),
        ("anna:", "Line 1 gives anna nothing to say: write a recording behind the colon"),
        (": hello.wav", "Line 1 has the name '', but a name has at least one letter"),
        ("anna + : hello.wav", "Line 1 has the name '', but a name"),
        ("anna: Hello, how are you?", "Line 1 gives anna 'Hello, how are you.*which is no recording: .*audio_1`"),
        ("speak [anna: hello.wav]", r"Line 1 has the name 'speak \[anna', but a name is one line"),
        ("anna: audio_9", "Line 1 has the recording 'audio_9', but the inputs are audio_1 to audio_8"),
        ("anna: audio_1.wav 5s-3s", "Line 1 has the times '5s-3s', but the second one must be the later one"),
        ("pause 1s-2s", "Line 1 is a pause of '1s-2s', but a number of seconds is needed"),
        (
            "anna + ben + carl: a.wav",
            r"Line 1 has 3 people speak at once \(anna \+ ben \+ carl\), but the model drives 2",
        ),
        ("anna: a.wav\nben: 0-3s", "Line 2 has times alone, but line 1 has a recording of its own"),
        ("anna: 0-3s\npause 1s\nben: 3s-4s", "Line 2 is a pause, but line 1 is a time of one recording of all"),
        ("| anna | a.wav |", "Line 1 begins with a table, but each line is who and what, such as `anna: hello.wav`"),
        ("\n".join(f"p{n}: a.wav" for n in range(9)), "Line 9 is of p8, the 9th who speaks, but at most 8"),
        ("last: a.wav", "Line 1 has the name `last`"),
    ],
)
def test_wrong_lines_are_told(text, told):
    with pytest.raises(InputError, match=told):
        parse_dialogue(text)


def test_anything_is_read_or_told():
    chance = random.Random(3)
    signs = [
        "anna",
        "ben",
        ":",
        "：",
        "+",
        "pause",
        " ",
        "\n",
        "3s",
        "-",
        "a.wav",
        "audio_1",
        "#",
        "0.4",
        "[",
        '"',
        "１",
    ]
    for _ in range(3000):
        text = "".join(chance.choice(signs) for _ in range(chance.randrange(14)))
        _, wrong = read_dialogue(text)
        assert all(sentence.startswith(f"Line {number} ") for number, sentence in wrong.items()), text


def turns_of(script: str, *seconds: float) -> tuple[list[Turn], float]:
    return laid_out(parse_dialogue(script), seconds)


def test_lines_follow_each_other():
    turns, end = turns_of("a: 1.wav\npause 0.5s\nb: 2.wav\npause -0.25s\nc: 3.wav\npause 2s", 1, 2, 1.5)
    assert turns == [Turn((0,), 0, 1, 1), Turn((1,), 1.5, 3.5, 3), Turn((2,), 3.25, 4.75, 5)] and end == 6.75
    inside, end = turns_of("a: 1.wav\npause -8s\nb: 2.wav\nc: 3.wav", 10, 1, 1)
    assert [one.start for one in inside] == [0, 2, 10], "whoever follows waits for all before"
    with pytest.raises(InputError, match=r"Line 3 begins 0.50 s before the dialogue does: make the pause"):
        turns_of("a: 1.wav\npause -1.5s\nb: 2.wav", 1, 1)


@pytest.mark.parametrize(
    ("script", "seconds", "told"),
    [
        ("a: 1.wav\npause -1s\nb: 2.wav\npause -1s\nc: 3.wav", (2, 1, 1), "Line 5 has c speak while a and b do, but"),
        ("a+b: 1.wav\npause -0.1s\nc: 3.wav", (2, 1), "Line 3 has c speak while a and b do, but the model drives 2"),
        ("a: 1.wav\npause -0.1s\nb + c: 3.wav", (2, 1), "Line 3 has b and c speak while a do"),
        ("a: 1.wav\npause -0.1s\nA: 3.wav", (2, 1), "Line 3 has a speak before line 1 ends, which is theirs too"),
    ],
)
def test_more_at_once_than_the_model_drives_are_told_by_line(script, seconds, told):
    with pytest.raises(InputError, match=told):
        turns_of(script, *seconds)


def test_three_within_a_window_are_well():
    """What is refused is three at once: three in turn are what a table does."""
    turns_of("a: 1.wav\nb: 2.wav\nc: 3.wav\na + b: 4.wav\nc: 5.wav", 0.3, 0.3, 0.3, 0.3, 0.3)


def test_one_recording_with_known_times():
    dialogue = parse_dialogue("b: 0-3.2s\na: 3.0-\nc: 5s-6.02s")
    assert dialogue.of_one_recording
    assert timed(dialogue, 6.0) == [Turn((0,), 0, 3.2, 1), Turn((1,), 3, 6, 2), Turn((2,), 5, 6, 3)]
    with pytest.raises(
        InputError, match=r"Line 1 takes 0 to 3.2 s of the recording, which is 2.00 s long: write times"
    ):
        timed(dialogue, 2.0)
    said = parse_dialogue("a: talk.wav 3s-").said[0]
    assert part_of(said, 4.0, "talk.wav") == (3, 4)
    with pytest.raises(InputError, match=r"takes 3 to 3 s of talk.wav, which is 3.00 s long"):
        part_of(said, 3.0, "talk.wav")


def noise(seconds: float, rate: int = 22050) -> torch.Tensor:
    return 0.1 * torch.randn(1, 2, round(seconds * rate), generator=torch.Generator().manual_seed(round(seconds * 99)))


def test_a_dialogue_of_two_is_heard_as_speech_in_turns():
    """To the bit: who wires two recordings to Speech today gets the same from a script."""
    recordings = in_turns([Recording(noise(0.73), 22050), Recording(noise(0.51, 44100), 44100)], 0.2)
    turns, end = turns_of("a: 1.wav\npause 0.2s\nb: 2.wav", 0.73, 0.51)
    made = speech_of_turns(recordings, turns, 2, end, 200.0)
    assert all(map(torch.equal, made, speech_of(recordings)))


def test_everyone_hears_themselves_alone():
    seconds = 0.5, 0.1, 0.45
    turns, end = turns_of("a: 1.wav\nb: 2.wav\na + c: 3.wav\npause 0.3s", *seconds)
    recordings = [Recording(noise(length), 22050, turn.start) for length, turn in zip(seconds, turns)]
    a, b, c = speech_of_turns(recordings, turns, 3, end, 200.0)
    assert len(a) == len(b) == len(c) == round(end * 16000)
    assert torch.equal(a[9600:], c[9600:]) and not c[:9500].any() and not a[8010:9590].any()
    assert b[8010:9590].any() and not b[:7990].any() and not b[9610:].any(), "a word of 0.1 s is one"
    assert not a[-4000:].any()
    with pytest.raises(InputError, match=r"The speech is 1.4 s long, but at most 1 s are made"):
        speech_of_turns(recordings, turns, 3, end, 1.0)


def driven(script: str, *seconds: float, start: int = 0, frames: int = 81):
    turns, end = turns_of(script, *seconds)
    people = len(parse_dialogue(script).names)
    company = Company.of(turns, people, -(-round(end * FPS * 100) // 100))
    plan = plan_avatar((640, 480), len(company.speaking), people=people)
    window = plan.windows[start] if plan.windows else plan.key_pass
    return company, company.driven(plan.speech_indices(window)[:, 2])


TABLE = "a: 1.wav\npause 0.6s\nb: 2.wav\npause 0.6s\nc: 3.wav\npause 0.6s\na+c: 4.wav\npause 0.6s\nb: 5.wav"


def test_in_every_frame_those_who_speak_are_driven_and_the_others_hear_silence():
    company, made = driven(TABLE, 0.8, 0.8, 0.8, 0.8, 2.0)
    assert made.ranges.shape == (21, 3) and made.heard.shape == (2, 81)
    frames = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(20).repeat_interleave(4) + 1])
    for frame, latent in enumerate(frames):
        speaks = company.speaking[frame].nonzero()[:, 0].tolist()
        for person in range(3):
            seat = made.ranges[latent, person].item()
            if person in speaks:
                assert seat < BACKGROUND and made.heard[seat, frame] == person
            elif len(speaks) == 1 and seat < BACKGROUND:
                assert made.heard[seat, frame] in (person, 3), "a listener hears nobody, or what they have just said"
        assert len(set(made.heard[:, frame].tolist()) - {3}) <= 2
    middle = [1 + round(second * FPS / 4) for second in (0.4, 1.8)]
    for latent, person in zip(middle, (0, 1)):
        others = [made.ranges[latent, one].item() for one in range(3) if one != person]
        assert others == [1 - made.ranges[latent, person].item()] * 2 and 3 in made.heard[:, 4 * latent]


def test_whoever_speaks_on_stays_where_they_are():
    """A range is given to another one only where that one needs it."""
    _, made = driven("a: 1.wav\npause -1s\nb: 2.wav\npause -0.4s\nc: 3.wav\npause -0.5s\na: 4.wav", 2, 1.5, 1.2, 1)
    for person in range(3):
        seats = made.ranges[:, person].tolist()
        inside = [t for t in range(21) if person in made.heard[:, 4 * t].tolist()]
        assert inside and all(seats[t] == seats[t - 1] for t in inside if t - 1 in inside)


def test_ranges_hear_what_they_are_given():
    _, made = driven(TABLE, 0.8, 0.8, 0.8, 0.8, 2.0)
    speech = torch.arange(4)[:, None, None].expand(4, 81, 5)
    assert torch.equal(made.of(speech)[..., 2], made.heard)


def test_the_last_window_hears_its_own_end_backwards():
    """As the speech does: who speaks there is who is heard."""
    turns, end = turns_of("a: 1.wav\nb: 2.wav\nc: 3.wav", 2, 2, 0.6)
    company = Company.of(turns, 3, round(end * FPS))
    plan = plan_avatar((640, 480), round(end * FPS), people=3)
    indices = plan.speech_indices(plan.windows[-1])[:, 2]
    assert indices.diff().min() < 0, "it does go back"
    made = company.driven(indices)
    for latent in range(1, 21):
        best = company.speaking[indices[4 * latent - 3 : 4 * latent + 1]].sum(dim=0)
        assert best.argmax().item() in made.heard[:, 4 * latent]


def test_how_much_of_a_frame_is_spoken_in():
    made = spoken([Turn((0, 2), 0.06, 0.1, 1), Turn((1,), 0.1, 9.0, 2)], 3, 5)
    assert torch.allclose(made[:, 0], torch.tensor([0, 0.5, 0.5, 0, 0]))
    assert torch.equal(made[:, 0], made[:, 2]) and torch.allclose(made[:, 1], torch.tensor([0, 0, 0.5, 1, 1]))


def test_places_by_name():
    names = ("anna", "Ben", "安娜")
    assert read_places("ben: 0,0,1,1\n\n# here\n安娜： 0.5,0,1,1\n", names, 3) == {1: "0,0,1,1", 2: "0.5,0,1,1"}
    assert read_places("2: 0,0,1,1", (), 2) == {1: "0,0,1,1"} and read_places(" \n", names, 3) == {}
    for text, told in (
        (
            "dora: 0,0,1,1",
            "Line 1 of `places` is of 'dora', but those who speak are anna, Ben, 安娜: write one",
        ),
        ("3: 0,0,1,1", "Line 1 of `places` is of '3', but those who speak are 1, 2"),
        ("anna: 0,0,1,1\nAnna: 0,0,1,1", "Line 2 of `places` gives 'Anna' another box"),
        ("anna", "Line 1 of `places` is 'anna', but a name and a box are needed"),
        ("0,0,1,1", "Line 1 of `places` is '0,0,1,1', but a name and a box are needed"),
    ):
        with pytest.raises(InputError, match=told):
            read_places(text, () if text.startswith("3") else names, 2 if text.startswith("3") else 3)


def test_the_picture_shows_everyone_in_their_colour():
    """Any name, any length of speech, silence and single samples too."""
    names = (
        "anna",
        "Ben",
        "安娜",
        "Zoë of a name that is far too long to stand beside its lane in full",
        "e",
        "f",
        "g",
        "h",
    )
    turns = [Turn((number,), float(number), number + 0.9, number + 1) for number in range(8)]
    turns += [Turn((0, 1), 8.0, 8.00005, 9), Turn((2,), 8.1, 9, 10)]
    sounds = [noise(0.9)] * 8 + [noise(0.1)[..., :1], torch.zeros(1, 1, 9)]
    picture = timeline(names, turns, [Recording(sound, 22050) for sound in sounds], 9.2)
    assert picture.size == (1280, 16 + 8 * 72 + 40)
    shown = {f"#{red:02x}{green:02x}{blue:02x}" for _, (red, green, blue) in picture.getcolors(1 << 20)}
    assert set(COLOURS) <= shown and len(set(COLOURS)) == 8
    for seconds in (0.04, 200.0, 3600.0):
        timeline(("anna",), [Turn((0,), 0.0, seconds, 1)], [Recording(noise(0.1), 22050)], seconds)


def test_names_without_letters_here_have_numbers():
    assert lettered("anna", 14, "1")[0] == "anna" and lettered("Zoë", 14, "1")[0] == "Zoë"
    text, font = lettered("\U00013080", 14, "3")  # a hieroglyph
    assert text in ("\U00013080", "3") and font.getlength(text) > 0


def test_the_page_has_the_colours_of_the_picture():
    css = (Path(__file__).resolve().parents[2] / "web" / "js" / "skyreels.css").read_text(encoding="utf-8")
    found = re.findall(r"\.skyreels-speaker-(\d) \{\s*--skyreels-speaker: (#\w+);", css)
    assert found == [(str(number), colour) for number, colour in enumerate(COLOURS, start=1)]
