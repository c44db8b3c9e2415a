"""LoRA files: every trainer's names lead to the same layers, and what is wrong with a file is told in one sentence."""

import math
import re

import pytest
import torch
from safetensors.torch import save_file

from pack.dev.samples.tiny_models import TINY, TINY_AVATAR, write_transformer
from pack.model_loaders.architecture.key_maps import KEY_MAPS
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.loras.lora import open_lora
from pack.model_loaders.loras.names import layer_names
from pack.model_loaders.loras.products import product_of
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.model.lora import product
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.support.loras import (
    ALPHA,
    NAMINGS,
    RANK,
    linear_layers,
    lora_pairs,
    lora_products,
    named,
    named_products,
    write_lora,
)

Q = "blocks.0.self_attn.q"
PAIRS = lora_pairs(layers=[Q, "blocks.1.cross_attn.o", "blocks.1.ffn.2"])


def opened(tmp_path, tensors, params=TINY, name="style.safetensors", metadata=None):
    return open_lora(write_lora(tmp_path / name, tensors, metadata), params)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("params", [TINY, TINY_AVATAR], ids=["14B", "avatar"])
def test_every_naming_leads_to_the_same_layers(tmp_path, naming, params):
    # diffusers has no names for the audio layers
    names = [name for name in linear_layers(params) if "audio" not in name]
    pairs = lora_pairs(params, layers=names)
    lora = opened(tmp_path, named(pairs, naming, ALPHA), params)
    assert not lora.left_out and not lora.deltas and lora.count == len(names)
    assert {(layer.rank, layer.scale) for layer in lora.layers.values()} == {(RANK, ALPHA / RANK)}
    state, _ = lora.read()
    for name, (down, up) in pairs.items():
        key = name.replace(".", "/")
        assert torch.equal(state[f"{key}.down.weight"], down)
        assert torch.equal(state[f"{key}.up.weight"], up)
    assert lora.summary() == f"style.safetensors: {len(names)} layers, rank {RANK}"
    assert bool(lora.notes()) is bool(lora.only_second) is (naming in ("second of two", "low noise"))


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("kind", ["LoKr", "LoHa"])
def test_every_naming_of_other_kinds_leads_to_the_same_layers(tmp_path, kind, naming):
    products = lora_products(kind)
    lora = opened(tmp_path, named_products(products, naming, ALPHA))
    assert not lora.left_out and not lora.deltas and lora.layers.keys() == products.keys()
    assert lora.summary().startswith(f"style.safetensors: {len(products)} layers, {kind}")
    state, _ = lora.read()
    for name, parts in products.items():
        key = name.replace(".", "/")
        if kind == "LoHa":
            rank = len(parts["hada_w1_b"])
            assert (lora.layers[name].rank, lora.layers[name].scale) == (rank, ALPHA / rank)
            assert torch.equal(state[f"{key}.other_up.weight"], parts["hada_w2_a"])
        else:
            small = parts["lokr_w1"] if "lokr_w1" in parts else parts["lokr_w1_a"] @ parts["lokr_w1_b"]
            assert torch.equal(state[f"{key}.mix.weight"], small)
            is_whole = {"lokr_w1", "lokr_w2"} <= parts.keys()
            assert lora.layers[name].scale == (1 if is_whole else ALPHA / RANK), "alpha is for halves alone"


@pytest.mark.parametrize(
    ("end", "shape"),
    [
        ("dora_scale", (128, 1)),
        ("lora_magnitude_vector", (128,)),
        ("lora_magnitude_vector.weight", (128,)),
        ("lora_magnitude_vector.default.weight", (128,)),
    ],
)
def test_magnitudes_of_doras(tmp_path, end, shape):
    magnitude = torch.arange(128.0).reshape(shape)
    lora = opened(tmp_path, SMALL | {f"diffusion_model.{Q}.{end}": magnitude})
    assert lora.layers[Q].magnitude and lora.layers[Q].rank == RANK
    assert lora.summary() == f"style.safetensors: 1 layers, DoRA, rank {RANK}"
    state, _ = lora.read()
    assert torch.equal(state[f"{Q.replace('.', '/')}.magnitude.weight"], magnitude.reshape(128, 1))


