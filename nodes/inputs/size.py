"""How large a video is made: the inputs that every job's node shares."""

from comfy_api.latest import io

from ...skyreels_v3.images.sizes import DEFAULT_RESOLUTION, DEFAULT_SIZE, MAX_SIDE, RESOLUTIONS
from ...skyreels_v3.recipes import PIXELS_PER_TOKEN

CUSTOM = "custom"


def size_inputs(shape_of: str) -> list[io.Input]:
    """resolution, width and height. shape_of: what the resolution takes its shape from, in words."""
    return [
        io.Combo.Input(
            "resolution",
            options=[*RESOLUTIONS, CUSTOM],
            default=DEFAULT_RESOLUTION,
            tooltip=f"Picks the size nearest to the shape of {shape_of}. custom takes width and height below.",
        ),
        *side_inputs("Pixels, for resolution custom; snapped to a multiple of 16."),
    ]


def side_inputs(tooltip: str) -> list[io.Input]:
    """width and height in pixels."""
    return [
        io.Int.Input(side, default=default, min=PIXELS_PER_TOKEN, max=MAX_SIDE, step=PIXELS_PER_TOKEN, tooltip=tooltip)
        for side, default in zip(("width", "height"), DEFAULT_SIZE, strict=True)
    ]


def chosen_size(resolution: str, width: int, height: int) -> dict:
    """The size arguments of a plan: a resolution, or a width and height."""
    return {"width": width, "height": height} if resolution == CUSTOM else {"resolution": resolution}
