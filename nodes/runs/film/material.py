"""What a film's lines name, read before anything is made: pictures, recordings, footage."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import torch

from ....skyreels_v3.digest import digest
from ....skyreels_v3.errors import InputError
from ....skyreels_v3.jobs.dub.sound import dubbed
from ....skyreels_v3.jobs.extension.plan import FPS, LONGEST_PREFIX, SHORTEST_SHOT
from ....skyreels_v3.jobs.extension.roll import Tail
from ....skyreels_v3.jobs.film.grammar.line import FOOTAGE, SCENE, SPOKEN, FilmLine
from ....skyreels_v3.jobs.film.graph import Shot, shown_shot
from ....skyreels_v3.speech.recording import MAX_SECONDS
from ....skyreels_v3.speech.speakers import Recording, in_turns, mixed, speech_frames
from ....skyreels_v3.video.cuts import last_cut
from ....skyreels_v3.video.sources.animation import file_source
from ....skyreels_v3.video.sources.source import FramesSource, Sound, Source, last_frames
from ....skyreels_v3.video.sources.trimmed import TrimmedSource
from ...inputs.cast import Member, Table, member_of
from ...inputs.files import input_file, read_picture, read_recording
from ..lead import Lead


@dataclass(frozen=True)
class Material:
    """By the places of the shots.

    pictures: of a scene's references in order, IMAGE [1, H, W, C]; the place of a shot where that one's last frame is
    shown.  recordings: of a speak or a dub.  tables: of a speak that says a dialogue instead.  footage: of a clip or a
    dub.  notes: what an artist should know, one sentence each.
    """

    pictures: Mapping[int, Sequence[torch.Tensor | int]]
    recordings: Mapping[int, Sequence[Recording]]
    footage: Mapping[int, Source]
    notes: Sequence[str]
    tables: Mapping[int, Table]

    def spoken_frames(self, place: int) -> int:
        """Of a speak or a dub, at 25 a second."""
        return self.tables[place].speech.frames if place in self.tables else speech_frames(self.recordings[place])

    def heard(self, place: int, line: FilmLine) -> Source | None:
        """Of a shot, a source with its sound; None for one without."""
        source = self.footage.get(place)
        if place in self.tables:
            return Heard(self.tables[place].speech.waveform, self.tables[place].speech.rate)
        if place not in self.recordings:
            return source
        return Heard(*mixed(self.recordings[place]), source, float(line.options.start or 0))

    def key(self, place: int) -> str:
        """What a shot is made of beside its words."""
        shown = [one for one in self.pictures.get(place, ()) if not isinstance(one, torch.Tensor)]
        order = sorted(set(shown))  # as the shots are among those that the scene is made from
        pictures = [
            one if isinstance(one, torch.Tensor) else "shot" if shown == order else order.index(one)
            for one in self.pictures.get(place, ())
        ]
        recordings = [(one.waveform, one.rate, one.start) for one in self.recordings.get(place, ())]
        footage = self.footage[place].content() if place in self.footage else None
        if place not in self.tables:
            return digest(pictures, recordings, footage)
        table = self.tables[place]
        speech, company = table.speech, table.speech.company
        said = speech.features.key, speech.waveform, speech.rate, None if company is None else company.speaking
        return digest("dialogue", *said, [*table.masks], [box.strip() for box in table.boxes])


class Heard(FramesSource):
    """A source of which only the sound counts: a recording, in footage from `start` on instead of its own."""

    def __init__(self, waveform: torch.Tensor, rate: int, footage: Source | None = None, start: float = 0.0):
        """waveform, rate: of an AUDIO."""
        info = None if footage is None else footage.info
        if info is None or not info.has_audio:
            told = waveform, rate
        else:
            told = waveform.new_zeros(1, info.audio_channels, 1), info.audio_rate
        super().__init__(torch.zeros(1, 2, 2, 3, dtype=torch.uint8), 1, told)
        self._recording, self._footage, self._start = (waveform, rate), footage, start

    def sound(self) -> Sound:
        if self._footage is None:
            return Sound.of(*self._recording)
        seconds = float(self._footage.info.duration)
        return dubbed(self._footage.sound(), *self._recording, self._start, seconds, 0.0)


@contextmanager
def in_line(line: FilmLine) -> Generator[None]:
    """Errors that an artist is told within the block begin with the line's number."""
    try:
        yield
    except InputError as error:
        said = str(error)
        told = said.startswith("Line ") or not line.number  # the connected source has no line
        raise InputError(said if told else f"Line {line.number}: {said}") from error