def test_a_dora_of_a_convolution_is_left_out(tmp_path):
    name = "diffusion_model.patch_embedding"
    tensors = {
        f"{name}.lora_down.weight": torch.ones(2, 16, 1, 2, 2),
        f"{name}.lora_up.weight": torch.ones(128, 2, 1, 1, 1),
    }
    lora = opened(tmp_path, SMALL | tensors | {f"{name}.dora_scale": torch.ones(128, 1, 1, 1, 1)})
    assert lora.left_out == ["patch_embedding"] and list(lora.layers) == [Q] and not lora.deltas


def test_a_lokr_on_a_convolution(tmp_path):
    small, large = torch.randn(4, 2), torch.randn(32, 8, 1, 2, 2)
    name = "diffusion_model.patch_embedding"
    _, deltas = opened(tmp_path, {f"{name}.lokr_w1": small, f"{name}.lokr_w2": large}).read()
    wanted = torch.kron(small[:, :, None, None, None], large)
    assert torch.equal(deltas["patch_embedding.weight"], wanted)


def test_no_name_means_two_layers():
    for params in (TINY, TINY_AVATAR, TransformerParams()):
        weights = expected_shapes(params)
        layers = {name.removesuffix(".weight").removesuffix(".bias") for name in weights}
        means: dict[str, set] = {}
        for dialect in KEY_MAPS:
            for wan, name in dialect.inverted().rename(layers).items():
                for form in (name, name.replace(".", "_")):
                    means.setdefault(form, set()).add(wan)
        assert not {name: wans for name, wans in means.items() if len(wans) > 1}
        names = layer_names(weights)
        assert {wans[0] for wans in names.values() if len(wans) == 1} == layers
        assert {wan for wans in names.values() for wan in wans} == layers


@pytest.mark.parametrize("naming", ["musubi", "kohya", "lycoris", "onetrainer"])
@pytest.mark.parametrize("flat", [1, 2, 3])
def test_dots_and_underscores_in_one_name(tmp_path, naming, flat):
    # lora_unet_blocks_0.self_attn.q, and lora_unet.blocks.0_self_attn_q
    prefix, dialect, *_ = NAMINGS[naming]
    dotted = named(PAIRS, "wan" if dialect == "wan" else "diffusers, older", ALPHA)
    tensors = {}
    for key, tensor in dotted.items():
        layer, part = (split := re.match(r"(.+?)([._]lora.*|\.alpha)$", key))[1], split[2]
        *before, after = layer.split(".", flat)
        tensors[prefix + "_".join([*before, after]) + part] = tensor
        tensors[prefix + ".".join([*before, after.replace(".", "_")]) + part] = tensor
    halves = [dict(list(tensors.items())[first::2]) for first in (0, 1)]
    for half in halves:
        lora = opened(tmp_path, half)
        assert set(lora.layers) == set(PAIRS) and not lora.left_out


