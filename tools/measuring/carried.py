"""What a saved video carries of how it was made: ComfyUI writes the prompt into the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from ...skyreels_v3.jobs.avatar.plan import Timing
from .stretches import speaks_in

WITH_SCRIPT = ("SkyReelsExtendVideo", "SkyReelsFilm")  # which speaks where a line of it does
AVATAR = "SkyReelsTalkingAvatar"
SPEAKING = (AVATAR, "SkyReelsAvatarWindow", "SkyReelsDubVideo")


@dataclass(frozen=True)
class Carried:
    """script: of the one node that has one, None where there is none or more.  official: its frame counts.

    speaks: whether its sound is the speech that a portrait follows.  known: it says how it was made.
    footage: that is connected, which the script's lines come after: the file in ComfyUI's folder input, "" where other
    nodes made it, None for none.
    timing: of the windows of a talking avatar, where it alone was saved.
    """

    script: str | None = None
    official: bool = False
    speaks: bool = False
    known: bool = False
    footage: str | None = None
    timing: Timing | None = None


def carried(path: Path) -> Carried:
    """Nothing where the file says nothing."""
    try:
        with av.open(str(path)) as container:
            prompt: Any = json.loads(container.metadata.get("prompt") or "{}")
        nodes = [node for node in prompt.values() if isinstance(node["inputs"], dict)]
    except (av.FFmpegError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return Carried()
    speaks = any(node.get("class_type") in SPEAKING for node in nodes)
    scripts = [node["inputs"] for node in nodes if node.get("class_type") in WITH_SCRIPT]
    footage = _footage(prompt, scripts[0].get("source")) if len(scripts) == 1 else None
    if len(scripts) != 1 or not isinstance(scripts[0].get("script"), str):
        known = bool(nodes) and not scripts
        return Carried(speaks=speaks, known=known, footage=footage, timing=_timing(prompt) if known else None)
    script = scripts[0]["script"]
    return Carried(script, scripts[0].get("official") is True, speaks or speaks_in(script), True, footage)


def _footage(prompt: dict[str, Any], link: Any) -> str | None:
    if not isinstance(link, list):
        return None
    node = prompt.get(str(link[0]), {})
    name = node.get("inputs", {}).get("file") if node.get("class_type") == "LoadVideo" else None
    return name if isinstance(name, str) else ""


def _timing(prompt: dict[str, Any]) -> Timing | None:
    """None where more was saved, or the avatar's video went through other nodes: who knows where its windows are."""
    saved = [node["inputs"].get("video") for node in prompt.values() if node.get("class_type") == "SaveVideo"]
    if len(saved) != 1 or not isinstance(saved[0], list) or saved[0][1:] != [0]:
        return None
    node = prompt.get(str(saved[0][0]), {})
    counts = [node.get("inputs", {}).get(name) for name in ("window", "motion", "drop")]
    if node.get("class_type") != AVATAR or not all(isinstance(count, int) for count in counts):
        return None
    return Timing(*counts)
