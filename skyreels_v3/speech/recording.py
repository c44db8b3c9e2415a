"""A recording made ready for the encoder: mono, 16 kHz, -23 LUFS, and its length in frames of video.

Source: avatar_preprocess.py of the official code.
"""

import math

import torch
import torch.nn.functional as F

from ..errors import InputError
from ..recipes import AT_ONCE, RECIPES, Job
from .loudness import loudness_gain

SAMPLE_RATE = 16000
SHORTEST = 0.4  # seconds; the loudness meter's block, and the official limit
FPS = RECIPES[Job.AVATAR].fps
MAX_SECONDS = 200.0  # of the official code; the model itself has no limit


def prepare_speech(waveform: torch.Tensor, rate: int, max_seconds: float = MAX_SECONDS) -> torch.Tensor:
    """Samples [n] float32 on the CPU, 16 kHz mono at -23 LUFS; silence stays silence.

    waveform: of a ComfyUI AUDIO, [B, channels, n] (the first of a batch counts), [channels, n] or [n]; floating point,
    full scale at 1, clipped or not.  rate: samples a second.
    Raises InputError for less than 0.4 s, more than max_seconds, NaN or infinite samples, and what is no sound.
    """
    samples = to_mono(waveform, rate)
    seconds = len(samples) / rate
    if seconds < SHORTEST:
        raise InputError(
            f"The recording is {seconds:.2f} s long, but at least {SHORTEST} s are needed: take a longer one."
        )
    if seconds > max_seconds:
        raise InputError(too_long(seconds, max_seconds))
    samples = resample(samples, rate, SAMPLE_RATE)
    return samples * loudness_gain(samples, SAMPLE_RATE)


def to_channels(waveform: torch.Tensor, rate: int) -> torch.Tensor:
    """Samples [channels, n] float32 on the CPU; arguments and errors as of `prepare_speech`."""
    samples = waveform.detach()
    if samples.ndim == 3 and samples.shape[0]:
        samples = samples[0]
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2 or 0 in samples.shape or rate < 1:
        shape = " x ".join(map(str, waveform.shape))
        raise InputError(f"The recording is {shape} samples at {rate} Hz, but batch x channels x samples is needed.")
    samples = samples.to("cpu", torch.float32)
    if not all(map(math.isfinite, torch.aminmax(samples))):  # torch.isfinite would copy the sound
        raise InputError(
            "The recording holds samples that are no numbers (NaN or infinity): look at the node that made it, or "
            "save the sound and load it again."
        )
    return samples


def to_mono(waveform: torch.Tensor, rate: int) -> torch.Tensor:
    """Samples [n] float32 on the CPU, the mean of all channels; arguments and errors as of `prepare_speech`."""
    return to_channels(waveform, rate).mean(dim=0)


def resample(samples: torch.Tensor, rate: int, wanted: int) -> torch.Tensor:
    """Samples [..., n] float32 at another rate, [..., ceil(n wanted / rate)].

    The official code asks librosa for it (soxr_hq), which asks soxr and brings numba besides.
    """
    if rate == wanted:
        return samples
    import soxr

    channels = samples.reshape(-1, samples.shape[-1]).numpy()
    made = torch.stack([torch.from_numpy(soxr.resample(one, rate, wanted, quality="HQ")) for one in channels])
    length = math.ceil(samples.shape[-1] * (wanted / rate))  # soxr makes a sample more or less of some lengths
    return F.pad(made, (0, length - made.shape[-1])).reshape(*samples.shape[:-1], length)


def video_frames(samples: int) -> int:
    """Frames of video for so many samples at 16 kHz: what is begun is made whole."""
    # In the official order: floating point makes one frame more of some lengths, such as 0.28 s.
    return math.ceil(samples / SAMPLE_RATE * FPS)


def silence(frames: int) -> torch.Tensor:
    """Samples [n] at 16 kHz of nobody, as long as so many frames of video."""
    each = SAMPLE_RATE // FPS
    return torch.zeros(frames * each - each // 2)  # up to the middle of the last one, far from where one begins


def check_people(count: int, most: int = AT_ONCE) -> None:
    """Raises InputError for a number of speakers that the model was not made for."""
    if not 1 <= count <= most:
        raise InputError(f"Speech of {count} people was given, but 1 to {most} can speak here: leave some out.")


def too_long(seconds: float, max_seconds: float) -> str:
    """The sentence for speech beyond the limit."""
    return (
        f"The speech is {seconds:.1f} s long, but at most {max_seconds:g} s are made in one job: shorten it, or raise "
        "max_seconds (the model's makers stop at 200 s; a longer video takes more time, disk and memory)."
    )