FUSED = {
    "attn1.to_qkv": ("self_attn.q", "self_attn.k", "self_attn.v"),
    "self_attn.qkv": ("self_attn.q", "self_attn.k", "self_attn.v"),
    "attn2.to_kv": ("cross_attn.k", "cross_attn.v"),
    "attn2.to_added_kv": ("cross_attn.k_img", "cross_attn.v_img"),
}


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize(("prefix", "dot"), [("transformer.", "."), ("lora_unet_", "_")])
def test_fused_layers(tmp_path, fused, prefix, dot):
    parts = [f"blocks.1.{part}" for part in FUSED[fused]]
    name = prefix + f"blocks.1.{fused}".replace(".", dot)
    up, bias, down = torch.randn(len(parts) * 128, RANK), torch.arange(len(parts) * 128.0), torch.randn(RANK, 128)
    tensors = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.lora_B.bias": bias}
    tensors |= {f"{name}.alpha": torch.tensor(ALPHA)} | named(lora_pairs(layers=["blocks.0.ffn.0"]))
    lora = opened(tmp_path, tensors, TINY_AVATAR)
    assert set(lora.layers) == {*parts, "blocks.0.ffn.0"} and not lora.left_out
    assert {lora.layers[part].scale for part in parts} == {ALPHA / RANK}
    state, _ = lora.read()
    for number, part in enumerate(parts):
        rows, key = slice(128 * number, 128 * number + 128), part.replace(".", "/")
        assert torch.equal(state[f"{key}.down.weight"], down)
        assert torch.equal(state[f"{key}.up.weight"], up[rows])
        assert torch.equal(state[f"{key}.bias.weight"][:, 0], bias[rows] * ALPHA / RANK)
    whole = {f"{name}.diff": torch.randn(len(parts) * 128, 128), f"{name}.diff_b": bias}
    state, _ = opened(tmp_path, whole, TINY_AVATAR).read()
    key = parts[-1].replace(".", "/")
    assert torch.equal(state[f"{key}.up.weight"], whole[f"{name}.diff"][-128:])
    assert torch.equal(state[f"{key}.bias.weight"][:, 0], bias[-128:])
    with pytest.raises(InputError, match=r"is for a weight of (100|50) x 128"):
        opened(tmp_path, {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up[:100]}, TINY_AVATAR)
    own = named(lora_pairs(TINY_AVATAR, layers=[parts[0]]))
    for twice in (own, {f"diffusion_model.{parts[0]}.diff_b": torch.ones(128)}):
        with pytest.raises(InputError, match=f"has {parts[0]} twice"):
            opened(tmp_path, tensors | twice, TINY_AVATAR)


@pytest.mark.parametrize(
    "shapes",
    [
        {"hada_w1_a": (384, 4), "hada_w1_b": (4, 128), "hada_w2_a": (384, 8), "hada_w2_b": (8, 128)},
        {"lokr_w1": (6, 8), "lokr_w2": (64, 16)},
        {"lokr_w1_a": (12, 2), "lokr_w1_b": (2, 4), "lokr_w2_a": (32, 4), "lokr_w2_b": (4, 32)},
    ],
)
def test_fused_layers_of_other_kinds(tmp_path, shapes):
    tensors = {part: torch.randn(shape) for part, shape in shapes.items()}
    whole = product(**product_of(shapes).tensors(tensors.__getitem__))
    tensors["dora_scale"] = torch.randn(384, 1)
    lora = opened(tmp_path, {f"blocks.1.self_attn.qkv.{part}": tensor for part, tensor in tensors.items()})
    state, _ = lora.read()
    for number, part in enumerate("qkv"):
        start, rows = f"blocks/1/self_attn/{part}.", slice(128 * number, 128 * number + 128)
        own = {key.removeprefix(start)[:-7]: tensor for key, tensor in state.items() if key.startswith(start)}
        assert torch.equal(own.pop("magnitude"), tensors["dora_scale"][rows])
        torch.testing.assert_close(product(**own), whole[rows])


def test_fused_layers_that_groups_do_not_part(tmp_path):
    tensors = {"blocks.1.self_attn.qkv.lokr_w1": torch.ones(4, 4), "blocks.1.self_attn.qkv.lokr_w2": torch.ones(96, 32)}
    with pytest.raises(InputError, match="is for a weight of 384 x 128"):
        opened(tmp_path, tensors)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("transformer.", "transformer_2."),
        ("", "transformer_2."),
        ("transformer_1.", "transformer_2."),
        ("diffusion_model.", "diffusion_model_2."),
        ("base_model.model.transformer.", "base_model.model.transformer_2."),
        ("high_noise_model.", "low_noise_model."),
        ("high_noise.", "low_noise."),
        ("generator.model.high_noise.", "generator.model.low_noise."),
        ("pipe.dit.", "pipe.dit2."),
        ("lora_transformer_", "lora_transformer_2_"),
    ],
)
def test_of_two_transformers_the_first_is_used(tmp_path, first, second):
    one, other = named(PAIRS, "wan"), named(lora_pairs(seed=1, layers=[Q]), "wan")
    tensors = {first + key: tensor for key, tensor in one.items()}
    tensors = {second + key: tensor for key, tensor in other.items()} | tensors
    lora = opened(tmp_path, tensors)
    assert set(lora.layers) == set(PAIRS) and lora.summary() == f"style.safetensors: {len(PAIRS)} layers, rank {RANK}"
    assert torch.equal(lora.read()[0]["blocks/0/self_attn/q.down.weight"], PAIRS[Q][0])
    called = re.sub(r"^(base_model\.model|pipe|lora|generator\.model)[._]", "", second).strip("._")
    assert lora.notes()[:1] == [
        "style.safetensors has LoRAs for the two transformers of Wan 2.2: that for high noise is used, that for low "
        f"noise ({called}, 1 layers) is left out."
    ]
    # the second alone, beside what is no transformer's
    alone = {second + key: tensor for key, tensor in other.items()} | {"text_encoder.x.lora_A.weight": torch.ones(1, 1)}
    lora = opened(tmp_path, alone)
    assert list(lora.layers) == [Q] and lora.left_out == ["text_encoder.x"] and not lora.second
    assert f"is for the transformer of Wan 2.2 for low noise ({called}), which" in lora.notes()[1]


