"""What a saved video carries of how it was made: ComfyUI writes the prompt into the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from .stretches import speaks_in

WITH_SCRIPT = ("SkyReelsExtendVideo", "SkyReelsFilm")  # which speaks where a line of it does
SPEAKING = ("SkyReelsTalkingAvatar", "SkyReelsAvatarWindow", "SkyReelsDubVideo")


@dataclass(frozen=True)
class Carried:
    """script: of the one node that has one, None where there is none or more.  official: its frame counts.

    speaks: whether its sound is the speech that a portrait follows.  known: it says how it was made.
    sourced: footage is connected, which the script's lines come after.
    """

    script: str | None = None
    official: bool = False
    speaks: bool = False
    known: bool = False
    sourced: bool = False


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
    sourced = len(scripts) == 1 and isinstance(scripts[0].get("source"), list)  # a link
    if len(scripts) != 1 or not isinstance(scripts[0].get("script"), str):
        return Carried(speaks=speaks, known=bool(nodes) and not scripts, sourced=sourced)
    script = scripts[0]["script"]
    return Carried(script, scripts[0].get("official") is True, speaks or speaks_in(script), True, sourced)
