"""How the weights of a transformer lie in its files: which tensors make up one weight, and in which format.

Reads headers only. Sources: ComfyUI's quantised checkpoints (comfy/quant_ops.py and comfy/ops.py, 0.3.75 to 0.33), the
older scaled fp8 files that they replace, and GGUF (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from ...formats.encoding import Encoding, rectangle
from ...formats.kinds import BY_NAME_IN_FILES, KINDS, PLAIN, Kind
from ...skyreels_v3.errors import InputError
from ..files.tensor_info import DESCRIPTION, Header, short, some

# Tensors beside a layer's weight, by every name in use; None: of no use here (scales of inputs are taken as they come).
BESIDE = {part: part for kind in KINDS.values() for part in (*kind.needed, *kind.optional)} | {
    "scale_weight": "weight_scale",
    "weight_scale_inv": "weight_scale",  # whose name is wrong: codes are multiplied by it
    "weight_scalar": None,
    "scale_input": None,
    "input_scale": None,
    DESCRIPTION: None,
}
MARKER = "scaled_fp8"  # of older files; of two numbers where no inputs are to be rounded
METADATA = "_quantization_metadata"
EXACT = "full_precision_matrix_mult"  # of a layer, in ComfyUI's words: its inputs are not to be rounded
ROTATED = "convrot"  # in names and texts of files whose int8 columns are mixed
INSTEAD = "use the bf16, fp8 or GGUF file of the model"
FOR_ALL = "weight_scale"  # what plain numbers may have beside them too


@dataclass(frozen=True)
class Part:
    """A tensor in a file. offset: of its first byte in the file.  dtype: the header's name ("BF16", "Q4_K").

    description: its bytes, where it says how a layer is stored.
    """

    path: Path
    key: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int
    description: bytes | None = None


def part_of(path: Path, key: str, header: Header) -> Part:
    """The tensor `key` of the file with this header."""
    info = header.tensors[key]
    place = header.data_start + info.start, info.end - info.start
    return Part(path, key, info.dtype, info.shape, *place, header.descriptions.get(key))


@dataclass(frozen=True)
class StoredWeight:
    """One weight in its file. shape: of the weight itself.  encoding: None for plain numbers.

    parts: "weight" and what lies beside it ("weight_scale" ...). Plain numbers may have a weight_scale too, which they
    are multiplied by: older converters write one, of 1, for layers that they leave alone, ComfyUI multiplies by it, and
    casting a quantised file as a whole makes plain numbers of its codes.
    """

    shape: tuple[int, ...]
    encoding: Encoding | None
    parts: Mapping[str, Part]

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return sum(part.size for part in self.parts.values())


def stored_weights(
    parts: Mapping[str, Part], texts: Mapping[Path, Mapping[str, str]], layer_of: Callable[[str], str | None], name: str
) -> dict[str, StoredWeight]:
    """Wan name -> StoredWeight, from Wan name -> Part of all tensors of a transformer.

    texts: each file's own strings.  layer_of: a layer's name as these spell it -> Wan name, None if there is no such
    layer. Raises InputError, with the file's `name`, for formats that cannot be read and for parts that do not fit.
    """
    known: dict[str, dict] = {}
    lost: list[str] = []  # layers that are described but not there
    described = ((file, *pair) for file, text in texts.items() for pair in _layer_formats(text, name).items())
    for file, said, config in described:
        layer = layer_of(said)
        weight = parts.get(f"{layer}.weight")
        if layer is None:
            lost.append(said)
        elif layer not in known or (weight is not None and weight.path == file):  # the table beside the weight counts
            known[layer] = config
    beside: dict[str, dict[str, Part]] = {}
    weights = {}
    unsaid = {EXACT: prod(parts[MARKER].shape) == 2} if MARKER in parts else {}
    for key, part in parts.items():
        layer, _, last = key.rpartition(".")
        if last in BESIDE and f"{layer}.weight" in parts:
            if last == DESCRIPTION:
                known[layer] = _read_config(part, name)
            elif role := BESIDE[last]:
                beside.setdefault(layer, {})[role] = part
        elif key != MARKER:
            weights[key] = part
    stored = {key: _stored(key, part, known, beside, unsaid, name) for key, part in weights.items()}
    said = " ".join([name, *(value for text in texts.values() for value in text.values())]).lower()
    _check_descriptions(stored, known, lost, ROTATED in said, name)
    return stored


def _check_descriptions(
    stored: Mapping[str, StoredWeight], known: Mapping[str, dict], lost: list[str], is_rotated: bool, name: str
) -> None:
    """Raise InputError where a weight has no description and a file gives one that may be its own: what the dtype and
    the scales do not tell, such as a rotation of the columns, would be lost without a word. is_rotated: whether the
    file's name or texts speak of one."""
    kinds = {key: KINDS[weight.encoding.kind] for key, weight in stored.items() if weight.encoding}
    packed = [key for key, kind in kinds.items() if kind.comfy_name]
    rotating = {key for key, kind in kinds.items() if kind.rotation}
    bare = [key for key in packed if key.removesuffix(".weight") not in known]
    if bare and lost:
        raise InputError(
            f"The table in {name} describes {len(lost)} quantised layers that the file does not have ({some(lost)}), "
            f"and nothing describes {short(bare[0])}: {INSTEAD}."
        )
    bare = [key for key in bare if key in rotating]
    if bare and (is_rotated or len(bare) < len(rotating)):
        raise InputError(
            f"In {name}, nothing tells whether the columns of {short(bare[0])} are rotated, although "
            f"{f'the file speaks of {ROTATED}' if is_rotated else 'other layers have a description'}: {INSTEAD}."
        )


