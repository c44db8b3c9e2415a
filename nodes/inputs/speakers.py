"""Where each of the people is, and how much they say: the inputs that the avatar's nodes share."""

from collections.abc import Mapping, Sequence

from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.dialogue.places import read_places
from ...skyreels_v3.model.speaker_map import PositionMap, check_map
from ...skyreels_v3.recipes import AT_ONCE
from ...skyreels_v3.speech.recording import MAX_SECONDS
from .. import versions

MAPS = [one.value for one in PositionMap]
DEFAULT_MAP = PositionMap.OWN_FRAME.value


def place_inputs() -> list[io.Input]:
    """Where each of the people is: a mask or a box, and how the model follows them from there."""
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
    everyone = io.Mask.Input(
        "masks",
        optional=True,
        tooltip="Instead of mask_1 and mask_2: a batch of masks, one for each of up to 8 who speak, in the order in "
        "which the dialogue names them.",
    )
    places = io.String.Input(
        "places",
        default="",
        multiline=True,
        optional=True,
        tooltip="Where the people of a dialogue are, one line each: anna: 0.05, 0.1, 0.3, 0.9 are the left, top, right "
        "and bottom of Anna. The button below draws them.",
    )
    return [*masks, *boxes, versions.advanced(position_map), everyone, places]


def chosen_places(inputs: Mapping, people: int, names: Sequence[str] = ()) -> tuple[list, list[str]]:
    """(masks, boxes) of each of the speakers, of two at least: what is set of `place_inputs`.

    Raises InputError for a place of nobody who speaks, and for two places of one kind for the same person.
    """
    count, everyone = max(AT_ONCE, people), inputs.get("masks")
    masks, boxes = [None] * count, [""] * count
    for person in range(AT_ONCE):
        masks[person], boxes[person] = inputs.get(f"mask_{person + 1}"), inputs.get(f"box_{person + 1}") or ""
    for person, box in read_places(inputs.get("places") or "", names, people).items():
        if boxes[person].strip():
            raise InputError(
                f"Person {person + 1} has a box in `places` and one in box_{person + 1}: clear one of them."
            )
        if everyone is not None or masks[person] is not None:
            name = names[person] if names else f"Person {person + 1}"
            mask = f"mask_{person + 1}" if everyone is None else "masks"
            raise InputError(
                f"{name} has a box in `places`, but {mask} is connected too: disconnect it, or clear the box."
            )
        boxes[person] = box
    if everyone is None:
        return masks, boxes
    twice = next((person + 1 for person in range(AT_ONCE) if masks[person] is not None), None)
    if twice:
        raise InputError(f"Both masks and mask_{twice} are connected: disconnect one of them.")
    given = everyone.unbind(0) if everyone.ndim == 3 else [everyone]
    if len(given) != people:
        who = f" ({', '.join(names)})" if names else ""
        raise InputError(
            f"masks is a batch of {len(given)}, but the people who speak are {people}{who}: give a mask for each, in "
            "this order."
        )
    return [*given, *masks[people:]], boxes


def chosen_map(value: str, people: int) -> PositionMap:
    """The choice of `position_map`. Raises InputError for another word, and for one that does not know so many."""
    if value not in MAPS:
        raise InputError(f"The position_map is {value!r}, but it must be one of {', '.join(MAPS)}.")
    check_map(PositionMap(value), people)
    return PositionMap(value)


def max_seconds_input() -> io.Input:
    """How much speech is taken in one job."""
    return io.Float.Input(
        "max_seconds",
        default=MAX_SECONDS,
        min=1.0,
        max=3600.0,
        step=1.0,
        tooltip="Longer speech is refused, so that a wrong file does not fill the night. The official limit is 200; "
        "more takes time, disk and memory.",
    )
