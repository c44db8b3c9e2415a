"""A LoRA file on disk: opened, its names read, and checked against the network that it is for."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from math import isfinite, prod
from pathlib import Path

import torch

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.lora import BranchParams, module_name
from ...skyreels_v3.model.params import TransformerParams
from ..architecture.key_maps import find_dialect
from ..architecture.params import expected_shapes
from ..files.header import read_header
from ..files.tensor_info import TensorInfo, short, some
from ..tensors.file_tensors import Reader, read_from
from ..tensors.stored import Part, part_of
from .names import (
    INSTEAD,
    INSTEAD_OF_COLUMNS,
    PARTS,
    READ_KINDS,
    is_distilled,
    layer_names,
    named_second,
    of_second,
    other_kind,
    split,
    wan_names,
)
from .products import MisfitError, Product, ProductDelta, multiplied, product_of
from .scale import ScaleRule, scale_rule

Shape = tuple[int, ...]
Get = Callable[[str], torch.Tensor]
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
MODEL = "choose a LoRA for Wan 2.1 14B or SkyReels-V3"
RANKED = ("down", "lokr_w2_b", "lokr_w1_b", "hada_w1_b")  # halves with a row for each rank
SAME = {"diff_m": "diff", "up_b": "diff_b"}  # parts that change the same weight as another
BY_ROWS = (
    "up",
    "diff",
    "diff_b",
    "magnitude",
    "lokr_w1",
    "lokr_w1_a",
    "hada_w1_a",
    "hada_w2_a",
)  # parts of which each of several fused layers has its own rows


@dataclass(frozen=True)
class WeightDelta:
    """A change of a weight that is no linear layer's: scale * diff, or scale * up @ down, keys of the file."""

    shape: Shape
    diff: str = ""
    up: str = ""
    down: str = ""
    scale: float = 1.0

    def tensor(self, get: Get) -> torch.Tensor:
        """The change, in the weight's shape."""
        if self.diff:
            return _scaled(get(self.diff).reshape(self.shape), self.scale)
        return (get(self.up).float().flatten(1) @ get(self.down).float().flatten(1)).reshape(self.shape) * self.scale


@dataclass
class LoraFile:
    """A checked LoRA; of its tensors only the alphas have been read.

    parts: key in the file -> where it lies.  layers: Wan name of a linear layer -> what the file has for it.
    branches: name in the state dict of a Lora of these layers -> keys in the file, which are multiplied.  factors: name
    in it -> what the file's tensor is multiplied by.  deltas: Wan name of any other weight -> its change.  left_out:
    layers of the file that this network does not have.  replacing: weights that it would set, not change.  shares: Wan
    name of a layer -> (place, count): which of so many parts of the rows in the file is its own.  second: layer of a
    second transformer, which is left out -> what that is called.  only_second: the same of a file that has no other
    layers, which are used.  about_scale: sentences on what tells its scale.
    kind: "LoKr" ..., empty for plain LoRAs.  count: layers in the file.  is_distilled: whether it is one that saves
    steps.
    """

    path: Path
    parts: dict[str, Part]
    layers: dict[str, BranchParams] = field(default_factory=dict)
    branches: dict[str, tuple[str, ...]] = field(default_factory=dict)
    factors: dict[str, float] = field(default_factory=dict)
    deltas: dict[str, WeightDelta | ProductDelta] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    replacing: list[str] = field(default_factory=list)
    shares: dict[str, tuple[int, int]] = field(default_factory=dict)
    second: dict[str, str] = field(default_factory=dict)
    only_second: str = ""
    about_scale: list[str] = field(default_factory=list)
    kind: str = ""
    count: int = 0
    is_distilled: bool = False

    def summary(self) -> str:
        """What it is, in a line: its layers and ranks."""
        ranks = sorted({layer.rank for layer in self.layers.values() if layer.rank})
        span = "" if not ranks else f", rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "")
        kind = f", {self.kind}" if self.kind else ""
        return f"{self.path.name}: {self.count - len(self.left_out)} layers{kind}{span}"

    def notes(self) -> list[str]:
        """Sentences for the artist: what is left out and what to expect."""
        name, notes = self.path.name, []
        if self.left_out:
            notes.append(
                f"{len(self.left_out)} of {self.count} layers of {name} fit nothing in this model and are left out "
                f"({some(self.left_out)})."
            )
        if self.second:
            notes.append(
                f"{name} has LoRAs for the two transformers of Wan 2.2: that for high noise is used, that for low "
                f"noise ({next(iter(self.second.values()))}, {len(self.second)} layers) is left out."
            )
        if self.only_second:
            notes.append(
                f"{name} is for the transformer of Wan 2.2 for low noise ({self.only_second}), which made details in "
                "the last steps alone: it is used in all steps; for motion and composition take that for high noise."
            )
        if self.replacing:
            notes.append(
                f"{name} replaces {len(self.replacing)} weights instead of changing them, which is not supported: "
                f"they are left out ({some(self.replacing)})."
            )
        notes += self.about_scale
        if self.is_distilled:
            notes.append(
                f"{name} is made to save steps, but SkyReels-V3 models are distilled already: on top of that the "
                "picture burns, so try strength 0.3 or leave it out."
            )
        return notes

    def read(self, reader: Reader | None = None) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """(state dict of the Lora, Wan name -> change of a weight that is no linear layer's).

        reader: maps the file. Where None it is read into memory, because it is small and trainers write to it again.
        Raises InputError if it has changed.
        """
        with _opened(self.path, self.parts, reader) as get:
            state = {name: multiplied([_as_matrix(get(key)) for key in keys]) for name, keys in self.branches.items()}
            for layer, (place, count) in self.shares.items():
                mix = f"{module_name(layer)}.mix.weight"  # whose rows are those of a LoKr
                others = (f"{module_name(layer)}.{part}.weight" for part in ("other_up", "bias", "magnitude"))
                for name in (mix if mix in state else f"{module_name(layer)}.up.weight", *others):
                    if count > 1 and name in state:
                        state[name] = state[name].chunk(count)[place]
            for name, factor in self.factors.items():
                state[name] = _scaled(state[name], factor)
            return state, {name: delta.tensor(get) for name, delta in self.deltas.items()}


