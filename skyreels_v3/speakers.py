"""Who speaks when: recordings of one or two people, at once or in turns, as speech of one length and as one sound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .avatar import MAX_PEOPLE, MAX_SECONDS, too_long
from .errors import InputError
from .speech import SAMPLE_RATE, prepare_speech, resample, to_channels


@dataclass(frozen=True)
class Recording:
    """What one person says. waveform, rate: of a ComfyUI AUDIO.  start: seconds into the video."""

    waveform: torch.Tensor
    rate: int
    start: float = 0.0

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
    if not 1 <= len(recordings) <= MAX_PEOPLE:
        raise InputError(f"Speech of {len(recordings)} people was given, but the model drives 1 or {MAX_PEOPLE}.")
    for recording in recordings:
        if not 0 <= recording.start < math.inf:
            raise InputError(f"A recording starts at {recording.start} s, but it must be 0 or later.")
    seconds = max(recording.start + recording.seconds for recording in recordings)
    if seconds > max_seconds:
        raise InputError(too_long(seconds, max_seconds))
    samples = [prepare_speech(recording.waveform, recording.rate, max_seconds) for recording in recordings]
    return _placed(samples, [recording.start for recording in recordings], SAMPLE_RATE)


def mixed(recordings: Sequence[Recording]) -> tuple[torch.Tensor, int]:
    """The sound of the video: (waveform [1, channels, n] float32, rate), as the recordings are, not as the model hears.

    One recording from the start comes back as it was. Several take the highest rate and the most channels among
    them; where their sum is louder than full scale and none of them is, it is turned down to full scale.
    """
    sounds = [to_channels(recording.waveform, recording.rate) for recording in recordings]
    rate = max(recording.rate for recording in recordings)
    channels = max(len(sound) for sound in sounds)
    sounds = [
        _with_channels(resample(sound, recording.rate, rate), channels) for sound, recording in zip(sounds, recordings)
    ]
    placed = _placed(sounds, [recording.start for recording in recordings], rate)
    if len(placed) == 1:
        return placed[0][None], rate
    total = torch.stack(placed).sum(dim=0)
    loudest = max(1.0, *(sound.abs().max().item() for sound in sounds))
    return total[None] * min(1.0, loudest / max(total.abs().max().item(), 1e-9)), rate


def _placed(sounds: Sequence[torch.Tensor], starts: Sequence[float], rate: int) -> list[torch.Tensor]:
    """Sounds [..., n], each with the silence that puts it at its start and makes all of them as long."""
    before = [round(start * rate) for start in starts]
    length = max(ahead + sound.shape[-1] for ahead, sound in zip(before, sounds))
    return [F.pad(sound, (ahead, length - ahead - sound.shape[-1])) for ahead, sound in zip(before, sounds)]


def _with_channels(sound: torch.Tensor, channels: int) -> torch.Tensor:
    """A mono sound in every channel; any other in the first ones, which are left and right in every layout."""
    if len(sound) == 1:
        return sound.expand(channels, -1)
    return F.pad(sound, (0, 0, 0, channels - len(sound)))
