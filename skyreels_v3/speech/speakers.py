"""Recordings of people who speak at once or in turns, as speech of one length and as one sound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import InputError
from ..recipes import MAX_PEOPLE
from .recording import (
    MAX_SECONDS,
    SAMPLE_RATE,
    SHORTEST,
    check_people,
    prepare_speech,
    resample,
    to_channels,
    too_long,
    video_frames,
)
from .turns import Turn


@dataclass(frozen=True)
class Recording:
    """The speech of one person."""

    waveform: torch.Tensor  # of a ComfyUI AUDIO, as is rate
    rate: int
    start: float = 0.0  # seconds into the video

    @property
    def seconds(self) -> float:
        return self.waveform.shape[-1] / self.rate


def in_turns(recordings: Sequence[Recording], pause: float = 0.0) -> list[Recording]:
    """The recordings one after the other, with a pause of so many seconds between them."""
    placed, start = [], 0.0
    for recording in recordings:
        placed.append(Recording(recording.waveform, recording.rate, start))
        start += recording.seconds + pause
    return placed


def speech_of(recordings: Sequence[Recording], max_seconds: float = MAX_SECONDS) -> list[torch.Tensor]:
    """Prepared speech of each person, samples [n] float32 at 16 kHz, all of one length.

    Each recording is brought to its loudness by itself; before and after it the person is silent.
    Raises InputError for no or more than two people, a start that is no time, more than max_seconds in all, and what
    `prepare_speech` refuses.
    """
    check_people(len(recordings))
    for recording in recordings:
        if not 0 <= recording.start < math.inf:
            raise InputError(f"A recording starts at {recording.start} s, but it must be 0 or later.")
    seconds = max(recording.start + recording.seconds for recording in recordings)
    if seconds > max_seconds:
        raise InputError(too_long(seconds, max_seconds))
    samples = [prepare_speech(recording.waveform, recording.rate, max_seconds) for recording in recordings]
    before, length = _places(samples, [recording.start for recording in recordings], SAMPLE_RATE)
    return [F.pad(part, (ahead, length - ahead - len(part))) for part, ahead in zip(samples, before)]


def speech_of_turns(
    recordings: Sequence[Recording], turns: Sequence[Turn], people: int, seconds: float, max_seconds: float
) -> list[torch.Tensor]:
    """Prepared speech of each of the people, as `speech_of` makes it, of what they say in `turns`.

    recordings: of each turn, from when it starts on.  seconds: of all.
    Raises InputError for more than MAX_PEOPLE, for less than 0.4 s in all, and for what `speech_of` refuses.
    """
    check_people(people, MAX_PEOPLE)
    if seconds < SHORTEST:
        raise InputError(
            f"The dialogue is {seconds:.2f} s long, but at least {SHORTEST} s are needed: add a line or a pause."
        )
    if seconds > max_seconds:
        raise InputError(too_long(seconds, max_seconds))
    parts = [_prepared(one, max_seconds) for one in recordings]
    ends = [round(one.start * SAMPLE_RATE) + len(part) for one, part in zip(recordings, parts)]
    length = max(round(seconds * SAMPLE_RATE), *ends)
    made = [torch.zeros(length) for _ in range(people)]
    for recording, turn, part in zip(recordings, turns, parts, strict=True):
        begins = round(recording.start * SAMPLE_RATE)
        for person in turn.people:
            made[person][begins : begins + len(part)] += part
    return made


def _prepared(recording: Recording, max_seconds: float) -> torch.Tensor:
    """`prepare_speech`, also of a word that is too short to be measured: with silence behind it while it is."""
    length = recording.waveform.shape[-1]
    missing = max(0, math.ceil(SHORTEST * recording.rate) - length)
    made = prepare_speech(F.pad(recording.waveform, (0, missing)), recording.rate, max_seconds)
    return made[: math.ceil(length * (SAMPLE_RATE / recording.rate))] if missing else made


def speech_frames(recordings: Sequence[Recording]) -> int:
    """Frames of the video of these recordings, before anything of them is prepared."""
    ends = [
        round(one.start * SAMPLE_RATE) + math.ceil(one.waveform.shape[-1] * (SAMPLE_RATE / one.rate))
        for one in recordings
    ]
    return video_frames(max(ends))


def mixed(recordings: Sequence[Recording], seconds: float = 0.0) -> tuple[torch.Tensor, int]:
    """The sound of the video: (waveform [1, channels, n] float32, rate), of the recordings before `prepare_speech`.

    One recording from the start comes back as it was, not copied. Several take the highest rate and the most channels
    among them; where their sum is louder than full scale and none of them is, it is turned down to full scale.
    seconds: of silence and all, where that is longer.
    """
    sounds = [to_channels(recording.waveform, recording.rate) for recording in recordings]
    rate = max(recording.rate for recording in recordings)
    if len(sounds) == 1 and not recordings[0].start and sounds[0].shape[1] >= round(seconds * rate):
        return sounds[0][None], rate
    sounds = [resample(sound, recording.rate, rate) for sound, recording in zip(sounds, recordings)]
    before, length = _places(sounds, [recording.start for recording in recordings], rate)
    total = torch.zeros(max(map(len, sounds)), max(length, round(seconds * rate)))
    for sound, ahead in zip(sounds, before):
        # A mono sound goes into every channel; any other into the first ones, which are left and right in every layout.
        channels = len(total) if len(sound) == 1 else len(sound)
        total[:channels, ahead : ahead + sound.shape[1]] += sound
    loudest = max(1.0, *map(_peak, sounds))
    return total.mul_(min(1.0, loudest / max(_peak(total), 1e-9)))[None], rate


def _places(sounds: Sequence[torch.Tensor], starts: Sequence[float], rate: int) -> tuple[list[int], int]:
    """Samples before each of the sounds [..., n], and samples in all."""
    before = [round(start * rate) for start in starts]
    return before, max(ahead + sound.shape[-1] for ahead, sound in zip(before, sounds))


def _peak(sound: torch.Tensor) -> float:
    """The largest sample either way, without a copy of the sound."""
    return torch.linalg.vector_norm(sound, math.inf).item()
