"""How loud a recording is, in LUFS, and the same recording at another loudness.

Source: ITU-R BS.1770-4. Filters and rounding of block edges are those of pyloudnorm 0.1, which the official code uses:
two biquads after Robert Bristow-Johnson's cookbook at any rate, instead of the standard's coefficients for 48 kHz.
The package itself would be a third requirement for 40 lines; `tests/goldens/loudness.json` has its values.
"""

import math

import numpy as np
import torch

SPEECH_LOUDNESS = -23.0  # LUFS, of broadcast (EBU R 128)
VALID = 100.0  # LUFS either way; beyond it the official code leaves a recording alone
BLOCK = 0.4  # seconds; a block starts every quarter of one
OVERLAP = 0.75
SILENCE = -70.0  # LUFS; quieter blocks do not count
RELATIVE = -10.0  # LU below the mean of the others; quieter blocks do not count either
OFFSET = -0.691  # a full-scale sine of 997 Hz is at -3.01


def integrated_loudness(samples: torch.Tensor, rate: int) -> float:
    """Loudness in LUFS of mono samples [n] of at least 0.4 s; -infinity where all of it is silence."""
    from scipy.signal import lfilter  # takes a third of a second to import

    filtered = samples.detach().cpu().double().numpy()
    for b, a in (high_shelf(rate), high_pass(rate)):
        filtered = lfilter(b, a, filtered)
    step = 1 - OVERLAP
    count = int(np.round((len(filtered) / rate - BLOCK) / (BLOCK * step))) + 1
    energy = np.concatenate([[0.0], np.cumsum(filtered**2)])
    starts = np.array([int(BLOCK * (index * step) * rate) for index in range(count)])
    stops = np.array([min(int(BLOCK * (index * step + 1) * rate), len(filtered)) for index in range(count)])
    powers = (energy[stops] - energy[starts]) / (BLOCK * rate)
    with np.errstate(divide="ignore"):
        levels = OFFSET + 10 * np.log10(np.maximum(powers, 0))
    audible = levels >= SILENCE
    if not audible.any():
        return -math.inf
    threshold = OFFSET + 10 * math.log10(powers[audible].mean()) + RELATIVE
    counted = powers[(levels > threshold) & (levels > SILENCE)]
    return OFFSET + 10 * math.log10(counted.mean()) if len(counted) else -math.inf


def loudness_gain(samples: torch.Tensor, rate: int, target: float = SPEECH_LOUDNESS) -> float:
    """The factor that brings mono samples [n] to `target` LUFS; 1 where the measure means nothing (silence)."""
    loudness = integrated_loudness(samples, rate)
    return 1.0 if abs(loudness) > VALID else 10 ** ((target - loudness) / 20)


def high_shelf(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of the head's effect: 4 dB more above 1500 Hz."""
    amplitude = 10 ** (4.0 / 40)
    omega = 2 * math.pi * 1500.0 / rate
    cosine, alpha = math.cos(omega), math.sin(omega) / (2 / math.sqrt(2))
    root = 2 * math.sqrt(amplitude) * alpha
    more, less = amplitude + 1, amplitude - 1
    b = np.array([more + less * cosine + root, -2 * (less + more * cosine), more + less * cosine - root]) * amplitude
    a = np.array([more - less * cosine + root, 2 * (less - more * cosine), more - less * cosine - root])
    return b / a[0], a / a[0]


def high_pass(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of the ear's deafness to low tones: a high pass at 38 Hz."""
    omega = 2 * math.pi * 38.0 / rate
    cosine, alpha = math.cos(omega), math.sin(omega) / (2 * 0.5)
    b = np.array([(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2])
    a = np.array([1 + alpha, -2 * cosine, 1 - alpha])
    return b / a[0], a / a[0]
