"""What a file or folder is, whatever it is, and what to do with it. Reads headers only and needs no torch."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path

from ...formats.kinds import KINDS, PLAIN, Precision
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.recipes import RECIPES, Job
from ...skyreels_v3.units import GB, gb
from ..architecture.companions import companions
from ..architecture.gguf_layout import WAN
from ..architecture.jobs import ASSUMED
from ..files.folders import files_below, models_below
from ..files.header import Header, Read, read_header
from ..files.shards import SUFFIXES, find_files, title
from ..files.tensor_info import TensorInfo, printable
from ..loras.names import INSTEAD, INSTEAD_OF_COLUMNS, OF_COLUMNS, READ_KINDS, is_distilled
from ..loras.styles import EVERYTHING, lora_style
from ..tensors.precision import automatic
from ..tensors.stored import BESIDE
from . import dialects
from .checkpoint import Checkpoint, open_checkpoint
from .other_models import AnotherModel, OtherModel, architecture_model, is_lora

UNKNOWN = "unknown"  # of a dialect and of a job
NOT_OPENED = "It cannot be loaded, so it has no job yet."
PUBLISHED = "SkyReels-V3's models are at huggingface.co/Skywork: R2V, V2V and A2V."
AGAIN = "Download the file again from where it came from, or use another file of the same model."
GIVE = "Give the path of a .safetensors or .gguf file, or of a folder with a model, which you may read."
FOLDER = "models/diffusion_models"
SMALLEST = 10 * 10**9  # numbers; the published models have 14 and 19 billion
CARDS = (8, 12, 16, 24, 32, 48, 80, 96, 141)  # GB of VRAM in use
NODES = {
    Job.REFERENCE: "SkyReels-V3 Reference to Video or SkyReels-V3 Film",
    Job.EXTENSION: "SkyReels-V3 Extend Video or SkyReels-V3 Film",
    Job.SHOT: "SkyReels-V3 Extend Video or SkyReels-V3 Film, for cuts",
    Job.AVATAR: "SkyReels-V3 Talking Avatar, SkyReels-V3 Dub Video or SkyReels-V3 Film",
}
# Number formats in headers -> what artists call them; others go by their own names.
NUMBERS = {
    **{dtype: kind.family for kind in KINDS.values() if not kind.needed for dtype in kind.dtypes},
    **PLAIN,
    "F64": "fp64",
}
# dtypes of codes, which are no numbers without their scales or hold several each; I32 is other programs'.
CODES = {dtype for kind in KINDS.values() if kind.needed for dtype in kind.dtypes} - NUMBERS.keys() | {"I32"}
HEADERS_READ = 100  # files of a folder that is no whole model


@dataclass(frozen=True)
class Inspection:
    """What is known of a model.

    file: the path as it was given, or of one model in a folder with several.  dialect: how it is written (dialects.py),
    "lora, STYLE", "companion, WHAT", "other model, WHAT" or "unknown".  job: a Job's value or "unknown".  why: a
    sentence on the job.  precision: as artists call it, empty where unknown.  parameters: numbers in the model, 0 where
    unknown.  problems: why Load Model does not take it, empty if it does.  advice: what to do with it.
    here: what Load Model will do with it on this machine; empty where it does not take it.
    """

    file: str
    dialect: str = UNKNOWN
    job: str = UNKNOWN
    why: str = NOT_OPENED
    precision: str = ""
    parameters: int = 0
    problems: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    here: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where models lie.

    read: how their headers are read.  is_here: on this machine, not to be downloaded yet.  plan: what Load Model will
    do with one on this machine, in sentences.
    """

    read: Read = read_header
    is_here: bool = True
    plan: Callable[[Checkpoint], tuple[str, ...]] = lambda _: ()


HERE = Source()


def inspect(given: str, source: Source = HERE) -> Iterator[Inspection]:
    """What is at a path: one Inspection, or one for each model in a folder with several. Raises no Exception."""
    try:
        problem = _unreachable(given)
        models = [] if problem or not os.path.isdir(given) else _models_in(given, source)
    except Exception as error:
        yield _unforeseen(given, error)
        return
    if problem:
        yield Inspection(given, problems=(problem,), advice=(GIVE,))
    elif len(models) < 2:
        yield _inspect_model(given, source, *models)
    else:
        for model in models:
            yield _inspect_model(os.path.join(given, model), source)


def _unreachable(given: str) -> str:
    """Why there is no file or folder to look into, or nothing."""
    try:
        mode = os.stat(given).st_mode
    except (OSError, ValueError) as error:  # ValueError: a null byte
        if isinstance(error, FileNotFoundError) and not os.path.islink(given):
            return f"There is nothing at {printable(given)}."
        return f"{printable(given)} cannot be reached ({getattr(error, 'strerror', None) or error})."
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        return f"{printable(given)} is a device or a pipe, not a file."
    return ""


