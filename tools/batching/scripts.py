"""What is wrong with the scripts of a prompt: told before anything runs, by the nodes' own grammar. Needs no torch."""

from __future__ import annotations

from functools import lru_cache

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.extension.script_check import check_script
from ...skyreels_v3.jobs.film.grammar.check import ENTRIES, Known, missing
from ...skyreels_v3.jobs.film.grammar.script import parse_film


def wrong_script(prompt: dict) -> str | None:
    """The first wrong line of a prompt's scripts, in one sentence, or None. Texts of other nodes are no scripts."""
    for node in prompt.values():
        reader, inputs = READERS.get(node["class_type"]), node["inputs"]
        if reader is not None and isinstance(inputs.get("script"), str):
            wrong = reader(inputs["script"], frozenset(inputs), bool(inputs.get("official")))
            if wrong:
                return wrong
    return None


@lru_cache
def _of_extension(script: str, given: frozenset[str], official: bool) -> str | None:
    checked = check_script(script, official, "model" in given, "shot_model" in given)
    return next((line.wrong for line in checked.lines if line.wrong), checked.problem)


@lru_cache
def _of_film(script: str, given: frozenset[str], official: bool) -> str | None:
    """Not whether the cast and the files that it names are there, which the server knows."""
    try:
        lines = parse_film(script)
    except InputError as error:
        return str(error)
    known = Known(
        jobs=[job for job, (entry, _) in ENTRIES.items() if entry in given],
        audio_encoder="audio_encoder" in given,
        clip_vision="clip_vision" in given,
        source="source" in given,
    )
    wrong = missing(lines, known)
    return wrong[min(wrong)] if wrong else None


READERS = {"SkyReelsExtendVideo": _of_extension, "SkyReelsFilm": _of_film}
