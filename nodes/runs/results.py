"""The finished videos that ComfyUI holds: they lie with the runs, because its temp folder is emptied by every server
that starts on it."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from comfy_api.latest import InputImpl

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.resume.folder import RunFolder, prune
from .. import versions
from .folders import runs_folder, sources_folder

log = logging.getLogger(__name__)

RESULT = "video-"  # begins the part that is the whole video
UNUSED_DAYS = 7.0  # for which parts stay that a run does not need: of another script, in the same folder
_given: set[Path] = set()  # results that nodes of this process have put out
_lost = 0


def hand_out(path: Path) -> InputImpl.VideoFromFile:
    """What a node puts out for its video; the file stays for as long as this process lives."""
    _given.add(path)
    return InputImpl.VideoFromFile(str(path))


def lost_results() -> int:
    """How many results were deleted behind ComfyUI's back. As a node's fingerprint it makes them again."""
    global _lost
    gone = {path for path in _given if not path.exists()}
    _given.difference_update(gone)
    _lost += len(gone)
    return _lost


def leave_playable(folder: RunFolder, node_id: str | None, join: Callable[[Path], bool]) -> None:
    """So that an interrupted night still has something to watch. join: writes what is done; False where nothing is."""
    path = folder.path("so_far.mp4")
    try:
        if join(path):
            versions.tell(node_id, f"What is done so far: {path}. Queue the same graph again to go on.")
    except InputError as error:
        log.warning("SkyReels-V3: what is done so far could not be joined: %s", error)


def prune_runs() -> None:
    """Makes room: see `prune`. What nodes of this process have put out stays."""
    prune(runs_folder(), keep_names={path.parent.name for path in _given})
    prune(sources_folder())


def keep_used(folder: RunFolder, used: Iterable[str]) -> None:
    """Drops the parts that nothing asks for: results of another process, and what a run has not needed for long.

    Two nodes with two scripts share a folder, and a line that is changed back finds its windows.
    """

    def kept(part: str) -> bool:
        if part.startswith(RESULT):
            return folder.path(f"{part}.mp4") in _given
        return folder.age(part) < UNUSED_DAYS * 86400

    used = set(used)
    folder.keep_only(part for part in folder.parts if part in used or kept(part))
