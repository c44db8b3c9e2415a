"""Reads goldens: what the official code computed, with weights and inputs that follow from a recipe.

Every number is drawn from numpy.random.RandomState seeded with the CRC-32 of a key that starts with the file's name, so
a golden file holds only results, and a header with `config`, `shapes`, `inputs` and `note`.
"""

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open

PATCH = (4, 8, 8)  # frames, rows, columns of the linear VAE's patch
CHANNELS = 16


def normal(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers, float32, the same for a key forever."""
    state = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    return torch.from_numpy(state.standard_normal(size=tuple(shape)).astype(np.float32))


@dataclass(frozen=True)
class Golden:
    """One golden file. tensors: the official results.  header: the decoded metadata of a tensor file.

    data: what a JSON golden holds.
    """

    stem: str
    tensors: dict[str, torch.Tensor]
    header: dict[str, Any]
    data: dict[str, Any]

    @property
    def note(self) -> dict[str, Any]:
        return self.header.get("note", {})

    @property
    def config(self) -> dict[str, Any]:
        return self.header["config"]

    @property
    def shapes(self) -> dict[str, list[int]]:
        return self.header["shapes"]

    @property
    def input_shapes(self) -> dict[str, list[int]]:
        return self.header["inputs"]

    def weights(self) -> dict[str, torch.Tensor]:
        """Every weight under its official name."""
        return {name: self._weight(name, shape) for name, shape in self.shapes.items()}

    def input(self, name: str) -> torch.Tensor:
        """An input; text is zero behind its last token."""
        x = normal(f"{self.stem}/in/{name}", self.input_shapes[name])
        tokens = self._tokens(name)
        if tokens is not None:
            x[:, tokens:] = 0
        return x

    def pixels(self) -> torch.Tensor:
        """Smooth frames [F, H, W, 3] uint8."""
        return pixels(self.stem, *self.input_shapes["pixels"][:3])

    @cached_property
    def vae(self) -> "LinearVAE":
        """The stand-in for the VAE in the pipelines."""
        return LinearVAE(self.stem)

    def _weight(self, name: str, shape: list[int]) -> torch.Tensor:
        x = normal(f"{self.stem}/{name}", shape)
        if name.endswith("gamma"):
            return 1 + 0.1 * x
        if len(shape) >= 2:
            return x / math.sqrt(math.prod(shape[1:]))
        return (1.0 if name.endswith("weight") else 0.0) + 0.1 * x

    def _tokens(self, name: str) -> int | None:
        tokens = self.note.get("text_tokens")
        if isinstance(tokens, dict):
            return tokens.get(name)
        return self.note.get(f"{name}_tokens")


def pixels(stem: str, frames: int, height: int, width: int) -> torch.Tensor:
    """The smooth frames [F, H, W, 3] uint8 of a golden file."""
    coarse = (1, 3, max(2, frames // 8 + 2), max(2, height // 16), max(2, width // 16))
    z = F.interpolate(
        normal(f"{stem}/in/pixels", coarse), size=(frames, height, width), mode="trilinear", align_corners=True
    )
    return ((z * 0.5).clamp(-1, 1) + 1).mul(127.5).to(torch.uint8)[0].permute(1, 2, 3, 0)


class LinearVAE:
    """An orthonormal map between patches of pixels and 16 channels; latents are in model space."""

    def __init__(self, stem: str):
        patch = 3 * math.prod(PATCH)
        q, _ = np.linalg.qr(normal(f"{stem}/vae", (patch, CHANNELS)).double().numpy())
        self.matrix = torch.from_numpy(q.astype(np.float32))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """[1, 3, 4n + 1, H, W] in [-1, 1] -> [1, 16, n + 1, H / 8, W / 8]."""
        first = pixels[:, :, :1].expand(-1, -1, PATCH[0] - 1, -1, -1)
        x = torch.cat([first, pixels], dim=2)
        for dim, size in zip((2, 4, 6), PATCH):
            x = x.unflatten(dim, (-1, size))
        # batch, channel, (frames, frame), (rows, row), (columns, column) -> patches last
        x = x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        return (x @ (2 * self.matrix)).movedim(-1, 1)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """[1, 16, n + 1, h, w] -> [1, 3, 4n + 1, 8 h, 8 w] in [-1, 1]."""
        x = (latents.movedim(1, -1) @ (self.matrix.T / 2)).unflatten(-1, (3, *PATCH))
        x = x.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return x[:, :, PATCH[0] - 1 :].clamp(-1, 1)

    def pieces(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """`decode` a few frames at a time, as jobs take it; the pieces keep to no latent frame."""
        yield from self.decode(latents).split(3, dim=2)


def read(path: str | Path) -> Golden:
    """Reads a golden, wherever it lies. Raises OSError or ValueError where the file is missing or broken."""
    path = Path(path)
    if path.suffix == ".json":
        return Golden(path.stem, {}, {}, json.loads(path.read_text()))
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            header = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
    except Exception as error:  # safetensors has an exception type of its own for broken files
        raise ValueError(f"no readable golden: {error}") from error
    return Golden(path.stem, tensors, header, {})


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """|got - wanted| / |wanted| in the 2-norm; infinity where shapes differ or a number is missing."""
    got, wanted = got.detach().double().cpu(), wanted.double().cpu()
    if got.shape != wanted.shape or not torch.isfinite(got).all():
        return math.inf
    norm = wanted.norm().item()
    distance = (got - wanted).norm().item()
    return distance / norm if norm else distance
