"""tools/inspect_model.py: every kind of file is called what it is, by a bare Python, and nothing makes it fail."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from safetensors.torch import save_file

from pack.dev.samples.damage import damaged, damaged_gguf, damaged_json, damaged_safetensors
from pack.dev.samples.damaged_models import Image, gguf_layouts, safetensors_layouts, shards
from pack.dev.samples.tiny_models import (
    TINY,
    transformer_weights,
    write_transformer,
)
from pack.formats.kinds import KINDS
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.checkpoints.dialects import PACKINGS, packing_of
from pack.model_loaders.checkpoints.inspection import inspect
from pack.model_loaders.files.header import read_header
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects

TOOL = Path(__file__).resolve().parents[2] / "tools" / "inspect_model.py"
KEYS = ["file", "dialect", "job", "why", "precision", "parameters", "problems", "advice", "here"]
STEMS = {Job.REFERENCE: "r2v", Job.EXTENSION: "v2v", Job.SHOT: "v2v_shot", Job.AVATAR: "a2v"}
# Dialect of tests/support/dialects.py -> what the tool calls it, and a part of the precision.
WRITTEN = {
    "bf16": ("", "bf16"),
    "fp16": ("", "fp16"),
    "fp8 plain": ("plain fp8", "fp8"),
    "fp8 plain e5m2": ("plain fp8", "fp8"),
    "fp8 old": ("scaled fp8 (old)", "fp8 scaled"),
    "fp8 mixed": ("fp8 mixed (comfy_quant)", "fp8 scaled"),
    "fp8 mixed, header": ("fp8 mixed (comfy_quant)", "fp8 scaled"),
    "fp8 mixed, prefixed header": ("fp8 mixed (comfy_quant)", "fp8 scaled"),
    "int8 tensorwise": ("int8", "int8"),
    "int8 rotated": ("int8", "int8"),
    "nvfp4 awq": ("nvfp4", "nvfp4"),
    "fp8 rows": ("fp8 mixed (comfy_quant)", "fp8 scaled"),
    "fp8 blocks, inverse": ("fp8 blocks", "fp8 blocks"),
    "fp64": ("", "fp64"),
    **{kind.word: (kind.word, kind.word) for kind in KINDS.values() if kind.word in dialects.SAFETENSORS},
    **{name: ("gguf", {"F16": "fp16", "BF16": "bf16"}.get(name, name)) for name in dialects.GGUFS},
}


def run(*arguments: object) -> tuple[int, list[dict]]:
    """The exit code and the lines of a Python that has no packages and knows nothing of its environment."""
    command = [sys.executable, "-I", "-S", TOOL, *arguments]
    done = subprocess.run(command, capture_output=True, timeout=60, env={"LC_ALL": "C"})
    assert done.stderr == b""
    lines = [json.loads(line) for line in done.stdout.decode("ascii").splitlines()]
    for line in lines:
        check(line)
    assert done.returncode == int(any(line["problems"] for line in lines))
    return done.returncode, lines


def check(line: dict) -> None:
    """What holds for every line."""
    assert list(line) == KEYS
    assert line["job"] in {"unknown", *(job.value for job in Job)}
    assert type(line["parameters"]) is int and line["parameters"] >= 0
    assert (line["job"] == "unknown") == bool(line["problems"]) and line["advice"] and line["dialect"]
    for sentence in (line["why"], *line["problems"], *line["advice"], *line["here"]):
        assert sentence[0] != " " and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 500
    for sentence in line["advice"]:
        assert sentence[0] == sentence[0].upper()


def inspected(path: Path) -> dict:
    """The line of a path, without a process for it."""
    (found,) = inspect(str(path))
    line = json.loads(json.dumps(vars(found)))
    check(line)
    return line


@pytest.mark.parametrize("job", Job)
def test_every_dialect(tmp_path, job):
    """One run for all of them; the numbers are counted, not the bytes."""
    prefixes = ("", "diffusion_model.", "model.diffusion_model.")
    expected = {}
    for index, (dialect, (packing, precision)) in enumerate(WRITTEN.items()):
        prefix = prefixes[(index + list(Job).index(job)) % 3]
        folder = tmp_path / str(index)
        means = dialects.write(dialect, folder / STEMS[job], job, prefix=prefix)
        (path,) = folder.iterdir()
        parts = ("wan", packing, f"prefix {prefix}" if prefix else "")
        count = sum(weight.numel() for weight in means.values())
        expected[str(path)] = (", ".join(filter(None, parts)), precision, count)
    code, lines = run(*expected)
    assert code == 0 and [line["file"] for line in lines] == list(expected)
    for line in lines:
        dialect, precision, count = expected[line["file"]]
        assert (line["dialect"], line["job"], line["parameters"]) == (dialect, job.value, count)
        assert precision in line["precision"]
        assert line["problems"] == [] and job.value in line["why"]
        advice = " ".join(line["advice"])
        assert "models/diffusion_models" in advice and "SkyReels-V3 Load Model" in advice and "lightx2v" in advice
        assert "umt5_xxl_fp8_e4m3fn_scaled.safetensors" in advice and "wan_2.1_vae.safetensors" in advice
        assert ("clip_vision_h.safetensors" in advice) == ("models/audio_encoders" in advice) == (job is Job.AVATAR)


def test_dialects_are_a_closed_list():
    assert {packing for packing, _ in WRITTEN.values()} == {"", *PACKINGS}
    assert set(WRITTEN) == set(dialects.DIALECTS)


@pytest.mark.parametrize("dialect", dialects.SAFETENSORS)
def test_diffusers_names(tmp_path, dialect):
    dialects.write(dialect, tmp_path / "x", Job.REFERENCE, names="diffusers")
    line = inspected(tmp_path / "x.safetensors")
    packing = WRITTEN[dialect][0]
    assert line["dialect"] == ", ".join(filter(None, ("diffusers", packing))) and line["job"] == "reference"


@pytest.fixture
def models(tmp_path):
    """ComfyUI's folder with Skywork's repositories as they are published."""
    root = tmp_path / "models" / "diffusion_models"
    write_transformer(root / "SkyReels-V3-R2V-14B" / "transformer", Job.REFERENCE, "diffusers", shards=3)
    write_transformer(root / "SkyReels-V3-V2V-14B" / "transformer", Job.EXTENSION, "wan", shards=2)
    write_transformer(root / "SkyReels-V3-V2V-14B" / "shot_transformer", Job.SHOT, "wan", shards=2)
    write_transformer(root / "SkyReels-V3-A2V-19B", Job.AVATAR, "wan", shards=3)
    return root


FOLDERS = {
    "SkyReels-V3-A2V-19B": ("wan, 3 shards", "avatar"),
    "SkyReels-V3-R2V-14B/transformer": ("diffusers, 3 shards", "reference"),
    "SkyReels-V3-V2V-14B/shot_transformer": ("wan, 2 shards", "shot"),
    "SkyReels-V3-V2V-14B/transformer": ("wan, 2 shards", "extension"),
}


def test_folders_as_published(models):
    code, lines = run(*(models / folder for folder in FOLDERS))
    assert code == 0
    assert [(line["dialect"], line["job"]) for line in lines] == list(FOLDERS.values())
    assert "Choose it in SkyReels-V3 Load Model." in lines[0]["advice"]  # it is there already
    repository, shard = (
        models / "SkyReels-V3-R2V-14B",
        next((models / "SkyReels-V3-A2V-19B").glob("*-00002-of-*")),
    )
    code, lines = run(repository, shard)
    assert code == 0 and [line["file"] for line in lines] == [str(repository), str(shard)]
    assert [line["job"] for line in lines] == ["reference", "avatar"]


def test_folders_with_several_models(models):
    code, lines = run(models, models / "SkyReels-V3-V2V-14B")
    assert code == 0
    found = {line["file"]: (line["dialect"], line["job"]) for line in lines[: len(FOLDERS)]}
    assert found == {str(models / folder): what for folder, what in FOLDERS.items()}
    assert [line["job"] for line in lines[len(FOLDERS) :]] == ["shot", "extension"]
    next((models / "SkyReels-V3-R2V-14B" / "transformer").glob("*-00002-of-*")).unlink()
    code, lines = run(models)
    assert code == 1 and [bool(line["problems"]) for line in lines] == [False, True, False, False]
    assert "00002-of-00003" in lines[1]["problems"][0] and lines[1]["dialect"] == "diffusers, 2 shards"


def test_folders_with_odd_contents(tmp_path):
    first, second = tmp_path / "own names", tmp_path / "one file"
    weights = {key: weight.half() for key, weight in transformer_weights(TINY).items()}
    halves = sorted(weights)[::2], sorted(weights)[1::2]
    for name, keys in zip(("a", "b"), halves):
        first.mkdir(exist_ok=True)
        save_file({key: weights[key] for key in keys}, first / f"{name}.safetensors")
    dialects.write("Q8_0", second / "deeper" / "v2v", Job.EXTENSION)
    (tmp_path / "empty").mkdir()
    (second / "round").symlink_to(second, target_is_directory=True)
    code, lines = run(first, second, tmp_path / "empty")
    assert code == 1 and [line["dialect"] for line in lines] == ["wan, 2 shards", "wan, gguf", "unknown"]
    assert "holds no safetensors file" in lines[2]["problems"][0]
    (tmp_path / "empty" / "x.safetensors").symlink_to(tmp_path / "gone")
    assert "x.safetensors" in inspected(tmp_path / "empty")["problems"][0]


def test_the_current_folder(tmp_path, monkeypatch):
    write_transformer(tmp_path / "V2V" / "transformer", Job.EXTENSION, "wan", shards=2)
    monkeypatch.chdir(tmp_path / "V2V" / "transformer")
    for given in (".", "..", "../transformer/"):
        line = inspected(given)
        assert line["file"] == given and line["job"] == "extension"


def test_a_name_that_tells_no_job(tmp_path):
    dialects.write("bf16", tmp_path / "model", Job.EXTENSION)
    line = inspected(tmp_path / "model.safetensors")
    assert line["job"] == "reference" and line["problems"] == [] and "assumed" in line["why"]
    assert any("extension or shot" in sentence for sentence in line["advice"])
    dialects.write("bf16", tmp_path / "v2v", Job.EXTENSION)
    assert not any("extension or shot" in sentence for sentence in inspected(tmp_path / "v2v.safetensors")["advice"])


def header_only(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "BF16", size: int = 2) -> Path:
    """A file with a real header and holes for weights."""
    from math import prod

    entries, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + size * prod(shape)
        entries[key] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(entries).encode()
    Image(len(text).to_bytes(8, "little") + text, end).write(path)
    return path


def test_a_model_of_real_size_takes_no_time(tmp_path):
    real = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())
    path = header_only(tmp_path / "a2v.safetensors", expected_shapes(real))
    start = time.monotonic()
    _, (line,) = run(path)
    assert time.monotonic() - start < 3  # the whole process, on a busy machine
    assert line["job"] == "avatar" and 18e9 < line["parameters"] < 20e9
    advice = " ".join(line["advice"])
    assert "stays bf16 on cards with 80 GB or more and becomes int8" in advice and "smaller model" not in advice
    path = header_only(tmp_path / "r2v.safetensors", expected_shapes(TransformerParams(dim=1536, ffn_dim=8960)))
    assert "smaller model of the Wan family" in " ".join(inspected(path)["advice"])


CONTENTS = {
    "empty": (b"", "is empty", "Download it again."),
    "zeros": (bytes(999), "zeros", "Download it again."),
    "pickle": (b"PK\x03\x04" + bytes(99), "PyTorch pickle", "Use the safetensors file of the same model."),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer", "Run `git lfs pull`"),
    "page": (b"<!DOCTYPE html><html></html>", "web page", "Download the file itself"),
    "noise": (b"what: is this: file", "neither", "Download it again."),
    "huge header": ((99_999_999).to_bytes(8, "little") + b"{", "incomplete", "The download is incomplete"),
    "deep": ((99_999).to_bytes(8, "little") + b'{"' + b"[" * 99_997, "not readable as JSON", "It is damaged"),
    "gguf of claims": (b"GGUF" + (3).to_bytes(4, "little") + b"\xff" * 16, "more than its", "It is damaged"),
}


def test_what_is_no_model(tmp_path):
    paths = []
    for name, (content, _, _) in CONTENTS.items():
        paths.append(tmp_path / f"{name}: x.safetensors")
        paths[-1].write_bytes(content)
    code, lines = run(*paths)
    assert code == 1 and len(lines) == len(paths)
    for line, (_, words, advice) in zip(lines, CONTENTS.values()):
        assert words in line["problems"][0] and line["advice"][0].startswith(advice)
        assert line["dialect"] == "unknown" and line["parameters"] == 0


def test_paths_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "gone").symlink_to(tmp_path / "not there")
    (tmp_path / "file").write_bytes(b"x")
    folder = tmp_path / "pipes"
    folder.mkdir()
    os.mkfifo(folder / "x.safetensors.index.json")
    (folder / "x.safetensors").write_bytes(b"x")
    names = ["pipe.safetensors", "loop", "gone", "file/inside", "x" * 300, "missing.safetensors", "pipes"]
    paths = [*(str(tmp_path / name) for name in names), "", "/dev/zero", "/proc/self/mem", "-"]
    code, lines = run("--", *paths)
    assert code == 1 and [line["file"] for line in lines] == paths
    assert all(line["dialect"] == "unknown" for line in lines)
    assert "pipe" in lines[0]["problems"][0] and "nothing at" in lines[5]["problems"][0]


def test_files_that_may_not_be_read(tmp_path, monkeypatch):
    """As another user sees them; the tests may run as one who may read everything."""
    dialects.write("bf16", tmp_path / "v2v", Job.EXTENSION)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in inspected(tmp_path / "v2v.safetensors")["problems"][0]
    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(Path, "is_dir", refuse)
    assert "Permission denied" in inspected(tmp_path / "v2v.safetensors")["problems"][0]
    monkeypatch.setattr(os, "stat", refuse)
    assert "Permission denied" in inspected(tmp_path / "v2v.safetensors")["problems"][0]


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), RuntimeError("odd")])
def test_what_nobody_foresaw_is_told_too(tmp_path, monkeypatch, error):
    (tmp_path / "x.safetensors").write_bytes(b"x")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("pack.model_loaders.checkpoints.inspection.open_checkpoint", fail)
    assert type(error).__name__ in inspected(tmp_path / "x.safetensors")["problems"][0]


def test_names_with_any_sign(tmp_path):
    names = [b"na\xff\xfeme.safetensors", "文字 é 🙂.safetensors".encode(), b"line\nbreak\x1b[2J.safetensors"]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(b"x")
    code, lines = run(*(bytes(tmp_path) + b"/" + name for name in names))
    assert code == 1 and [os.fsencode(line["file"]).rpartition(b"/")[2] for line in lines] == names
    assert len(run(tmp_path)[1]) == len(names)


def test_usage():
    command = [sys.executable, "-I", "-S", TOOL]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "FILE" in done.stderr and not done.stdout
    done = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and all(f"  {key} " in done.stdout for key in KEYS)


def test_a_reader_that_leaves(tmp_path):
    paths = " ".join(["/missing"] * 3000)
    command = f"{sys.executable} -I -S {TOOL} {paths} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == "" and json.loads(done.stdout)["file"] == "/missing"


@pytest.mark.parametrize("layouts, damage", [(safetensors_layouts, damaged_safetensors), (gguf_layouts, damaged_gguf)])
def test_damaged_files(tmp_path, layouts, damage):
    """Whatever is damaged, the line stands, and it has no problems just where Load Model opens the file."""
    images = [layout.image() for layout in layouts()]
    path = tmp_path / "SkyReels-V3-R2V.safetensors"
    for seed in range(300):
        image = images[seed % len(images)]
        Image(damage(image.head, Random(seed)), image.zeros).write(path)
        line = inspected(path)
        assert bool(line["problems"]) != opens(path)
        assert not any("cannot be inspected" in problem for problem in line["problems"])


def test_damaged_folders(tmp_path):
    folder, random = tmp_path / "R2V" / "transformer", Random(5)
    folder.mkdir(parents=True)
    for _ in range(100):
        whole = shards()
        hit = random.choice(sorted(whole))
        for name, image in whole.items():
            image.write(folder / name)
        content = (folder / hit).read_bytes()[:200_000]
        (folder / hit).write_bytes(random.choice((damaged, damaged_json))(content, random))
        line = inspected(folder)
        assert not any("cannot be inspected" in problem for problem in line["problems"])
        assert bool(line["problems"]) != opens(folder)


def opens(path: Path) -> bool:
    try:
        open_checkpoint(path)
    except InputError:
        return False
    return True


def test_packings_agree_with_what_is_loaded(tmp_path):
    for name in dialects.SAFETENSORS:
        dialects.write(name, tmp_path / name, Job.REFERENCE)
        path = tmp_path / f"{name}.safetensors"
        assert bool(packing_of({path: read_header(path)})) == open_checkpoint(path).is_packed
