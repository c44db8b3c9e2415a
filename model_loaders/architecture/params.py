"""The sizes of a transformer, read from the shapes of its weights, and the shapes that follow from the sizes.

Names are the Wan names of the official checkpoints (SkyworkAI/SkyReels-V3 at 28c771e).
"""

import json
from collections.abc import Mapping
from math import prod

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.model.params import HEAD_DIM, AudioParams, TransformerParams
from ...skyreels_v3.recipes import FRAMES_PER_LATENT
from ..files.tensor_info import short
from .key_maps import BLOCK

Shape = tuple[int, ...]
HEADS = ("num_heads", "num_attention_heads")  # in config.json of Wan and of diffusers


def params_from_shapes(shapes: Mapping[str, Shape], config: Mapping | None = None) -> TransformerParams:
    """Sizes of the transformer with these weights.

    shapes: Wan name -> shape.  config: what is known beside the weights (config.json or the file's metadata); only the
    number of heads is taken from it, which no shape tells. Without it a head is 128 wide, as in every published
    checkpoint. Raises InputError where a weight is missing that a size is read from, or the sizes cannot be.
    """
    dim, in_dim, *patch = _shape(shapes, "patch_embedding.weight", 5)
    out_rows, _ = _shape(shapes, "head.head.weight", 2)
    if not dim or not prod(patch) or out_rows % prod(patch):
        raise InputError(
            f"head.head.weight has {out_rows} rows, which is no multiple of the patch of {prod(patch)}: "
            "use an official SkyReels-V3 file."
        )
    audio = _audio_params(shapes, config or {}) if "audio_proj.proj1.weight" in shapes else None
    return TransformerParams(
        dim=dim,
        ffn_dim=_shape(shapes, "blocks.0.ffn.0.weight", 2)[0],
        num_heads=_num_heads(dim, config or {}),
        # counted, not the largest number, which a damaged file may put anywhere
        num_layers=len({match.group(1) for match in map(BLOCK.match, shapes) if match}),
        in_dim=in_dim,
        out_dim=out_rows // prod(patch),
        text_dim=_shape(shapes, "text_embedding.0.weight", 2)[1],
        freq_dim=_shape(shapes, "time_embedding.0.weight", 2)[1],
        patch_size=(patch[0], patch[1], patch[2]),
        image_dim=_shape(shapes, "img_emb.proj.0.weight", 1)[0] if audio or "img_emb.proj.0.weight" in shapes else None,
        audio=audio,
    )


