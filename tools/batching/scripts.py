"""What is wrong with the scripts of a prompt: told before anything runs, by the node's own grammar."""

from __future__ import annotations

from functools import lru_cache

from ...skyreels_v3.jobs.extension.script_check import check_script

NODE = "SkyReelsExtendVideo"


def wrong_script(prompt: dict) -> str | None:
    """The first wrong line of a prompt's scripts, in one sentence, or None. Scripts of other nodes are not known."""
    for node in prompt.values():
        inputs = node["inputs"]
        if node["class_type"] == NODE and isinstance(inputs.get("script"), str):
            given = bool(inputs.get("official")), "model" in inputs, "shot_model" in inputs
            wrong = _wrong(inputs["script"], *given)
            if wrong:
                return wrong
    return None


@lru_cache
def _wrong(script: str, official: bool, has_model: bool, has_shot_model: bool) -> str | None:
    checked = check_script(script, official, has_model, has_shot_model)
    return next((line.wrong for line in checked.lines if line.wrong), checked.problem)
