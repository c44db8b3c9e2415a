"""Weights out of a checkpoint's files: mapped where they stay as stored, else read and packed one by one."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite, prod
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from ..formats.base import Format
from ..formats.encoding import Encoding
from ..formats.float8_bits import portable
from ..formats.kinds import Precision, Products
from ..formats.linear import BranchedLinear, PackedLinear
from ..formats.registry import format_of
from ..kernels.out_of_memory import is_out_of_memory
from ..skyreels_v3.cpu_memory import trim
from ..skyreels_v3.errors import InputError
from .architecture.params import expected_shapes
from .checkpoints.checkpoint import Checkpoint
from .files.shards import SUFFIXES, title
from .tensors.file_tensors import DTYPES, Reader, is_mapped, map_file, mapped, marked, read, read_bytes, shaped
from .tensors.precision import encoding_of, is_exact, stays_float32
from .tensors.stored import Part, StoredWeight

T = TypeVar("T")
SAMPLED = 8  # rows of a large tensor that are looked at
SMALL = 2**20  # numbers of a tensor that is looked at as a whole


@dataclass
class Weights:
    """What a network is filled with.

    tensors: Wan name -> tensor, of packed weights also what lies beside them.  formats: layer -> its weight's format.
    exact: those of these layers whose inputs stay as they are.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)
    exact: set[str] = field(default_factory=set)

    def add(self, layer: str, encoding: Encoding, products: Products) -> Format:
        """Notes how the weight of a layer is kept; returns its format."""
        if is_exact(encoding, products):
            self.exact.add(layer)
        return self.formats.setdefault(layer, format_of(encoding))


class Copies(Protocol):
    """Where weights go that loading makes: tensors.copies_on_disk, a device."""

    def take(self, tensors: dict[str, torch.Tensor], name: str) -> None:
        """Puts tensors[name] there; in its place comes, at `finish` at the latest, the tensor that lies there."""
        ...

    def finish(self) -> None:
        """No more are to come."""
        ...


def load_weights(
    checkpoint: Checkpoint,
    precision: Precision = Precision.AUTO,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    reader: Reader | None = None,
    maps: bool = True,
    copies: Copies | None = None,
    products: Products = Products.AUTO,
) -> Weights:
    """All weights of a checkpoint on the CPU.

    dtype: of the plain ones that do not stay float32, None for the file's own.  device: where weights are packed.
    reader: maps a safetensors file; the pack's own mapping where None.  maps: whether weights may lie on the pages of
    the files. Then memory is used only for what is packed or cast: the rest is read when it is needed, so the files
    must stay as they are.  copies: where what is packed or cast goes instead of memory.  products: how packed weights
    will be multiplied.
    Raises InputError for files that have changed since they were opened and for numbers that are none.
    """
    weights = Weights()
    files = _Files(checkpoint, reader, maps)
    shapes = expected_shapes(checkpoint.params)
    only_zeros = True
    by_place = sorted(checkpoint.weights.items(), key=lambda item: _place(item[1]))
    for name, stored in by_place:
        wanted = encoding_of(name, stored, precision)
        shape, layer = shapes[name], name.removesuffix(".weight")
        own = None if stays_float32(name, stored) else dtype
        kept: Mapping[str, Part] = {}  # as they are in the file
        if wanted is None and _stays(stored, own):
            kept = stored.parts
            tensors = {name: files.tensor(kept["weight"]).reshape(shape)}
        elif wanted is None:
            tensors = {name: _unpacked(stored, shape, files, "cpu").to(_dtype(stored, own))}
        elif wanted == stored.encoding:
            weights.add(layer, wanted, products)
            kept = stored.parts
            tensors = {f"{layer}.{part}": files.tensor(place) for part, place in kept.items()}
        else:
            format = weights.add(layer, wanted, products)
            parts = made_on(device, partial(_packed, format, stored, shape, files))
            trim()
            tensors = {f"{layer}.{part}": tensor for part, tensor in parts.items()}
        weights.tensors.update(tensors)
        only_zeros &= _check(name, weights, kept, files)
        for key, tensor in tensors.items():
            if copies is not None and not is_mapped(tensor):
                copies.take(weights.tensors, key)
    if only_zeros:
        raise InputError(
            f"{_title(checkpoint)} holds nothing but zeros: the download is incomplete, download it again."
        )
    if copies is not None:
        copies.finish()
    return weights


