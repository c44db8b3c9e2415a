"""A transformer's checkpoint on disk: opened, recognised and checked. Reads headers only and needs no torch."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path

from ...formats.kinds import KINDS
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.params import TransformerParams
from ...skyreels_v3.recipes import Job
from ..architecture.gguf_layout import as_in_torch, check_architecture
from ..architecture.jobs import detect_job
from ..architecture.key_maps import KEY_MAPS, KeyMap, find_dialect, unwrapped
from ..architecture.params import expected_shapes, heads_in_metadata, params_from_shapes
from ..files.header import Header, Read, TensorInfo, read_header
from ..files.shards import Files, check_index, find_files, others_in, read_json, title
from ..files.stamps import FileStamp
from ..files.tensor_info import printable, short, some
from ..tensors.stored import BESIDE, INSTEAD, MARKER, Part, StoredWeight, fits, part_of, stored_weights, summary
from .other_models import is_lora, refuse_lora, refuse_unreadable, refuse_wan_variants, what_it_is

# Whole checkpoints hold the other models of a pipeline under these, beside a transformer with a prefix.
OTHER_PARTS = ("vae.", "first_stage_model.", "cond_stage_model.", "text_encoders.", "conditioner.", "clip_vision.")
# Folders that every ComfyUI or Hugging Face cache has: what lies above them says nothing about the model.
ROOTS = ("diffusion_models", "unet", "models", "checkpoints", "hub")
# Tensors that are no weights, by a part of their names: markers, what engines leave behind, tables that are computed.
NO_WEIGHTS = frozenset(
    ("model_type", "_extra_state", "freqs", "freqs_cos", "freqs_sin", "inv_freq", "rope", "num_batches_tracked")
)
# Those of a single number: what a training was at when it wrote the file.
COUNTERS = ("global_step", "step", "epoch", "iteration", "num_updates", "decay")
WHOLE_NUMBERS = ("I64", "I32")
FOLDERS_READ = 4  # a snapshot of the Hugging Face cache has its model's name four folders up
AUDIO = "audio_proj.", "audio_cross_attn."
LINKS_FOLLOWED = 8
LONGEST_KEY = 50  # signs of a key in a sentence


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint; nothing of the weights has been read.

    paths: the file, or all shards.  params: sizes.  job, why: what it is for, and one sentence that says why.
    metadata: the files' own strings.  dialect: name of the key map it is written in.
    weights: Wan name -> where and how it is stored.  left_out: tensors that are no weights and change nothing.
    stamps: the files as they were before they were read.
    """

    paths: tuple[Path, ...]
    params: TransformerParams
    job: Job
    why: str
    metadata: dict[str, str]
    dialect: str
    weights: dict[str, StoredWeight]
    left_out: tuple[str, ...] = ()
    stamps: tuple[FileStamp, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers the weights have."""
        return sum(prod(shape) for shape in expected_shapes(self.params).values())

    @property
    def size(self) -> int:
        """Bytes of the weights in the files."""
        return sum(weight.size for weight in self.weights.values())

    @property
    def precision(self) -> str:
        """What artists call the precision of the file: "bf16", "fp8 scaled + bf16", "Q4_K + Q6_K" ..."""
        return summary(self.weights.values())

    @property
    def plain_dtype(self) -> str:
        """The dtype of most numbers that are not encoded, as headers name it ("BF16"); BF16 where all are."""
        numbers: Counter[str] = Counter(BF16=0)
        for weight in self.weights.values():
            if weight.encoding is None:
                numbers[weight.parts["weight"].dtype] += prod(weight.shape)
        return numbers.most_common(1)[0][0]

    @property
    def is_packed(self) -> bool:
        """Whether weights are stored in another way than as plain numbers."""
        return any(weight.encoding for weight in self.weights.values())


def open_checkpoint(path: Path, job: Job | None = None, read: Read = read_header) -> Checkpoint:
    """Open a transformer: one safetensors file, any shard of a set or its index, or a folder with shards or one file.

    job: what the artist chose, None for auto.  read: how a header is read; of a model file nothing else is. Raises
    InputError, in one sentence, for files that are damaged, incomplete or of another model, and for a job that the
    weights rule out.
    """
    path = Path(path)
    files = find_files(path)
    place = files.paths[0].parent if path.is_dir() else path
    name = title(place)
    headers = {file: read(file) for file in files.paths}
    if path.is_dir():
        headers = _one_model(headers, name)
        headers |= _audio_layers(files, headers, read)
    left_out = _no_weights(headers)
    tensors = {key: info for header in headers.values() for key, info in header.tensors.items() if key not in left_out}
    metadata = {key: value for header in headers.values() for key, value in header.metadata.items()}
    check_architecture(metadata, name)
    refuse_lora(tensors, name)
    found = find_dialect(tensors)
    if found is None:
        raise what_it_is(tensors, name)
    check_index(files, headers, _markers(headers))
    dialect, prefix = found
    names = _wan_names(tensors, dialect, prefix, name)
    parts = _parts(headers, names)
    refuse_wan_variants({wan: part.shape for wan, part in parts.items()}, name)
    refuse_unreadable(parts, name)

    texts = {file: header.metadata for file, header in headers.items()}
    weights = stored_weights(parts, texts, lambda layer: _layer_in(parts, layer), name)
    shapes = {wan: weight.shape for wan, weight in weights.items()}
    params = params_from_shapes(shapes, _config(files, path, metadata))
    _check_complete(weights, params, name)
    said = place if len(headers) > 1 else next(iter(headers))
    job, why = detect_job(params, _names(said), metadata, job, dialect.name)
    stamps = tuple(header.stamp for header in headers.values() if header.stamp is not None)
    return Checkpoint(
        tuple(headers), params, job, why, metadata, dialect.name, weights, tuple(sorted(left_out)), stamps
    )


def _one_model(headers: Mapping[Path, Header], name: str) -> dict[Path, Header]:
    """The files of a folder that are one model's: those without LoRAs. Raises InputError where they are several."""
    models = {file: header for file, header in headers.items() if not is_lora(header.tensors)}
    begun = [file.name for file, header in models.items() if find_dialect(header.tensors)]
    if len(begun) > 1 and {*begun} == {file.name for file in models}:
        raise InputError(f"{name} holds {some(begun, LONGEST_KEY)}, each a model: choose one of these files.")
    return models or dict(headers)


def _audio_layers(files: Files, headers: Mapping[Path, Header], read: Read) -> dict[Path, Header]:
    """The files with the audio layers that a folder may have beside the shards of the rest, as the official loader
    reads every file of a folder. Raises InputError where several have the same: which is meant, nobody can tell."""
    own = {key for header in headers.values() for key in header.tensors}
    if any(part in key for key in own for part in AUDIO):
        return {}
    found: dict[Path, Header] = {}
    for file in others_in(files.paths[0].parent, files):
        try:
            header = read(file)
        except InputError:  # another file, which may be anything
            continue
        has_audio = any(part in key for key in header.tensors for part in AUDIO)
        if has_audio and own.isdisjoint({*header.tensors} - _markers({file: header})):
            found[file] = header
    keys = [key for header in found.values() for key in {*header.tensors} - _markers(found)]
    if len(keys) > len({*keys}):
        names = " and ".join(printable(file.name) for file in found)
        raise InputError(
            f"{title(files.paths[0].parent)} holds audio layers in {names}: leave one of these files there."
        )
    return found


def _markers(headers: Mapping[Path, Header]) -> set[str]:
    """The keys of tensors that each file of a checkpoint may have."""
    keys = {key for header in headers.values() for key in header.tensors}
    return _no_weights(headers) | {key for key in keys if key.rpartition(".")[2] == MARKER}


def _no_weights(headers: Mapping[Path, Header]) -> set[str]:
    """The keys of tensors that are no weights of any network."""
    return {
        key
        for header in headers.values()
        for key, info in header.tensors.items()
        if not NO_WEIGHTS.isdisjoint(key.split(".")) or _says_nothing(key.rpartition(".")[2], info)
    }


def _says_nothing(last: str, info: TensorInfo) -> bool:
    """Whether a tensor is empty or a counter, by the last part of its name."""
    numbers = prod(info.shape)
    is_counter = numbers == 1 and (last in COUNTERS or info.dtype in WHOLE_NUMBERS)
    return (numbers == 0 or is_counter) and last not in BESIDE


def _parts(headers: Mapping[Path, Header], names: Mapping[str, str]) -> dict[str, Part]:
    """Wan name -> where it lies. names: key in the file -> Wan name."""
    parts = {
        names[key]: part_of(path, key, header)
        for path, header in headers.items()
        for key in header.tensors
        if key in names
    }
    return as_in_torch(parts) if any(header.file_format == "gguf" for header in headers.values()) else parts


def _wan_names(tensors: Mapping[str, TensorInfo], dialect: KeyMap, prefix: str, name: str) -> dict[str, str]:
    """Key in the file -> Wan name, for the transformer's part of the file."""
    bare = {key: unwrapped(key) for key in tensors}
    foreign = [key for key in tensors if not bare[key].startswith(prefix)]
    if prefix:
        foreign = [key for key in foreign if not key.startswith(OTHER_PARTS)]
    if foreign:
        raise InputError(
            f"{name} has {len(foreign)} tensors that do not begin with {prefix} as the others do "
            f"({some(foreign, LONGEST_KEY)}): use a file with the transformer alone."
        )
    own = {key: bare[key].removeprefix(prefix) for key in tensors if bare[key].startswith(prefix)}
    renamed = dialect.rename(own.values())
    names = {key: renamed[name] for key, name in own.items()}
    twice = [wan for wan, count in Counter(names.values()).items() if count > 1]
    if twice:
        raise InputError(
            f"{name} has {some(twice, LONGEST_KEY)} twice, in Wan and in {dialect.name} names: "
            "use an official SkyReels-V3 file."
        )
    return names


def _layer_in(parts: Mapping[str, Part], spelled: str) -> str | None:
    """The Wan name of a layer as a file's text spells it, None if there is no such layer: prefixes and names of texts
    may be others than those of the tensors. Layers of the other models of a pipeline are none of ours and pass."""
    segments = unwrapped(spelled).removesuffix(".weight").split(".")
    for start in range(len(segments)):
        rest = ".".join(segments[start:])
        for names in KEY_MAPS:
            layer = names.rename([rest])[rest]
            if f"{layer}.weight" in parts:
                return layer
    return spelled if spelled.startswith(OTHER_PARTS) else None


def _config(files: Files, path: Path, metadata: dict[str, str]) -> dict:
    # A config.json among single files belongs to none of them in particular.
    first, *others = files.paths
    if path.is_dir() or others or path.name.startswith("diffusion_pytorch_model"):
        config = first.parent / "config.json"
        if config.is_file():
            return read_json(config)
    return heads_in_metadata(metadata)


def _check_complete(weights: Mapping[str, StoredWeight], params: TransformerParams, name: str) -> None:
    expected = expected_shapes(params)
    missing = [key for key in expected if key not in weights]
    if missing:
        raise InputError(
            f"{name} lacks {len(missing)} of the {len(expected)} weights of its transformer "
            f"({some(missing, LONGEST_KEY)}), so it is incomplete or another model: download it again."
        )
    unexpected = [key for key in weights if key not in expected]
    if unexpected:
        raise InputError(
            f"{name} has {len(unexpected)} weights that no SkyReels-V3 transformer has "
            f"({some(unexpected, LONGEST_KEY)}), so it is another model: choose an R2V, V2V or A2V file."
        )
    for key, shape in expected.items():
        if not fits(weights[key], shape):
            _check_bits(key, weights[key], shape, name)
            raise InputError(
                f"In {name}, {key} has the shape {short(list(weights[key].shape))}, but {list(shape)} is needed: "
                "use an official SkyReels-V3 file."
            )


def _check_bits(key: str, stored: StoredWeight, shape: tuple[int, ...], name: str) -> None:
    """Raise InputError where a weight fits but for the bits of its numbers: some formats come with several."""
    part, rows = stored.parts["weight"], shape[0]
    bits, rest = divmod(8 * part.size, prod(shape))
    if stored.encoding is not None and part.shape[:1] == (rows,) and bits < 8 and not rest:
        kind = KINDS[stored.encoding.kind]
        raise InputError(
            f"In {name}, {key} is {kind.word} with {bits} bits for each number, which is read with "
            f"{kind.bits_per_code} alone: {INSTEAD}."
        )


def _names(place: Path) -> list[str]:
    """The names that may say the job: its own and its folders', then those of what it is a link to, step by step."""
    names: list[str] = []
    for path in islice(_links(place.absolute()), LINKS_FOLLOWED):
        names += [name for name in _name_and_folders(path) if name not in names]
    return names


def _links(path: Path) -> Iterator[Path]:
    """A path, then where it leads if the first link on it is followed, and so on. Each step counts: a hub's cache has
    links from snapshots, which say what a file is, to files without names."""
    seen: set[Path] = set()
    while path not in seen:
        seen.add(path)
        yield path
        link = next((part for part in (*reversed(path.parents), path) if part.is_symlink()), None)
        if link is not None:
            target = Path(os.path.normpath(link.parent / link.readlink()))
            path = target / path.relative_to(link)


def _name_and_folders(path: Path) -> list[str]:
    """A name, then its folders' names, nearest first, up to the folder of all models."""
    names = [path.name if path.is_dir() else path.stem]
    for parent in list(path.parents)[:FOLDERS_READ]:
        if parent.name.lower() in ROOTS or not parent.name:
            break
        names.append(parent.name)
    return names
