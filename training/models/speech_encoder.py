"""The speech encoder of the nano avatar: wav2vec2 of 12 layers of 32 that learned to hear a mouth.

From each of its layers linear maps tell how far the mouth is open and which sound is made, of voices of any pitch and
size, with pauses and faint noise between. `train` takes some minutes on one core; `encode` gives what the avatar is
trained with: the pack's own preparation and resampling, as the Speech node does it with ComfyUI's classes.
"""

import functools
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...skyreels_v3.speech.encoder import SpeechEncoder, speech_features
from ...skyreels_v3.speech.recording import FPS, prepare_speech
from ..world.voices import CONSONANTS, RATE, VOWELS, Speech, say, take_turns
from .shipped import FILES, NANO
from .wav2vec2 import Wav2Vec2

FILE = NANO / FILES["audio_encoders"]
SIZES = {"width": 32, "heads": 2, "layers": 12, "conv_width": 32}
LETTERS = ("", *VOWELS, *CONSONANTS)
PITCHES, BODIES = (80.0, 420.0), (0.8, 1.5)  # of voices: hertz, and how high the formants lie
RECORDINGS, SECONDS = 240, 5.2
LENGTHS = (33, 33, 49, 81, 125)  # video frames of a batch
STEPS, BATCH, RATE_OF_LEARNING = 1000, 8, 3e-3


@functools.cache
def encoder(file: Path = FILE) -> Wav2Vec2:
    return Wav2Vec2.of(load_file(file), SIZES["heads"])


@torch.no_grad()
def encode(wave: np.ndarray | Tensor, file: Path = FILE) -> Tensor:
    """What the avatar hears of a recording at 16 kHz, at least 0.4 s of it: float32 [frames at 25/s, 12, 32]."""
    samples = prepare_speech(torch.as_tensor(wave), RATE)
    return torch.stack(list(speech_features(samples, SpeechEncoder.of(encoder(file)))), dim=1)


def voice(rng: random.Random) -> tuple[float, float]:
    """Pitch and size of a voice at random, high ones of small bodies more often."""
    pitch = PITCHES[0] * (PITCHES[1] / PITCHES[0]) ** rng.random()
    middle = BODIES[0] + (BODIES[1] - BODIES[0]) * (pitch - PITCHES[0]) / (PITCHES[1] - PITCHES[0])
    return pitch, min(max(middle + rng.uniform(-0.2, 0.2), BODIES[0]), BODIES[1])


def recording(rng: random.Random, seconds: float = SECONDS) -> Speech:
    """Someone speaks, all the time, or in turns with another who is not heard."""
    seed = rng.randrange(1 << 30)
    turns = take_turns(seconds, seed)[rng.randrange(2)] if rng.random() < 0.4 else None
    return say(voice(rng), seconds, seed, turns or None)


def letters(speech: Speech, frames: int) -> np.ndarray:
    """Which of LETTERS sounds in the middle of each frame, int64 [frames]."""
    heard = np.zeros(frames, dtype=np.int64)
    times = (np.arange(frames) + 0.5) / FPS
    for sound in speech.sounds:
        heard[(times >= sound.start) & (times < sound.stop)] = LETTERS.index(sound.letter)
    return heard


class Reader(nn.Module):
    """Linear maps from each layer: [layers, B, F, width] to openness [layers, B, F] and letters [layers, B, F, n]."""

    def __init__(self, layers: int, width: int):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, 1 + len(LETTERS)) for _ in range(layers))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        told = torch.stack([read(layer) for read, layer in zip(self.maps, features, strict=True)])
        return told[..., 0], told[..., 1:]


def _batch(rng: random.Random, recordings: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    frames, step = rng.choice(LENGTHS), RATE // FPS
    parts = []
    for samples, mouth, letter in rng.choices(recordings, k=BATCH):
        start = rng.randrange(len(mouth) - frames + 1)
        part = samples[start * step : (start + frames) * step]
        if rng.random() < 0.3:
            part = part + torch.randn_like(part) * 10 ** rng.uniform(-4, -2.5)
        parts.append((part, mouth[start : start + frames], letter[start : start + frames]))
    samples, mouth, letter = (torch.stack(column) for column in zip(*parts, strict=True))
    return samples, mouth, letter


def train(file: Path = FILE, steps: int = STEPS) -> dict[str, float]:
    """Train the encoder, write it in fp16, and return correlations with the mouth of new voices: see `measured`."""
    torch.manual_seed(0)
    rng = random.Random(0)
    recordings = []
    for _ in range(RECORDINGS):
        speech = recording(rng)
        frames = round(speech.seconds * FPS)
        truth = torch.from_numpy(speech.mouth(frames, FPS)), torch.from_numpy(letters(speech, frames))
        recordings.append((prepare_speech(torch.from_numpy(speech.wave), RATE), *truth))
    model, reader = Wav2Vec2(**SIZES), Reader(SIZES["layers"], SIZES["width"])
    optimizer = torch.optim.AdamW([*model.parameters(), *reader.parameters()], RATE_OF_LEARNING, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE_OF_LEARNING, steps, pct_start=0.15)
    for _ in range(steps):
        samples, mouth, letter = _batch(rng, recordings)
        opened, sounds = reader(model(samples, mouth.shape[1]))
        loss = 10 * (opened - mouth).pow(2).mean()
        loss = loss + nn.functional.cross_entropy(sounds.flatten(0, -2), letter.repeat(len(sounds), 1, 1).flatten()) / 2
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: weight.half() for key, weight in model.state_dict().items()}, file)
    return measured(file)


def measured(file: Path = FILE, seed: int = 1) -> dict[str, float]:
    """How well a linear map tells the mouth of voices that it was not fitted to.

    correlation: of each layer, the worst; of all layers together.  silence: how far openness strays from 0 (RMS)
    where nobody speaks for a second.
    """
    rng = random.Random(seed)
    known, new = ([recording(rng) for _ in range(count)] for count in (24, 12))
    inputs = [(encode(speech.wave, file), speech) for speech in (*known, *new)]
    features = [one.flatten(1) for one, _ in inputs]
    mouths = [torch.from_numpy(speech.mouth(len(one), FPS)) for one, speech in inputs]

    def told(columns: slice) -> list[Tensor]:
        x = torch.cat([one[:, columns] for one in features[: len(known)]]).double()
        y = torch.cat(mouths[: len(known)]).double()
        x1 = torch.cat([x, torch.ones(len(x), 1)], 1)
        fit = torch.linalg.solve(x1.T @ x1 + 1e-1 * torch.eye(x1.shape[1]), x1.T @ y)
        return [one[:, columns].double() @ fit[:-1] + fit[-1] for one in features[len(known) :]]

    def correlation(opened: list[Tensor]) -> float:
        return torch.corrcoef(torch.stack([torch.cat(opened), torch.cat(mouths[len(known) :]).double()]))[0, 1].item()

    width = SIZES["width"]
    layers = [correlation(told(slice(i * width, (i + 1) * width))) for i in range(SIZES["layers"])]
    opened = told(slice(None))
    still = torch.cat([one[_silent(mouth)] for one, mouth in zip(opened, mouths[len(known) :], strict=True)])
    return {
        "worst layer": min(layers),
        "all layers": correlation(opened),
        "silence": still.pow(2).mean().sqrt().item(),
    }


def _silent(mouth: Tensor) -> Tensor:
    """Where the mouth is shut for a second around."""
    return nn.functional.max_pool1d(mouth[None], FPS, stride=1, padding=FPS // 2)[0] == 0