def _audio_params(shapes: Mapping[str, Shape], config: Mapping) -> AudioParams:
    hidden, first = _shape(shapes, "audio_proj.proj1.weight", 2)
    _, later = _shape(shapes, "audio_proj.proj1_vf.weight", 2)
    (dim,) = _shape(shapes, "audio_proj.norm.weight", 1)
    rows, _ = _shape(shapes, "audio_proj.proj3.weight", 2)
    layers = AudioParams.layers
    # Both read windows of layers x width features: the first latent frame one window, later ones as many frames more as
    # a latent frame has, less one.
    frame, rest = divmod(later - first, FRAMES_PER_LATENT - 1)
    if rest or frame <= 0 or first % frame or frame % layers or not dim or rows % dim:
        raise InputError(
            f"The audio layers read {first} and {later} features and give {rows} values for tokens of "
            f"{dim}, which "
            "fits no SkyReels-V3 avatar: use the official A2V file."
        )
    return AudioParams(first // frame, layers, frame // layers, hidden, tokens=rows // dim, dim=dim)


def _shape(shapes: Mapping[str, Shape], key: str, dimensions: int) -> Shape:
    shape = shapes.get(key)
    if shape is None:
        raise InputError(f"The file lacks {key}, so it is incomplete or no SkyReels-V3 model: download it again.")
    if len(shape) != dimensions:
        raise InputError(
            f"{key} has the shape {short(list(shape))}, but {dimensions} dimensions are needed: use an official file."
        )
    return tuple(shape)


def _num_heads(dim: int, config: Mapping) -> int:
    given = next((config[key] for key in HEADS if key in config), None)
    if given is None:
        heads, rest = divmod(dim, HEAD_DIM)
        if rest or not heads:
            raise InputError(
                f"The model is {dim} wide, which is no multiple of {HEAD_DIM}, the width of a head: put its "
                "config.json beside it, which tells num_heads."
            )
        return heads
    try:
        heads = int(given)
    except (TypeError, ValueError, OverflowError):
        heads = 0
    if heads < 1 or dim % heads or dim // heads % 2:
        raise InputError(
            f"config.json tells {short(given)} heads, but the model's width of {dim} does not part into so many of "
            "even width: use the config.json that belongs to the file."
        )
    return heads


def heads_in_metadata(metadata: Mapping[str, str]) -> dict:
    """The number of heads in a file's own metadata, as a config for `params_from_shapes`; empty where it has none."""
    try:
        config = json.loads(metadata.get("config", "{}"))
    except (ValueError, RecursionError):
        config = {}
    known = {**(config if isinstance(config, dict) else {}), **metadata}
    return {key: known[key] for key in HEADS if key in known}


def expected_shapes(params: TransformerParams) -> dict[str, Shape]:
    """Every weight of the transformer: Wan name -> shape."""
    p, dim = params, params.dim
    shapes: dict[str, Shape] = {
        "patch_embedding.weight": (dim, p.in_dim, *p.patch_size),
        "patch_embedding.bias": (dim,),
    }

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"] = (rows, columns)
        shapes[f"{name}.bias"] = (rows,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    linear("text_embedding.0", dim, p.text_dim)
    linear("text_embedding.2", dim, dim)
    linear("time_embedding.0", dim, p.freq_dim)
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", 6 * dim, dim)
    for block in (f"blocks.{index}" for index in range(p.num_layers)):
        shapes[f"{block}.modulation"] = (1, 6, dim)
        for attention in (f"{block}.self_attn", f"{block}.cross_attn"):
            for name in "qkvo":
                linear(f"{attention}.{name}", dim, dim)
            shapes[f"{attention}.norm_q.weight"] = shapes[f"{attention}.norm_k.weight"] = (dim,)
        norm(f"{block}.norm3", dim)
        linear(f"{block}.ffn.0", p.ffn_dim, dim)
        linear(f"{block}.ffn.2", dim, p.ffn_dim)
        if p.image_dim:
            linear(f"{block}.cross_attn.k_img", dim, dim)
            linear(f"{block}.cross_attn.v_img", dim, dim)
            shapes[f"{block}.cross_attn.norm_k_img.weight"] = (dim,)
        if p.audio:
            norm(f"{block}.norm_x", dim)
            linear(f"{block}.audio_cross_attn.q_linear", dim, dim)
            linear(f"{block}.audio_cross_attn.kv_linear", 2 * dim, p.audio.dim)
            linear(f"{block}.audio_cross_attn.proj", dim, dim)
    shapes["head.modulation"] = (1, 2, dim)
    linear("head.head", prod(p.patch_size) * p.out_dim, dim)
    if p.image_dim:
        norm("img_emb.proj.0", p.image_dim)
        linear("img_emb.proj.1", p.image_dim, p.image_dim)
        linear("img_emb.proj.3", dim, p.image_dim)
        norm("img_emb.proj.4", dim)
    if p.audio:
        a, frame = p.audio, p.audio.layers * p.audio.width
        linear("audio_proj.proj1", a.hidden, a.window * frame)
        linear("audio_proj.proj1_vf", a.hidden, (a.window + FRAMES_PER_LATENT - 1) * frame)
        linear("audio_proj.proj2", a.hidden, a.hidden)
        linear("audio_proj.proj3", a.tokens * a.dim, a.hidden)
        norm("audio_proj.norm", a.dim)
    return shapes
