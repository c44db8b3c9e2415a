"""A real ComfyUI in this process, on the CPU, with its own nodes and, asked for, those of this pack.

    comfyui = open_comfyui(base)         # `base` becomes its folder of models, input, output ...
    nodes = load_pack(comfyui)
    nodes.ready("SkyReelsExtendVideo").execute(...)

Once a process: ComfyUI's modules are called `nodes`, `utils` ... and hold its state.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from pack.dev.setup.downloads import ROOT, SetupError
from pack.dev.setup.environment import comfyui_path

FOLDERS = ("models", "input", "output", "temp", "user", "custom_nodes")


def open_comfyui(base: Path, cpu: bool = True, **flags: Any) -> SimpleNamespace:
    """ComfyUI imported into this process, without this pack's nodes. flags: of its command line, with underscores.

    Has `path`; `base`, the folder given, with models, input, output, temp, custom_nodes; and ComfyUI's modules
    `folder_paths` and `nodes`. Other modules can be imported as inside ComfyUI (`import comfy.sample`).
    Raises SetupError where there is no ComfyUI.
    """
    host = comfyui_path()
    # In front of everything, and without the checkout, which has a folder `nodes` as ComfyUI has a module.
    sys.path[:] = [str(host), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    from comfy.cli_args import args

    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    args.base_directory = str(base)
    # Before comfy.model_management is imported, which looks for a GPU at once.
    vars(args).update(cpu=cpu, **flags)

    # First the package utils/: `nodes` puts the folder comfy/ in front of it, which has a utils.py.
    importlib.import_module("utils.extra_config")
    import folder_paths
    import nodes

    asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return SimpleNamespace(path=host, base=base, folder_paths=folder_paths, nodes=nodes)


class PackNodes(dict):
    """Node id -> class. `module("skyreels_v3.images.sizes")` is a module of the copy that these nodes were loaded from.

    That copy is not `pack.skyreels_v3.images.sizes`: classes and state of the two differ.
    """

    def __init__(self, classes: dict[str, type], package: str):
        super().__init__(classes)
        self._package = package.replace(".", "_x_")  # as ComfyUI names it

    def ready(self, node_id: str, **hidden) -> type:
        """As the function of this name."""
        return ready(self[node_id], **hidden)

    def values(self, node_id: str) -> dict[str, Any]:
        """As `first_values`."""
        return first_values(self[node_id])

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self._package}.{name}")


def ready(node: type, **hidden) -> type:
    """A node as ComfyUI hands it to a run, with its hidden inputs (prompt ...); call its `execute`."""
    hidden = {name.upper(): value for name, value in {"unique_id": "1", **hidden}.items()}
    # Two names: 0.3.75 and newer releases.
    return node.PREPARE_CLASS_CLONE({"hidden": hidden, "hidden_inputs": hidden})


def first_values(node: type) -> dict[str, Any]:
    """The values of a node that was just put on the page, without the inputs that are connected there."""
    inputs = node.INPUT_TYPES()
    written = {**inputs.get("required", {}), **inputs.get("optional", {})}
    return {name: given[1]["default"] for name, given in written.items() if "default" in given[1]}


def load_pack(comfyui: SimpleNamespace) -> PackNodes:
    """The nodes of this pack, loaded into this process as ComfyUI loads them. Raises SetupError where it cannot."""
    link = comfyui.base / "custom_nodes" / "SkyReels-V3"
    link.symlink_to(ROOT, target_is_directory=True)
    before = set(comfyui.nodes.NODE_CLASS_MAPPINGS)
    if not asyncio.run(comfyui.nodes.load_custom_node(str(link))):
        raise SetupError("ComfyUI could not load this pack; the reason is in its log.")
    mappings = comfyui.nodes.NODE_CLASS_MAPPINGS
    return PackNodes({key: mappings[key] for key in mappings if key not in before}, str(link))
