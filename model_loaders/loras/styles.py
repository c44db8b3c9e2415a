"""What can be said of a LoRA without the model it is for: whose names it has, its kind, and what of it fits."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...skyreels_v3.model.params import AudioParams, TransformerParams
from ..architecture.params import expected_shapes
from ..files.tensor_info import TensorInfo
from .names import OF_COLUMNS, OTHER_KINDS, layer_names, of_second, other_kind, split, wan_names

# All layers that any of the four models has.
EVERYTHING = TransformerParams(image_dim=1280, audio=AudioParams())
AS_WIDE = re.compile(r"\.(?:self_attn\.[qkv]|cross_attn\.q|ffn\.0)$")  # layers that read what the model is wide

KIND = re.compile("|".join(f"[._]?(?:{mark.pattern})" for mark in OTHER_KINDS.values()))  # what follows a layer's name

# The first that fits a layer's tensor is its style; the last fits all.
STYLES = (
    ("peft", re.compile(r"^base_model\.|^pipe\.dit\.|lora_[AB]\.(?!weight$)[\w.-]+$")),
    ("kohya", re.compile(r"^(?:lora_|lycoris_)|^[^.]+\.(?:lora|alpha$|dora|lokr|hada|diff$|diff_)")),
    ("diffusers", re.compile(r"^(?:transformer|unet)\.|\.attn[12]\.")),
    ("comfyui", re.compile(r"^(?:model\.)?diffusion_model\.")),
    ("wan", re.compile("")),
)


@dataclass(frozen=True)
class LoraStyle:
    """style: whose names it has, one of STYLES.  kind: "LoKr" ..., empty for plain LoRAs and differences.

    layers: how many it changes.  fitting: how many of them SkyReels-V3 models have.  width: of the model it was made
    for, 0 where that is not known.
    """

    style: str
    kind: str
    layers: int
    fitting: int
    width: int


def lora_style(tensors: Mapping[str, TensorInfo]) -> LoraStyle:
    """What kind of LoRA has these tensors."""
    names = layer_names(expected_shapes(EVERYTHING))
    layers: dict[str, tuple[str, ...]] = {}
    columns: dict[str, dict[str, int]] = {}  # of layers that are as wide as the model: part -> its columns
    second = of_second(tensors, names)
    is_of_columns = False
    for key, info in tensors.items():
        layer, part = split(key) or (KIND.split(key)[0], "")
        wans = layers[layer] = wan_names(layer, names) if key not in second else ()
        if wans and AS_WIDE.search(wans[0]) and len(info.shape) == 2:
            columns.setdefault(layer, {})[part] = info.shape[1]
        is_of_columns |= part == "magnitude" and info.shape[:1] == (1,)
    counts = dict.fromkeys((name for name, _ in STYLES), 0)
    for key in tensors:
        counts[next(name for name, mark in STYLES if mark.search(key))] += 1
    style = max(counts, key=counts.__getitem__)
    kind = OF_COLUMNS if is_of_columns else other_kind(tensors) or ""
    width = max(map(_width, columns.values()), default=0)
    return LoraStyle(style, kind, len(layers), sum(map(bool, layers.values())), width)


def _width(columns: Mapping[str, int]) -> int:
    """The columns of a weight that these parts change, 0 where they do not tell; of a LoKr they are multiplied."""
    mix, other = (columns.get(f"{factor}_b", columns.get(factor, 0)) for factor in ("lokr_w1", "lokr_w2"))
    return mix * other or columns.get("hada_w1_b", 0) or columns.get("down", 0)
