"""A transformer's checkpoint on disk: opened, recognised and checked, its weights mapped but not read."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..skyreels_v3.errors import InputError
from ..skyreels_v3.params import TransformerParams
from ..skyreels_v3.recipes import Job
from .jobs import detect_job
from .key_maps import KeyMap, find_dialect
from .other_models import refuse_lora, refuse_quantised, refuse_wan_variants, what_it_is
from .params import expected_shapes, heads_in_metadata, params_from_shapes
from .safetensors_header import TensorInfo, read_header
from .shards import Files, check_index, find_files, read_json, title

Reader = Callable[[Path], dict[str, torch.Tensor]]
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
# Whole checkpoints hold the other models of a pipeline under these, beside a transformer with a prefix.
OTHER_PARTS = ("vae.", "first_stage_model.", "cond_stage_model.", "text_encoders.", "conditioner.", "clip_vision.")
# Folders that every ComfyUI or Hugging Face cache has: what lies above them says nothing about the model.
ROOTS = ("diffusion_models", "unet", "models", "checkpoints", "hub")
FOLDERS_READ = 4  # a snapshot of the Hugging Face cache has its model's name four folders up
NAMED = 3  # keys named in a sentence


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint; nothing of the weights has been read.

    paths: the file, or all shards.  params: sizes.  job, why: what it is for, and one sentence that says why.
    dtype: of most weights.  metadata: the files' own strings.  dialect: name of the key map it is written in.
    sources: Wan name -> (file, key in that file).
    """

    paths: tuple[Path, ...]
    params: TransformerParams
    job: Job
    why: str
    dtype: torch.dtype
    metadata: dict[str, str]
    dialect: str
    sources: dict[str, tuple[Path, str]]

    @property
    def parameters(self) -> int:
        """How many numbers the weights have."""
        return sum(prod(shape) for shape in expected_shapes(self.params).values())

    def state_dict(self, reader: Reader | None = None) -> dict[str, torch.Tensor]:
        """Wan name -> tensor, mapped from the files: memory is used only when a weight is read, and can be given back.

        reader: maps a file, path -> {key: tensor}; safetensors' own where None.
        The files must stay where they are as long as the tensors live. Raises InputError if one has changed.
        """
        weights: dict[str, torch.Tensor] = {}
        for path in self.paths:
            try:
                tensors = (reader or map_file)(path)
                weights.update({name: tensors[key] for name, (file, key) in self.sources.items() if file == path})
            except (SafetensorError, OSError, RuntimeError, KeyError) as error:
                raise InputError(f"{path.name} cannot be read any more ({error}): load the model again.") from error
        return {name: weights[name] for name in self.sources}


