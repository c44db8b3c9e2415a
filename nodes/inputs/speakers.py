"""Where each of two people is: the inputs that the avatar's nodes share."""

from collections.abc import Mapping

from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.speaker_map import PositionMap
from .. import versions

MAPS = [one.value for one in PositionMap]
DEFAULT_MAP = PositionMap.OWN_FRAME.value


def place_inputs() -> list[io.Input]:
    """Where each of two people is: a mask or a box, and how the model follows them from there."""
    masks = [
        io.Mask.Input(
            name,
            optional=True,
            tooltip=f"Where the {side} of two speakers is in the portrait. Without it, the {side} half. With one "
            "recording, only who is in it speaks, and everyone else is silent; without any, the whole picture speaks.",
        )
        for name, side in (("mask_1", "left"), ("mask_2", "right"))
    ]
    boxes = [
        io.String.Input(
            name,
            default="",
            optional=True,
            tooltip=f"Instead of a mask: left, top, right, bottom of the {side} speaker, each from 0 to 1 of the "
            "picture, such as 0.05, 0.1, 0.45, 0.9.",
        )
        for name, side in (("box_1", "left"), ("box_2", "right"))
    ]
    position_map = io.Combo.Input(
        "position_map",
        options=MAPS,
        default=DEFAULT_MAP,
        optional=True,
        tooltip="How two speakers are followed when they move. own frame looks for them in every frame, as MultiTalk "
        "and InfiniteTalk do, whose network this is. official does as the released code, which by a slip looks for "
        "them in other frames: the same only while nobody moves.",
    )
    return [*masks, *boxes, versions.advanced(position_map)]


def chosen_places(inputs: Mapping) -> tuple[list, list[str]]:
    """(masks, boxes) of the speakers: what is set of `place_inputs`."""
    return [inputs.get("mask_1"), inputs.get("mask_2")], [inputs.get("box_1", ""), inputs.get("box_2", "")]


def chosen_map(value: str) -> PositionMap:
    """The choice of `position_map`. Raises InputError for another word."""
    if value not in MAPS:
        raise InputError(f"The position_map is {value!r}, but it must be one of {', '.join(MAPS)}.")
    return PositionMap(value)
