"""The sound of a dub: the footage's own, and the recording in its place or over it."""

from collections.abc import Iterator

import numpy as np
import torch

from ...speech.recording import resample, to_channels
from ...video.sources.source import Sound

FADE = 0.01  # seconds in which the footage's own sound is turned down and up again: a jump would click


def dubbed(own: Sound | None, waveform: torch.Tensor, rate: int, start: float, seconds: float, under: float) -> Sound:
    """The sound of footage of so many seconds.

    own: of the footage; None without any.  waveform, rate: of the recording, an AUDIO's.  start: where it begins, in
    seconds.  under: 0 to 1, how loud the footage's own stays while the recording is heard; before and behind it, that
    is as it was.
    """
    recording = to_channels(waveform, rate)
    if own is None:
        ahead = torch.zeros(len(recording), round(start * rate))
        return Sound.of(torch.cat([ahead, recording], dim=1)[:, : max(1, round(seconds * rate))], rate)
    recording = resample(recording, rate, own.rate).numpy()
    if len(recording) != own.channels:
        mean = recording.mean(axis=0, keepdims=True)
        recording = np.broadcast_to(mean, (own.channels, recording.shape[1]))
    return Sound(own.rate, own.channels, _over(own, recording, round(start * own.rate), seconds, under))


def _over(own: Sound, recording: np.ndarray, start: int, seconds: float, under: float) -> Iterator[np.ndarray]:
    stop, fade = start + recording.shape[1], max(1, round(FADE * own.rate))
    done = 0
    for block in _on(own, round(seconds * own.rate)):
        times = np.arange(done, done + block.shape[1])
        within = np.clip(np.minimum(times - start + 1, stop - times) / fade, 0, 1)
        mixed = block * (1 - (1 - under) * within).astype(np.float32)
        first, last = max(start, done), min(stop, done + block.shape[1])
        if first < last:
            mixed[:, first - done : last - done] += recording[:, first - start : last - start]
        yield mixed
        done += block.shape[1]


def _on(own: Sound, samples: int) -> Iterator[np.ndarray]:
    """The blocks of a sound, and silence behind them until there are so many samples."""
    done = 0
    for block in own.blocks:
        done += block.shape[1]
        yield block
    while done < samples:
        length = min(own.rate, samples - done)
        yield np.zeros((own.channels, length), np.float32)
        done += length
