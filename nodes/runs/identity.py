"""Where a long job keeps its results, and what makes two queued prompts the same job."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import nodes as comfy_nodes

from ...model_loaders.folders import checkpoint_files
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.resume.windows import LongRun
from ...skyreels_v3.video.source import Sound
from .. import versions
from ..network import attention
from ..network.lora_branches import attached

log = logging.getLogger(__name__)

ROOT = "skyreels_v3_jobs"
# Inputs by whose names two results do not differ: model_stamps has what they come to.
RESOLVED = {"SkyReelsLoadModel": {"attention"}}


@dataclass(frozen=True)
class Node:
    """The node that runs a job."""

    id: str | None  # in the graph; what is told appears there
    graph: str  # what its result follows from, see `upstream`


def jobs_folder() -> Path:
    """Where unfinished and recently finished jobs are kept: visible to the artist, and not cleared at start-up."""
    return Path(folder_paths.get_output_directory()) / ROOT


def result_path(key: str) -> Path:
    """Where a finished job's video lies for the nodes behind it: as long as ComfyUI keeps their inputs."""
    folder = Path(folder_paths.get_temp_directory()) / ROOT
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{key}.mp4"


def upstream(prompt: dict | None, node_id: str | None, leave_out: tuple[str, ...] = ()) -> str:
    """Everything in the graph that a node's result follows from, as text that is the same in every run.

    leave_out: inputs of the node itself that do not count.
    """
    nodes = {}

    def visit(name: str, without: tuple[str, ...] = ()) -> None:
        node = (prompt or {}).get(name)
        if node is None or name in nodes:
            return
        known = declared_inputs(node["class_type"])
        inputs = {
            key: value
            for key, value in node["inputs"].items()
            if key not in {*without, *RESOLVED.get(node["class_type"], ())}
            and (known is None or key.split(".")[0] in known)
        }
        nodes[name] = {"class_type": node["class_type"], "inputs": inputs}
        for value in inputs.values():
            if isinstance(value, list) and len(value) == 2:
                visit(str(value[0]))

    visit(str(node_id), leave_out)
    return json.dumps(nodes, sort_keys=True, default=str)


def declared_inputs(class_type: str) -> set[str] | None:
    """Names of a node's own inputs, None for an unknown node. The page adds others, such as the state of a preview."""
    node = comfy_nodes.NODE_CLASS_MAPPINGS.get(class_type)
    return None if node is None else {name for group in node.INPUT_TYPES().values() for name in group}


def file_stamps(paths: list[Path]) -> list[tuple[str, int, int]]:
    """(name, size, time of change) of files: the same as long as they are."""
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(paths)]


def model_stamps(models: Iterable) -> list[tuple]:
    """The checkpoints and LoRAs behind MODELs of Load Model, and an attention that rounds: another one of these is
    another job. Exact attentions are one and the same.
    """
    stamps = []
    for model in models:
        stamps += file_stamps(checkpoint_files(Path(model.cached_patcher_init[1][0])))
        options = model.model_options["transformer_options"]
        stamps += [lora.stamp for lora in attached(options) if lora.stamp is not None]
        attending = attention.choose(options, model.load_device)
        if not attending.exact:
            stamps.append(("attention", attending.name))
    return stamps


def leave_playable(job: LongRun, keys: Sequence[str], node_id: str | None, sound: Sound | None = None) -> None:
    """Joins what is done, so that an interrupted night still has something to watch."""
    if not list(job.pieces(keys)):
        return
    path = job.folder.path("so_far.mp4")
    try:
        job.join(keys, path, sound)
    except InputError as error:
        log.warning("SkyReels-V3: what is done so far could not be joined: %s", error)
        return
    versions.tell(node_id, f"What is done so far: {path}. Queue the same graph again to go on.")