def _layer_formats(metadata: Mapping[str, str], name: str) -> dict[str, dict]:
    """Layer, as the header spells it -> its configuration, from the header's own table."""
    if METADATA not in metadata:
        return {}
    try:
        layers = json.loads(metadata[METADATA]).get("layers", {})
        return {layer: dict(config) for layer, config in layers.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"The table of quantised layers in {name} is not readable: it is damaged, download it again."
        ) from error


def _read_config(part: Part, name: str) -> dict:
    if part.description is None:
        raise InputError(
            f"In {name}, {short(part.key)} has {part.size} bytes, too many for a format's name: {INSTEAD}."
        )
    try:
        config = json.loads(part.description.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"In {name}, {short(part.key)} is not readable as JSON: {INSTEAD}.") from error
    if not isinstance(config, dict):
        raise InputError(f"In {name}, {short(part.key)} holds no table: {INSTEAD}.")
    return config


def _stored(
    key: str, part: Part, known: Mapping[str, dict], beside: Mapping[str, dict], unsaid: dict, name: str
) -> StoredWeight:
    """unsaid: the configuration of layers without one of their own."""
    layer, _, last = key.rpartition(".")
    scales = beside.get(layer, {}) if last == "weight" else {}
    config = known.get(layer, unsaid) if last == "weight" else {}
    encoding = _encoding(part, scales, config, name)
    if encoding is not None and config.get(EXACT):
        encoding = replace(encoding, exact=True)
    shape = _logical_shape(part, encoding)
    _check_scales(part, scales, encoding, shape, name)
    return StoredWeight(shape, encoding, {"weight": part, **scales})


def _encoding(part: Part, scales: Mapping[str, Part], config: dict, name: str) -> Encoding | None:
    """How a tensor is encoded, from what the file says of it or else from its dtype and the scales beside it."""
    said = config.get("format")
    if said is not None and part.dtype not in PLAIN:
        kind = BY_NAME_IN_FILES.get(said) if isinstance(said, str) else None
        if kind is None:
            raise InputError(f"In {name}, {short(part.key)} is stored as {short(said)}, which is not known: {INSTEAD}.")
        kind = _by_shape(kind, part, scales)
        rotation = _rotation(config, kind)
        if rotation and not kind.rotation:
            raise InputError(f"In {name}, {short(part.key)} is {kind.word} and rotated, which is not known: {INSTEAD}.")
        return Encoding(kind.name, rotation)
    if part.dtype in PLAIN:
        if scales and said in BY_NAME_IN_FILES and _rotation(config, BY_NAME_IN_FILES[said]):
            raise InputError(
                f"In {name}, {short(part.key)} holds the codes of {said} as {part.dtype}, because the file was "
                f"converted as a whole after it was quantised: {INSTEAD}."
            )
        return None
    told = next((kind for kind in KINDS.values() if _is_told(kind, part, scales)), None)
    if told is not None:
        return Encoding(_by_shape(told, part, scales).name)
    if part.dtype in ("I64", "I32"):
        raise InputError(
            f"In {name}, {short(part.key)} holds whole numbers ({part.dtype}), as no weight does: {INSTEAD}."
        )
    raise InputError(f"In {name}, {short(part.key)} is stored as {part.dtype} without its scales: {INSTEAD}.")


