"""Weights that loading makes, in a file instead of RAM: when, the same numbers, and nothing left of it."""

import gc
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pack.dev.samples.sparse_models import SIZES, write_sparse
from pack.dev.samples.tiny_models import write_transformer
from pack.formats.kinds import PACKED, Precision
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.placement import Memory, copied_bytes, on_disk
from pack.model_loaders.tensors import copies_on_disk
from pack.model_loaders.tensors.copies_on_disk import CopiesOnDisk
from pack.model_loaders.tensors.file_tensors import is_mapped
from pack.model_loaders.weights import load_weights
from pack.skyreels_v3.container import memory_limit
from pack.skyreels_v3.recipes import Job
from pack.skyreels_v3.units import GB
from pack.tests.support import dialects

SOURCES = ("bf16", "fp32", "fp8 mixed", "Q8_0", "int8 rotated")
PRECISIONS = (*PACKED, Precision.BF16, Precision.FP16)


@pytest.fixture
def source(tmp_path):
    """source(dialect) -> a tiny checkpoint."""

    def write(dialect):
        folder = tmp_path / dialect.replace(" ", "_")
        folder.mkdir(exist_ok=True)
        if dialect == "fp32":
            return open_checkpoint(write_transformer(folder / "r2v.safetensors", Job.REFERENCE, dtype=torch.float32))
        dialects.write(dialect, folder / "r2v", Job.REFERENCE)
        return open_checkpoint(next(folder.iterdir()), Job.REFERENCE)

    return write


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(copies_on_disk, "SEGMENT", 50_000)  # several of a tiny model, and matrices larger than one


def bits(tensor):
    return tensor.reshape(-1).view(torch.uint8)


def same(first, second):
    return first.keys() == second.keys() and all(
        (one.dtype, one.shape) == (second[name].dtype, second[name].shape)
        and torch.equal(bits(one), bits(second[name]))
        for name, one in first.items()
    )


def dtype_of(precision):
    return {Precision.FP16: torch.float16}.get(precision, torch.bfloat16)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dialect", SOURCES)
def test_the_same_numbers_in_a_file_as_in_memory(source, tmp_path, dialect, precision):
    checkpoint, dtype = source(dialect), dtype_of(precision)
    plain = load_weights(checkpoint, precision, dtype)
    filed = load_weights(checkpoint, precision, dtype, copies=CopiesOnDisk(tmp_path))
    assert same(filed.tensors, plain.tensors) and filed.formats == plain.formats
    assert all(map(is_mapped, filed.tensors.values()))
    made = sum(tensor.nbytes for tensor in plain.tensors.values() if not is_mapped(tensor))
    assert copied_bytes(checkpoint, precision, dtype) <= made <= 1.06 * copied_bytes(checkpoint, precision, dtype)
    assert all(tensor.data_ptr() % tensor.dtype.itemsize == 0 for tensor in filed.tensors.values())


def test_nothing_is_copied_that_the_file_has(source, tmp_path):
    for dialect in SOURCES:
        checkpoint = source(dialect)
        dtype = torch.float32 if dialect == "fp32" else torch.bfloat16
        if dialect != "Q8_0":  # whose norms are float32
            assert copied_bytes(checkpoint, Precision.AUTO, dtype) == 0
            assert sum(map(is_mapped, load_weights(checkpoint, Precision.AUTO, dtype).tensors.values())) > 40


