"""Names in LoRA files: whatever a trainer calls a weight leads to a layer's Wan name and to what the tensor is to it.

Sources: the files of diffusion-pipe, musubi-tuner (kohya), DiffSynth (PEFT), ai-toolkit, SimpleTuner and OneTrainer
(diffusers names), and the extracted LoRAs with `diff`, `diff_b` and `diff_m`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from .key_maps import KEY_MAPS, unwrapped

# What may stand before a layer's name, several of them one after the other.
PREFIXES = (
    "base_model.model.",
    "model.",
    "diffusion_model.",
    "transformer.",
    "pipe.dit.",
    "dit.",
    "unet.",
    "module.",
    "lora_unet__",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "diffusion_model_",
    "transformer_",
)

# After a layer's name. PEFT puts the name of its adapter ("default") before `weight`.
_END = r"(?:\.(?!(?:weight|bias)$)\w+)?(?:\.weight)?$"
_LORA = r"[._]lora(?:_linear_layer)?[._]"
PARTS = {
    "down": re.compile(_LORA + "(?:A|down)" + _END),
    "up": re.compile(_LORA + "(?:B|up)" + _END),
    "up_b": re.compile(_LORA + r"(?:B|up)(?:\.\w+)?\.bias$"),
    "alpha": re.compile(r"\.(?:lora_)?alpha$"),
    "diff": re.compile(r"\.(?:diff|w_norm)$"),
    "diff_b": re.compile(r"\.(?:diff_b|b_norm)$"),
    "diff_m": re.compile(r"\.diff_m$"),
    "set": re.compile(r"\.set_weight$"),
}

# Kinds whose change of a weight is no product of two thin matrices.
OTHER_KINDS = {
    "DoRA": re.compile(r"dora_scale|lora_magnitude_vector"),
    "LoKr": re.compile(r"[._]lokr_"),
    "LoHa": re.compile(r"[._]hada_"),
    "OFT": re.compile(r"[._]oft_|[._]boft_"),
    "Tucker LoRA": re.compile(r"[._]lora_mid"),
}

# LoRAs that let a model do with fewer steps, by what they are called.
DISTILLED = re.compile(
    r"lightx2v|causvid|acc-?vid|fusion-?x|distill|turbo|lightning|self[-_ ]?forc|fast-?wan"
    r"|(?<![a-z])(?:rcm|lcm|dmd2?)(?![a-z])|(?<!\d)\d[-_ ]?steps?(?![a-z])",
    re.IGNORECASE,
)
TITLES = ("modelspec.title", "ss_output_name", "title", "name")  # in the metadata


def is_distilled(name: str, metadata: Mapping[str, str]) -> bool:
    """Whether a LoRA saves steps, from the names it goes by: the file's and those in its metadata."""
    return any(DISTILLED.search(title) for title in (name, *(metadata.get(key, "") for key in TITLES)))


def layer_names(weights: Iterable[str]) -> dict[str, str]:
    """What a network's layers may be called -> Wan name, in every dialect, with dots and flattened to underscores.

    weights: Wan names of all weights. A parameter that is no layer's weight or bias counts as a layer of its own.
    """
    layers = {re.sub(r"\.(?:weight|bias)$", "", weight) for weight in weights}
    names = {}
    for dialect in KEY_MAPS:
        for wan, name in dialect.inverted().rename(layers).items():
            names[name] = names[name.replace(".", "_")] = wan
    return names


def other_kind(keys: Iterable[str]) -> str | None:
    """The kind of a file that holds something else than low-rank pairs and differences, None if it does not."""
    keys = list(keys)
    return next((kind for kind, mark in OTHER_KINDS.items() if any(mark.search(key) for key in keys)), None)


def split(key: str) -> tuple[str, str] | None:
    """(the layer as the file calls it, what the tensor is: a name of PARTS), None if it is nothing of a LoRA."""
    key = unwrapped(key)
    for part, end in PARTS.items():
        found = end.search(key)
        if found:
            return key[: found.start()], part
    return None


def wan_name(layer: str, names: dict[str, str]) -> str | None:
    """The Wan name of a layer as a file calls it, None if the network has no such layer. names: of `layer_names`."""
    return next((names[shorter] for shorter in shorter_names(layer) if shorter in names), None)


def shorter_names(layer: str) -> Iterator[str]:
    """A layer's name as a file calls it, and without one after the other of what stands before it."""
    layer = layer.replace(".processor.", ".")
    while True:
        yield layer
        prefix = next((prefix for prefix in PREFIXES if layer.startswith(prefix)), None)
        if prefix is None:
            return
        layer = layer.removeprefix(prefix)
