"""The recordings that a dialogue's lines name, cut and with times."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.dialogue.layout import laid_out, part_of, timed
from ...skyreels_v3.jobs.dialogue.script import Dialogue, Said, input_number
from ...skyreels_v3.speech.recording import to_channels, too_long
from ...skyreels_v3.speech.speakers import Recording, mixed
from ...skyreels_v3.speech.turns import Turn
from .files import input_file, read_recording

FADE = 0.005  # seconds
Sound = tuple[torch.Tensor, int]  # samples [channels, n], samples a second


@dataclass(frozen=True)
class Heard:
    """recordings: of each turn, from its start on.  mix: of all, (waveform [1, channels, n], samples a second)."""

    turns: list[Turn]
    recordings: list[Recording]
    mix: tuple[torch.Tensor, int]

    @property
    def seconds(self) -> float:
        return self.mix[0].shape[-1] / self.mix[1]


def heard_of(dialogue: Dialogue, sounds: Mapping[str, Any], recording: Any, max_seconds: float) -> Heard:
    """What is heard when. sounds: the connected AUDIOs by name.  recording: the one of all, or None.

    Raises InputError, with the line's number, for a recording that is not there or cannot be read, for times beyond
    one, and for more people at once than the model drives; and for more than max_seconds, before that is mixed.
    """
    if dialogue.of_one_recording:
        first = dialogue.said[0].number
        if recording is None:
            raise InputError(
                f"Line {first} has times alone, but nothing is connected to recording: connect the recording of "
                "all, or write one on the line."
            )
        whole = to_channels(recording["waveform"], recording["sample_rate"]), recording["sample_rate"]
        turns = timed(dialogue, _seconds(whole))
        parts = [Recording(_cut(whole, turn.start, turn.stop), whole[1], turn.start) for turn in turns]
        return Heard(turns, parts, (whole[0][None], whole[1]))
    if recording is not None:
        raise InputError(
            "A recording of all is connected, but the lines have recordings of their own: disconnect it, or write "
            "times alone, such as `anna: 0s-3.2s`."
        )
    known: dict[str, Sound] = {}
    cut = []
    for line in dialogue.said:
        if line.sound not in known:
            known[line.sound] = _sound(line, sounds)
        sound = known[line.sound]
        cut.append((_cut(sound, *part_of(line, _seconds(sound), line.sound)), sound[1]))
    turns, seconds = laid_out(dialogue, [_seconds(sound) for sound in cut])
    if seconds > max_seconds:
        raise InputError(too_long(seconds, max_seconds))
    recordings = [Recording(samples, rate, turn.start) for (samples, rate), turn in zip(cut, turns)]
    return Heard(turns, recordings, mixed(recordings, seconds))


def _sound(line: Said, sounds: Mapping[str, Any]) -> Sound:
    of_input, audio = input_number(line.sound) is not None, sounds.get(line.sound) or {}
    if of_input and not audio:
        raise InputError(
            f"Line {line.number} takes {line.sound}, but nothing is connected to it: connect a recording, or a node "
            "that speaks text."
        )
    if not of_input and input_file(line.sound) is None:
        raise InputError(
            f"Line {line.number} needs the file {line.sound!r}, but the input folder has none of that name: put it "
            "there."
        )
    try:
        waveform, rate = (audio["waveform"], audio["sample_rate"]) if of_input else read_recording(line.sound)
        return to_channels(waveform, rate), rate
    except InputError as error:
        raise InputError(f"Line {line.number}: {error}") from error


def _seconds(sound: Sound) -> float:
    return sound[0].shape[-1] / sound[1]


def _cut(sound: Sound, start: float, stop: float) -> torch.Tensor:
    """The samples between two times; where the recording goes on, the edge is faded, or it would click."""
    samples, rate = sound
    first, last = round(start * rate), max(round(stop * rate), round(start * rate) + 1)
    cut = samples[:, first:last]
    fade = torch.linspace(0, 1, min(round(FADE * rate), cut.shape[1] // 2) + 1)[1:]
    if len(fade) and (first or last < samples.shape[1]):
        cut = cut.clone()
        if first:
            cut[:, : len(fade)] *= fade
        if last < samples.shape[1]:
            cut[:, -len(fade) :] *= fade.flip(0)
    return cut
