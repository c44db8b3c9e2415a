"""Where each of two people is: the inputs that the avatar's nodes share."""

from comfy_api.latest import io


def place_inputs() -> list[io.Input]:
    """Where each of two people is: a mask or a box."""
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
    return [*masks, *boxes]
