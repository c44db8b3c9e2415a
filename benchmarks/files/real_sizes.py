"""What loading and inspecting a checkpoint of the published size takes: time, what is read, memory.

The files are sparse: real names, shapes and formats, and holes for the numbers. Opening, checking and mapping them does
the same work as with real ones; only the disk is not waited for. Every load has a process of its own, with ComfyUI and
the pack imported before the count begins. Linux only, which tells what is read and set aside.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure, pages
from pack.benchmarks.harness.aims import Aim

# As files of these are called, from which the pack reads the job.
NAMES = {"R2V": "reference", "V2V": "extension", "V2V_shot": "shot", "A2V": "avatar"}
FORMS = {"bf16": ".safetensors", "fp8_scaled": ".safetensors", "Q4_K": ".gguf"}
PACKED = ("R2V", "bf16", "int8")  # what a card below 42 GB gets of a bf16 file; the CPU takes ten minutes for it


def _most(what: str):
    return lambda found: max(one[what] for one in found["loads"] if one["precision"] == "auto")


AIMS = [
    Aim("14B and 19B files used as they are: time to load, without the disk", 15, _most("load_s"), unit=" s"),
    Aim("14B and 19B files used as they are: read", 0.01, _most("read_share"), of="the file"),
    Aim("14B and 19B files used as they are: memory set aside", 0.1, _most("private_gb"), unit=" GB"),
    Aim("14B in bf16, packed to int8: read", 1.02, lambda found: _packed(found)["read_share"], of="the file"),
]


def _packed(found: dict) -> dict:
    return next(one for one in found["loads"] if one["precision"] == "int8")


def write(folder: Path, model: str, form: str, quick: bool) -> Path:
    """One sparse file."""
    from pack.dev.samples import sparse_models, tiny_models
    from pack.formats.kinds import Precision
    from pack.skyreels_v3.recipes import Job

    job = Job(NAMES[model])
    params = sparse_models.SIZES[job]
    if quick:
        params = tiny_models.TINY_AVATAR if job is Job.AVATAR else tiny_models.TINY
    path = folder / f"SkyReelsV3-{model}_{form}{FORMS[form]}"
    if form == "bf16":
        return sparse_models.write_sparse(path, params)
    if form == "fp8_scaled":
        return sparse_models.write_sparse_packed(path, params, Precision.FP8)
    return sparse_models.write_sparse_gguf(path, params, "Q8_0" if quick else form)  # tiny rows are none of Q4_K


def load(path: Path, precision: str) -> dict:
    """One load in this process."""
    measure.enter_comfyui()
    import folder_paths

    from pack.nodes.models.load import load_patcher

    folder_paths.set_temp_directory(str(path.parent))  # where packed weights lie, if RAM is short
    with contextlib.suppress(OSError), path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cached, read = pages.cached_bytes(path), pages.bytes_read()
    with measure.PeakMemory() as memory, pages.PeakPrivate() as private:
        start = time.perf_counter()
        patcher = load_patcher(str(path), precision=precision)
        seconds = time.perf_counter() - start
        peak = memory.so_far()
    read, cached = pages.bytes_read() - read, pages.cached_bytes(path) - cached
    size = path.stat().st_size
    return {
        "file": path.name,
        "precision": precision,
        "file_gb": size / 1e9,
        "load_s": seconds,
        "read_gb": read / 1e9,  # asked for
        "cached_gb": cached / 1e9,  # brought into memory, with what was read ahead
        "read_share": max(read, cached if precision == "auto" else 0) / size,
        "rss_gb": peak / 1e9,
        "private_gb": private.peak / 1e9,
        "weights_gb": patcher.model_size() / 1e9,
        "notes": list(patcher.model.notes),
    }


def looked_at(path: Path) -> dict:
    """inspect_model's answer on a file, in a process without torch."""
    import resource

    from pack.model_loaders.checkpoints.inspection import inspect

    read, start = pages.bytes_read(), time.perf_counter()
    (found,) = inspect(str(path))
    seconds = time.perf_counter() - start
    return {
        "inspect_s": seconds,
        "inspect_read_mb": (pages.bytes_read() - read) / 1e6,
        "inspect_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "said": f"{found.dialect}, {found.job}, {found.precision}, {found.parameters / 1e9:.1f} B",
        "problems": list(found.problems),
    }


def measured(quick: bool) -> dict:
    if not sys.platform.startswith("linux"):
        raise SystemExit("Only Linux tells what is read and what memory is set aside.")
    cases = [(model, form, "auto") for form in FORMS for model in NAMES]
    loads = []
    for model, form, precision in [*(cases[: -len(NAMES) : len(NAMES)] if quick else cases), PACKED]:
        with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
            path = write(Path(folder), model, form, quick)
            found = in_a_process("--load", path, precision) | in_a_process("--inspect", path)
        print(f"{found['file']}, {precision}: {found['load_s']:.1f} s", file=sys.stderr, flush=True)
        loads.append(found)
    return {"loads": loads}


def in_a_process(*arguments: object) -> dict:
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def tables(result: dict) -> str:
    rows = [list(_row(one)) for one in result["loads"]]
    head = ["", "file (GB)", "load (s)", "asked for (GB)", "brought in (GB)", "resident (GB)", "set aside (GB)"]
    return measure.table([*head, "inspect (s)", "inspect says"], rows)


def _row(one: dict) -> Iterable[str]:
    yield f"`{one['file']}`" + (f", packed to {one['precision']}" if one["precision"] != "auto" else "")
    for name, digits in ("file_gb", 2), ("load_s", 1), ("read_gb", 2), ("cached_gb", 2), ("rss_gb", 2):
        yield f"{one[name]:.{digits}f}"
    yield f"**{one['private_gb']:.2f}**"
    yield f"{one['inspect_s']:.2f}"
    yield " ".join([one["said"], *one["problems"]])


def child() -> bool:
    """Does what a process of its own was started for; False in the first process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--load", nargs=2)
    parser.add_argument("--inspect", type=Path)
    options, _ = parser.parse_known_args()
    if options.load:
        print(json.dumps(load(Path(options.load[0]), options.load[1])))
    elif options.inspect:
        print(json.dumps(looked_at(options.inspect)))
    return bool(options.load or options.inspect)


if __name__ == "__main__" and not child():
    measure.main(measured)