def map_file(path: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a safetensors file, mapped."""
    with safe_open(path, framework="pt", device="cpu") as file:
        return {key: _aligned(file.get_tensor(key)) for key in file.keys()}


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or a copy where it lies at an odd place in the file, on which kernels may fail.

    The official files are aligned, so nothing of them is copied.
    """
    return tensor.clone() if tensor.data_ptr() % tensor.element_size() else tensor


def open_checkpoint(path: Path, job: Job | None = None) -> Checkpoint:
    """Open a transformer: one safetensors file, any shard of a set, or a folder with shards or one file.

    job: what the artist chose, None for auto. Only headers are read. Raises InputError, in one sentence, for
    files that are damaged, incomplete, of another model or quantised, and for a job that the weights rule
    out.
    """
    path = Path(path)
    files = find_files(path)
    place = files.paths[0].parent if path.is_dir() else path
    name = title(place)
    headers = {file: read_header(file) for file in files.paths}
    tensors = {key: info for header in headers.values() for key, info in header.tensors.items()}
    metadata = {key: value for header in headers.values() for key, value in header.metadata.items()}
    refuse_lora(tensors, name)
    found = find_dialect(tensors)
    if found is None:
        raise what_it_is(tensors, name)
    check_index(files, headers)
    dialect, prefix = found
    names = _wan_names(tensors, dialect, prefix, name)
    infos = {wan: tensors[key] for key, wan in names.items()}
    shapes = {wan: info.shape for wan, info in infos.items()}
    refuse_wan_variants(shapes, name)
    refuse_quantised(infos, metadata, name)
    params = params_from_shapes(shapes, _config(files, path, metadata))
    _check_complete(shapes, params, name)
    job, why = detect_job(params, _name_and_folders(place), metadata, job, dialect.name)
    files_of = {key: file for file, header in headers.items() for key in header.tensors}
    sources = {wan: (files_of[key], key) for key, wan in names.items()}
    return Checkpoint(files.paths, params, job, why, _dtype(infos), metadata, dialect.name, sources)


def _wan_names(tensors: Mapping[str, TensorInfo], dialect: KeyMap, prefix: str, name: str) -> dict[str, str]:
    """Key in the file -> Wan name, for the transformer's part of the file."""
    foreign = [key for key in tensors if not key.startswith(prefix)]
    if prefix:
        foreign = [key for key in foreign if not key.startswith(OTHER_PARTS)]
    if foreign:
        raise InputError(
            f"{name} has {len(foreign)} tensors that do not begin with {prefix} as the others do "
            f"({_some(foreign)}): use a file with the transformer alone."
        )
    keys = [key for key in tensors if key.startswith(prefix)]
    renamed = dialect.rename(key.removeprefix(prefix) for key in keys)
    names = {key: renamed[key.removeprefix(prefix)] for key in keys}
    twice = [wan for wan, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise InputError(
            f"{name} has {_some(twice)} twice, in Wan and in {dialect.name} names: use an official SkyReels-V3 file."
        )
    return names


def _config(files: Files, path: Path, metadata: dict[str, str]) -> dict:
    # A config.json among single files belongs to none of them in particular.
    if path.is_dir() or len(files.paths) > 1 or path.name.startswith("diffusion_pytorch_model"):
        config = files.paths[0].parent / "config.json"
        if config.is_file():
            return read_json(config)
    return heads_in_metadata(metadata)


def _check_complete(shapes: Mapping[str, tuple[int, ...]], params: TransformerParams, name: str) -> None:
    expected = expected_shapes(params)
    missing = [key for key in expected if key not in shapes]
    if missing:
        raise InputError(
            f"{name} lacks {len(missing)} of the {len(expected)} weights of its transformer "
            f"({_some(missing)}), so it "
            "is incomplete or another model: download it again."
        )
    unexpected = [key for key in shapes if key not in expected]
    if unexpected:
        raise InputError(
            f"{name} has {len(unexpected)} weights that no SkyReels-V3 transformer has "
            f"({_some(unexpected)}), so it "
            "is another model: choose an R2V, V2V or A2V file."
        )
    for key, shape in expected.items():
        if tuple(shapes[key]) != shape:
            raise InputError(
                f"In {name}, {key} has the shape {list(shapes[key])}, but {list(shape)} is needed: "
                "use an official SkyReels-V3 file."
            )


def _some(keys: list[str]) -> str:
    names = [ascii(key)[1:-1][:80] for key in keys[:NAMED]]
    return ", ".join(names) + (" ..." if len(keys) > NAMED else "")


def _name_and_folders(path: Path) -> list[str]:
    """The name that may tell the job, then its folders' names, nearest first, up to the folder of all "
    "models."""
    path = path.absolute()
    names = [path.name if path.is_dir() else path.stem]
    for parent in list(path.parents)[:FOLDERS_READ]:
        if parent.name.lower() in ROOTS or not parent.name:
            break
        names.append(parent.name)
    return names


def _dtype(infos: Mapping[str, TensorInfo]) -> torch.dtype:
    numbers: Counter[str] = Counter()
    for info in infos.values():
        numbers[info.dtype] += prod(info.shape)
    return DTYPES[numbers.most_common(1)[0][0]]