def test_without_an_alpha_the_scale_is_one(tmp_path):
    assert opened(tmp_path, named(lora_pairs(layers=[Q]))).layers[Q].scale == 1.0


def test_differences_of_every_kind_of_weight(tmp_path):
    shapes = expected_shapes(TINY)
    change = {
        f"{Q}.diff": torch.ones(shapes[f"{Q}.weight"]),
        f"{Q}.diff_b": torch.ones(128),
        "blocks.1.norm3.diff": torch.ones(128),
        "blocks.1.norm3.diff_b": torch.ones(128),
        "blocks.1.cross_attn.norm_q.w_norm": torch.ones(128),
        "blocks.0.diff_m": torch.ones(1, 6, 128),
        "blocks.1.modulation.diff_m": torch.ones(6, 128),
        "head.modulation.diff": torch.ones(1, 2, 128),
        "patch_embedding.diff_b": torch.ones(128),
        "patch_embedding.lora_down.weight": torch.ones(2, 16, 1, 2, 2),
        "patch_embedding.lora_up.weight": torch.ones(128, 2, 1, 1, 1),
        "patch_embedding.alpha": torch.tensor(1.0),
    }
    lora = opened(tmp_path, {f"diffusion_model.{key}": tensor for key, tensor in change.items()})
    assert not lora.left_out
    assert lora.layers[Q].rank == 0 and lora.layers[Q].bias
    state, deltas = lora.read()
    assert {key: tuple(tensor.shape) for key, tensor in state.items()} == {
        "blocks/0/self_attn/q.up.weight": (128, 128),
        "blocks/0/self_attn/q.bias.weight": (128, 1),
    }
    assert {name: tuple(delta.shape) for name, delta in deltas.items()} == {
        name: shapes[name]
        for name in (
            "blocks.1.norm3.weight",
            "blocks.1.norm3.bias",
            "blocks.1.cross_attn.norm_q.weight",
            "blocks.0.modulation",
            "blocks.1.modulation",
            "head.modulation",
            "patch_embedding.bias",
            "patch_embedding.weight",
        )
    }
    assert torch.equal(deltas["patch_embedding.weight"], torch.ones(128, 16, 1, 2, 2)), "two ranks, each by 1 / 2"


def test_layers_of_another_variant_are_left_out_and_named(tmp_path):
    pairs = lora_pairs(TINY_AVATAR, layers=[Q, "blocks.0.cross_attn.k_img", "blocks.1.cross_attn.v_img"])
    tensors = named(pairs) | {
        "diffusion_model.patch_embedding.diff": torch.zeros(128, 36, 1, 2, 2),
        "diffusion_model.head.head.set_weight": torch.zeros(64, 128),
    }
    lora = opened(tmp_path, tensors)
    assert list(lora.layers) == [Q]
    sentences = lora.notes()
    assert sentences[0] == (
        "3 of 5 layers of style.safetensors fit nothing in this model and are left out "
        "(diffusion_model.blocks.0.cross_attn.k_img, diffusion_model.blocks.1.cross_attn.v_img, patch_embedding)."
    )
    assert "replaces 1 weights" in sentences[1] and "head.head" in sentences[1]


