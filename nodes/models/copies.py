"""Where the weights go that loading a model makes: RAM, or a file in ComfyUI's temp folder."""

import dataclasses
import os
import shutil
from pathlib import Path

import folder_paths
import psutil

from ...model_loaders.placement import Memory, on_disk
from ...model_loaders.tensors.copies_on_disk import CopiesOnDisk
from .. import versions
from ..network.machine import main_memory

IN_RAM = ("tmpfs", "ramfs")  # file systems without a disk


def memory_now() -> Memory:
    """What this machine has for weights now."""
    return Memory(*main_memory(), _disk_free(_folder()) if versions.maps_files() else 0)


def place_for(copies: int, others: int) -> tuple[CopiesOnDisk | None, list[str]]:
    """A file for what loading makes, None where that stays in RAM; and sentences that say why.

    copies, others: as `placement.on_disk` takes them.
    """
    memory = memory_now()
    wanted, why = on_disk(copies, others, memory)
    if wanted:
        try:
            return CopiesOnDisk(_folder()), why
        except OSError:
            _, why = on_disk(copies, others, dataclasses.replace(memory, disk_free=0))
    return None, why


def _folder() -> Path:
    return Path(folder_paths.get_temp_directory())


def _disk_free(folder: Path) -> int:
    """Bytes that are free where a folder lies; 0 where that is no disk or cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        real = folder.resolve()
        places = {one.mountpoint: one.fstype for one in psutil.disk_partitions(all=True)} if os.name == "posix" else {}
        nearest = next((str(one) for one in (real, *real.parents) if str(one) in places), None)
        return 0 if places.get(nearest or "") in IN_RAM else shutil.disk_usage(folder).free
    except OSError:
        return 0
