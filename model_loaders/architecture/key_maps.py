"""Names of weights: every dialect is a table that leads to the Wan names of the official checkpoints.

Sources: the official V2V and A2V checkpoints' module tree (SkyworkAI/SkyReels-V3 at 28c771e, Wan names) and the
diffusers layout of WanTransformer3DModel, in which R2V is published.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# The first that a file has is taken; after these any other that stands before all its names, as trainers have them.
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "transformer.", "module.", "")
# What wrappers around a layer, or around the whole network, add to names.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
BLOCK = re.compile(r"^blocks\.(\d+)(?=\.)")


@dataclass(frozen=True)
class KeyMap:
    """One dialect.

    signature: a key that only this dialect has.  renames: (its name, Wan name) of modules or parameters, with
    `blocks.*` for every block; what follows the name (`.weight`, `.bias`, a scale) is kept.
    """

    name: str
    signature: str
    renames: tuple[tuple[str, str], ...] = ()

    def inverted(self) -> "KeyMap":
        """The way back, from Wan names to this dialect."""
        return KeyMap(f"wan to {self.name}", WAN.signature, tuple((new, old) for old, new in self.renames))

    def rename(self, keys: Iterable[str]) -> dict[str, str]:
        """Key of this dialect -> Wan name. Keys that no rule covers keep their name."""
        rules = dict(self.renames)
        return {key: _rename(key, rules) for key in keys}


def _rename(key: str, rules: dict[str, str]) -> str:
    block = BLOCK.match(key)
    parts = BLOCK.sub("blocks.*", key).split(".")
    for length in range(len(parts), 0, -1):
        new = rules.get(".".join(parts[:length]))
        if new is not None:
            name = ".".join([new, *parts[length:]])
            return name.replace("blocks.*", block.group(0), 1) if block else name
    return key


WAN = KeyMap("wan", signature="text_embedding.0.weight")

DIFFUSERS = KeyMap(
    "diffusers",
    signature="condition_embedder.text_embedder.linear_1.weight",
    renames=(
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.image_embedder.norm1", "img_emb.proj.0"),
        ("condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"),
        ("condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"),
        ("condition_embedder.image_embedder.norm2", "img_emb.proj.4"),
        ("blocks.*.scale_shift_table", "blocks.*.modulation"),
        ("blocks.*.attn1.to_q", "blocks.*.self_attn.q"),
        ("blocks.*.attn1.to_k", "blocks.*.self_attn.k"),
        ("blocks.*.attn1.to_v", "blocks.*.self_attn.v"),
        ("blocks.*.attn1.to_out.0", "blocks.*.self_attn.o"),
        ("blocks.*.attn1.norm_q", "blocks.*.self_attn.norm_q"),
        ("blocks.*.attn1.norm_k", "blocks.*.self_attn.norm_k"),
        # diffusers counts the norms in order of use, Wan in order of definition; both mean the affine one
        ("blocks.*.norm2", "blocks.*.norm3"),
        ("blocks.*.attn2.to_q", "blocks.*.cross_attn.q"),
        ("blocks.*.attn2.to_k", "blocks.*.cross_attn.k"),
        ("blocks.*.attn2.to_v", "blocks.*.cross_attn.v"),
        ("blocks.*.attn2.to_out.0", "blocks.*.cross_attn.o"),
        ("blocks.*.attn2.norm_q", "blocks.*.cross_attn.norm_q"),
        ("blocks.*.attn2.norm_k", "blocks.*.cross_attn.norm_k"),
        ("blocks.*.attn2.add_k_proj", "blocks.*.cross_attn.k_img"),
        ("blocks.*.attn2.add_v_proj", "blocks.*.cross_attn.v_img"),
        ("blocks.*.attn2.norm_added_k", "blocks.*.cross_attn.norm_k_img"),
        ("blocks.*.ffn.net.0.proj", "blocks.*.ffn.0"),
        ("blocks.*.ffn.net.2", "blocks.*.ffn.2"),
        ("scale_shift_table", "head.modulation"),
        ("proj_out", "head.head"),
    ),
)

KEY_MAPS = (WAN, DIFFUSERS)


def unwrapped(key: str) -> str:
    """A name without what torch.compile, FSDP and activation checkpointing add to it."""
    for wrapper in WRAPPERS:
        key = key.replace(wrapper, "")
    return key


def find_dialect(keys: Iterable[str]) -> tuple[KeyMap, str] | None:
    """The dialect of a checkpoint and the prefix before all its unwrapped names; None for any other network."""
    found = {
        key.removesuffix(dialect.signature): dialect
        for key in map(unwrapped, keys)
        for dialect in KEY_MAPS
        if key.endswith(dialect.signature)
    }
    prefixes = [prefix for prefix in found if not prefix or prefix.endswith(".")]
    known = dict.fromkeys((*PREFIXES, *sorted(prefixes, key=len)))
    return next(((found[prefix], prefix) for prefix in known if prefix in prefixes), None)