def fill(
    network: torch.nn.Module, weights: Weights, device: torch.device, packed: type[PackedLinear] = BranchedLinear
) -> None:
    """Give a network on the meta device its weights, which will be used on `device`.

    Tensors become the parameters themselves: nothing is copied.  packed: what takes the place of linear layers whose
    weight is packed.
    """
    tensors = dict(weights.tensors)
    for layer, format in weights.formats.items():
        parent, _, child = layer.rpartition(".")
        empty: Any = network.get_submodule(layer)  # a linear layer
        names = [key for key in tensors if key.startswith(f"{layer}.")]
        parts = {name.removeprefix(f"{layer}."): portable(tensors.pop(name), device) for name in names}
        bias = parts.pop("bias", None)
        made = packed(empty.in_features, empty.out_features, format, parts, bias, layer in weights.exact)
        setattr(network.get_submodule(parent), child, made)
    network.load_state_dict(tensors, strict=False, assign=True)
    left = [name for name, parameter in network.named_parameters() if parameter.is_meta]
    if left:
        raise RuntimeError(f"no weight was loaded for {', '.join(left[:3])}")


def made_on(device: torch.device | str, make: Callable[[torch.device | str], T]) -> T:
    """make(device), or make("cpu") where the device's memory does not suffice."""
    try:
        return make(device)
    except Exception as error:
        if torch.device(device).type == "cpu" or not is_out_of_memory(error):
            raise
    # Outside of the handler, whose error holds on to what the card was given.
    return make("cpu")


def _packed(
    format: Format, stored: StoredWeight, shape: tuple[int, ...], files: "_Files", device: torch.device | str
) -> dict[str, torch.Tensor]:
    """The parts of a weight in another format, computed on a device, in main memory."""
    return {name: part.cpu() for name, part in format.pack(_unpacked(stored, shape, files, device)).items()}


