"""Files of ComfyUI's input folder by the names that an artist writes: pictures, recordings, footage."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePosixPath

import av
import folder_paths
import nodes as comfy_nodes
import torch

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.film.grammar.line import same_name


def input_file(name: str) -> Path | None:
    """The file of this name, with folders before it or not; None without one.

    Capitals, widths and spaces count only where two names differ by nothing else. Nothing outside of the folder is
    ever looked at.
    """
    path = Path(folder_paths.get_input_directory())
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute() or ":" in parts[0]:
        return None
    for part in parts:
        try:
            there = {entry.name: entry for entry in path.iterdir()}
        except OSError:
            return None
        found = there.get(part) or next(
            (there[one] for one in sorted(there) if same_name(one) == same_name(part)), None
        )
        if found is None:
            return None
        path = found
    return path if path.is_file() else None


def stamps(names: Iterable[str]) -> list[tuple[str, int, int]]:
    """(path, size, time of change) of those that are there: the same as long as they are."""
    found = [path for path in map(input_file, dict.fromkeys(names)) if path is not None]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in found]


def seconds_of(name: str) -> float | None:
    """How long a recording or footage says it is; None for a file that does not say, and where there is none."""
    path = input_file(name)
    return None if path is None else _seconds(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=512)
def _seconds(path: Path, changed: int) -> float | None:
    try:
        with av.open(str(path)) as container:
            return None if container.duration is None else container.duration / av.time_base
    except (av.FFmpegError, OSError):
        return None


def read_picture(name: str) -> torch.Tensor:
    """IMAGE [1, H, W, 3] of a picture; of several in one file, the first. Raises InputError for what is none."""
    path = _found(name)
    relative = path.relative_to(folder_paths.get_input_directory()).as_posix()
    try:
        return comfy_nodes.LoadImage().load_image(relative)[0][:1]
    except Exception as error:  # Pillow, and FFmpeg in newer versions, have many
        raise InputError(f"The picture {name!r} of the input folder cannot be read: save it again as PNG.") from error


def read_recording(name: str) -> tuple[torch.Tensor, int]:
    """(waveform [1, channels, n], samples a second) of a recording. Raises InputError for what is none."""
    from comfy_extras.nodes_audio import load  # not at start-up: ComfyUI may run without its extra nodes

    path = _found(name)
    try:
        waveform, rate = load(str(path))
    except Exception as error:  # FFmpeg's, and a ValueError for a file without sound
        raise InputError(f"The recording {name!r} of the input folder cannot be read: save it again as WAV.") from error
    return waveform[None], rate


def _found(name: str) -> Path:
    path = input_file(name)
    if path is None:
        raise InputError(f"The input folder has no file {name!r}: put it there.")
    return path
