"""Memory and time of loading a checkpoint of 2 GB on the CPU, beside ComfyUI's own loader on the same file.

With a graphics card the checkpoint is half of a 14B one, 14 GB, and weights are packed on the card.

Every load has a process of its own, with ComfyUI and the pack imported before the count begins. Two peaks are
taken: when the loader returns, and when every weight has been read once, as a first step does. Pages of mapped
files count. Nothing but loading is measured: the file was just written, so it is in the system's page cache.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.harness.aims import Aim

CASES = {  # case -> (whose loader, the file or folder)
    "comfyui": ("comfyui", "wan.safetensors"),
    "comfyui, bf16": ("comfyui, bf16", "wan.safetensors"),
    "pack": ("pack", "wan.safetensors"),
    "pack, 3 diffusers shards": ("pack", "diffusers"),
    "pack, int8": ("pack, int8", "wan.safetensors"),
    "pack, fp8": ("pack, fp8", "wan.safetensors"),
    "pack, nf4": ("pack, nf4", "wan.safetensors"),
}
AIMS_OF_CASES = {
    "pack": 1.10,
    "pack, 3 diffusers shards": 1.10,
    "pack, int8": 0.65,
    "pack, fp8": 0.65,
    "pack, nf4": 0.45,
}
LABELS = {
    "comfyui": "ComfyUI's loader, by itself (float32 on a CPU)",
    "comfyui, bf16": "ComfyUI's loader, asked for bf16",
    "pack": "this pack",
    "pack, 3 diffusers shards": "this pack, three shards in diffusers names",
    "pack, int8": "this pack, packed to int8",
    "pack, fp8": "this pack, packed to fp8",
    "pack, nf4": "this pack, packed to nf4",
}


def _held(case: str):
    return lambda results: results[case]["read_peak_bytes"] / results[case]["file_bytes"]


AIMS = [
    *(Aim(f"RAM to load: {LABELS[case]}", limit, _held(case), of="the file") for case, limit in AIMS_OF_CASES.items()),
    Aim(
        "half of 14B in bf16, packed to int8: time to load",
        8,
        lambda results: results["pack, int8"]["load_s"],
        True,
        unit=" s",
    ),
]


def write_checkpoints(folder: Path, quick: bool) -> None:
    """The same bf16 transformer as one file in Wan names and as three shards in diffusers names."""
    from pack.dev.samples.tiny_models import TINY, write_transformer
    from pack.skyreels_v3.model.params import TransformerParams
    from pack.skyreels_v3.recipes import Job

    small = TransformerParams(dim=2048, ffn_dim=8192, num_heads=16, num_layers=14)
    params = TINY if quick else TransformerParams(num_layers=20) if has_card() else small
    write_transformer(folder / "wan.safetensors", Job.REFERENCE, params=params)
    write_transformer(folder / "diffusers", Job.REFERENCE, "diffusers", params=params, shards=3)


def load(who: str, path: Path) -> dict:
    """One load in this process: {load_s, read_s, loaded_peak_bytes, read_peak_bytes, file_bytes}."""
    measure.enter_comfyui(cpu=not has_card())
    import comfy.sd
    import torch

    if who.startswith("pack"):
        from pack.nodes.models.load import load_patcher

        loader = partial(load_patcher, precision=who.partition(", ")[2] or "auto")
    else:
        options = {"dtype": torch.bfloat16} if who.endswith("bf16") else {}
        loader = partial(comfy.sd.load_diffusion_model, model_options=options)
    files = path.glob("*.safetensors") if path.is_dir() else [path]
    torch.zeros(2, 2) @ torch.zeros(2, 2)  # the libraries' own buffers
    with measure.PeakMemory() as memory, torch.inference_mode():
        start = time.perf_counter()
        patcher = loader(str(path))
        loaded, loaded_peak = time.perf_counter(), memory.so_far()
        for weight in patcher.model.diffusion_model.state_dict().values():
            weight.view(torch.uint8).max()  # any read will do, and not every dtype has a maximum
        read = time.perf_counter()
    return {
        "load_s": loaded - start,
        "read_s": read - start,
        "loaded_peak_bytes": loaded_peak,
        "read_peak_bytes": memory.peak,
        "file_bytes": sum(file.stat().st_size for file in files),
    }


def has_card() -> bool:
    return measure.device().type == "cuda"


def measured(quick: bool) -> dict:
    rounds = 1 if quick or has_card() else 3
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        writing = ["--write", folder, *(["--quick"] if quick else [])]
        subprocess.run([sys.executable, __file__, *writing], check=True)
        loads: dict[str, list[dict]] = {name: [] for name in CASES}
        for _ in range(rounds):
            for name, (who, entry) in CASES.items():
                command = [sys.executable, __file__, "--load", who, str(Path(folder, entry))]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                loads[name].append(json.loads(done.stdout.splitlines()[-1]))
    return {"device": measure.device_name(measure.device())} | {
        name: {key: sorted(one[key] for one in runs)[rounds // 2] for key in runs[0]} for name, runs in loads.items()
    }


def tables(result: dict) -> str:
    rows = []
    for name in filter(result.get, CASES):
        case = result[name]
        file = case["file_bytes"]
        rows.append(
            [
                LABELS[name],
                f"{file / 1e9:.2f}",
                f"{case['loaded_peak_bytes'] / file:.2f}",
                f"**{case['read_peak_bytes'] / file:.2f}**",
                f"{case['load_s']:.2f}",
                f"{case['read_s']:.2f}",
                f"≤ {AIMS_OF_CASES[name]:.2f}" if name in AIMS_OF_CASES else "",
            ]
        )
    header = [
        "",
        "file (GB)",
        "peak, loaded (x file)",
        "peak, every weight read (x file)",
        "load (s)",
        "load and read (s)",
    ]
    return measure.table([*header, "aim"], rows)


def child() -> bool:
    """Does what a process of its own was started for; False in the first process."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--load", nargs=2)
    parser.add_argument("--quick", action="store_true")
    options, _ = parser.parse_known_args()
    if options.write:
        write_checkpoints(options.write, options.quick)
    elif options.load:
        print(json.dumps(load(options.load[0], Path(options.load[1]))))
    return bool(options.write or options.load)


if __name__ == "__main__" and not child():
    measure.main(measured)
