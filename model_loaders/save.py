"""A checkpoint into one safetensors file in ComfyUI's own format, weight by weight.

The layout is that of ComfyUI's quantised checkpoints (comfy/quant_ops.py and comfy/ops.py, 0.3.75 to 0.33): a layer has
`weight`, `weight_scale` and `comfy_quant`, and the header a table of all layers, the only one of the two that 0.3.75
reads.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

import torch

from ..formats.encoding import Encoding
from ..formats.kinds import KINDS, PACKED, Precision
from ..formats.registry import format_of
from ..skyreels_v3.errors import InputError
from ..skyreels_v3.model.params import HEAD_DIM, TransformerParams
from ..skyreels_v3.recipes import Job
from ..skyreels_v3.units import gb
from .architecture.jobs import METADATA_JOB
from .architecture.key_maps import PREFIXES
from .architecture.params import expected_shapes
from .checkpoints.checkpoint import Checkpoint
from .files.header import read_header
from .tensors.file_tensors import DTYPES, read_bytes
from .tensors.precision import encoding_of, stays_float32
from .tensors.safetensors_writer import SafetensorsFile, Spec
from .tensors.stored import EXACT, METADATA, Part, StoredWeight, part_of
from .weights import made_on, unpacked_weight

# float32 [any shape] -> the same, changed; may write into its argument.
Change = Callable[[torch.Tensor], torch.Tensor]
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
INSTEAD = "choose the precision bf16, fp8 or int8"


@dataclass(frozen=True)
class _Planned:
    """How one weight will stand in the file.

    encoding: None for plain numbers of `dtype`.  copied: key in the file -> bytes that are taken as they are; empty for
    a weight that is computed.  config: what `comfy_quant` says, None where there is none.
    """

    name: str
    encoding: Encoding | None
    dtype: torch.dtype
    copied: Mapping[str, Part] = field(default_factory=dict)
    config: dict | None = None

    @property
    def layer(self) -> str:
        return self.name.removesuffix(".weight")

    def specs(self, shape: tuple[int, ...]) -> dict[str, Spec]:
        """Key in the file -> its dtype and shape, for a weight of this shape."""
        specs: dict[str, Spec]
        if self.copied and self.encoding is None:
            specs = {key: (part.dtype, shape) for key, part in self.copied.items()}
        elif self.copied:
            specs = {key: (part.dtype, part.shape) for key, part in self.copied.items()}
        elif self.encoding is None:
            specs = {self.name: (DTYPE_NAMES[self.dtype], shape)}
        else:
            kind = KINDS[self.encoding.kind]
            scale = () if kind.comfy_scale == "tensor" else (shape[0], 1)
            codes = (shape[0], shape[1] * kind.bits_per_code // 8)
            specs = {self.name: (kind.dtypes[0], codes), f"{self.layer}.weight_scale": ("F32", scale)}
        if self.config is not None:
            specs[f"{self.layer}.comfy_quant"] = ("U8", (len(_json(self.config)),))
        return specs


class SavePlan:
    """What a saved file will hold; nothing of the weights has been read.

    precision: AUTO for as it is in the files.  dtype: of plain numbers that do not stay float32.  changes: Wan
    name -> what is done to the weight, as float32, before it is stored.
    Files that are in a ComfyUI format already are taken over byte for byte where AUTO or their own precision is asked
    for. fp8 is packed with one scale for the whole weight, as ComfyUI has it, int8 as Load Model does.
    Raises InputError for formats that ComfyUI does not have.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: Precision,
        dtype: torch.dtype,
        changes: Mapping[str, Change] | None = None,
    ):
        self.checkpoint = checkpoint
        self.changes = changes or {}
        shapes = expected_shapes(checkpoint.params)
        self.weights = self._planned(precision, dtype)
        specs = {key: spec for one in self.weights for key, spec in one.specs(shapes[one.name]).items()}
        self.file = SafetensorsFile(specs, self._metadata())

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.size

    def write(self, path: Path, device: torch.device | str = "cpu", before_each: Callable[[], None] | None = None):
        """Write the file, which appears under `path` when it is whole; after an exception nothing is left of it.

        device: where weights are changed and packed, as far as its memory suffices; holds one weight in float32 at a
        time, as the memory does.
        before_each: called before every weight; what it raises ends the job.
        Raises InputError if there is no room, the file cannot be written, or weights have changed or are not finite.
        """
        try:
            _check_room(path.parent, self.size)
            with self.file.writing(path) as write:
                for weight in self.weights:
                    if before_each:
                        before_each()
                    for key, tensor in made_on(device, partial(self._tensors, weight)).items():
                        write(key, tensor)
        except OSError as error:
            raise InputError(
                f"{path} could not be written ({error.strerror or error}): choose another folder or name, or make "
                "room on the disk."
            ) from error

    def _planned(self, precision: Precision, dtype: torch.dtype) -> list[_Planned]:
        keeps_all = precision is Precision.AUTO and self.checkpoint.is_packed
        beside = _Beside(self.checkpoint) if self.checkpoint.is_packed else None
        planned = []
        for name, stored in self.checkpoint.weights.items():
            encoding = encoding_of(name, stored, precision)
            is_kept = keeps_all if encoding is None else encoding == stored.encoding
            if encoding is not None and not KINDS[encoding.kind].comfy_name:
                raise InputError(f"ComfyUI has no format for {encoding.kind} in safetensors files: {INSTEAD}.")
            if is_kept and name not in self.changes and _is_comfy(stored):
                planned.append(_kept(name, stored, encoding, dtype, beside))
                continue
            if encoding is not None:
                encoding = _packed_anew(encoding)
            own = torch.float32 if stays_float32(name, stored) else dtype
            planned.append(_Planned(name, encoding, own, config=encoding and comfy_config(encoding)))
        return planned

    def _metadata(self) -> dict[str, str]:
        layers = {one.layer: one.config for one in self.weights if one.config is not None}
        return metadata_of(self.checkpoint.params, self.checkpoint.job, layers)

    def _tensors(self, planned: _Planned, device: torch.device | str) -> dict[str, torch.Tensor]:
        """Everything of one weight: key in the file -> tensor."""
        if planned.copied:
            tensors = {key: _bytes_of(part) for key, part in planned.copied.items()}
        else:
            weight = self._weight(planned, device)
            if planned.encoding is None:
                tensors = {planned.name: weight}
            else:
                format = format_of(planned.encoding)
                pack = format.pack_tensorwise if KINDS[planned.encoding.kind].comfy_scale == "tensor" else format.pack
                tensors = {f"{planned.layer}.{part}": tensor for part, tensor in pack(weight).items()}
        if planned.config is not None:
            tensors[f"{planned.layer}.comfy_quant"] = marker_of(planned.config)
        return tensors

    def _weight(self, planned: _Planned, device: torch.device | str) -> torch.Tensor:
        """The weight with its changes: in `dtype` if it stays plain, else as precise as it is known."""
        name = planned.name
        weight = unpacked_weight(self.checkpoint, name, device)
        if name in self.changes:
            weight = self.changes[name](weight.float())
        if planned.encoding is None:
            weight = weight.to(planned.dtype)
        if not torch.isfinite(weight).all():
            raise InputError(
                f"{name} holds numbers that are not finite: the file or a LoRA is damaged, or fp16 cannot hold them, "
                "choose bf16."
            )
        return weight