def unpacked_weight(checkpoint: Checkpoint, name: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """One weight as plain numbers, in the file's own dtype where it is stored plainly, else float32."""
    stored = checkpoint.weights[name]
    shape = expected_shapes(checkpoint.params)[name]
    return _unpacked(stored, shape, _Files(checkpoint), device)


def _place(stored: StoredWeight) -> tuple[str, int]:
    part = stored.parts["weight"]
    return str(part.path), part.offset


def _dtype(stored: StoredWeight, dtype: torch.dtype | None) -> torch.dtype:
    """What a plain weight is kept in, `dtype` if there is one."""
    own = DTYPES.get(stored.parts["weight"].dtype) if stored.encoding is None else None
    return dtype or (torch.float32 if own == torch.float64 else own or torch.bfloat16)


def _stays(stored: StoredWeight, dtype: torch.dtype | None) -> bool:
    """Whether a plain weight is kept as it is in the file."""
    is_plain = stored.encoding is None and len(stored.parts) == 1
    return is_plain and DTYPES.get(stored.parts["weight"].dtype) == _dtype(stored, dtype)


def _unpacked(stored: StoredWeight, shape: tuple[int, ...], files: "_Files", device) -> torch.Tensor:
    """The weight as numbers; read, not mapped, so that pages of the file do not count as memory in use."""
    parts = {name: files.read(part).to(device) for name, part in stored.parts.items()}
    if stored.encoding is None:
        scale = parts.get("weight_scale")
        weight = parts["weight"].reshape(shape)
        return weight if scale is None else weight.float() * scale.float().reshape(-1, *[1] * (len(shape) - 1))
    rows, columns = prod(shape[:-1]), shape[-1]
    if len(shape) != 2:  # a vector or a kernel of a file that was converted as a whole: codes without padding
        parts["weight"] = parts["weight"].reshape(rows, -1)
    return format_of(stored.encoding).unpack(parts, rows, columns, torch.float32).reshape(shape)


class _Files:
    """The files of a checkpoint, mapped at most once each."""

    def __init__(self, checkpoint: Checkpoint, reader: Reader | None = None, maps: bool = True):
        self.name = _title(checkpoint)
        self.reader = reader
        self.maps = maps
        self.tensors: dict[Path, dict[str, torch.Tensor]] = {}
        self.bytes: dict[Path, torch.Tensor] = {}

    def tensor(self, part: Part) -> torch.Tensor:
        """The tensor over the file's own pages, or in memory of its own where nothing may be mapped."""
        try:
            if self.reader and part.path.suffix.lower() in SUFFIXES:
                if part.path not in self.tensors:
                    self.tensors[part.path] = self.reader(part.path)
                tensor = self.tensors[part.path][part.key]
                return shaped(marked(tensor) if self.maps else tensor, part)
            if not self.maps:
                return read(part)
            if part.path not in self.bytes:
                self.bytes[part.path] = map_file(part.path)
            return mapped(self.bytes[part.path], part)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise self._unreadable(part, error) from error

    def read(self, part: Part) -> torch.Tensor:
        """The tensor in memory of its own."""
        try:
            return read(part)
        except (OSError, RuntimeError) as error:
            raise self._unreadable(part, error) from error

    def some_rows(self, part: Part, tensor: torch.Tensor) -> torch.Tensor:
        """A few rows of a tensor that `tensor` gave. Of one over pages they are read by themselves: the system reads
        far around every page that is touched there, which would be nearly all of the file."""
        if not self.maps and self.reader is None:
            return _some_rows(tensor)
        rows = part.shape[0] if part.shape else 1
        if prod(part.shape) <= SMALL:
            return self.read(part)
        size = part.size // rows
        places = range(part.offset, part.offset + part.size, size * max(1, rows // SAMPLED))
        try:
            with part.path.open("rb") as file:
                content = torch.cat([read_bytes(file, place, size) for place in places])
        except OSError as error:
            raise self._unreadable(part, error) from error
        return shaped(content, replace(part, shape=(len(places), *part.shape[1:])))

    def _unreadable(self, part: Part, error: Exception) -> InputError:
        if is_out_of_memory(error) or getattr(error, "errno", None) == errno.ENOMEM:
            return InputError(
                f"Memory ran out while {part.path.name} was loaded: close other programs, choose the precision nf4, or "
                "lift the limit on ComfyUI's memory if there is one (ulimit -v)."
            )
        return InputError(f"{part.path.name} cannot be read any more ({error}): load the model again.")


def _some_rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.numel() <= SMALL else tensor.flatten(1)[:: max(1, len(tensor) // SAMPLED)]


def _check(name: str, weights: Weights, kept: Mapping[str, Part], files: _Files) -> bool:
    """Whether a weight is all zeros, as far as looked at. kept: its parts that are as in the file.

    Raises InputError if it is not finite.
    """
    layer = name.removesuffix(".weight")
    part = "weight_scale" if name.endswith(".weight") and layer in weights.formats else "weight"
    tensor = weights.tensors.get(f"{layer}.{part}" if part != "weight" else name)
    if tensor is None or tensor.dtype == torch.uint8:
        return False
    rows = files.some_rows(kept[part], tensor) if part in kept else _some_rows(tensor)
    if not rows.numel():
        return True
    # In one pass: on a busy machine the threads of each wait for each other longer than it takes.
    least, most = (bound.item() for bound in torch.aminmax(rows if rows.dtype.itemsize > 1 else rows.float()))
    if not (isfinite(least) and isfinite(most)):
        raise InputError(
            f"{files.name} holds numbers that are not finite, in {name}: it is damaged or badly merged, "
            "use another file."
        )
    return least == most == 0


def _title(checkpoint: Checkpoint) -> str:
    first = checkpoint.paths[0]
    return title(first.parent) if len(checkpoint.paths) > 1 else first.name
