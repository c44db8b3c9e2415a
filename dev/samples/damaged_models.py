"""Model files with seeded damage, opened one after the other: each must open or be refused in one clear sentence.

    with Fuzz(folder) as fuzz:
        for result in fuzz.run("gguf", range(1000)): ...

Mutant 17 of a target is the same in every run and on every machine. The files have real headers and, in place of the
weights, nothing but holes, so that a mutant is written and opened in about a millisecond.
"""

import functools
import json
import re
import struct
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from random import Random

from pack.dev.samples.damage import ODD_NAMES, damaged, damaged_gguf, damaged_json, damaged_safetensors
from pack.formats.gguf_types import TYPES
from pack.model_loaders.architecture.key_maps import DIFFUSERS
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.files.header import read_header
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job

MAX_SECONDS = 1.0  # of processor time
MAX_BYTES = 16_000_000  # of memory, for files below 1 MB
LONGEST_SENTENCE = 400
SMALL = TransformerParams(dim=128, ffn_dim=256, num_heads=1, num_layers=1)
SMALL_AVATAR = TransformerParams(
    dim=128, ffn_dim=256, num_heads=1, num_layers=1, in_dim=36, image_dim=1280, audio=AudioParams(hidden=32, dim=64)
)
INDEX = "diffusion_pytorch_model.safetensors.index.json"
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U8": 1, "I8": 1, "I64": 8}
FILES = ("model.safetensors", "SkyReels-V3-R2V.gguf", "diffusion_pytorch_model.sft")
# Damages a file in a folder and returns what opens it.
Target = Callable[[Path, Random], Callable[[], object]]


@dataclass(frozen=True)
class Image:
    """A file: what it begins with, and how many zeros follow."""

    head: bytes
    zeros: int

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.write(self.head)
            file.truncate(len(self.head) + self.zeros)


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    outcome: "opened", "refused" or "failed".  place: where it was refused, "shards.py:82".  problem: of a failure.
    seconds: processor time.  peak: bytes of memory at most.
    """

    target: str
    number: int
    outcome: str
    place: str
    problem: str
    seconds: float
    peak: int


class Fuzz:
    """Writes mutants below a folder and opens them; within `with`, warnings count as failures.

    trace: whether memory is measured, which leaves some kB of Python's own behind every time.
    """

    def __init__(self, folder: Path, trace: bool = True):
        self.folder, self.trace = Path(folder), trace
        self.targets = {
            "safetensors": _header_of(safetensors_layouts, damaged_safetensors),
            "safetensors weights": _weights_of(safetensors_layouts, damaged_safetensors),
            "shards": _shards,
            "gguf": _header_of(gguf_layouts, damaged_gguf),
            "gguf weights": _weights_of(gguf_layouts, damaged_gguf),
        }

    def __enter__(self) -> "Fuzz":
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("error")
        return self

    def __exit__(self, *_) -> None:
        self._warnings.__exit__(*_)

    def run(self, target: str, numbers: Iterable[int]) -> Iterator[Result]:
        for number in numbers:
            random = Random(f"{target} {number}")
            folder = self.folder / target.replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            for file in [file for file in folder.rglob("*") if file.is_file()]:  # folders stay: removing them is slow
                file.unlink()
            yield _judged(target, number, self.targets[target](folder, random), self.trace)


def _judged(target: str, number: int, call: Callable[[], object], trace: bool) -> Result:
    if trace:
        tracemalloc.start()
    start = time.process_time()
    outcome, place, problem = _outcome(call)
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if trace and seconds > MAX_SECONDS / 4:  # tracing takes several times as long: once more without
        start = time.process_time()
        _outcome(call)
        seconds = time.process_time() - start
    if seconds > MAX_SECONDS:
        problem = problem or f"took {seconds:.1f} s"
    if peak > MAX_BYTES:
        problem = problem or f"took {peak} bytes of memory"
    return Result(target, number, "failed" if problem else outcome, place, problem, seconds, peak)


def _outcome(call: Callable[[], object]) -> tuple[str, str, str]:
    """(outcome, place, problem) of a Result."""
    try:
        call()
    except InputError as error:
        return "refused", _place(error), _flaw(str(error))
    except Exception as error:  # whatever else comes out of a file is what is looked for
        return "failed", _place(error), f"{type(error).__name__}: {error}"[:300] + f" at {_place(error)}"
    return "opened", "", ""


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _flaw(message: str) -> str:
    """Why a text is not one clear sentence; empty if it is."""
    if not message.isprintable() or not message.endswith(".") or re.search(r"[.!?] [A-Z]", message):
        return f"not one sentence: {message[:300]!a}"
    return f"a sentence of {len(message)} signs: {message[:300]!a}" if len(message) > LONGEST_SENTENCE else ""


def _opening(path: Path, random: Random) -> Callable[[], object]:
    job = random.choice((None, None, None, *Job))
    return lambda: open_checkpoint(path, job)


def _header_of(layouts: Callable[[], list["Layout"]], damage: Callable[[bytes, Random], bytes]) -> Target:
    """A target: one of some files with damage to its header's bytes, for read_header."""

    def prepare(folder: Path, random: Random) -> Callable[[], object]:
        path = folder / random.choice(FILES)
        _mutant(random.choice(layouts()).image(), damage, random).write(path)
        return lambda: read_header(path)

    return prepare