def _packed_anew(encoding: Encoding) -> Encoding:
    """How a changed weight of this encoding is written. Raises InputError where its kind is only read."""
    own = KINDS[encoding.kind]
    if own.is_saved:
        return encoding
    other = PACKED.get(own.precision) if own.precision else None
    if other is None or not other.is_saved:
        raise InputError(f"A LoRA cannot be merged into weights that are stored as {own.name}: {INSTEAD}.")
    return Encoding(other.name, exact=encoding.exact)


def _kept(name: str, stored: StoredWeight, encoding: Encoding | None, dtype: torch.dtype, beside: "_Beside | None"):
    """A weight that is copied with everything beside it."""
    if encoding is None:
        return _Planned(name, None, dtype, {name: stored.parts["weight"]})
    layer = name.removesuffix(".weight")
    copied = {f"{layer}.{part}": place for part, place in stored.parts.items()}
    if beside is None or len(stored.parts) == 1:  # a plain cast: ComfyUI reads it as numbers
        return _Planned(name, encoding, dtype, copied)
    said, input_scale = beside.of(layer, stored)
    if input_scale is not None:
        copied[f"{layer}.input_scale"] = input_scale
    # Converters have other names for a format that ComfyUI has too.
    own = {"format": KINDS[encoding.kind].comfy_name}
    return _Planned(name, encoding, dtype, copied, {**comfy_config(encoding), **said, **own})


