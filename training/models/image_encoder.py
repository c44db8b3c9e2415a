"""The image encoder of the nano avatar: a ViT of width 64 that learned who is in a picture, where and when.

From the mean of its tokens linear maps tell place, time of day and characters; from each token, whose part it shows and
which colours. `train` takes some minutes on one core; `encode` gives what the avatar is trained with, the hidden state
before the last block, of pixels as the pack prepares them (`skyreels_v3.jobs.avatar.condition.clip_pixels`).
"""

import functools
import random
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...skyreels_v3.jobs.avatar.condition import CLIP_SIZE, clip_pixels
from ..world.looks import CHARACTERS
from ..world.render import render
from ..world.samples import LATEST, people_masks, signed
from ..world.scenes import BACKGROUNDS, TIMES, drawn_scene
from .shipped import FILES, NANO
from .vit import Vit

FILE = NANO / FILES["clip_vision"]
SIZES = {"width": 64, "heads": 4, "layers": 3, "inner": 128, "patch": 14, "tokens": 257}
SIDE = CLIP_SIZE // SIZES["patch"]  # patches in a row
COLOURS = 2  # colours in a row of a patch that a token has to know
PICTURES, STEPS, BATCH, RATE = 1200, 1500, 16, 2e-3
FRAMES = ((96, 64), (96, 64), (64, 96), (80, 80), (128, 80))


@functools.cache
def encoder(file: Path = FILE) -> Vit:
    return Vit.of(load_file(file), SIZES["heads"])


@torch.no_grad()
def encode(pixels: Tensor, file: Path = FILE) -> Tensor:
    """What the avatar sees of `clip_pixels` [B, 3, 224, 224]: float32 [B, 257, 64]."""
    return encoder(file)(pixels)


def picture(rng: random.Random) -> tuple[Tensor, dict[str, Tensor]]:
    """A frame of a scene at random as `clip_pixels` in float16 [3, 224, 224], and what is to be told of it.

    place, time: which one.  people: float32 [12], 1 for those who are there.  parts: int64 [256], whose part each patch
    shows, 0 for nobody's.
    """
    scene, size, t = drawn_scene(rng), rng.choice(FRAMES), rng.uniform(0, LATEST)
    masks = F.adaptive_avg_pool2d(torch.from_numpy(people_masks(scene, t, size)), (SIDE, SIDE)).flatten(1)
    who = [CHARACTERS.index(actor.character) for actor in scene.actors]
    seen = [index for index, mask in zip(who, masks, strict=False) if mask.max() > 0.5]
    people = torch.zeros(len(CHARACTERS)).index_fill(0, torch.tensor(seen, dtype=torch.long), 1.0)
    parts = torch.tensor([*(index + 1 for index in who), 0])[masks.argmax(0)]
    told = {"place": BACKGROUNDS.index(scene.place), "time": TIMES.index(scene.time)}
    told = {kind: torch.tensor(index) for kind, index in told.items()}
    pixels = clip_pixels(signed(render(scene, t, size)[None]))[0]
    return pixels.half(), {**told, "people": people, "parts": parts}


class Reader(nn.Module):
    """Linear maps that tell what `picture` says: of the mean of the tokens, and of each patch's."""

    def __init__(self, width: int):
        super().__init__()
        self.place, self.time = nn.Linear(width, len(BACKGROUNDS)), nn.Linear(width, len(TIMES))
        self.people, self.parts = nn.Linear(width, len(CHARACTERS)), nn.Linear(width, len(CHARACTERS) + 1)
        self.colours = nn.Linear(width, 3 * COLOURS**2)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        mean, patches = F.layer_norm(tokens.mean(1), tokens.shape[2:]), F.layer_norm(tokens[:, 1:], tokens.shape[2:])
        whole = {"place": self.place(mean), "time": self.time(mean), "people": self.people(mean)}
        return {**whole, "parts": self.parts(patches), "colours": self.colours(patches)}


def _batch(pictures: list[tuple[Tensor, dict[str, Tensor]]], mirrored: bool) -> tuple[Tensor, dict[str, Tensor]]:
    pixels = torch.stack([pixels for pixels, _ in pictures]).float()
    truth = {kind: torch.stack([told[kind] for _, told in pictures]) for kind in pictures[0][1]}
    if mirrored:
        pixels = pixels.flip(-1)
        truth["parts"] = truth["parts"].unflatten(1, (SIDE, SIDE)).flip(-1).flatten(1)
    colours = F.adaptive_avg_pool2d(pixels, SIDE * COLOURS).unflatten(2, (SIDE, COLOURS)).unflatten(4, (SIDE, COLOURS))
    truth["colours"] = colours.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2)
    return pixels, truth


def _loss(told: dict[str, Tensor], truth: dict[str, Tensor]) -> Tensor:
    loss = F.cross_entropy(told["place"], truth["place"]) + F.cross_entropy(told["time"], truth["time"])
    loss = loss + 4 * F.binary_cross_entropy_with_logits(told["people"], truth["people"])
    loss = loss + F.cross_entropy(told["parts"].flatten(0, 1), truth["parts"].flatten())
    return loss + F.mse_loss(told["colours"], truth["colours"])


def _right(told: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    right = {kind: (told[kind].argmax(-1) == truth[kind]).float().mean().item() for kind in ("place", "time", "parts")}
    right["people"] = ((told["people"] > 0) == (truth["people"] > 0)).all(1).float().mean().item()
    spread = (truth["colours"] - truth["colours"].mean()).pow(2).mean()
    right["colours"] = 1 - ((told["colours"] - truth["colours"]).pow(2).mean() / spread).item()
    return right


def train(file: Path = FILE, steps: int = STEPS) -> dict[str, float]:
    """Train the encoder, write it in fp16, and return what is told rightly of new pictures, 0 to 1, by kind."""
    torch.manual_seed(0)
    rng = random.Random(0)
    pictures = [picture(rng) for _ in range(PICTURES)]
    model, reader = Vit(**SIZES), Reader(SIZES["width"])
    weights = [*model.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    for _ in range(steps):
        pixels, truth = _batch(rng.sample(pictures, BATCH), rng.random() < 0.5)
        loss = _loss(reader(model(pixels)), truth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        measured = []
        for _ in range(10):
            pixels, truth = _batch([picture(rng) for _ in range(BATCH)], False)
            measured.append(_right(reader(model(pixels)), truth))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: weight.half().contiguous() for key, weight in model.state_dict().items()}, file)
    return {kind: sum(right[kind] for right in measured) / len(measured) for kind in measured[0]}
