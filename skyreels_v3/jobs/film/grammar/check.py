"""Whether all that a film's lines name is there: pictures, voices, files, models, a shot before. Needs no torch."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ....errors import InputError
from ....recipes import Job
from .line import DUB, FOOTAGE, LAST, SCENE, SPOKEN, FilmLine, Voice, same_name

ENTRIES = {
    Job.REFERENCE: ("reference_model", "the reference checkpoint (R2V)"),
    Job.EXTENSION: ("model", "the single-shot extension checkpoint"),
    Job.SHOT: ("shot_model", "the shot switching checkpoint"),
    Job.AVATAR: ("avatar_model", "the talking avatar checkpoint (A2V)"),
}

ENCODERS = {
    "audio_encoder": "wav2vec2 (AudioEncoderLoader)",
    "clip_vision": "clip_vision_h (CLIPVisionLoader)",
}  # that lines with a recording need besides


@dataclass(frozen=True)
class Known:
    """What is at hand. None: not known, as on a page that has not run yet.

    cast: names to whether they have a voice or a dialogue.  dialogues: names of those with a dialogue.  has_file:
    whether the input folder has a file of this name.  seconds: how long such a file is, None where that cannot be said.
    jobs: of the connected models.  speech: whether an audio encoder and a CLIP vision model are connected.
    source: whether footage is connected that the film begins with.
    """

    cast: Mapping[str, bool] | None = None
    has_file: Callable[[str], bool] | None = None
    jobs: Collection[Job] | None = None
    audio_encoder: bool | None = None
    clip_vision: bool | None = None
    source: bool = False
    seconds: Callable[[str], float | None] | None = None
    dialogues: Collection[str] = ()
    names: Mapping[str, bool] = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "names", {same_name(name): voice for name, voice in (self.cast or {}).items()})

    def has_dialogue(self, voice: Voice) -> bool:
        """Whether what a voice of a line says is a dialogue."""
        name = same_name(voice.name or "")
        return voice.file is None and any(same_name(dialogue) == name for dialogue in self.dialogues)


def models_of(line: FilmLine, known: Known) -> tuple[str, ...]:
    """The inputs of Film that a line is made with."""
    if line.job is None:
        return ()
    return (ENTRIES[line.job][0], *_encoders(line, known))


def _encoders(line: FilmLine, known: Known) -> list[str]:
    """Those that a line with a recording needs; a dialogue is encoded already."""
    if line.kind not in SPOKEN:
        return []
    heard = any(known.has_dialogue(voice) for voice in line.voices)
    return [name for name in ENCODERS if name != "audio_encoder" or not heard]


def missing(lines: Sequence[FilmLine], known: Known) -> dict[int, str]:
    """A sentence for each line, by its number, that cannot be made with what is at hand."""
    wrong: dict[int, str] = {}
    shots = _shot_names(lines, known, wrong)
    for index, line in enumerate(lines):
        try:
            _check_start(line, index == 0 and not known.source)
            _check_models(line, known)
            for name in line.references:
                _check_reference(line, name, shots, known)
            for voice in line.voices:
                if known.has_dialogue(voice):
                    _check_dialogue(line, voice)
                _check_voice(line, voice.name, voice.file, known)
            if line.kind in FOOTAGE and line.number and known.has_file and not known.has_file(line.file):
                raise InputError(_no_file(line, line.file))
        except InputError as error:
            wrong.setdefault(line.number, str(error))
    return wrong


def _shot_names(lines: Sequence[FilmLine], known: Known, wrong: dict[int, str]) -> dict[str, int]:
    """The number of the line of each named shot."""
    shots: dict[str, int] = {}
    for line in lines:
        name = same_name(line.options.name or "")
        if not name:
            continue
        if name in shots:
            wrong[line.number] = f"Line {line.number} has the name of line {shots[name]}, {name!r}: choose another one."
        elif name in known.names:
            wrong[line.number] = (
                f"Line {line.number} has the name of a picture of the cast, {name!r}: choose another one."
            )
        else:
            shots[name] = line.number
    return shots


def _check_start(line: FilmLine, first: bool) -> None:
    if not first:
        return
    if line.kind == SCENE:
        if any(same_name(name) == LAST for name in line.references):
            raise InputError(
                f"Line {line.number} shows the last frame so far, but nothing comes before it: name another picture."
            )
    elif line.kind not in FOOTAGE:
        raise InputError(
            f"Line {line.number} is a {line.kind}, but nothing comes before it to go on from: begin with a `scene`, "
            "`clip` or `dub` line, or connect footage to source."
        )


def _check_models(line: FilmLine, known: Known) -> None:
    if line.job is None:
        return
    entry, checkpoint = ENTRIES[line.job]
    if known.jobs is not None and line.job not in known.jobs:
        raise InputError(
            f"Line {line.number} is a {line.kind}, but nothing is connected to {entry}: connect {checkpoint}, from "
            "SkyReels-V3 Load Model."
        )
    for name in _encoders(line, known):
        if getattr(known, name) is False:
            does = "dubs" if line.kind == DUB else "speaks"
            raise InputError(
                f"Line {line.number} {does}, but nothing is connected to {name}: connect {ENCODERS[name]}."
            )


def _check_reference(line: FilmLine, name: str, shots: Mapping[str, int], known: Known) -> None:
    key = same_name(name)
    if key == LAST or key in known.names:
        return
    if key in shots:
        if shots[key] >= line.number:
            raise InputError(
                f"Line {line.number} shows {name!r}, which is line {shots[key]}: only a shot before it can be shown."
            )
        return
    if known.has_file is not None and known.has_file(name):
        return
    if known.cast is not None and known.has_file is not None:
        raise InputError(_no_name(line, name, "a file", [*known.cast, *shots], "picture"))


def _check_voice(line: FilmLine, name: str | None, file: str | None, known: Known) -> None:
    order = f"dub {line.file}" if line.kind == DUB else line.kind
    is_label = line.kind == DUB and file is not None  # whoever is in the footage need not be in the film
    if name is not None and known.cast is not None and same_name(name) not in known.names and not is_label:
        raise InputError(
            _no_name(line, name, f"a recording alone, as in `{order} [hello.wav]: ...`", known.cast, "person")
        )
    if file is None and name is not None and known.cast is not None and not known.names[same_name(name)]:
        raise InputError(
            f"Line {line.number} gives {name!r} no recording, and the cast has no voice of that name: write a file, as "
            f"in `{order} [{name}: hello.wav]: ...`, or connect a voice to its Cast node."
        )
    if file is not None and known.has_file is not None and not known.has_file(file):
        raise InputError(_no_file(line, file))


def _check_dialogue(line: FilmLine, voice: Voice) -> None:
    if line.kind == DUB:
        raise InputError(
            f"Line {line.number} dubs one person, but {voice.name!r} is a dialogue: write a recording, as in `dub "
            f"{line.file} [hello.wav]`."
        )
    if len(line.voices) > 1:
        raise InputError(
            f"Line {line.number} has the dialogue {voice.name!r} beside another voice, but all who speak are in it: "
            "leave it alone in the brackets."
        )


def _no_name(line: FilmLine, name: str, instead: str, there: Collection[str], what: str) -> str:
    has = f"the film has {', '.join(there)}" if there else "no Cast is connected"
    return (
        f"Line {line.number} names the {what} {name[:60]!r}, but {has}: write one of those names or {instead} of the "
        "input folder, or add a Cast node."
    )


def _no_file(line: FilmLine, file: str) -> str:
    return f"Line {line.number} needs the file {file!r}, but the input folder has none of that name: put it there."