def gathered(shots: Sequence[Shot], cast: Sequence[Member], source: Source | None) -> Material:
    """Reads what the lines name. source: the footage that the film begins with, line 0.

    Raises InputError with the line's number.
    """
    known: dict[str, torch.Tensor] = {}
    files: dict[str, Source] = {}
    pictures, recordings, footage, notes = {}, {}, {}, []
    tables: dict[int, Table] = {}
    for place, shot in enumerate(shots):
        line = shot.line
        with in_line(line):
            if line.kind == SCENE:
                pictures[place] = [_picture(shots, place, name, cast, known) for name in line.references]
            table = _table(line, cast)
            if table is not None:
                tables[place] = table
            elif line.kind in SPOKEN:
                recordings[place] = _recordings(line, cast)
            if line.kind in FOOTAGE:
                whole = source if line.number == 0 and source is not None else _file(line.file, files)
                footage[place] = _part(line, whole, notes)
                _ = footage[place].info  # what is no video is told with its line
    return Material(pictures, recordings, footage, notes, tables)


def _picture(
    shots: Sequence[Shot], place: int, name: str, cast: Sequence[Member], known: dict[str, torch.Tensor]
) -> torch.Tensor | int:
    shown = shown_shot(shots, place, name)
    if shown is not None:
        return shown
    member = member_of(cast, name)
    if member is not None:
        return member.picture[:1]
    if name not in known:
        known[name] = read_picture(name)
    return known[name]


def _table(line: FilmLine, cast: Sequence[Member]) -> Table | None:
    """The dialogue that a line says."""
    for voice in line.voices:
        member = member_of(cast, voice.name) if voice.name is not None and voice.file is None else None
        if member is not None and member.table is not None:
            return member.table
    return None


def _recordings(line: FilmLine, cast: Sequence[Member]) -> list[Recording]:
    recordings = []
    for voice in line.voices:
        member = None if voice.name is None else member_of(cast, voice.name)
        if voice.file is not None:
            waveform, rate = read_recording(voice.file)
        elif member is not None and member.voice is not None:
            waveform, rate = member.voice["waveform"], member.voice["sample_rate"]
        else:
            raise InputError(f"Line {line.number} gives {voice.name!r} no recording: write a file, or connect a voice.")
        recordings.append(Recording(waveform, rate))
    placed = recordings if line.options.together else in_turns(recordings)
    seconds = max(one.start + one.seconds for one in placed)
    if seconds > MAX_SECONDS:
        raise InputError(
            f"Line {line.number} speaks for {seconds:.1f} s, but at most {MAX_SECONDS:g} s are made on one line: cut "
            "the recording in two, and give each part a line of its own."
        )
    return placed


def _file(name: str, files: dict[str, Source]) -> Source:
    path = input_file(name)
    if path is None:
        raise InputError(f"The input folder has no file {name!r}: put it there.")
    return files.setdefault(str(path), file_source(path))


def _part(line: FilmLine, whole: Source, notes: list[str]) -> Source:
    if not line.start and line.stop is None:
        return whole
    seconds = 0.0 if line.stop is None else float(line.stop - line.start)
    part = TrimmedSource(whole, float(line.start), seconds)
    has = part.info.duration
    if seconds and has < Fraction(seconds) - 1 / part.info.frame_rate:
        notes.append(
            f"Line {line.number} asks for {seconds:g} s of footage, but there are only {float(has):.2f} s: all of them "
            "are shown."
        )
    return part


def footage_tail(lead: Lead) -> Tail:
    """What shots after footage go on from: its last frames, as far as they are behind its last hard cut."""
    return Tail.of_source(behind_cut(last_frames(lead.source, LONGEST_PREFIX, FPS, fit=lead.fitted_frame)))


def behind_cut(past: torch.Tensor) -> torch.Tensor:
    """Frames, uint8 [n, H, W, 3], from their last hard cut on, where enough are behind it."""
    cut = last_cut(past)
    return past if cut is None or len(past) - cut < SHORTEST_SHOT else past[cut:]