def open_lora(path: Path, params: TransformerParams) -> LoraFile:
    """Open a LoRA for the transformer of these sizes. Only the header and the alphas are read.

    Raises InputError, in one sentence, for files that are damaged, no LoRA, of a kind that cannot run beside a layer,
    or made for another model.
    """
    path = Path(path)
    name = path.name
    header = read_header(path)
    if header.file_format != "safetensors":
        raise InputError(f"{name} is a GGUF file, but LoRAs are read from safetensors: {MODEL} in that format.")
    kind = other_kind(header.tensors) or ""
    if kind and kind not in READ_KINDS:
        raise InputError(f"{name} is a kind of LoRA that SkyReels-V3 LoRA does not read ({kind}): {INSTEAD}.")
    shapes = expected_shapes(params)
    lora = LoraFile(
        path,
        {key: part_of(path, key, header) for key in header.tensors},
        kind=kind,
        is_distilled=is_distilled(path.stem, header.metadata),
    )
    found = _layers(lora, header.tensors, shapes)
    rule, lora.about_scale = scale_rule(path, header.metadata, _pairs(found, header.tensors))
    with _opened(path, lora.parts) as get:
        for layer, parts in found.items():
            _add(lora, layer, parts, header.tensors, shapes, get, rule)
    return lora


def _layers(lora: LoraFile, tensors: Mapping[str, TensorInfo], shapes: Mapping[str, Shape]):
    """Wan name of a layer -> {part: key}. Puts into `lora` what is left out, and where layers are fused."""
    name, names = lora.path.name, layer_names(shapes)
    second = of_second(tensors, names)
    found: dict[str, dict[str, str]] = {}
    strange: dict[str, None] = {}
    is_lora = False
    for key in tensors:
        layer, part = split(key) or (key, "")
        is_lora |= bool(part)
        if key in second:
            lora.second[layer] = second[key]
            continue
        wans = wan_names(layer, names) if part else ()
        if part == "diff_m" and not wans:
            wans = wan_names(f"{layer}.modulation", names)
        if not wans:
            strange[layer] = None
        for place, wan in enumerate(wans):
            parts = found.setdefault(wan, {})
            share = lora.shares.setdefault(wan, (place, len(wans)))
            other = parts.setdefault(SAME.get(part, part), key)
            if other != key or share != (place, len(wans)):
                raise InputError(
                    f"{name} has {wan} twice, as {short(next(iter(parts.values())))} and as {short(key)}: it is two "
                    "LoRAs in one file, use each by itself."
                )
    if not is_lora:
        what = "a whole model: load it with SkyReels-V3 Load Model" if find_dialect(tensors) else f"no LoRA: {MODEL}"
        called = f" (its tensors are called {some(list(tensors))})" if tensors else " (it is empty)"
        raise InputError(f"{name}{called} is {what}.")
    if not found:
        texts = all(layer.startswith(("lora_te", "text_encoder", "text_model")) for layer in strange)
        whose = "a text encoder" if texts else "another model"
        raise InputError(
            f"{name} is a LoRA for {whose}: none of its {len(strange)} layers ({some(list(strange))}) is in this "
            f"model, so {MODEL}."
        )
    if not second:
        lora.only_second = next(iter(named_second(tensors).values()), "")
    lora.left_out, lora.count = list(strange), len(found) + len(strange)
    return found


