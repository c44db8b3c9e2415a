"""What a language model is told before it writes a prompt or a script for an artist's idea."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ...errors import InputError
from ..extension.script import CUT_SECONDS, MAX_SECONDS
from .cuts import CUTS, Cut

ANY_CUT = "any"
CUT_NAMES = (ANY_CUT, *(cut.name for cut in CUTS))
MAX_REFERENCES = 4
MAX_IDEA = 20_000  # letters: more is a slip of the clipboard


class Task(str, Enum):
    """What is to be written. The value is the name artists choose."""

    REFERENCE = "reference to video"
    CONTINUE = "continue"
    CUT = "cut"
    STORYBOARD = "storyboard"
    FILM = "film"
    AVATAR = "talking avatar"


@dataclass(frozen=True)
class Brief:
    """system: how to write.  prompt: what about."""

    system: str
    prompt: str

    @property
    def together(self) -> str:
        """Both in one text."""
        return f"{self.system}\n\n{self.prompt}"


# Few-shot examples. A small model likes to give them back: `answer` then leaves them out.
_REFERENCE = (
    "A young woman with short black hair and a yellow raincoat stands on the deck of a small wooden ferry with a "
    "chipped blue railing. She turns from the water, pulls her hood back and laughs, while wind lifts her hair and "
    "grey waves roll behind her. The camera moves slowly around her from the side to the front and ends on a medium "
    "close-up in soft morning light."
)
_CONTINUE = (
    "The woman in the yellow raincoat walks along the railing of the ferry to the bow, one hand on the wet wood, and "
    "stops to look at the shore. The camera follows her from the side at a walking pace."
)
_AVATAR = (
    "A grey-haired man in a dark blue shirt sits at a desk and speaks calmly to the camera. He nods now and then and "
    "moves his right hand a little as he explains. The camera stays still, warm light from a window on the left."
)
EXAMPLES = (_REFERENCE, _CONTINUE, _AVATAR, *(cut.example for cut in CUTS))

_WRITER = "You write for a video model that sees nothing but your text and the frames or pictures it is given."
_RULES = (
    "Write plain English in the present tense, whatever the language of the idea. Say only what can be seen: who, "
    "where, what happens, then the camera and the light. Keep all that the idea says and add nothing against it. No "
    "feelings, sounds, brands or empty praise such as stunning or cinematic."
)
_ONE = "Answer with the prompt alone: one paragraph, no title, no list, no quotes, no explanation."
_LINES = (
    "Answer with the lines alone, each shot on one line: no numbers, no headings, no blank lines, no explanation. Each "
    "line is all that the model reads of its shot: name its people again by hair, clothes and place, never only by "
    "she or he."
)
_LINE = "Answer with that one line alone: no heading, no explanation."


def brief(
    idea: str,
    task: Task,
    references: int = 1,
    cut: str = ANY_CUT,
    seconds: float = 5.0,
    cast: Sequence[tuple[str, bool]] = (),
) -> Brief:
    """The texts for a language model.

    references: pictures of a reference to video, shown to it.  cut: one of CUT_NAMES.  seconds: of the shot, or of all
    shots; a cut is brought to what it may last.  cast: of a film: (name, whether it has a voice).
    Raises InputError without an idea.
    """
    idea = " ".join(idea.split())
    if not idea:
        raise InputError("Prompt Brief has no idea: write in a few words what is to be seen.")
    if len(idea) > MAX_IDEA:
        raise InputError(f"The idea has {len(idea)} letters, but at most {MAX_IDEA} are taken: shorten it.")
    if task is Task.CUT:
        seconds = min(max(seconds, CUT_SECONDS[0]), CUT_SECONDS[1])
    seconds = min(seconds, MAX_SECONDS)
    parts = {
        Task.REFERENCE: lambda: _reference(references, seconds),
        Task.CONTINUE: lambda: _continue(seconds),
        Task.CUT: lambda: _cut(cut, seconds),
        Task.STORYBOARD: lambda: _storyboard(seconds),
        Task.FILM: lambda: _film(seconds, cast),
        Task.AVATAR: lambda: _avatar(),
    }[task]()
    return Brief("\n".join([_WRITER, _RULES, *parts]), f"The idea: {idea}")


def _reference(references: int, seconds: float) -> list[str]:
    pictures = "one picture" if references == 1 else f"{references} pictures"
    each = "it shows" if references == 1 else "each of them shows, in their order, each in its own words,"
    return [
        f"The model is given {pictures} and makes one shot of {seconds:g} s in which what they show appears. Describe "
        f"what {each} by looks: hair, clothes, colours, material, place. Then one action that fits into {seconds:g} s, "
        "then the camera. 60 to 90 words. Do not speak of pictures or references.",
        _ONE,
        f"Example: {_REFERENCE}",
    ]


def _continue(seconds: float) -> list[str]:
    return [
        f"The model goes on from the last frames of a clip, in the same shot, for {seconds:g} s. Write one line that "
        f"begins with continue {seconds:g}s: and has {_length(seconds)}: who is seen, by looks and place, and the one "
        "motion that comes next. No cut.",
        _LINE,
        f"Example: continue {seconds:g}s: {_CONTINUE}",
    ]


def _cut(cut: str, seconds: float) -> list[str]:
    chosen = [one for one in CUTS if cut in (one.name, ANY_CUT)]
    which = "this kind of cut" if len(chosen) == 1 else "the kind of cut that fits the idea"
    return [
        f"The model goes on from the last frames of a clip with a cut to a new shot of {seconds:g} s. Write one line "
        f"that begins with cut {seconds:g}s: and the tag. Then come two or three sentences, the first of which is: The "
        f"scene cuts from what is seen now to what is seen then. Use {which}:",
        *_cut_table(chosen),
        "Name who is seen again by the same hair, clothes and place as before, and keep the light.",
        _LINE,
        f"Example: cut {seconds:g}s: {chosen[0].tag} {chosen[0].example}",
    ]


def _storyboard(seconds: float) -> list[str]:
    shots = "one shot" if seconds <= 5 else f"{max(2, round(seconds / 8))} to {max(2, round(seconds / 4))} shots"
    return [
        f"Write a script that goes on from a clip: {shots}, together {seconds:g} s. A line goes on with the shot: "
        f"continue SECONDS: prompt. Or it cuts to a new one, for {CUT_SECONDS[0]} to {CUT_SECONDS[1]} s: "
        "cut SECONDS: TAG prompt. The tags of cuts:",
        *_cut_table(CUTS),
        "The first sentence of a cut is: The scene cuts from one view to the other. One action for each shot.",
        _LINES,
        f"Example of two shots:\ncontinue 6s: {_CONTINUE}\ncut 4s: {CUTS[0].tag} {CUTS[0].example}",
    ]


def _film(seconds: float, cast: Sequence[tuple[str, bool]]) -> list[str]:
    names = ", ".join(name for name, _ in cast) or "the names that the idea gives in brackets"
    voices = [name for name, has_voice in cast if has_voice]
    speak = (
        [f"Someone who speaks to the end of a recording: speak [NAME]: prompt. These have one: {', '.join(voices)}."]
        if voices
        else ["Nobody speaks."]
    )
    first = cast[0][0] if cast else "anna"
    return [
        f"Write the script of a film, about {seconds:g} s together. It begins with a scene. A new scene shows 1 to 4 "
        "people, things or places of the cast, at most 10 s: scene SECONDS [NAME, NAME]: prompt. "
        f"The cast: {names}. A line that goes on with the shot before it: continue SECONDS: prompt. A cut to another "
        f"view of it, {CUT_SECONDS[0]} to {CUT_SECONDS[1]} s: cut SECONDS: TAG prompt. The tags of cuts:",
        *_cut_table(CUTS),
        *speak,
        "One action for each shot. Names stand only in the brackets: in prompts describe people by their looks.",
        _LINES,
        f"Example of three shots:\nscene 5s [{first}]: {_REFERENCE}\ncontinue 6s: {_CONTINUE}\n"
        f"cut 4s: {CUTS[0].tag} {CUTS[0].example}",
    ]


def _avatar() -> list[str]:
    return [
        "The model lets the person in the picture speak a recording. Describe the person by looks, the place, small "
        "motions of head and hands that fit the idea, and the camera, which hardly moves. 30 to 60 words. Do not write "
        "what is said.",
        _ONE,
        f"Example: {_AVATAR}",
    ]


def _length(seconds: float) -> str:
    return "one or two sentences" if seconds <= 8 else "two to four sentences"


def _cut_table(cuts: Sequence[Cut]) -> list[str]:
    return [f"{cut.tag} cuts {cut.what}." for cut in cuts]
