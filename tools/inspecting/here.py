"""What Load Model will do with a model on this machine: in sentences, from sizes alone."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from ...formats.kinds import KINDS, SMALLER, Precision
from ...model_loaders.checkpoints.checkpoint import Checkpoint
from ...model_loaders.files.tensor_info import printable
from ...model_loaders.tensors.precision import automatic, encoding_of, stays_float32
from ...skyreels_v3.images.sizes import DEFAULT_SIZE
from ...skyreels_v3.units import GB, gb

if TYPE_CHECKING:
    from ...skyreels_v3.jobs.estimates.budget import Machine

RESERVE = GB // 2  # of the VRAM, about what ComfyUI leaves to other programs
NO_TORCH = "Run this with ComfyUI's Python, which has torch, to hear what Load Model does with it on this machine."


def gigabytes(text: str) -> float:
    """GB, written with or without a unit. Raises ArgumentTypeError for what is no amount of memory."""
    found = re.fullmatch(r"\s*(\d+(?:[.,]\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if found is None or not float(found[1].replace(",", ".")):
        raise argparse.ArgumentTypeError(f"{printable(text)} is no amount of memory: write GB, such as 12 or 12GB")
    power = "kmgt".index(found[2].lower() or "g") + 1
    return float(found[1].replace(",", ".")) * (1024 if found[3] else 1000) ** power / 1e9


def plan_here(vram: float | None, ram: float | None) -> Callable[[Checkpoint], tuple[str, ...]]:
    """What says it. vram, ram: GB of another machine, None for this one's."""

    def plan(checkpoint: Checkpoint) -> tuple[str, ...]:
        try:
            machine = machine_with(vram, ram)
        except ImportError:
            return (NO_TORCH,)
        except (OSError, RuntimeError) as error:  # of a driver or a library that does not work
            words = printable(" ".join(str(error).split()))
            return (f"This machine cannot be asked ({words}): say what it has by --vram and --ram.",)
        return describe(checkpoint, machine)

    return plan


def machine_with(vram: float | None, ram: float | None) -> Machine:
    """This machine, or one with so many GB instead. Raises ImportError where torch, or what comes with it, is not
    installed, OSError or RuntimeError where it does not work."""
    import psutil
    import torch

    from ...skyreels_v3.jobs.estimates.budget import Machine

    memory = psutil.virtual_memory()
    total, free = (memory.total, memory.available) if ram is None else (int(ram * GB),) * 2
    if vram is not None:
        return Machine("cuda", int(vram * GB), int(vram * GB), total, free, RESERVE)
    if torch.cuda.is_available():
        card_free, card = torch.cuda.mem_get_info()
        return Machine("cuda", card, card_free, total, free, RESERVE)
    if torch.xpu.is_available():
        card_free, card = torch.xpu.mem_get_info()
        return Machine("xpu", card, card_free, total, free, RESERVE)
    return Machine("mps" if torch.backends.mps.is_available() else "cpu", total, free, total, free, RESERVE)


def describe(checkpoint: Checkpoint, machine: Machine) -> tuple[str, ...]:
    """What Load Model, with everything on auto, and a forward of the job's own length do on a machine."""
    from ...skyreels_v3.jobs.estimates.budget import Budget, LoadedModel, planned_size

    precision, why = Precision.AUTO, f"Precision {checkpoint.precision}, as in the file."
    if not checkpoint.is_packed:
        precision, why = automatic(checkpoint.parameters, machine.device, machine.vram, machine.ram)
    name = checkpoint.precision if precision is Precision.AUTO else precision.value
    weights = weights_bytes(checkpoint, precision)
    network = LoadedModel(checkpoint.params, checkpoint.job, 2, weights, name, SMALLER)
    size = planned_size(checkpoint.job, *DEFAULT_SIZE)
    verdict = Budget(network, size, machine).verdict()
    return (
        _memory(machine),
        why,
        f"Its weights take {gb(weights)} of RAM{_short(machine, weights, precision)}.",
        f"At {size.width} x {size.height} with {size.frames} frames: {verdict}",
    )


def weights_bytes(checkpoint: Checkpoint, precision: Precision) -> int:
    """Bytes of the weights in memory; numbers that are not packed have 16 bits there, or 32 where they stay so."""
    total = 0.0
    for name, stored in checkpoint.weights.items():
        encoding = encoding_of(name, stored, precision)
        plain = 4 if stays_float32(name, stored) else 2
        total += prod(stored.shape) * (KINDS[encoding.kind].bytes_per_number if encoding else plain)
    return int(total)


def _memory(machine: Machine) -> str:
    ram = f"{gb(machine.ram)} of RAM, {gb(machine.ram_free)} of it free"
    if machine.device == "cpu":
        return f"No graphics card was found, only {ram}: with one it is many times faster."
    card = f"{gb(machine.vram)} of VRAM, {gb(machine.vram_free)} of it free, and " if machine.streams else ""
    return f"There are {card}{ram}."


def _short(machine: Machine, weights: int, precision: Precision) -> str:
    """The end of a sentence where they do not fit into the free RAM."""
    if weights <= machine.ram_free:
        return ""
    if precision is Precision.AUTO:
        return ", more than is free: what does not fit is read from the file again and again"
    return ", more than is free: close other programs, or take a smaller file"
