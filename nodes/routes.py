"""What the pack's page asks the server: the script editor's times and errors. One grammar, that of the node."""

import json
from typing import Any

from ..skyreels_v3.jobs.dialogue.script import read_dialogue
from ..skyreels_v3.jobs.extension.script_check import MAX_TEXT, check_script
from ..skyreels_v3.jobs.film.film_check import check_film
from ..skyreels_v3.jobs.film.grammar.check import ENTRIES, Known
from ..skyreels_v3.jobs.film.grammar.edit import edited
from ..skyreels_v3.jobs.film.outlook import LastRun
from . import versions
from .inputs.files import input_file, seconds_of

SCRIPT, FILM, DIALOGUE = "/skyreels_v3/script", "/skyreels_v3/film", "/skyreels_v3/dialogue"
NO_TEXT = {"error": 'The text of a script is needed, such as {"text": "..."}.'}
# Of `check_script`, as the page names them: which lengths, and which of the two models are connected.
DEFAULTS = (("official", False), ("model", True), ("shot_model", True))


def add_routes() -> None:
    """Adds the pack's routes to ComfyUI's server, where one is running. To be called once, as the pack is loaded."""
    server = versions.server()
    if server is None:
        return
    from aiohttp import web

    @server.routes.post(SCRIPT)
    async def script(request: web.Request) -> web.Response:
        """{"text", "official"?, "model"?, "shot_model"?} -> CheckedScript; 400 with a sentence for anything else."""
        try:
            asked = json.loads(await request.read())
            text = asked["text"]
            options = [bool(asked.get(name, other)) for name, other in DEFAULTS]
        except (ValueError, TypeError, KeyError, AttributeError):
            text, options = None, []
        if not isinstance(text, str):
            return web.json_response(NO_TEXT, status=400)
        return web.json_response(check_script(text, *options).as_dict())

    @server.routes.post(FILM)
    async def film(request: web.Request) -> web.Response:
        """{"text", "cast"?: {name: has a voice, or "dialogue"}, "connected"?: names of inputs, "settings"?: {input:
        value}, "last"?: see `LastRun.read`} -> CheckedFilm; with "edit": {"line", "option", "value"} the script with
        that option changed, {"text"}; 400 with a sentence for anything else."""
        try:
            answer = film_answer(json.loads(await request.read()))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            return web.json_response(NO_TEXT, status=400)
        return web.json_response(answer)

    @server.routes.post(DIALOGUE)
    async def dialogue(request: web.Request) -> web.Response:
        """{"text"} -> {"names": of those who speak, in the order of their places}; 400 for anything else."""
        try:
            text = json.loads(await request.read())["text"]
        except (ValueError, TypeError, KeyError):
            text = None
        if not isinstance(text, str):
            return web.json_response(NO_TEXT, status=400)
        return web.json_response({"names": read_dialogue(text[:MAX_TEXT])[0].names})


def film_answer(asked: dict[str, Any]) -> dict[str, Any]:
    """What the page is told of a film's script. Raises one of Python's own errors for what is no question."""
    text, edit = asked["text"], asked.get("edit")
    if not isinstance(text, str):
        raise TypeError("the text of a script is no text")
    if edit is not None:
        value = edit.get("value")
        return {"text": edited(text, int(edit["line"]), str(edit["option"]), None if value is None else str(value))}
    connected, cast = asked.get("connected"), asked.get("cast")
    known = Known(
        None if cast is None else {str(name): bool(voice) for name, voice in cast.items()},
        lambda name: input_file(name) is not None,
        None if connected is None else [job for job, (entry, _) in ENTRIES.items() if entry in connected],
        None if connected is None else "audio_encoder" in connected,
        None if connected is None else "clip_vision" in connected,
        connected is not None and "source" in connected,
        seconds_of,
        [str(name) for name, voice in (cast or {}).items() if voice == "dialogue"],
    )
    last = asked.get("last")
    return check_film(text, known, asked.get("settings"), None if last is None else LastRun.read(last)).as_dict()