class _Beside:
    """What the files say of a quantised layer that only ComfyUI uses, so that it is not lost."""

    def __init__(self, checkpoint: Checkpoint):
        headers = {path: read_header(path) for path in checkpoint.paths}
        self.parts = {key: part_of(path, key, header) for path, header in headers.items() for key in header.tensors}
        self.table = {
            layer: config
            for header in headers.values()
            for layer, config in json.loads(header.metadata.get(METADATA, "{}")).get("layers", {}).items()
        }

    def of(self, layer: str, stored: StoredWeight) -> tuple[dict, Part | None]:
        """(configuration, scale of the inputs) of a layer, by its Wan name."""
        own = stored.parts["weight"].key.removesuffix(".weight")
        config = self.parts.get(f"{own}.comfy_quant")
        if config is not None:
            said = json.loads(_bytes_of(config).numpy().tobytes())
        else:
            names = (own, *(prefix + layer for prefix in PREFIXES))
            said = next((self.table[name] for name in names if name in self.table), {})
        return said, self.parts.get(f"{own}.input_scale")


def comfy_config(encoding: Encoding) -> dict:
    """What ComfyUI must know of a layer."""
    config: dict = {"format": KINDS[encoding.kind].comfy_name}
    if encoding.rotation:
        config |= {"convrot": True, "convrot_groupsize": encoding.rotation}
    if encoding.exact:
        config[EXACT] = True
    return config


def _is_comfy(stored: StoredWeight) -> bool:
    """Whether ComfyUI reads a weight as it is stored: in a format that it has, and with the scales that it takes."""
    scale = stored.parts.get("weight_scale")
    if stored.encoding is None:
        return scale is None and stored.parts["weight"].dtype != "F64"
    kind = KINDS[stored.encoding.kind]
    one_scale = scale is None or prod(scale.shape) == 1
    return bool(kind.comfy_name) and (one_scale or kind.comfy_scale != "tensor")


def _json(config: dict) -> bytes:
    return json.dumps(config).encode()


def marker_of(config: dict) -> torch.Tensor:
    """A layer's `comfy_quant`, uint8, of its configuration."""
    return torch.tensor(list(_json(config)), dtype=torch.uint8)


def metadata_of(params: TransformerParams, job: Job, layers: Mapping[str, dict]) -> dict[str, str]:
    """The header of a file. layers: quantised layer -> configuration."""
    metadata = {"format": "pt", METADATA_JOB: job.value}
    if params.dim != params.num_heads * HEAD_DIM:
        metadata["num_heads"] = str(params.num_heads)
    if layers:
        metadata[METADATA] = json.dumps({"format_version": "1.0", "layers": layers})
    return metadata


def _bytes_of(part: Part) -> torch.Tensor:
    """A tensor's bytes, uint8, read into memory of its own."""
    try:
        with part.path.open("rb") as file:
            return read_bytes(file, part.offset, part.size)
    except OSError as error:
        raise InputError(f"{part.path.name} cannot be read any more ({error}): load the model again.") from error


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"Saving needs {gb(size)}, but {folder} has {gb(free)} free: make room there, or choose a "
            "smaller precision."
        )