def _pairs(found: Mapping[str, Mapping[str, str]], tensors: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Key of each product that has no alpha beside it, by `_lower` -> its rank, 0 where it has none."""
    lower = [_lower(parts) for parts in found.values() if "alpha" not in parts]
    return {key: tensors[key].shape[0] if part in RANKED else 0 for part, key in lower if key and tensors[key].shape}


def _lower(parts: Mapping[str, str]) -> tuple[str, str]:
    """(part, key) of a layer's lower half, by which its scale is looked up; of a LoKr without halves, its factor."""
    return next(((part, parts[part]) for part in (*RANKED, "lokr_w2") if part in parts), ("", ""))


def _add(
    lora: LoraFile,
    layer: str,
    parts: dict[str, str],
    tensors,
    shapes: Mapping[str, Shape],
    get: Get,
    rule: ScaleRule | None,
) -> None:
    """Check what a file has for one layer and sort it into `lora`. rule: tells the scale of pairs without an alpha."""
    name = lora.path.name
    given = {part: tensors[key] for part, key in parts.items() if part != "alpha"}
    for tensor in given.values():
        if tensor.dtype not in FLOATS:
            raise InputError(f"{name} is stored as {tensor.dtype}, which is not read for LoRAs: use the bf16 file.")
    count = lora.shares[layer][1]
    given = {part: _share(tensor, count) if part in BY_ROWS else tensor for part, tensor in given.items()}
    weight = f"{layer}.weight" if f"{layer}.weight" in shapes else layer
    shape, bias = shapes[weight], shapes.get(f"{layer}.bias")
    if "set" in given:
        lora.replacing.append(layer)
    own = {part: tensor.shape for part, tensor in given.items()}
    product = _product(own, layer, name)
    rank = _rank(own, parts, layer, name) if product is None else product.rank
    if "alpha" in parts:
        scale = _scale(name, layer, rank if product is None else product.alpha_rank, get(parts["alpha"]))
    else:
        own_rank = product.alpha_rank if product is not None else rank or None
        scale = 1.0 if rule is None or own_rank is None else rule.scale(_lower(parts)[1], own_rank)
    bias_scale = scale if _is_of_pair(parts) else 1.0
    made, needed = None, ()
    if product is not None:
        made, needed = (product.rows, product.columns), (shape[0], prod(shape[1:]))
    elif rank:
        made, needed = (given["up"].shape[0], prod(given["down"].shape[1:])), (shape[0], prod(shape[1:]))
    elif rank is not None:
        made, needed = _without_ones(given["diff"].shape), _without_ones(shape)
    if made is not None and made != needed:
        if len(shape) < 5:
            raise InputError(
                f"In {name}, {layer} is for a weight of {_times(made)}, but this model's has {_times(needed)}: {MODEL}."
            )
        # Image-to-video models read more channels; the rest of such a LoRA fits.
        lora.left_out.append(layer)
        rank = product = None
    if "diff_b" in given and (bias is None or _without_ones(given["diff_b"].shape) != _without_ones(bias)):
        raise InputError(
            f"In {name}, {layer} changes a bias of {_times(given['diff_b'].shape)}, but this model's has "
            f"{_times(bias or (0,))}: {MODEL}."
        )
    if "magnitude" in given and rank is not None and not _is_of_rows(given["magnitude"].shape, shape, layer, name):
        lora.left_out.append(layer)
        rank = product = None
    if rank is None and "diff_b" not in given:
        return
    if len(shape) == 2:
        params = BranchParams(shape[1], shape[0], rank, scale)
        kinds = {"diff": "up", "diff_b": "bias"}
        weights = {kinds.get(part, part): (part,) for part in given.keys() - {"set"}}
        if product is not None:
            params = product.params(scale)
            weights = {**product.weights} | {key: weights[key] for key in weights.keys() & {"bias", "magnitude"}}
        lora.layers[layer] = replace(params, bias="bias" in weights, magnitude="magnitude" in weights)
        for key, some in weights.items():
            lora.branches[f"{module_name(layer)}.{key}.weight"] = tuple(parts[part] for part in some)
        if bias_scale != 1:
            lora.factors[f"{module_name(layer)}.bias.weight"] = bias_scale
        return
    if product is not None:
        lora.deltas[weight] = ProductDelta(shape, product, scale, parts)
    elif rank is not None:
        lora.deltas[weight] = WeightDelta(
            shape, parts.get("diff", ""), parts.get("up", ""), parts.get("down", ""), scale
        )
    if "diff_b" in given and bias is not None:  # else refused above
        lora.deltas[f"{layer}.bias"] = WeightDelta(bias, parts["diff_b"], scale=bias_scale)


def _product(shapes: Mapping[str, Shape], layer: str, name: str) -> Product | None:
    """What a layer has of a LoKr or a LoHa, None if it has nothing of them."""
    try:
        return product_of(shapes)
    except MisfitError as error:
        what = ", ".join(f"{part} of {_times(shape)}" for part, shape in shapes.items())
        raise InputError(f"{name} has {what} for {layer}, but {error}: it is damaged, download it again.") from error


def _is_of_rows(size: Shape, shape: Shape, layer: str, name: str) -> bool:
    """Whether a DoRA's magnitudes of this size can run beside a layer: it has to be a linear one."""
    if len(shape) == 2 and size[:1] != shape[:1] and size[-1:] == shape[1:]:
        raise InputError(
            f"{name} is a DoRA with a magnitude for each column of {layer}, which cannot run beside a layer: "
            f"{INSTEAD_OF_COLUMNS}."
        )
    if _without_ones(size) != shape[:1]:
        raise InputError(
            f"In {name}, the magnitudes of {layer} are {_times(size)}, but this model's layer has {shape[0]} rows: "
            f"{MODEL}."
        )
    return len(shape) == 2


def _rank(shapes: Mapping[str, Shape], parts: Mapping[str, str], layer: str, name: str) -> int | None:
    """The rank of a layer's pair, 0 for a whole difference, None if the weight is not changed."""
    has = {part for part in ("up", "down", "diff") if part in shapes}
    if has == {"up", "down"}:
        up, down = shapes["up"], shapes["down"]
        if len(up) < 2 or len(down) < 2 or prod(up[1:]) != down[0] or not down[0]:
            raise InputError(
                f"In {name}, the two halves of {layer} are {_times(down)} and {_times(up)}, which do not fit together: "
                "it is damaged, download it again."
            )
        return down[0]
    if has == {"diff"}:
        return 0
    if has or parts.keys() & {"alpha", "magnitude"} or _is_of_pair(parts):
        raise InputError(
            f"{name} has {some([parts[part] for part in parts])} for {layer}, but a LoRA has two halves, down and up, "
            "or one difference: it is damaged, download it again."
        )
    return None


def _is_of_pair(parts: Mapping[str, str]) -> bool:
    """Whether the change of the bias belongs to a pair's upper half, so that the pair's scale is its own too."""
    return bool(PARTS["up_b"].search(parts.get("diff_b", "")))


def _scale(name: str, layer: str, rank: int | None, alpha: torch.Tensor) -> float:
    """alpha / rank; 1 for what is no pair."""
    if not rank:
        return 1.0
    if alpha.numel() != 1 or not isfinite(alpha.item()):
        raise InputError(f"In {name}, the alpha of {layer} is no number: it is damaged, download it again.")
    return alpha.item() / rank


def _share(tensor: TensorInfo, count: int) -> TensorInfo:
    """What of a fused layer's tensor belongs to one of so many layers."""
    rows = tensor.shape[0] if tensor.shape else 0
    return tensor if rows % count else replace(tensor, shape=(rows // count, *tensor.shape[1:]))


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape) or "1"


def _scaled(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    return tensor if factor == 1 else tensor.float() * factor


def _as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """A weight as a LoraBranch has it: a bias is one column, a 1 x 1 convolution a matrix."""
    tensor = tensor.reshape(-1, 1) if tensor.ndim < 2 else tensor.flatten(1)
    # At an odd place in the file, where kernels may fail on it.
    return tensor.clone() if tensor.data_ptr() % tensor.element_size() else tensor


@contextmanager
def _opened(path: Path, parts: Mapping[str, Part], reader: Reader | None = None) -> Generator[Get]:
    """A function key -> tensor for a file. Raises InputError if it is no longer what it was."""
    try:
        if reader is not None:
            yield reader(path).__getitem__
        else:
            with path.open("rb") as file:
                # Each once: fused layers share theirs.
                yield cache(lambda key: read_from(file, parts[key]))
    except InputError:  # which is a ValueError, of what is done with the tensors
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path.name} cannot be read any more ({error}): queue it again.") from error
