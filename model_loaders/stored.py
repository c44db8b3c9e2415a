"""How the weights of a transformer lie in its files: which tensors make up one weight, and in which format.

Reads headers only. Sources: ComfyUI's quantised checkpoints (comfy/quant_ops.py and comfy/ops.py, 0.3.75 to 0.33), the
older scaled fp8 files that they replace, and GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ..formats.encoding import Encoding
from ..formats.kinds import BY_COMFY_NAME, KINDS, PLAIN, Kind
from ..skyreels_v3.errors import InputError
from .tensor_info import short

# Tensors beside a layer's weight, by every name in use; None: of no use here (scales of inputs are taken as they come).
BESIDE = {part: part for kind in KINDS.values() for part in (*kind.needed, *kind.optional)} | {
    "scale_weight": "weight_scale",
    "scale_input": None,
    "input_scale": None,
    "comfy_quant": None,
}
MARKER = "scaled_fp8"
METADATA = "_quantization_metadata"
MAX_CONFIG = 4096  # bytes of one layer's comfy_quant
INSTEAD = "use the bf16, fp8 or GGUF file of the model"


@dataclass(frozen=True)
class Part:
    """A tensor in a file. offset: of its first byte in the file.  dtype: the header's name ("BF16", "Q4_K")."""

    path: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int


@dataclass(frozen=True)
class StoredWeight:
    """One weight in its file. shape: of the weight itself.  encoding: None for plain numbers.

    parts: "weight" and what lies beside it ("weight_scale" ...).
    """

    shape: tuple[int, ...]
    encoding: Encoding | None
    parts: Mapping[str, Part]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return sum(part.size for part in self.parts.values())


def stored_weights(
    parts: Mapping[str, Part], metadata: Mapping[str, str], rename: Callable[[str], str], name: str
) -> dict[str, StoredWeight]:
    """Wan name -> StoredWeight, from Wan name -> Part of all tensors of a transformer.

    metadata: the files' own strings.  rename: a layer's name as the files' metadata spell it -> Wan name.
    Raises InputError, with the file's `name`, for formats that cannot be read and for parts that do not fit.
    """
    known = _layer_formats(metadata, rename, name)
    beside: dict[str, dict[str, Part]] = {}
    weights = {}
    for key, part in parts.items():
        layer, _, last = key.rpartition(".")
        if last in BESIDE and f"{layer}.weight" in parts:
            if last == "comfy_quant":
                known[layer] = _read_config(part, name)
            elif role := BESIDE[last]:
                beside.setdefault(layer, {})[role] = part
        elif key != MARKER:
            weights[key] = part
    return {key: _stored(key, part, known, beside, name) for key, part in weights.items()}


def _layer_formats(metadata: Mapping[str, str], rename: Callable[[str], str], name: str) -> dict[str, dict]:
    """Layer -> its configuration, from the header's own table."""
    if METADATA not in metadata:
        return {}
    try:
        layers = json.loads(metadata[METADATA]).get("layers", {})
        return {rename(layer): dict(config) for layer, config in layers.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"The table of quantised layers in {name} is not readable: it is damaged, download it again."
        ) from error


def _read_config(part: Part, name: str) -> dict:
    if part.size > MAX_CONFIG:
        raise InputError(
            f"In {name}, {short(part.key)} has {part.size} bytes, too many for a format's name: {INSTEAD}."
        )
    try:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            config = json.loads(file.read(part.size).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"In {name}, {short(part.key)} is not readable as JSON: {INSTEAD}.") from error
    if not isinstance(config, dict):
        raise InputError(f"In {name}, {short(part.key)} holds no table: {INSTEAD}.")
    return config


def _stored(key: str, part: Part, known: Mapping[str, dict], beside: Mapping[str, dict], name: str) -> StoredWeight:
    layer, _, last = key.rpartition(".")
    scales = beside.get(layer, {}) if last == "weight" else {}
    config = known.get(layer) if last == "weight" else None
    encoding = _encoding(part, scales, config, name)
    shape = _logical_shape(part, encoding)
    _check_scales(part, scales, encoding, shape, name)
    needed = scales if encoding else {}
    return StoredWeight(shape, encoding, {"weight": part, **needed})


