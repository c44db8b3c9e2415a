"""The text encoder of the nano models: umt5 of width 64 that learned what the words of a prompt are about.

It is trained on prompts alone. From the features of each word, linear maps tell which word it is and whom or what it is
about (the first or the second character, what is held, the place ...); from their mean, one for each tells the whole
scene. So every word carries what a video model would otherwise have to find out: that this `king` is the one who waves.

`train` takes about a minute on one core; `encode` gives what the video models are trained with, the features that
ComfyUI gives for the same file.
"""

import functools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..world.looks import CHARACTERS
from ..world.prompts import PHRASINGS, ROLES, UNNAMED, VOCABULARY, roles, write
from ..world.scenes import ACTIONS, CAMERAS, CUTS, SHOTS, cut_scene, drawn_scene, possible_cuts
from ..world.things import OBJECTS
from .shipped import FILES, NANO
from .umt5 import Umt5
from .words import END, MARKS, PAD, sentencepiece_model

FILE = NANO / FILES["text_encoders"]
SIZES = {"width": 64, "layers": 2, "heads": 4, "head_width": 16, "inner": 128}
STEPS, BATCH, RATE = 2500, 48, 3e-3
TOGETHER = 64  # prompts that are encoded at once
STRANGE = 0.25  # of the prompts have words of which nothing is known


@functools.cache
def tokenizer(file: Path = FILE):
    """The sentencepiece processor inside the file, which ends every text with END."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(
        model_proto=load_file(file)["spiece_model"].numpy().tobytes(), add_eos=True
    )


@functools.cache
def encoder(file: Path = FILE) -> Umt5:
    return Umt5.of(load_file(file))


@torch.no_grad()
def encode(prompts: Sequence[str], file: Path = FILE) -> list[Tensor]:
    """float32 [N, 64] for each prompt: its words and the end. ComfyUI pads the same with zeros to 512.

    Brackets ( ) are letters here, where ComfyUI takes them as weights.
    """
    tokens = tokenizer(file).encode(list(prompts))
    features: list[Tensor] = [torch.empty(0)] * len(tokens)
    by_length = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
    for start in range(0, len(tokens), TOGETHER):
        chosen = by_length[start : start + TOGETHER]
        batch, real = _padded([tokens[i] for i in chosen])
        for i, row, there in zip(chosen, encoder(file)(batch, real), real, strict=True):
            features[i] = row[there].clone()
    return features


class Reader(nn.Module):
    """Linear maps that tell from features what was said: of every word, and of the whole from the mean."""

    def __init__(self, width: int, vocabulary: int):
        super().__init__()
        self.role, self.word = nn.Linear(width, len(ROLES) + 1), nn.Linear(width, vocabulary)
        self.whole = nn.ModuleDict({role: nn.Linear(width, len(values)) for role, values in WHOLE.items()})


def _values(role: str) -> tuple[str, ...]:
    """What can be said with the words of a role; the first is nothing at all."""
    kind = role.split()[-1]
    if kind in ("character", "subject"):
        said: tuple[str, ...] = (*CHARACTERS, *OBJECTS, *UNNAMED)
    elif kind in ("held", "thing"):
        said = (*OBJECTS, UNNAMED[-1])
    elif kind == "cut":
        said = tuple(f"[{tag}]" for tag in CUTS)
    else:
        said = {"action": ACTIONS, "camera": CAMERAS, "shot": SHOTS}.get(kind, VOCABULARY)
    return ("", *said)


WHOLE = {role: _values(role) for role in ROLES}


def prompt_and_roles(rng: random.Random) -> list[tuple[str, str]]:
    """The words of a prompt at random, each with its role. Some leave names open, some have strange words between."""
    scene = drawn_scene(rng)
    cut = rng.choice(possible_cuts(scene)) if rng.random() < 0.4 else None
    scene = cut_scene(scene, cut) if cut else scene
    names = [*(actor.character for actor in scene.actors), *scene.objects]
    open_ = rng.choice(((), (), names, [name for name in names if rng.random() < 0.5]))
    words = roles(write(scene, rng.randrange(PHRASINGS), cut, open_))
    if rng.random() < STRANGE:
        for _ in range(rng.randint(1, 4)):
            word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9)))
            if rng.random() < 0.5:  # one that begins as a known word does
                word = rng.choice(VOCABULARY).strip("[]") + word[:3]
            words.insert(rng.randint(0, len(words) - 1), (word, ""))
    return words


def _examples(rng: random.Random, pieces) -> Iterator[tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]]:
    """Batches: tokens [B, N], where they are, their roles [B, N] (0 is none), and what the whole says [B] by role."""
    marks = {mark: pieces.piece_to_id(mark) for mark in MARKS}
    while True:
        tokens, labels, wholes = [], [], {role: [] for role in ROLES}
        for _ in range(BATCH):
            words = prompt_and_roles(rng)
            row, label = [], []
            for word, role in words:
                ids = [marks[word]] if word in marks else pieces.encode(word, add_eos=False)
                row += ids
                label += [ROLES.index(role) + 1 if role else 0] * len(ids)
            tokens.append([*row, END])
            labels.append([*label, 0])
            said = {role: " ".join(word for word, of in words if of == role) for role in ROLES}
            for role, values in WHOLE.items():
                wholes[role].append(values.index(said[role]))
        batch, real = _padded(tokens)
        yield batch, real, _padded(labels)[0], {role: torch.tensor(said) for role, said in wholes.items()}


def _padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    longest = max(len(row) for row in rows)
    batch = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return batch, torch.arange(longest) < lengths[:, None]


def _wrong(model: Umt5, reader: Reader, example) -> tuple[Tensor, dict[str, float]]:
    """The loss, and how much of each kind is read rightly."""
    tokens, real, labels, wholes = example
    features = model(tokens, real)
    mean = features.sum(1) / real.sum(1, keepdim=True)
    loss, right = torch.zeros(()), {}
    for kind, told, truth in (
        ("role", reader.role(features[real]), labels[real]),
        ("word", reader.word(features[real]), tokens[real]),
        *((role, reader.whole[role](mean), wholes[role]) for role in ROLES),
    ):
        loss = loss + nn.functional.cross_entropy(told, truth) * (1 if kind in ("role", "word") else 0.3)
        right[kind] = (told.argmax(-1) == truth).float().mean().item()
    return loss, right


def train(file: Path = FILE, steps: int = STEPS) -> dict[str, float]:
    """Train the encoder, write it in fp16 and return what is read rightly of new prompts, 0 to 1, by kind."""
    torch.manual_seed(0)
    spiece = sentencepiece_model(VOCABULARY)
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=spiece)
    model = Umt5(pieces.get_piece_size(), **SIZES)
    reader = Reader(SIZES["width"], pieces.get_piece_size())
    optimizer = torch.optim.AdamW([*model.parameters(), *reader.parameters()], RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    examples = _examples(random.Random(0), pieces)
    for _ in range(steps):
        loss, _ = _wrong(model, reader, next(examples))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    new = _examples(random.Random(1), pieces)
    with torch.no_grad():
        measured = [_wrong(model, reader, next(new))[1] for _ in range(20)]
        tokens, real, *_ = next(new)
        model.encoder["final_layer_norm"].weight /= model(tokens, real)[real].std()  # features of unit variance
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = {key: weight.half() for key, weight in model.state_dict().items()}
    weights["spiece_model"] = torch.frombuffer(bytearray(spiece), dtype=torch.uint8)
    save_file(weights, file)
    return {kind: sum(right[kind] for right in measured) / len(measured) for kind in measured[0]}
