"""LoKr and LoHa in files: which of their tensors are which weights of a LoraBranch, and what their alpha is divided by.

Source: the files of LyCORIS, which SimpleTuner, ai-toolkit, musubi-tuner and OneTrainer write too. What may stand as
one matrix or as a product of two (`lokr_w1` or `lokr_w1_a` and `lokr_w1_b`) is a matrix here if it is small.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch

from ...skyreels_v3.model.lora import BranchParams, product
from .names import LOHA, LOKR

Shape = tuple[int, ...]
WEIGHTS = dict(zip(LOHA, ("up", "down", "other_up", "other_down"), strict=True))
BESIDE = {"diff_b", "magnitude", "set"}  # parts that are no change of the weight


class MisfitError(ValueError):
    """The tensors of a layer are none or do not fit together; the message says how, as the end of a sentence."""


@dataclass(frozen=True)
class Product:
    """The change of a weight as a product of what a file holds.

    weights: name in a LoraBranch -> the parts that are multiplied to it, one or two.  rows, columns: of the weight
    that it is for.  rank, groups, other_rank: see BranchParams.  alpha_rank: what alpha is divided by, 0 if it does not
    count.
    """

    weights: Mapping[str, tuple[str, ...]]
    rows: int
    columns: int
    rank: int
    alpha_rank: int
    groups: tuple[int, int] | None = None
    other_rank: int = 0

    def params(self, scale: float) -> BranchParams:
        """The sizes of its branch."""
        groups, other_rank = self.groups, self.other_rank
        return BranchParams(self.columns, self.rows, self.rank, scale, groups=groups, other_rank=other_rank)

    def tensors(self, get: Callable[[str], torch.Tensor]) -> dict[str, torch.Tensor]:
        """Name in a LoraBranch -> its weight. get: a part -> its tensor."""
        return {name: multiplied([get(part) for part in parts]) for name, parts in self.weights.items()}


@dataclass(frozen=True)
class ProductDelta:
    """A Product as the change of a weight that is no linear layer's. keys: part -> key of the file."""

    shape: Shape
    product: Product
    scale: float
    keys: Mapping[str, str]

    def tensor(self, get: Callable[[str], torch.Tensor]) -> torch.Tensor:
        """The change, in the weight's shape."""
        tensors = self.product.tensors(lambda part: get(self.keys[part]).float())
        return product(**tensors).reshape(self.shape) * self.scale


def product_of(shapes: Mapping[str, Shape]) -> Product | None:
    """The product of these parts of a layer, None if there are none of LoKr or LoHa among them. Raises MisfitError."""
    if any(part in shapes for part in LOKR):
        made = _lokr(shapes)
    elif any(part in shapes for part in LOHA):
        made = _loha(shapes)
    else:
        return None
    if shapes.keys() - BESIDE - {part for parts in made.weights.values() for part in parts}:
        raise MisfitError("a layer has one change")
    return made


def pair_of(shapes: Mapping[str, Shape]) -> Product | None:
    """The product of a plain LoRA's parts, None if there are others or one is missing. Raises MisfitError."""
    if set(shapes) != {"up", "down"}:
        return None
    rows, columns, rank = _pair(shapes["up"], shapes["down"])
    return Product({"up": ("up",), "down": ("down",)}, rows, columns, rank, rank)


def multiplied(factors: list[torch.Tensor]) -> torch.Tensor:
    """One or two matrices as one; of a convolution's, all but the first axis is columns."""
    first, *second = (tensor.flatten(1) for tensor in factors)
    return first.float() @ second[0].float() if second else first


def _lokr(shapes: Mapping[str, Shape]) -> Product:
    def factor(name: str) -> tuple[tuple[str, ...], Shape, int]:
        """(its parts, rows and columns, rank; 0 where it is whole)."""
        if name in shapes:
            rows, columns = _matrix(shapes[name])
            return (name,), (rows, columns), 0
        if {f"{name}_a", f"{name}_b"} <= shapes.keys():
            rows, columns, rank = _pair(shapes[f"{name}_a"], shapes[f"{name}_b"])
            return (f"{name}_a", f"{name}_b"), (rows, columns), rank
        raise MisfitError("a LoKr has two factors, each whole or as two halves")

    mix, groups, mix_rank = factor("lokr_w1")
    parts, (rows, columns), rank = factor("lokr_w2")
    weights = {"mix": mix} | {name: (part,) for name, part in zip(("up", "down"), parts, strict=False)}
    # As LyCORIS has it: the second factor's rank, then the first one's; between whole factors no alpha counts.
    alpha_rank = rank or mix_rank
    return Product(weights, groups[0] * rows, groups[1] * columns, rank, alpha_rank, (groups[0], groups[1]))


def _loha(shapes: Mapping[str, Shape]) -> Product:
    if not shapes.keys() >= set(LOHA):
        raise MisfitError("a LoHa has two pairs of halves")
    first = _pair(shapes["hada_w1_a"], shapes["hada_w1_b"])
    other = _pair(shapes["hada_w2_a"], shapes["hada_w2_b"])
    if first[:2] != other[:2]:
        raise MisfitError("both pairs of a LoHa are for one weight")
    rows, columns, rank = first
    weights = {name: (part,) for part, name in WEIGHTS.items()}
    return Product(weights, rows, columns, rank, rank, other_rank=other[2])


def _matrix(shape: Shape) -> tuple[int, int]:
    if len(shape) < 2 or not prod(shape):
        raise MisfitError("none of them is empty or a row of numbers")
    return shape[0], prod(shape[1:])


def _pair(up: Shape, down: Shape) -> tuple[int, int, int]:
    """(rows, columns, rank) of the product."""
    (rows, rank), (other, columns) = _matrix(up), _matrix(down)
    if rank != other:
        raise MisfitError("two halves have one rank")
    return rows, columns, rank
