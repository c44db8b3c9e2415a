"""Speech-like sound with the mouth that makes it: syllables of vowels and consonants, words, pauses.

Vowels are harmonics of a gliding pitch, weighted by three formants; consonants are shaped noise, hums and stops. The
mouth opens with the vowel and closes for m, b and p and in pauses. Source of the formants: Peterson and Barney, 1952.
"""

import math
import random
from dataclasses import dataclass

import numpy as np

from .looks import LOOKS

RATE = 16_000  # samples a second: what the avatar's speech encoder takes
VOWELS = {  # three formants in hertz, how wide the mouth opens
    "a": ((730, 1090, 2440), 1.0),
    "e": ((530, 1840, 2480), 0.62),
    "i": ((270, 2290, 3010), 0.34),
    "o": ((570, 840, 2410), 0.74),
    "u": ((300, 870, 2240), 0.28),
}
CONSONANTS = {  # noise from..to hertz (None: a hum), loudness, the mouth meanwhile
    "m": (None, 0.22, 0.0),
    "n": (None, 0.2, 0.12),
    "s": ((4200, 7600), 0.12, 0.12),
    "f": ((1500, 7000), 0.06, 0.08),
    "t": ((2500, 6500), 0.14, 0.15),
    "b": ((200, 900), 0.16, 0.0),
    "k": ((1200, 3000), 0.12, 0.18),
}
RAMP = 0.035  # seconds in which the mouth and the loudness change


@dataclass(frozen=True)
class Sound:
    """A vowel or consonant from `start` to `stop` seconds."""

    letter: str
    start: float
    stop: float
    pitch: float  # of the voice's own, 1 is unchanged


@dataclass(frozen=True)
class Speech:
    """wave: float32 [samples] at RATE.  sounds: in order.  seconds: of all."""

    wave: np.ndarray
    sounds: tuple[Sound, ...]
    seconds: float

    def mouth(self, frames: int, fps: float = 25.0) -> np.ndarray:
        """Openness 0 to 1 in the middle of each frame, float32 [frames]."""
        times = (np.arange(frames) + 0.5) / fps
        return _track(self.sounds, times, mouth=True).astype(np.float32)


def say(
    voice: str | tuple[float, float], seconds: float, seed: int, turns: list[tuple[float, float]] | None = None
) -> Speech:
    """Speech of a character, or of a voice of any pitch in hertz and size of body.

    turns: from, to in seconds where it speaks; the rest is silence. None: all the time.
    """
    sounds = _written(random.Random(f"{voice} {seed}"), turns or [(0.15, seconds - 0.1)])
    pitch, size = LOOKS[voice].voice if isinstance(voice, str) else voice
    return Speech(_sung(sounds, seconds, pitch, size, seed), sounds, seconds)


def take_turns(seconds: float, seed: int) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """When each of two people speaks: turns of 1 to 2 seconds, never both at once."""
    chance = random.Random(f"turns {seed}")
    turns, now, who = ([], []), 0.1, chance.randrange(2)
    while now < seconds - 0.4:
        stop = min(now + chance.uniform(0.9, 1.9), seconds - 0.1)
        turns[who].append((now, stop))
        now, who = stop + chance.uniform(0.15, 0.35), 1 - who
    return turns


def _written(chance: random.Random, turns: list[tuple[float, float]]) -> tuple[Sound, ...]:
    """Words of one to three syllables, with a pause after some."""
    sounds = []
    for start, stop in turns:
        now = start
        while True:
            word = []
            for _ in range(chance.randint(1, 3)):
                consonant, vowel = chance.choice(list(CONSONANTS)), chance.choice(list(VOWELS))
                for letter, long in ((consonant, chance.uniform(0.05, 0.09)), (vowel, chance.uniform(0.11, 0.21))):
                    word.append(
                        Sound(letter, now, now + long, 1 + 0.12 * math.sin(3 * now) + chance.uniform(-0.06, 0.06))
                    )
                    now += long
            if now > stop:
                break
            sounds += word
            now += chance.choice((0.03, 0.05, 0.25, 0.4))
    return tuple(sounds)


def _track(sounds: tuple[Sound, ...], times: np.ndarray, mouth: bool) -> np.ndarray:
    """The mouth's openness, or the voice's loudness, at each time."""
    track = np.zeros(len(times))
    for sound in sounds:
        if sound.letter in VOWELS:
            level = VOWELS[sound.letter][1] if mouth else 0.35 + 0.65 * VOWELS[sound.letter][1]
        else:
            level = CONSONANTS[sound.letter][2] if mouth else 0.0
        low, high = np.searchsorted(times, (sound.start - RAMP, sound.stop + RAMP))
        near = times[low:high]
        rise = np.clip(np.minimum(near - sound.start, sound.stop - near) / RAMP * 0.5 + 0.5, 0, 1)
        shape = level * (3 * rise**2 - 2 * rise**3)
        track[low:high] = np.maximum(track[low:high], shape)
        if mouth and level == 0.0:  # closed lips cut into the vowels around them
            track[low:high] *= 1 - (3 * rise**2 - 2 * rise**3)
    return track


def _sung(sounds: tuple[Sound, ...], seconds: float, pitch: float, size: float, seed: int) -> np.ndarray:
    times = np.arange(round(seconds * RATE)) / RATE
    wave = np.zeros(len(times))
    noise = np.random.default_rng(seed)
    for sound in sounds:
        low, high = np.searchsorted(times, (sound.start - RAMP, sound.stop + RAMP))
        near = times[low:high]
        if len(near) == 0:
            continue
        loud = _track((sound,), near, mouth=False)
        if sound.letter in VOWELS:
            wave[low:high] += loud * _vowel(VOWELS[sound.letter][0], near - sound.start, pitch * sound.pitch, size)
            continue
        band, loudness, _ = CONSONANTS[sound.letter]
        edge = np.clip(np.minimum(near - sound.start, sound.stop - near) / 0.012, 0, 1) * loudness
        if band is None:
            wave[low:high] += edge * _vowel((250, 1000, 2200), near - sound.start, pitch * sound.pitch, size)
        else:
            wave[low:high] += edge * _noise(noise, len(near), band)
    return (0.35 * wave / max(1e-6, np.abs(wave).max())).astype(np.float32)


def _vowel(formants: tuple[float, ...], t: np.ndarray, pitch: float, size: float) -> np.ndarray:
    """Harmonics below 5 kHz, each as strong as the formants make it, above a slope of -12 dB an octave."""
    numbers = np.arange(1, max(2, int(5000 / pitch)))
    frequencies = numbers * pitch
    strength = (
        sum(
            gain / (1 + ((frequencies - size * centre) / wide) ** 2)
            for centre, wide, gain in zip(formants, (70, 100, 140), (1.0, 0.5, 0.25))
        )
        + 0.02 / numbers
    )
    phase = 2 * math.pi * pitch * (t + 0.004 * np.sin(2 * math.pi * 5 * t))
    total = (strength[:, None] * np.sin(numbers[:, None] * phase + numbers[:, None] ** 2)).sum(axis=0)
    return total / np.sqrt((strength**2).sum())


def _noise(chance: np.random.Generator, samples: int, band: tuple[float, float]) -> np.ndarray:
    """Noise between two frequencies, of strength 1."""
    spectrum = np.fft.rfft(chance.standard_normal(samples))
    frequencies = np.fft.rfftfreq(samples, 1 / RATE)
    spectrum[(frequencies < band[0]) | (frequencies > band[1])] = 0
    wave = np.fft.irfft(spectrum, samples)
    return wave / max(1e-6, np.sqrt((wave**2).mean()))
