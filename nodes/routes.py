"""What the pack's page asks the server: the script editor's times and errors. One grammar, that of the node."""

import json

from ..skyreels_v3.jobs.extension.script_check import check_script
from . import versions

SCRIPT = "/skyreels_v3/script"
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
            return web.json_response({"error": 'The text of a script is needed, such as {"text": "..."}.'}, status=400)
        return web.json_response(check_script(text, *options).as_dict())
