"""The four models of the workflow short_film on a machine with 32 GB of RAM and a card of 12 GB: what memory they take.

Files of the published sizes, which are holes but for the header; a real ComfyUI and its Load Model; a card that is not
there (dev/fake_card), for which ComfyUI decides what lies on it. Each model is loaded and brought to the card, what
waits is read as a step reads it, and it leaves the card for the next. The limit on what this process may set aside is
the system's own (RLIMIT_DATA): 32 GiB less what Load Model leaves for the system.

What is imitated: the card; packing, which takes a processor an hour (memory for it is taken in the real sizes, and not
written to); on the disk, what is packed, which is holes too. Linux only.
"""

from __future__ import annotations

import argparse
import json
import mmap
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure, pages
from pack.benchmarks.harness.aims import Aim

RAM, CARD = 32 * 2**30, "3060"
OTHERS = 5 * 10**9  # what the system and other programs hold of RAM
ENCODERS = 8_200_000_000  # the text encoder and the avatar's two, set aside beside the models
FORMS = {"bf16": "bf16 as published, packed to int8", "int8": "int8 as saved"}
MODELS = {"r2v": "reference", "v2v": "extension", "v2v_shot": "shot", "a2v": "avatar"}
SAMPLED = ("r2v", "v2v", "v2v_shot", "v2v", "a2v")  # continue, cut, continue, then speech

AIMS = [
    Aim(
        f"short film on 32 GB of RAM, {form}: set aside beside the encoders",
        3,
        lambda results, form=form: results[form]["private_gb"] - ENCODERS / 1e9,
        unit=" GB",
    )
    for form in FORMS
]


def film(base: Path, form: str, quick: bool) -> dict:
    """The models of the film in this process, which may set aside no more than the machine has."""
    import psutil

    total = RAM
    psutil.virtual_memory = lambda: _memory(total)
    from pack.dev.fake_card import forward
    from pack.dev.fake_card.profiles import CARDS

    card = CARDS[CARD]
    write(base / "models" / "diffusion_models", form, quick)
    nodes = forward.open_host(card, base)
    import torch

    working = nodes.module("model_loaders.placement").WORKING
    limit = RAM - working
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    before, swapped = pages.private_bytes(), psutil.swap_memory().sout
    _imitate(nodes)
    encoders = torch.empty(ENCODERS, dtype=torch.uint8)  # as much is set aside, and nothing of it is used
    started, steps = time.perf_counter(), []
    with pages.PeakPrivate() as private:
        for step in _steps(nodes, card, quick):
            steps.append(step | {"private_gb": pages.private_bytes() / 1e9})
            print(steps[-1], file=sys.stderr, flush=True)
    assert encoders.nbytes == ENCODERS
    return {
        "limit_gb": limit / 1e9,
        "before_gb": before / 1e9,
        "private_gb": (private.before + private.peak) / 1e9,
        "weights_gb": sum(step["weights_gb"] for step in {step["model"]: step for step in steps}.values()),
        "swapped_bytes": psutil.swap_memory().sout - swapped,
        "seconds": time.perf_counter() - started,
        "steps": steps,
    }


def _memory(total: int):
    """What psutil says of a machine with so much RAM: pages of files can be dropped, other memory cannot."""
    return SimpleNamespace(total=total, available=total - OTHERS - pages.private_bytes())


def write(folder: Path, form: str, quick: bool) -> None:
    from pack.dev.samples import sparse_models, tiny_models
    from pack.formats.kinds import Precision
    from pack.skyreels_v3.recipes import Job

    folder.mkdir(parents=True)
    for model, job in MODELS.items():
        params = sparse_models.SIZES[Job(job)]
        if quick:
            params = tiny_models.TINY_AVATAR if job == "avatar" else tiny_models.TINY
        path = folder / f"{model}.safetensors"
        if form == "int8":
            sparse_models.write_sparse_packed(path, params, Precision.INT8)
        else:
            sparse_models.write_sparse(path, params)


def _imitate(nodes: Any) -> None:
    """Lets what is read be packed in no time, and written as holes to a disk with room."""
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    weights, copies = nodes.module("model_loaders.weights"), nodes.module("nodes.models.copies")
    on_disk = nodes.module("model_loaders.tensors.copies_on_disk")

    def packed(format, stored, shape, files, device):
        read = [torch.empty(part.size, dtype=torch.uint8) for part in stored.parts.values()]
        parts = format.pack(torch.empty(shape, device="meta"))
        made = {name: torch.zeros(part.shape, dtype=part.dtype) for name, part in parts.items()}
        del read  # as long as what is made of it
        return made

    class Holes(on_disk.CopiesOnDisk):
        def __init__(self, folder: Path):
            super().__init__(folder)
            self.file = _Holes(self.file)

    weights._packed, copies.CopiesOnDisk, copies._disk_free = packed, Holes, lambda _: 200 * 10**9
    loading = nodes.module("nodes.models.load")
    load_weights = loading.load_weights

    def in_memory(*given, **more):
        with _disable_current_modes():  # the files and what is made of them are real
            return load_weights(*given, **more)

    loading.load_weights = in_memory