def _by_shape(kind: Kind, part: Part, scales: Mapping[str, Part]) -> Kind:
    """The kind itself, or the one with a scale for each rectangle where its scales are as many."""
    scale = scales.get("weight_scale")
    if not kind.by_rectangles or scale is None or len(part.shape) != 2 or len(scale.shape) < 2:
        return kind
    return kind if prod(scale.shape) in (1, part.shape[0]) else KINDS[kind.by_rectangles]


def _is_told(kind: Kind, part: Part, scales: Mapping[str, Part]) -> bool:
    """Whether a tensor is of this kind, by its dtype and what lies beside it, in a file that does not name formats."""
    if part.dtype not in kind.dtypes or not kind.has_parts({name: scale.dtype for name, scale in scales.items()}):
        return False
    return not kind.scale_dtypes or len(scales[kind.needed[-1]].shape) == 2


def _rotation(config: dict, kind: Kind) -> int:
    """Width of the groups of columns that are mixed, 0 for none."""
    inner = config.get("params")
    inner = inner if isinstance(inner, dict) else {}
    if not kind.is_rotated and not config.get("convrot", inner.get("convrot", False)):
        return 0
    usual = kind.rotation or KINDS["int8"].rotation
    group = config.get("convrot_groupsize", inner.get("convrot_groupsize", usual))
    return group if isinstance(group, int) and 0 < group <= 4096 else usual


def _logical_shape(part: Part, encoding: Encoding | None) -> tuple[int, ...]:
    if encoding is not None and part.dtype in ("U8", "I8") and len(part.shape) == 2:
        return part.shape[0], 8 * part.shape[1] // KINDS[encoding.kind].bits_per_code
    return part.shape


def _check_scales(part: Part, scales: Mapping[str, Part], encoding: Encoding | None, shape, name: str) -> None:
    """Raise InputError unless the scales of a weight are those that its format needs."""
    kind = KINDS[encoding.kind] if encoding else None
    missing = [scale for scale in kind.needed if scale not in scales] if kind else []
    if missing:
        raise InputError(f"In {name}, {short(part.key)} lacks its {missing[0]}: it is incomplete, download it again.")
    taken = (*kind.needed, *kind.optional) if kind else (FOR_ALL,)
    for scale_name, scale in scales.items():
        if scale_name not in taken:
            raise InputError(
                f"In {name}, {short(part.key)} has {short(scale.key)} beside it, which weights in "
                f"{kind.word if kind else PLAIN[part.dtype]} do not have: {INSTEAD}."
            )
        if not _scale_fits(scale_name, scale, kind, shape):
            raise InputError(
                f"In {name}, {short(part.key)} of shape {short(list(shape))} has scales of shape "
                f"{short(list(scale.shape))}, which do not fit: {INSTEAD}."
            )


def _scale_fits(name: str, scale: Part, kind: Kind | None, shape: tuple[int, ...]) -> bool:
    """Whether a part beside a weight of this shape has as many numbers as there is something to multiply by it."""
    numbers, rows, columns = prod(scale.shape), shape[0] if shape else 1, shape[-1] if shape else 1
    counted = kind.counts.get(name) if kind else None
    if kind is None or counted is None:
        return numbers in (1, rows)
    if counted == "row":
        return numbers == rows
    if counted == "column":  # without their padding
        return columns - kind.tile < numbers <= columns
    if counted == "code":
        return numbers == 2**kind.bits_per_code
    if counted == "block":
        return numbers >= prod(shape) // kind.block
    across = prod(scale.shape[1:])
    if counted == "group":
        return scale.shape == (rows, across) and across > 0 and columns % across == 0
    return len(shape) == 2 and all(map(rectangle, shape, (scale.shape[0] if scale.shape else 1, across)))


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
