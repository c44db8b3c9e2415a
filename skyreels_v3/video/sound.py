"""Sound on its way into a video file: AAC, as long as the video to the sample, written beside the frames.

AAC in both kinds of file: it is what Chromium, VLC and ComfyUI's own loader all play and read right (that loader
mixes up interleaved and integer samples, which FLAC and PCM have).
"""

from __future__ import annotations

from fractions import Fraction

import av
import av.container
import numpy as np

from ..errors import InputError
from .sources.source import Sound

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
OTHER_RATE = 48000  # for recordings whose rate AAC has not
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
BITS_A_CHANNEL = 128_000  # a second; transparent for speech and music
MOST_BITS_A_SAMPLE = 6  # AAC's limit: 6144 bits a frame of 1024 samples
BLOCK = 4096  # samples encoded in one go


class Resampler:
    """Blocks of one sound, float32 [channels, n], as frames at another rate. taken: samples it was given so far."""

    def __init__(self, channels: int, from_rate: int, to_rate: int):
        self._layout, self._rate = LAYOUTS[channels], from_rate
        self._resampler = None
        if from_rate != to_rate:
            self._resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=to_rate)
        self.taken = 0

    def frames(self, block: np.ndarray) -> list[av.AudioFrame]:
        """What is ready once `block` is in; of equal rates the block itself."""
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self._rate, self.taken, Fraction(1, self._rate)
        self.taken += block.shape[1]
        return [frame] if self._resampler is None else self._resampler.resample(frame)

    def rest(self) -> list[av.AudioFrame]:
        """What the filter still holds at the end."""
        return [] if self._resampler is None or not self.taken else self._resampler.resample(None)


class SoundTrack:
    """Encodes a Sound into an open container, step by step with the frames, so that neither waits in memory.

    The recording keeps its rate and channels where AAC has them (7350 to 96000 Hz in 13 steps, 1-6 or 8 channels);
    other rates become 48000 Hz, other channels stereo, their mean on both. NaN becomes silence, infinity full scale.
    """

    def __init__(self, container: av.container.OutputContainer, sound: Sound):
        self._container, self._sound = container, sound
        self._channels = sound.channels if sound.channels in LAYOUTS else 2
        rate = sound.rate if sound.rate in AAC_RATES else OTHER_RATE
        self._stream = container.add_stream("aac", rate=rate)
        self._stream.layout = LAYOUTS[self._channels]
        self._stream.bit_rate = min(BITS_A_CHANNEL, MOST_BITS_A_SAMPLE * rate) * self._channels
        self._resampler = Resampler(self._channels, sound.rate, rate)
        self._blocks = iter(sound.blocks)
        self._rest = np.zeros((self._channels, 0), dtype=np.float32)

    def write_until(self, seconds: Fraction) -> None:
        """Bring the sound up to this time from the video's first frame, with silence where the recording has ended."""
        goal = round(seconds * self._sound.rate)
        while self._resampler.taken < goal:
            for frame in self._resampler.frames(self._next(min(BLOCK, goal - self._resampler.taken))):
                self._container.mux(self._stream.encode(frame))

    def finish(self, seconds: Fraction) -> None:
        """End the sound at the end of the video."""
        self.write_until(seconds)
        for frame in self._resampler.rest():
            self._container.mux(self._stream.encode(frame))
        self._container.mux(self._stream.encode(None))

    def _next(self, count: int) -> np.ndarray:
        """The recording's next samples, float32 [channels, count]."""
        parts, missing = [], count
        while missing:
            if not self._rest.shape[1]:
                block = next(self._blocks, None)
                if block is None:
                    parts.append(np.zeros((self._channels, missing), dtype=np.float32))
                    break
                self._rest = self._clean(block)
                continue
            parts.append(self._rest[:, :missing])
            self._rest = self._rest[:, missing:]
            missing -= parts[-1].shape[1]
        return np.ascontiguousarray(np.concatenate(parts, axis=1))

    def _clean(self, block: np.ndarray) -> np.ndarray:
        block = np.asarray(block, dtype=np.float32)
        if block.ndim != 2 or block.shape[0] != self._sound.channels:
            raise InputError(
                f"A piece of the sound is {' x '.join(map(str, block.shape))}, but {self._sound.channels} channels x "
                "samples is needed."
            )
        if self._channels != self._sound.channels:
            block = np.broadcast_to(block.mean(axis=0), (self._channels, block.shape[1]))
        return np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1, 1)