def _models_in(folder: str, source: Source) -> list[str]:
    """The models below a folder, relative to it; none where it is to be opened as a whole."""
    models = models_below(folder)
    if len(models) == 1:
        return models if not _has_files(folder) else []
    try:
        whole = open_checkpoint(_path(folder), read=source.read)
    except InputError:
        return models
    # shards may have names of their own
    others = [model for model in models if _path(folder) / model not in whole.paths]
    if len(whole.paths) == 1 or len(others) == len(models):
        return models
    return ["", *others] if others else []


def _has_files(folder: str) -> bool:
    return any(name.lower().endswith(SUFFIXES) for name in os.listdir(folder))


def _inspect_model(given: str, source: Source, inner: str = "") -> Inspection:
    """inner: the only model in the folder that was given."""
    try:
        path = _path(given) / inner
        try:
            checkpoint = open_checkpoint(path, read=source.read)
            return _good(given, path, checkpoint, source)
        except InputError as error:
            return _refused(given, path, error, source)
    except Exception as error:
        return _unforeseen(given, error)


def _path(given: str) -> Path:
    """With a name that sentences can have: "." has none."""
    path = Path(given)
    return path if path.name not in ("", "..") else path.resolve()


def _unforeseen(given: str, error: Exception) -> Inspection:
    """What remains: files that change or vanish meanwhile, memory that does not suffice."""
    name = printable(given)
    return Inspection(
        given, problems=(f"{name} cannot be inspected ({type(error).__name__}: {printable(str(error))}).",),
        advice=("Try again once nothing else writes to it; if that does not help, download it again.",),
    )  # fmt: skip


def _headers(paths: Iterable[Path], read: Read) -> dict[Path, Header]:
    """The headers that can be read."""
    headers = {}
    for path in paths:
        try:
            headers[path] = read(path)
        except InputError:
            continue
    return headers


def _good(given: str, path: Path, checkpoint: Checkpoint, source: Source) -> Inspection:
    headers = _headers(checkpoint.paths, source.read)
    return Inspection(
        given,
        dialects.dialect_of(headers, _packing(checkpoint)) or checkpoint.dialect,
        checkpoint.job.value,
        checkpoint.why,
        checkpoint.precision,
        checkpoint.parameters,
        advice=(
            *_what_to_do(path, checkpoint, source.is_here),
            _about_precision(checkpoint),
            *(f"It also needs {one.kind}: {one.place}." for one in companions(checkpoint.job)),
            f"It is distilled to {RECIPES[checkpoint.job].steps} steps already, so it needs no lightx2v, CausVid or "
            "other LoRA that saves steps.",
        ),
        here=source.plan(checkpoint),
    )


def _packing(checkpoint: Checkpoint) -> str:
    """The word of the kind that most of its packed weights have, empty where headers tell it by themselves."""
    kinds = Counter(weight.encoding.kind for weight in checkpoint.weights.values() if weight.encoding)
    word = KINDS[kinds.most_common(1)[0][0]].word if kinds else ""
    return word if word in dialects.OTHERS else ""


def _what_to_do(path: Path, checkpoint: Checkpoint, is_here: bool) -> Iterator[str]:
    is_there = any(folder.name.lower() in ("diffusion_models", "unet") for folder in path.absolute().parents)
    what = "the folder with all its files" if len(checkpoint.paths) > 1 else "it"
    if not is_here:
        yield f"Download {what} ({gb(checkpoint.size)}) into {FOLDER}."
    elif not is_there:
        yield f"Put {what} into {FOLDER}."
    yield "Choose it in SkyReels-V3 Load Model."
    if ASSUMED in checkpoint.why:
        yield (
            "If it is V2V, set job in Load Model to extension or shot, or put v2v or v2v_shot into "
            "its name: the models of the three jobs have the same layers, as Wan 2.1 text to video has."
        )
    yield f"Use it with {NODES[checkpoint.job]}."
    if checkpoint.parameters < SMALLEST:
        yield (
            f"It has {checkpoint.parameters:,} numbers, but SkyReels-V3's models have 14 or 19 billion: it may be a "
            "smaller model of the Wan family."
        )


def _about_precision(checkpoint: Checkpoint) -> str:
    if checkpoint.is_packed:
        return f"With precision auto it stays {checkpoint.precision}, as in the file."
    smallest = next((card for card in CARDS if _has_room(card, checkpoint.parameters)), CARDS[-1])
    if smallest == CARDS[0]:
        return f"With precision auto it stays {checkpoint.precision}, as in the file."
    return (
        f"With precision auto it stays {checkpoint.precision} on cards with {smallest} GB or more and becomes int8 on "
        "others, or nf4 where RAM is short too."
    )


def _has_room(card: int, parameters: int) -> bool:
    return automatic(parameters, "cuda", card * GB, 1000 * GB)[0] is Precision.AUTO


def _refused(given: str, path: Path, error: InputError, source: Source) -> Inspection:
    """What Load Model does not take: another model by its name, else what is wrong with this one."""
    headers = _headers(_paths(path), source.read)
    tensors = dialects.merged(headers)
    metadata = {key: value for header in headers.values() for key, value in header.metadata.items()}
    if is_lora(tensors):
        return _lora(given, path, tensors, metadata)
    if other := _another(error, tensors, headers):
        return _other(given, path, other, tensors)
    dialect, problem = dialects.dialect_of(headers), str(error)
    advice = [_action(problem, path) or AGAIN]
    if tensors and dialect is None:
        advice.append(PUBLISHED)
    return Inspection(
        given, dialect or UNKNOWN, precision=_numbers(tensors)[0], problems=(problem,), advice=tuple(advice)
    )


