"""SkyReels-V3 for ComfyUI: reference images to video, video extension, talking avatars."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls for the pack's nodes; everything else is imported from here on."""
    from .nodes.registry import SkyReelsExtension
    from .nodes.routes import add_routes

    add_routes()  # here, because 0.3.75 never calls an extension's on_load
    return SkyReelsExtension()
