"""Turn a saved workflow into the prompt that ComfyUI's page would queue, without a browser."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from types import ModuleType

from environment import converter_path

ONLY_ON_THE_PAGE = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}
MUTED, BYPASSED = 2, 4


class WorkflowError(ValueError):
    """A workflow that the page could not queue either, in one sentence."""


class _Complaints(logging.Handler):
    """Collects what the converter logs: it skips a node it cannot read, where a test must fail."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        reason = f" ({record.exc_info[1]})" if record.exc_info else ""
        self.lines.append(record.getMessage() + reason)


def unknown_types(workflow: dict, object_info: dict) -> set[str]:
    """The node types of a workflow in the page's form, subgraphs included, that the server does not know."""
    subgraphs = (workflow.get("definitions") or {}).get("subgraphs") or []
    known = set(object_info) | ONLY_ON_THE_PAGE | {subgraph["id"] for subgraph in subgraphs}
    return {node["type"] for graph in (workflow, *subgraphs) for node in graph["nodes"]} - known


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """The prompt in API form for a workflow as the page saves it.

    `object_info` is what the server answers under that name (`Server.object_info()`). A prompt in API form is
    returned as it is. Raises WorkflowError for a node that the server does not know or that cannot be read.
    """
    unknown = unknown_types(workflow, object_info) if "nodes" in workflow else ()
    if unknown:
        names = ", ".join(sorted(unknown))
        raise WorkflowError(f"The workflow has nodes that this ComfyUI does not know: {names}.")
    module = _converter()
    complaints = _Complaints()
    logger = logging.getLogger(module.__name__)
    logger.addHandler(complaints)
    propagate, logger.propagate = logger.propagate, False
    try:
        prompt = module.convert_ui_to_api(workflow, object_info)
    except module.WorkflowConversionError as error:
        raise WorkflowError(f"The workflow cannot be read: {error}.") from error
    finally:
        logger.propagate = propagate
        logger.removeHandler(complaints)
    if complaints.lines:
        raise WorkflowError(f"The workflow cannot be read: {'; '.join(complaints.lines)}.")
    return prompt


def _converter() -> ModuleType:
    """comfy-cli's converter, without the command line around it and what that would need installed."""
    folder = str(converter_path())
    if folder not in sys.path:
        sys.path.append(folder)
    package = import_module("comfy_cli")
    if "comfy_cli.cql" not in sys.modules:
        # Its own __init__ loads the part that talks to servers; the converter needs only the files beside it.
        cql = ModuleType("comfy_cli.cql")
        cql.__path__ = [f"{package.__path__[0]}/cql"]
        sys.modules["comfy_cli.cql"] = package.cql = cql
    return import_module("comfy_cli.workflow_to_api")