def test_the_file_goes_with_the_weights(source, tmp_path):
    def held():
        maps = Path("/proc/self/maps")
        return tmp_path.name in maps.read_text() if maps.exists() else None

    folder = tmp_path / "temp"
    folder.mkdir()
    checkpoint = source("bf16")
    weights = load_weights(checkpoint, Precision.INT8, copies=CopiesOnDisk(folder))
    matrix = weights.tensors["blocks.0.ffn.0.weight"]
    numbers = matrix.clone()
    if sys.platform != "win32":
        assert not list(folder.iterdir())  # nobody has to clean up, however the process ends
    assert held() in (True, None)
    del weights
    gc.collect()
    assert torch.equal(matrix, numbers)
    matrix[0, 0] += 1  # in place, as some nodes patch weights
    del matrix
    gc.collect()
    assert held() in (False, None) and not list(folder.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no such limit")
@pytest.mark.parametrize("room", [0, 10, 5003, 40_000, 50_007, 100_003, 120_000, 280_001])
def test_a_full_disk_leaves_the_rest_in_memory(source, tmp_path, caplog, room):
    import resource

    checkpoint = source("bf16")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        weights = load_weights(checkpoint, Precision.INT8, copies=CopiesOnDisk(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert same(weights.tensors, load_weights(checkpoint, Precision.INT8).tensors)
    assert "what is left stays in RAM" in caplog.text


@pytest.mark.parametrize(("times", "segment"), [(0, 2**30), (2, 50_000)])
def test_pages_that_the_system_does_not_map_leave_the_weights_in_memory(
    source, tmp_path, caplog, monkeypatch, times, segment
):
    checkpoint, maps, mapped = source("bf16"), copies_on_disk.mmap.mmap, []

    def map_some(*given, **more):
        mapped.append(given)
        if len(mapped) > times:
            raise OSError("Cannot allocate memory")
        return maps(*given, **more)

    # Of the copies alone: the model's file is mapped, too.
    monkeypatch.setattr(copies_on_disk, "mmap", SimpleNamespace(**{**vars(copies_on_disk.mmap), "mmap": map_some}))
    monkeypatch.setattr(copies_on_disk, "SEGMENT", segment)
    weights = load_weights(checkpoint, Precision.INT8, copies=CopiesOnDisk(tmp_path))
    monkeypatch.undo()
    assert same(weights.tensors, load_weights(checkpoint, Precision.INT8).tensors)
    assert "what is left stays in RAM" in caplog.text


GIB = 2**30


@pytest.mark.parametrize(
    ("workflow", "ram", "wanted"),
    [
        ("R", 32, [False]),
        ("A", 32, [False]),
        ("VS", 32, [True, True]),
        ("RVSA", 32, [True, True, True, True]),
        ("VS", 64, [False, False]),
        ("RVS", 64, [False, False, False]),
        ("RVSA", 64, [True, True, True, True]),
        ("RVSA", 96, [False, False, False, False]),
    ],
)
def test_workflows_on_machines(workflow, ram, wanted):
    """Each model is asked in turn; what went into RAM is not free for the next."""
    sizes = [{"A": 18.6}.get(model, 14.1) * GB for model in workflow]
    free, found = ram * GIB - 5 * GB, []
    for size in sizes:
        copies, others = int(size), int(sum(sizes) - size)
        filed, why = on_disk(copies, others, Memory(ram * GIB, int(free), 200 * GB))
        assert bool(why) is filed and all(one.endswith(".") and "\n" not in one for one in why)
        free -= 0 if filed else size
        found.append(filed)
    assert found == wanted


@pytest.mark.parametrize(
    ("free", "disk", "wanted", "words"),
    [
        (25, 100, False, None),
        (19, 100, True, "14.1 GB of packed weights lie on the disk"),  # other programs have the rest
        (19, 24, False, r"Make 24\.1 GB of room"),
        (19, 0, False, "GGUF, fp8"),
    ],
)
def test_what_others_hold_counts(free, disk, wanted, words):
    filed, why = on_disk(int(14.1 * GB), 0, Memory(34 * GB, free * GB, disk * GB))
    assert filed is wanted and bool(why) is (words is not None)
    assert words is None or re.search(words, why[0])
    assert on_disk(GB // 2, 0, Memory(34 * GB, 0, disk * GB)) == (False, [])


def test_published_sizes_are_counted(tmp_path):
    wanted = {Job.REFERENCE: 14.05, Job.AVATAR: 18.56}
    for job, size in wanted.items():
        checkpoint = open_checkpoint(write_sparse(tmp_path / f"{job.value}.safetensors", SIZES[job]), job)
        assert copied_bytes(checkpoint, Precision.INT8, torch.bfloat16) == pytest.approx(size * GB, rel=0.001)
        assert copied_bytes(checkpoint, Precision.BF16, torch.bfloat16) == 0


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"memory.max": "34359738368\n", "memory.stat": "anon 1000\nfile 9000\nshmem 50\n"}, (34359738368, 1050)),
        ({"memory.max": "max\n", "memory.stat": "anon 1000\n"}, None),
        ({"memory.max": "1000\n"}, None),
        (
            {"memory/memory.limit_in_bytes": "4096\n", "memory/memory.stat": "rss 1\ntotal_rss 7\ntotal_shmem 2\n"},
            (4096, 9),
        ),
        ({}, None),
    ],
)
def test_the_limit_of_a_container(tmp_path, files, wanted):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert memory_limit(tmp_path) == wanted