def _weights_of(layouts: Callable[[], list["Layout"]], damage: Callable[[bytes, Random], bytes]) -> Target:
    """A target: one of some files, most of them whole but with other tensors, for open_checkpoint."""

    def prepare(folder: Path, random: Random) -> Callable[[], object]:
        path = folder / random.choice(FILES)
        layout = random.choice(layouts())
        if random.random() < 0.75:
            layout.changed(random).image().write(path)
        else:
            _mutant(layout.image(), damage, random).write(path)
        return _opening(path, random)

    return prepare


def _mutant(image: Image, damage: Callable[[bytes, Random], bytes], random: Random) -> Image:
    if random.random() < 0.06:
        zeros = random.choice((0, 1, image.zeros // 2, max(0, image.zeros - 1), image.zeros + 1, image.zeros + 5000))
        return Image(image.head, zeros)
    return Image(damage(image.head, random), image.zeros)


def _shards(folder: Path, random: Random) -> Callable[[], object]:
    """A target: a folder in three shards with an index and a config.json, of which one or two things are changed."""
    folder = folder / "transformer"
    folder.mkdir(exist_ok=True)
    files = dict(shards())
    for _ in range(random.choice((1, 1, 1, 2))):
        _change_folder(files, random)
    for name, image in files.items():
        image.write(folder / name)
    path = folder if random.random() < 0.7 else folder / random.choice(sorted(files) or ["gone.safetensors"])
    return _opening(path, random)


def _change_folder(files: dict[str, Image], random: Random) -> None:
    name = INDEX if INDEX in files and random.random() < 0.4 else random.choice(sorted(files))
    image, kind = files[name], random.randrange(10)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[_other_name(name, random)] = files.pop(name)
    elif kind == 2:
        files[_other_name(name, random)] = image
    elif kind == 3:
        other = random.choice(sorted(files))
        files[name], files[other] = files[other], image
    elif name.endswith(".json"):
        files[name] = Image(random.choice((damaged_json, damaged_json, damaged))(image.head, random), 0)
    else:
        files[name] = _mutant(image, damaged_safetensors, random)
    files.setdefault("config.json", Image(b"{}", 0))


def _other_name(name: str, random: Random) -> str:
    changes = (
        name.replace("-00003", "-00004"),
        name.replace("00001-of", "00000-of"),
        name.replace("of-00003", "of-99999"),
        name.replace("diffusion", "other"),
        name.upper(),
        "model.safetensors",
        "x\n\x1b.safetensors" if sys.platform != "win32" else "x.safetensors",
        "x" * 200 + ".safetensors",
        name + ".part",
        "model.gguf",
    )
    return random.choice(changes)


@dataclass(frozen=True)
class Layout:
    """What a file holds.

    shapes, dtypes: of every tensor.  data: of those that are more than zeros, which come first.  metadata: texts of a
    safetensors file, or key -> (kind of value, its bytes) of a GGUF file, which has `alignment`.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    data: dict[str, bytes] = field(default_factory=dict)
    metadata: dict = field(default_factory=dict)
    alignment: int = 0

    def image(self) -> Image:
        return self._gguf() if self.alignment else self._safetensors()

    def _safetensors(self) -> Image:
        header, at = {"__metadata__": self.metadata} if self.metadata else {}, 0
        for key in (*self.data, *(key for key in self.shapes if key not in self.data)):
            size = prod(self.shapes[key]) * BYTES[self.dtypes[key]]
            header[key] = {"dtype": self.dtypes[key], "shape": self.shapes[key], "data_offsets": [at, at + size]}
            at += size
        text, given = json.dumps(header).encode(), b"".join(self.data.values())
        return Image(struct.pack("<Q", len(text)) + text + given, at - len(given))

    def _gguf(self) -> Image:
        head, at = b"GGUF" + struct.pack("<IQQ", 3, len(self.shapes), len(self.metadata)), 0
        head += b"".join(_text(key) + struct.pack("<I", kind) + value for key, (kind, value) in self.metadata.items())
        for key, shape in self.shapes.items():
            ggml = TYPES[self.dtypes[key]]
            head += _text(key) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], ggml.id, at)
            at += -(-prod(shape) // ggml.elements * ggml.bytes // self.alignment) * self.alignment
        return Image(head + bytes(-len(head) % self.alignment), at)

    def changed(self, random: Random) -> "Layout":
        """The layout with one to three tensors or texts exchanged, of which a whole file can be written."""
        new = Layout(dict(self.shapes), dict(self.dtypes), dict(self.data), dict(self.metadata), self.alignment)
        for _ in range(random.choice((1, 1, 2, 3))):
            new._change(random)
        return new

    def _change(self, random: Random) -> None:
        key = random.choice(list(self.shapes))
        shape, dtype, kind = self.shapes[key], self.dtypes[key], random.randrange(8)
        if kind == 0:
            del self.shapes[key]
            self.data.pop(key, None)
        elif kind in (1, 2):  # another name, in the tensor's place or beside it
            self.shapes[(new := _other_key(key, list(self.shapes), random))] = shape
            self.dtypes[new] = dtype
            self.data.pop(new, None)
            if kind == 1 and key not in self.data and new != key:
                del self.shapes[key]
        elif kind == 3 and key not in self.data:
            self.dtypes[key] = random.choice(list(TYPES if self.alignment else BYTES))
        elif kind == 4 and self.data:
            key = random.choice(list(self.data))
            self.data[key] = random.choice((damaged_json, damaged))(self.data[key], random)
            self.shapes[key] = (len(self.data[key]),)
        elif kind == 5 and self.metadata and not self.alignment:
            key = random.choice(list(self.metadata))
            self.metadata[key] = damaged_json(self.metadata[key].encode(), random).decode("utf-8", "replace")
        elif kind == 6:
            changes = (shape[::-1], (prod(shape),), (1, *shape), shape[:-1], (*shape, 1))
            self.shapes[key] = random.choice(changes) if key not in self.data else shape
        elif shape and key not in self.data:
            at, size = random.randrange(len(shape)), random.choice((0, 1, 2, 3, 64, 127, 128, 256, 2560))
            self.shapes[key] = (*shape[:at], size, *shape[at + 1 :])
        if self.alignment and key in self.shapes:  # rows are whole blocks, else no file can hold them
            elements = TYPES[self.dtypes[key]].elements
            if (self.shapes[key] or (1,))[-1] % elements:
                self.shapes[key] = (*self.shapes[key][:-1], elements)


def _other_key(key: str, keys: list[str], random: Random) -> str:
    layer = key.rpartition(".")[0]
    beside = ("weight_scale", "scale_weight", "weight_scale_2", "comfy_quant", "input_scale", "weight.absmax", "bias")
    changes = (
        random.choice(ODD_NAMES),
        f"{layer}.{random.choice(beside)}",
        f"{random.choice(('diffusion_model', 'vae', 'lora_unet', 'transformer'))}.{key}",
        key.replace("blocks.0", f"blocks.{random.choice((-1, 1, 2, 10**9, '٣', 'x', '9' * 5000))}"),
        key.replace("self_attn", "attn1"),
        random.choice(keys),
    )
    return random.choice(changes)


@functools.cache
def safetensors_layouts() -> list[Layout]:
    """Files in every layout that Load Model reads."""
    wan, avatar = expected_shapes(SMALL), expected_shapes(SMALL_AVATAR)
    diffusers = {new: wan[old] for old, new in DIFFUSERS.inverted().rename(wan).items()}
    prefixed = {f"model.diffusion_model.{key}": shape for key, shape in wan.items()} | {"vae.x": (3,)}
    metadata = {"config": json.dumps({"num_heads": 1}), "modelspec.title": "SkyReels-V3"}
    return [
        Layout(wan, dict.fromkeys(wan, "BF16"), metadata=metadata),
        Layout(diffusers, dict.fromkeys(diffusers, "F16")),
        Layout(prefixed, dict.fromkeys(prefixed, "F32")),
        Layout(avatar, dict.fromkeys(avatar, "BF16")),
        _quantised(wan, "F8_E4M3", "float8_e4m3fn", table=False),
        _quantised(wan, "F8_E4M3", "float8_e4m3fn", table=True),
        _quantised(wan, "I8", "int8_tensorwise", table=False),
    ]


def _quantised(shapes: dict[str, tuple[int, ...]], dtype: str, name: str, table: bool) -> Layout:
    """ComfyUI's quantised layers, named in the header's table or beside every layer."""
    layers = [key.removesuffix(".weight") for key, shape in shapes.items() if len(shape) == 2 and ".0.ffn" in key]
    dtypes = {key: dtype if key.removesuffix(".weight") in layers else "F16" for key in shapes}
    shapes = shapes | {f"{layer}.weight_scale": () for layer in layers}
    dtypes |= {f"{layer}.weight_scale": "F32" for layer in layers}
    config = {"format": name, "params": {"convrot": False, "convrot_groupsize": 256}}
    if table:
        said = json.dumps({"layers": dict.fromkeys(layers, config)})
        return Layout(shapes, dtypes, metadata={"_quantization_metadata": said})
    text = json.dumps(config).encode()
    beside = {f"{layer}.comfy_quant": text for layer in layers}
    return Layout(shapes | dict.fromkeys(beside, (len(text),)), dtypes | dict.fromkeys(beside, "U8"), beside)


@functools.cache
def gguf_layouts() -> list[Layout]:
    """Files as they are in circulation, quantised and not, and one with every kind of metadata."""
    wan, avatar = expected_shapes(SMALL), expected_shapes(SMALL_AVATAR)
    patch = wan["patch_embedding.weight"]
    flat = wan | {"patch_embedding.weight": (prod(patch) // 64, 64)}
    named = {"general.architecture": (8, _text("wan"))}
    original = (9, struct.pack(f"<IQ{len(patch)}I", 4, len(patch), *patch))
    numbers = {f"k{kind}": (kind, bytes(size)) for kind, size in ((0, 1), (3, 2), (6, 4), (7, 1), (10, 8), (12, 8))}
    lists = {
        "tokens": (9, struct.pack("<IQ", 8, 3) + _text("a") + _text("") + _text("ü")),
        "scores": (9, struct.pack("<IQ100f", 6, 100, *[0.5] * 100)),
    }
    aligned = {"general.alignment": (4, struct.pack("<I", 64))}

    def layout(shapes: dict, kind: str, metadata: dict, alignment: int = 32) -> Layout:
        whole = {key for key, shape in shapes.items() if len(shape) == 2 and not shape[-1] % TYPES[kind].elements}
        dtypes = {key: kind if key in whole else "F32" for key in shapes}
        return Layout(shapes, dtypes, metadata=named | metadata, alignment=alignment)

    return [
        layout(wan, "Q4_0", {"general.file_type": (4, struct.pack("<I", 15))}),
        layout(avatar, "Q8_0", {}),
        layout(flat, "BF16", {"comfy.gguf.orig_shape.patch_embedding.weight": original}),
        layout(wan, "F16", {**aligned, **numbers, **lists}, 64),
    ]


def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


@functools.cache
def shards() -> dict[str, Image]:
    """Name -> file of a folder as Skywork publishes it."""
    wan = expected_shapes(SMALL)
    shapes = {new: wan[old] for old, new in DIFFUSERS.inverted().rename(wan).items()}
    config = {"num_attention_heads": 1, "attention_head_dim": 128, "num_layers": 1, "ffn_dim": 256, "in_channels": 16}
    files, weight_map = {"config.json": Image(json.dumps(config).encode(), 0)}, {}
    for number in range(3):
        part = {key: shapes[key] for key in sorted(shapes)[number::3]}
        name = f"diffusion_pytorch_model-{number + 1:05}-of-00003.safetensors"
        files[name] = Layout(part, dict.fromkeys(part, "BF16")).image()
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    return files | {INDEX: Image(json.dumps(index).encode(), 0)}
