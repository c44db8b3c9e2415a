"""The machine: everything that a result depends on and that the others do not measure."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch

from pack.benchmarks import run
from pack.benchmarks.card.bench import Bench, Row, reason

PACKAGES = ("triton-windows", "flash-attn", "flash-attn-3", "sageattention", "comfy-kitchen", "diffusers")


def machine(bench: Bench) -> Iterator[Row]:
    """Card, driver, versions."""
    from pack.kernels.int8_linear import has_int8_matmul
    from pack.kernels.scaled_mm import has_fp8_matmul, scales_rows

    card = torch.cuda.get_device_properties(bench.device)
    found = {
        "card": card.name,
        "driver": driver(),
        "torch": torch.__version__,
        "triton": _version("triton") or _version("triton-windows") or "none",
        "commit": run.commit(),
        "memory": f"{card.total_memory / 2**30:.1f} GiB, {bench.room() / 2**30:.1f} free",
        "kind": getattr(card, "gcnArchName", "") if torch.version.hip else f"sm_{card.major}{card.minor}",
        "processors": card.multi_processor_count,
        "CUDA": torch.version.cuda or f"HIP {torch.version.hip}",
        "cuDNN": torch.backends.cudnn.version(),
        "16 bits": str(bench.dtype).removeprefix("torch."),
        "flash built in": torch.backends.cuda.is_flash_attention_available(),
    }
    for name, probe in {"int8": has_int8_matmul, "fp8": has_fp8_matmul, "fp8 by row": scales_rows}.items():
        try:
            found[f"{name} products"] = probe(bench.device)
        except Exception as error:
            found[f"{name} products"] = reason(error)
    found |= {f"python {name}": version for name in PACKAGES if (version := _version(name))}
    found |= {"python": platform.python_version(), "ComfyUI": run.comfyui(), "system": platform.platform()}
    found |= {"processor": f"{run.cpu_model()}, {os.cpu_count()} threads", "RAM (GB)": run.machine()["ram_gb"]}
    for what, value in found.items():
        yield {"what": what, "value": str(value)}


def driver() -> str:
    """The version of the card's driver; unknown where nothing tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        if not torch.version.hip:
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
        return Path("/sys/module/amdgpu/version").read_text(encoding="utf-8").strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
