"""Whether mouths move with the speech: by SyncNet where it is there, else by what follows the loudness."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import av.container
import numpy as np

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.video.sources.source import Sound
from .watching import Watched

SYNCNET = ("sfd_face.pth", "syncnet_v2.model")
REACH = 15  # frames that a mouth may be early or late; SyncNet's too
PLAINLY = "the plain measure takes its place, whose number of speech is no confidence of SyncNet's"
SURE = 0.12  # of confidence: below it nothing in the picture follows the speech
HEARD = 16000  # samples a second
SHORTEST = 25  # frames


@dataclass(frozen=True)
class Lips:
    """by: what measured it.  confidence: how much better the best lag fits than others do; SyncNet's has another unit.

    lag: frames by which the mouth is late (below 0: early); None where nothing follows the speech.
    at_edge: the best fit is the farthest lag that is tried, behind which a better one may lie; then lag is None too.
    mouth, heard: tracks of the frames, 0 to 1, where it was the plain measure.
    """

    by: str
    confidence: float
    lag: int | None
    distance: float | None = None
    mouth: list[float] | None = None
    heard: list[float] | None = None
    at_edge: bool = False


def lacking(weights: Path) -> str | None:
    """Why SyncNet does not measure, in a sentence; None where it does."""
    if importlib.util.find_spec("syncnet_python") is None:
        return f"Mouths: no SyncNet (python tools/measure.py --setup --lips); {PLAINLY}."
    absent = [name for name in SYNCNET if not (weights / name).is_file()]
    if absent:
        return (
            f"Mouths: SyncNet lacks {' and '.join(absent)} in {weights}: get them by hand from the Oxford VGG page of "
            f"SyncNet, whose weights are for research; {PLAINLY}."
        )
    if shutil.which("ffmpeg") is None:
        return f"Mouths: SyncNet needs the program ffmpeg on the PATH; {PLAINLY}."
    return None


def by_syncnet(video: Path, speech: Path | None, weights: Path) -> Lips | None:
    """SyncNet's best track, None without a face. Its offset counts frames at 25 a second."""
    import torch
    from syncnet_python import SyncNetPipeline

    files = {"s3fd_weights": str(weights / SYNCNET[0]), "syncnet_weights": str(weights / SYNCNET[1])}
    with contextlib.redirect_stdout(io.StringIO()):
        pipeline = SyncNetPipeline(files, device="cuda" if torch.cuda.is_available() else "cpu")
        offsets, scores, distances, *_ = pipeline.inference(str(video), None if speech is None else str(speech))
    if not scores:
        return None
    best = max(range(len(scores)), key=lambda track: scores[track])
    lag = int(offsets[best])
    at_edge = abs(lag) >= REACH
    return Lips("SyncNet", float(scores[best]), None if at_edge else lag, float(distances[best]), at_edge=at_edge)


def by_loudness(watched: Watched, heard: np.ndarray, cuts: Sequence[int], part: tuple[int, int]) -> Lips | None:
    """What of the picture goes best with the loudness of the speech; None where either is too short or silent.

    heard: loudness of each frame, [F].  part: frames from and to before which somebody speaks.
    No face is looked for: whatever moves with the words counts as a mouth.
    """
    first, count = part[0], part[1] - part[0]
    heard = heard[first : part[1]]
    if count < SHORTEST + 2 * REACH or heard.std() < 1e-6:
        return None
    cells = watched.small[first : part[1]].astype(np.float32).mean(axis=3).reshape(count, -1)
    inside = [cut - first for cut in cuts if first < cut < part[1]]
    for start, stop in pairwise([0, *inside, count]):  # another shot has other colours everywhere
        cells[start:stop] -= cells[start:stop].mean(axis=0)
    fits = {lag: _follows(cells, heard, lag) for lag in range(-REACH, REACH + 1)}
    best = max(fits, key=lambda lag: fits[lag][0])
    confidence = fits[best][0] - float(np.median([fit for fit, _ in fits.values()]))
    mouth = cells[:, abs(fits[best][1]) - 1] * np.sign(fits[best][1])
    tracks = [[0.0] * first + _unit(track).round(3).tolist() for track in (mouth, heard)]
    if abs(best) == REACH:  # no peak: of what is tried, nothing fits better than what lies beside it
        return Lips("loudness", 0.0, None, None, *tracks, at_edge=True)
    return Lips("loudness", confidence, best if confidence >= SURE else None, None, *tracks)


def _follows(cells: np.ndarray, heard: np.ndarray, lag: int) -> tuple[float, int]:
    """The best correlation of a cell, and its number from 1, below 0 where it darkens with the words."""
    a = cells[max(0, lag) : len(cells) + min(0, lag)]
    b = heard[max(0, -lag) : len(heard) + min(0, -lag)]
    a, b = a - a.mean(axis=0), b - b.mean()
    size = np.sqrt((a * a).sum(axis=0) * (b * b).sum())
    found = np.divide(b @ a, size, out=np.zeros(a.shape[1], np.float64), where=size > 1e-3)
    cell = int(np.abs(found).argmax())
    return float(abs(found[cell])), (cell + 1) * (1 if found[cell] > 0 else -1)


def _unit(track: np.ndarray) -> np.ndarray:
    low, high = np.quantile(track, [0.02, 0.98])
    return np.clip((track - low) / max(float(high - low), 1e-9), 0, 1)


def loudness(sound: Sound, fps: float, frames: int) -> np.ndarray:
    """Root of the loudness of each frame's time, float64 [frames]; 0 behind the sound's end."""
    power = np.zeros(frames)
    at = 0
    for block in sound.blocks:
        samples = (block.astype(np.float64) ** 2).mean(axis=0)
        places = ((at + np.arange(len(samples))) / sound.rate * fps).astype(int)
        at += len(samples)
        inside = places < frames
        power += np.bincount(places[inside], samples[inside], frames)[:frames]
    return np.sqrt(np.sqrt(power * fps / sound.rate))


def read_sound(path: Path) -> Sound:
    """A recording, or the sound of a video. Raises InputError."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise InputError(f"The recording {path.name} has no sound: give a WAV, FLAC, MP3 or a video with one.")
            return Sound(HEARD, 1, list(_blocks(container)))
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"The recording {path.name} cannot be read: give a WAV, FLAC or MP3.") from error


def _blocks(container: av.container.InputContainer) -> Iterator[np.ndarray]:
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=HEARD)
    for frame in container.decode(audio=0):
        for part in resampler.resample(frame):
            yield part.to_ndarray()