@pytest.mark.parametrize(
    ("name", "title", "expected"),
    [
        ("lightx2v_T2V_14B_cfg_step_distill_v2_lora_rank64_bf16", "", True),
        ("Wan21_CausVid_14B_T2V_lora_rank32", "", True),
        ("Wan21_AccVid_T2V_14B_lora_rank32", "", True),
        ("Wan2.1_T2V_14B_FusionX_LoRA", "", True),
        ("Wan2.2-T2V-A14B-4steps-lora", "", True),
        ("wan_rcm_14b", "", True),
        ("Wan14B_self-forcing", "", True),
        ("mine", "Lightning 14B", True),
        ("my_character_v2_12000_steps", "", False),
        ("alarcmotion", "Film grain", False),
        ("harcmdance", "", False),
    ],
)
def test_loras_that_save_steps_are_warned_of(tmp_path, name, title, expected):
    lora = opened(tmp_path, named(lora_pairs(layers=[Q])), TINY, f"{name}.safetensors", {"modelspec.title": title})
    assert [("picture burns" in sentence) for sentence in lora.notes()] == [True] * expected


def half(tensors, end):
    return {key: tensor for key, tensor in tensors.items() if not key.endswith(end)}


SMALL = named(lora_pairs(layers=[Q]))
A, B = SMALL
WRONG = {
    "a rank that differs": ({A: torch.zeros(8, 128), B: torch.zeros(128, 4)}, "halves of .* 8 x 128 and 128 x 4"),
    "another width": (
        {A: torch.zeros(4, 96), B: torch.zeros(96, 4)},
        "blocks.0.self_attn.q is for a weight of 96 x 96, but this model's has 128 x 128: choose a LoRA for Wan 2.1",
    ),
    "a difference of another width": ({A.replace("lora_A.weight", "diff"): torch.zeros(96, 96)}, "96 x 96"),
    "a bias of another width": ({A.replace("lora_A.weight", "diff_b"): torch.zeros(96)}, "a bias of 96"),
    "a vector as a half": ({A: torch.zeros(4), B: torch.zeros(128, 4)}, "do not fit together"),
    "no ranks": ({A: torch.zeros(0, 128), B: torch.zeros(128, 0)}, "do not fit together"),
    "half a pair": ({A: torch.zeros(4, 128)}, "two halves, down and up"),
    "an alpha alone": ({A.replace("lora_A.weight", "alpha"): torch.tensor(1.0)}, "two halves, down and up"),
    "an alpha that is none": (
        SMALL | {A.replace("lora_A.weight", "alpha"): torch.tensor(math.nan)},
        "alpha of .* no",
    ),
    "an endless alpha": (SMALL | {A.replace("lora_A.weight", "alpha"): torch.tensor(math.inf)}, "alpha of .* no"),
    "many alphas": (SMALL | {A.replace("lora_A.weight", "alpha"): torch.ones(3)}, "alpha of .* no number"),
    "whole numbers": ({A: torch.zeros(4, 128).char(), B: torch.zeros(128, 4).char()}, "stored as I8"),
    "two LoRAs": (SMALL | named(lora_pairs(layers=[Q]), "kohya"), f"has {Q} twice"),
    "another model": (
        {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 8)},
        "a LoRA for another model: none of its 1 layers",
    ),
    "a text encoder's": ({"lora_te_text_model_encoder_layers_0.lora_up.weight": torch.zeros(4, 4)}, "a text encoder"),
    "half a LoHa": ({f"diffusion_model.{Q}.hada_w1_a": torch.zeros(4, 4)}, "but a LoHa has two pairs of halves"),
    "half a LoKr": ({f"lycoris_{Q.replace('.', '_')}.lokr_w1": torch.zeros(4, 4)}, "but a LoKr has two factors"),
    "a LoKr of two ranks": (
        {f"{Q}.lokr_w1": torch.zeros(4, 4), f"{Q}.lokr_w2_a": torch.zeros(32, 4), f"{Q}.lokr_w2_b": torch.zeros(8, 32)},
        "of 32 x 4.* of 8 x 32.*, but two halves have one rank",
    ),
    "an empty LoKr": ({f"{Q}.lokr_w1": torch.zeros(4, 0), f"{Q}.lokr_w2": torch.zeros(32, 32)}, "is empty"),
    "a LoKr of another width": (
        {f"{Q}.lokr_w1": torch.zeros(4, 4), f"{Q}.lokr_w2": torch.zeros(24, 24)},
        "is for a weight of 96 x 96, but this model's has 128 x 128",
    ),
    "a LoHa for two weights": (
        {f"{Q}.hada_w1_a": torch.zeros(128, 4), f"{Q}.hada_w1_b": torch.zeros(4, 128)}
        | {f"{Q}.hada_w2_a": torch.zeros(96, 4), f"{Q}.hada_w2_b": torch.zeros(4, 128)},
        "both pairs of a LoHa are for one weight",
    ),
    "a LoKr and a LoRA": (
        SMALL
        | {f"diffusion_model.{Q}.lokr_w1": torch.zeros(4, 4), f"diffusion_model.{Q}.lokr_w2": torch.zeros(32, 32)},
        "but a layer has one change",
    ),
    "a LoKr's alpha that is none": (
        {f"{Q}.lokr_w1_a": torch.zeros(4, 2), f"{Q}.lokr_w1_b": torch.zeros(2, 4), f"{Q}.lokr_w2": torch.zeros(32, 32)}
        | {f"{Q}.alpha": torch.tensor(math.nan)},
        "alpha of .* no number",
    ),
    "a DoRA of columns": (
        SMALL | {f"diffusion_model.{Q}.dora_scale": torch.zeros(1, 128)},
        "a magnitude for each column of blocks.0.self_attn.q, which cannot run beside a layer: use one with",
    ),
    "a DoRA of another width": (
        SMALL | {f"diffusion_model.{Q}.dora_scale": torch.zeros(96, 1)},
        "are 96 x 1, but .* 128",
    ),
    "a magnitude alone": ({f"diffusion_model.{Q}.dora_scale": torch.zeros(128, 1)}, "two halves, down and up"),
    "an OFT": ({f"lora_unet_{Q.replace('.', '_')}.oft_blocks": torch.zeros(4, 32, 32)}, r"\(OFT\): use one that was"),
    "OneTrainer's OFT": ({f"lora_transformer_{Q.replace('.', '_')}.oft_R.weight": torch.zeros(4, 6)}, r"\(OFT\)"),
    "an AdaLoRA": (SMALL | {f"base_model.model.{Q}.lora_E": torch.zeros(4, 1)}, r"\(AdaLoRA\): use one that was"),
    "a GLoRA": (
        {f"lycoris_{Q.replace('.', '_')}.{end}.weight": torch.zeros(4, 4) for end in ("a1", "a2")},
        r"\(GLoRA\)",
    ),
    "a Tucker LoHa": ({f"{Q}.hada_t1": torch.zeros(4, 4, 1, 1)}, r"\(Tucker LoRA\)"),
    "something else": ({"embedding": torch.zeros(4)}, "tensors are called embedding.* no LoRA"),
    "nothing": ({}, "it is empty"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path, case):
    tensors, message = WRONG[case]
    with pytest.raises(InputError, match=message) as error:
        opened(tmp_path, tensors)
    assert "style.safetensors" in str(error.value)
    assert str(error.value).count(". ") == 0 and str(error.value).endswith(".")
    assert "any more" not in str(error.value), "what is wrong, not that it changed"


def test_a_checkpoint_is_no_lora(tmp_path):
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    with pytest.raises(InputError, match="a whole model: load it with SkyReels-V3 Load Model"):
        open_lora(path, TINY)


def test_files_that_are_damaged_or_of_another_format(tmp_path):
    path = tmp_path / "style.safetensors"
    for content, message in ((b"", "empty"), (b"<html>", "web page"), (b"PK\x03\x04" + b"0" * 600, "pickle")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_lora(path, TINY)
    save_file(SMALL, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="incomplete"):
        open_lora(path, TINY)
    with pytest.raises(InputError, match="There is no file"):
        open_lora(tmp_path / "gone.safetensors", TINY)


def test_a_file_that_changed_after_it_was_opened(tmp_path):
    lora = opened(tmp_path, SMALL)
    lora.path.write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read any more"):
        lora.read()