class _Holes:
    """A file in which what is written is left out: zeros, which need no room on the disk."""

    def __init__(self, file: Any):
        self._file = file

    def write(self, content: Any) -> None:
        self._file.truncate(self._file.seek(len(content), 1))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _steps(nodes: Any, card: Any, quick: bool) -> Iterator[dict]:
    """Each sampling of the film: the model loaded where it was not, and brought to the card; what waits is read."""
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    from pack.dev.fake_card import forward, torch_device

    inputs = {model: {"model": f"{model}.safetensors", "precision": "auto"} for model in MODELS}
    graph = {model: {"class_type": "SkyReelsLoadModel", "inputs": given} for model, given in inputs.items()}
    loaded: dict[str, Any] = {}
    is_in_file = nodes.module("model_loaders.tensors.file_tensors").is_mapped
    with torch_device.measured(card) as meter, torch.no_grad():
        for model in SAMPLED:
            start = time.perf_counter()
            if model not in loaded:
                node = nodes.ready("SkyReelsLoadModel")
                node.hidden = SimpleNamespace(unique_id=model, prompt=graph)
                loaded[model] = node.execute(**inputs[model], job=MODELS[model]).args[0]
            load_s = time.perf_counter() - start
            case = forward.Case(job=MODELS[model], size="480p41" if quick else "480p121")
            step = forward.Step(nodes, card, case, meter, loaded[model])
            with _disable_current_modes():
                waiting = [one for one in step.patcher.model.diffusion_model.parameters() if is_in_file(one)]
                for one in waiting:
                    one.data.reshape(-1).view(torch.uint8)[:: mmap.PAGESIZE].sum()
            yield {
                "model": model,
                "notes": [note for note in step.patcher.model.notes if "GB" in note],
                "weights_gb": step.patcher.model_size() / 1e9,
                "card_gb": step.patcher.loaded_size() / 1e9,
                "streamed_gb": sum(one.nbytes for one in waiting) / 1e9,
                "on_host_gb": meter.live["cpu"] / 1e9,  # which the imitated card let lie there, in no file
                "load_s": load_s,
                "seconds": time.perf_counter() - start,
            }


def measured(quick: bool) -> dict:
    if not sys.platform.startswith("linux"):
        raise SystemExit("Only Linux tells what memory is set aside.")
    results = {}
    for form in list(FORMS)[: 1 if quick else None]:
        with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
            command = [sys.executable, __file__, "--film", folder, form, *(["--quick"] if quick else [])]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[form] = json.loads(done.stdout.splitlines()[-1])
    return results


def tables(result: dict) -> str:
    rows = []
    for form, one in result.items():
        rows.append(
            [
                FORMS[form],
                f"{one['weights_gb']:.1f}",
                f"{one['limit_gb']:.1f}",
                f"**{one['private_gb']:.1f}**",
                f"{one['private_gb'] - ENCODERS / 1e9:.1f}",
                f"{one['swapped_bytes'] / 1e9:.1f}",
                f"{one['seconds']:.0f}",
            ]
        )
    head = ["files", "weights (GB)", "limit (GB)", "set aside (GB)", "of it not the encoders' (GB)"]
    whole = measure.table([*head, "swapped (GB)", "took (s)"], rows)
    rows = [
        [
            f"{FORMS[form]}: `{step['model']}`",
            f"{step['weights_gb']:.1f}",
            f"{step['card_gb']:.1f}",
            f"{step['streamed_gb']:.1f}",
            f"{step['private_gb']:.1f}",
        ]
        for form, one in result.items()
        for step in one["steps"]
    ]
    head = ["sampled in turn", "weights (GB)", "on the card (GB)", "streamed in each step (GB)", "set aside then (GB)"]
    return f"{whole}\n\n{measure.table(head, rows)}"


def child() -> bool:
    """Does what a process of its own was started for; False in the first process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--film", nargs=2)
    parser.add_argument("--quick", action="store_true")
    options, _ = parser.parse_known_args()
    if options.film:
        print(json.dumps(film(Path(options.film[0]), options.film[1], options.quick)))
    return bool(options.film)


if __name__ == "__main__" and not child():
    measure.main(measured)
