"""What GGUF files of Wan transformers spell otherwise: the architecture's name and the shapes of a few tensors.

Source: the files in circulation (vantagewithai, city96); GGUF knows at most four dimensions.
"""

import dataclasses
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.params import TransformerParams

if TYPE_CHECKING:
    from ..tensors.stored import Part

ARCHITECTURE = "general.architecture"
WAN = "wan"
PATCH = TransformerParams.patch_size


def check_architecture(metadata: Mapping[str, str], name: str) -> None:
    """Raise InputError for a GGUF file of another architecture."""
    architecture = metadata.get(ARCHITECTURE, WAN)
    if architecture != WAN:
        raise InputError(
            f"{name} is a GGUF file of the architecture {ascii(architecture)[1:-1][:40]}, but SkyReels-V3 is {WAN}: "
            "choose an r2v, v2v or a2v file."
        )


def as_in_torch(parts: Mapping[str, "Part"]) -> dict[str, "Part"]:
    """Wan name -> Part with the network's shapes: modulation gets its first axis, the patch embedding five."""
    width = prod(parts["patch_embedding.bias"].shape) if "patch_embedding.bias" in parts else 0
    return {key: dataclasses.replace(part, shape=_shape(key, part.shape, width)) for key, part in parts.items()}


def _shape(key: str, shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    if key.endswith("modulation") and len(shape) == 2:
        return 1, *shape
    if key == "patch_embedding.weight" and len(shape) != 5 and width:
        channels, rest = divmod(prod(shape), width * prod(PATCH))
        return shape if rest else (width, channels, *PATCH)
    return shape