def _another(error: InputError, tensors: Mapping[str, TensorInfo], headers: Mapping[Path, Header]) -> OtherModel | None:
    if isinstance(error, AnotherModel):
        return error.model
    architecture = next((header.architecture for header in headers.values() if header.architecture), WAN)
    return None if architecture == WAN else architecture_model(tensors, architecture)


def _paths(path: Path) -> list[Path]:
    """The files at a path, whether or not they are a whole model."""
    try:
        return list(find_files(path).paths)
    except InputError:
        return [path / name for name in islice(files_below(str(path)), HEADERS_READ)] if path.is_dir() else [path]


def _action(problem: str, path: Path) -> str:
    """The part of a sentence that says what to do, as a sentence of its own; empty if it has none."""
    # A file's name may have a colon too.
    start = max((problem.rfind(name) + len(name) for name in (title(path), str(path)) if name in problem), default=0)
    _, colon, action = problem[start:].rpartition(": ")
    return sentence_of(action) if colon else ""


def sentence_of(text: str) -> str:
    """With a capital letter in front."""
    return text[:1].upper() + text[1:]


def _lora(given: str, path: Path, tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> Inspection:
    found = lora_style(tensors)
    advice = ["Put it into models/loras and load it with SkyReels-V3 LoRA, behind SkyReels-V3 Load Model."]
    if found.kind and found.kind not in READ_KINDS:
        instead = INSTEAD_OF_COLUMNS if found.kind == OF_COLUMNS else INSTEAD
        advice = [f"SkyReels-V3 LoRA does not read this kind of LoRA ({found.kind}): {instead}."]
    elif not found.fitting:
        advice = ["None of its layers is in a SkyReels-V3 model: look for a LoRA for Wan 2.1 14B or SkyReels-V3."]
    elif found.width and found.width != EVERYTHING.dim:
        advice.append(
            f"It was made for a model that is {found.width} wide, but SkyReels-V3 is {EVERYTHING.dim} wide: look for "
            "one for Wan 2.1 14B or SkyReels-V3."
        )
    if is_distilled(path.stem, metadata):
        advice.append(
            "It is made to save steps, but SkyReels-V3 models are distilled already: on top of that the picture burns, "
            "so leave it out or try strength 0.3."
        )
    precision, parameters = _numbers(tensors)
    kind = f", {found.kind}" if found.kind else ""
    return Inspection(
        given,
        f"lora, {found.style}{kind}",
        why=f"A LoRA has no job of its own; {found.fitting} of its {found.layers} layers are in SkyReels-V3 models.",
        precision=precision,
        parameters=parameters,
        problems=(f"{title(path)} is a LoRA, not a model: Load Model does not take it.",),
        advice=tuple(advice),
    )


def _other(given: str, path: Path, other: OtherModel, tensors: Mapping[str, TensorInfo]) -> Inspection:
    companion = other.companion
    precision, parameters = _numbers(tensors)
    kind = other.kind.removeprefix("the ").removeprefix("a ").removeprefix("an ")
    if companion:
        use = other.use or f"put it into models/{companion.folder} and load it with {companion.loader}"
        advice = [f"For SkyReels-V3, {companion.place}.", f"If another model needs it, {use}."]
        if other.suits:
            use = other.use or f"load it with {companion.loader}"
            advice = [f"Put it into models/{companion.folder} and {use}."]
    elif other.use:
        advice = [f"{sentence_of(other.use)} and inspect that folder.", PUBLISHED]
    else:
        advice = ["SkyReels-V3 has no use for it: load it with the nodes that are made for it.", PUBLISHED]
    return Inspection(
        given,
        f"{'companion' if companion else 'other model'}, {kind}",
        why=f"It is {other.kind}, which has none of the four jobs.",
        precision=precision,
        parameters=parameters,
        problems=(f"{title(path)} is {other.kind}, not a SkyReels-V3 transformer: Load Model does not take it.",),
        advice=tuple(advice),
    )


def _numbers(tensors: Mapping[str, TensorInfo]) -> tuple[str, int]:
    """(the precision as artists call it, how many numbers there are or 0 where headers do not tell)."""
    counts: Counter[str] = Counter()
    for key, info in tensors.items():
        is_text = info.dtype == "U8" and len(info.shape) == 1  # a tokenizer, or the name of a format
        if key.rpartition(".")[2] not in BESIDE and not is_text:
            counts[NUMBERS.get(info.dtype, info.dtype)] += prod(info.shape)
    total = sum(counts.values())
    main = [(name, count) for name, count in counts.most_common() if count > total / 200]
    return " + ".join(name for name, _ in main), 0 if any(name in CODES for name, _ in main) else total