def _encoding(part: Part, scales: Mapping[str, Part], config: dict | None, name: str) -> Encoding | None:
    """How a tensor is encoded, from what the file says of it or else from its dtype and the scales beside it."""
    config = config or {}
    said = config.get("format")
    if said is not None and part.dtype not in PLAIN:
        kind = BY_COMFY_NAME.get(said) if isinstance(said, str) else None
        if kind is None:
            raise InputError(f"In {name}, {short(part.key)} is stored as {short(said)}, which is not known: {INSTEAD}.")
        return Encoding(kind.name, _rotation(config, kind.rotation) if kind.rotation else 0)
    if part.dtype in PLAIN:
        return None
    told = next((kind for kind in KINDS.values() if _is_told(kind, part, scales)), None)
    if told is not None:
        return Encoding(told.name)
    raise InputError(f"In {name}, {short(part.key)} is stored as {part.dtype} without its scales: {INSTEAD}.")


def _is_told(kind: Kind, part: Part, scales: Mapping[str, Part]) -> bool:
    """Whether a tensor is of this kind, by its dtype and what lies beside it, in a file that does not name formats."""
    if part.dtype not in kind.dtypes or not kind.has_parts({name: scale.dtype for name, scale in scales.items()}):
        return False
    return not kind.scale_dtypes or len(scales[kind.needed[-1]].shape) == 2


def _rotation(config: dict, usual: int) -> int:
    """Width of the groups of columns that are mixed, 0 for none. usual: where the file does not say it."""
    inner = config.get("params")
    inner = inner if isinstance(inner, dict) else {}
    if not config.get("convrot", inner.get("convrot", False)):
        return 0
    group = config.get("convrot_groupsize", inner.get("convrot_groupsize", usual))
    return group if isinstance(group, int) and 0 < group <= 4096 else usual


def _logical_shape(part: Part, encoding: Encoding | None) -> tuple[int, ...]:
    if encoding is not None and part.dtype == "U8" and len(part.shape) == 2:
        return part.shape[0], KINDS[encoding.kind].codes_per_byte * part.shape[1]
    return part.shape


def _check_scales(part: Part, scales: Mapping[str, Part], encoding: Encoding | None, shape, name: str) -> None:
    """Raise InputError unless the scales of a weight are those that its format needs."""
    if encoding is None:
        return
    kind = KINDS[encoding.kind]
    missing = [scale for scale in kind.needed if scale not in scales]
    if missing:
        raise InputError(f"In {name}, {short(part.key)} lacks its {missing[0]}: it is incomplete, download it again.")
    for scale_name, scale in scales.items():
        rows = shape[0] if shape else 1
        numbers = prod(scale.shape)
        blocks = kind.scales == "block" and scale_name == "weight_scale"
        fits = numbers >= prod(shape) // kind.block if blocks else numbers in (1, rows)
        if not fits:
            raise InputError(
                f"In {name}, {short(part.key)} of shape {short(list(shape))} has scales of shape "
                f"{short(list(scale.shape))}, which do not fit: {INSTEAD}."
            )


def fits(stored: StoredWeight, shape: tuple[int, ...]) -> bool:
    """Whether a stored weight can be the one of this shape: equal, padded to tiles, or flattened by GGUF."""
    tile = KINDS[stored.encoding.kind].tile if stored.encoding else 1
    return tuple(stored.shape) == tuple(-(-size // tile) * tile for size in shape)


def summary(weights: Iterable[StoredWeight]) -> str:
    """What artists call the precision of a file: the formats of its matrices, the most numbers first."""
    numbers: dict[str, int] = {}
    for weight in weights:
        kind = display_name(weight)
        numbers[kind] = numbers.get(kind, 0) + prod(weight.shape)
    total = sum(numbers.values()) or 1
    named = [kind for kind in sorted(numbers, key=numbers.__getitem__, reverse=True) if numbers[kind] > total / 200]
    return " + ".join(named)


def display_name(weight: StoredWeight) -> str:
    """What artists call the format of one weight."""
    if weight.encoding is None:
        return PLAIN[weight.parts["weight"].dtype]
    kind = KINDS[weight.encoding.kind]
    return f"{kind.family} scaled" if any(part in weight.parts for part in kind.optional) else kind.family
