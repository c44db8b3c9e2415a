"""Names in LoRA files: whatever a trainer calls a weight leads to a layer's Wan name and to what the tensor is to it.

Sources: the files of diffusion-pipe, musubi-tuner (kohya), DiffSynth (PEFT), ai-toolkit, SimpleTuner and OneTrainer
(diffusers names), and the extracted LoRAs with `diff`, `diff_b` and `diff_m`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from ..architecture.key_maps import KEY_MAPS, unwrapped

# What may stand before a layer's name, several of them one after the other, each with a dot or an underscore behind it.
PREFIXES = (
    "base_model.model",
    "model",
    "diffusion_model",
    "transformer",
    "pipe.dit",
    "dit",
    "unet",
    "module",
    "lora_unet_",
    "lora_unet",
    "lora_transformer",
    "lycoris",
    "high_noise_model",
    "low_noise_model",
    "high_noise",
    "low_noise",
    "generator",
)
_PREFIX = re.compile(rf"(?:{'|'.join(map(re.escape, PREFIXES)).replace(re.escape('.'), '[._]')})(?:_?[12])?[._]")
# Wan 2.2 has two transformers. This stands before layers of the second, which goes on where little noise is left.
_SECOND = re.compile(r"(?:^|[._])((?:transformer|diffusion_model|model|dit|unet)_?2|low_noise(?:_model)?)[._]")

# After a layer's name. PEFT puts the names of its adapters ("default") before `weight`.
_END = r"(?:\.(?!(?:weight|bias)$)[\w-]+)*(?:\.weight)?$"
_LORA = r"[._]lora(?:_linear_layer)?[._]"
LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
PARTS = {
    "down": re.compile(_LORA + "(?:A|down)" + _END),
    "up": re.compile(_LORA + "(?:B|up)" + _END),
    "up_b": re.compile(_LORA + r"(?:B|up)(?:\.[\w-]+)*\.bias$"),
    "alpha": re.compile(r"\.(?:lora_)?alpha$"),
    "diff": re.compile(r"\.(?:diff|w_norm)$"),
    "diff_b": re.compile(r"\.(?:diff_b|b_norm)$"),
    "diff_m": re.compile(r"\.diff_m$"),
    "set": re.compile(r"\.set_weight$"),
    "magnitude": re.compile(rf"[._](?:dora_scale|lora_magnitude_vector){_END}"),
    **{part: re.compile(rf"[._]{part}{_END}") for part in (*LOKR, *LOHA)},
}

# Layers that some make one of, in the names of either dialect -> Wan names of their rows' owners, all of one height.
FUSED = {
    "self_attn.qkv": ("self_attn.q", "self_attn.k", "self_attn.v"),
    "attn1.to_qkv": ("self_attn.q", "self_attn.k", "self_attn.v"),
    "cross_attn.kv": ("cross_attn.k", "cross_attn.v"),
    "attn2.to_kv": ("cross_attn.k", "cross_attn.v"),
    "attn2.to_added_kv": ("cross_attn.k_img", "cross_attn.v_img"),
}

# Kinds whose change of a weight is no product of two thin matrices; a file's is the first of which it has something.
OTHER_KINDS = {
    "OFT": re.compile(r"[._]oft_|[._]boft_"),
    "AdaLoRA": re.compile(r"[._]lora_E(?:[._]|$)"),
    "GLoRA": re.compile(r"(?<=_[qkvo\d])\.[ab][12]\.weight$"),
    "Tucker LoRA": re.compile(r"[._]lora_mid|[._](?:lokr|hada)_t[12]"),
    "DoRA": re.compile(r"dora_scale|lora_magnitude_vector"),
    "LoKr": re.compile(r"[._]lokr_"),
    "LoHa": re.compile(r"[._]hada_"),
}
# What of them has a LoraBranch, see skyreels_v3/model/lora.py.
READ_KINDS = {"DoRA", "LoKr", "LoHa"}
INSTEAD = "use one that was trained as a LoRA, DoRA, LoKr or LoHa"
# A DoRA whose magnitudes belong to columns would need the layer's product of another input.
OF_COLUMNS = "DoRA of columns"
INSTEAD_OF_COLUMNS = "use one with a magnitude for each row (in LyCORIS, wd_on_output), or a LoRA, LoKr or LoHa"

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


def layer_names(weights: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What a network's layers may be called -> Wan names, in every dialect, with underscores for dots.

    There are several behind the name of a fused layer, whose rows are theirs one after the other. weights: Wan names
    of all weights. A parameter that is no layer's weight or bias counts as a layer of its own.
    """
    layers = {re.sub(r"\.(?:weight|bias)$", "", weight) for weight in weights}
    names: dict[str, tuple[str, ...]] = {
        name: (wan,) for dialect in KEY_MAPS for wan, name in dialect.inverted().rename(layers).items()
    }
    for fused, parts in FUSED.items():
        first = f".{parts[0]}"
        for block in [layer.removesuffix(first) for layer in layers if layer.endswith(first)]:
            names[f"{block}.{fused}"] = tuple(f"{block}.{part}" for part in parts)
    return {name.replace(".", "_"): wans for name, wans in names.items()}


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


def wan_names(layer: str, names: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The Wan names of a layer as a file calls it, none if the network has no such layer. names: of `layer_names`."""
    flat = (shorter.replace(".", "_") for shorter in shorter_names(layer))
    return next((names[name] for name in flat if name in names), ())


def named_second(keys: Iterable[str]) -> dict[str, str]:
    """Key -> what it calls the second transformer, of those that name it."""
    return {key: found[1] for key in keys if (found := _SECOND.search(key))}


def of_second(keys: Iterable[str], names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """`named_second` of a file that has LoRAs for both transformers; otherwise empty."""
    keys = list(keys)
    second = named_second(keys)
    first = (split(key) for key in keys if key not in second)
    return second if any(wan_names(found[0], names) for found in first if found) else {}


def shorter_names(layer: str) -> Iterator[str]:
    """A layer's name as a file calls it, and without one after the other of what stands before it."""
    layer = layer.replace(".processor.", ".")
    while True:
        yield layer
        prefix = _PREFIX.match(layer)
        if prefix is None:
            return
        layer = layer[prefix.end() :]
