"""How strong a LoRA is where no alpha stands beside its pairs: header and configuration are heeded, or told."""

import json
import math
import re

import pytest
import torch

from pack.dev.samples.tiny_models import TINY
from pack.model_loaders.loras.lora import open_lora
from pack.model_loaders.loras.scale import CONFIG, PEFT_FILE, config_beside
from pack.skyreels_v3.errors import InputError
from pack.tests.support.loras import (
    RANK,
    linear_layers,
    lora_pairs,
    lora_products,
    named,
    named_products,
    write_lora,
)

Q, K = "blocks.0.self_attn.q", "blocks.1.cross_attn.k"
PAIRS = lora_pairs(layers=[Q, K])
PEFT = {"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "alpha_pattern": {}, "rank_pattern": {}, "use_rslora": False}


def opened(folder, naming="diffusers", metadata=None, config=None, name="style.safetensors", pairs=PAIRS, more=None):
    path = write_lora(folder / name, named(pairs, naming) | (more or {}), metadata)
    if config is not None:
        path.with_name(CONFIG).write_text(config if isinstance(config, str) else json.dumps(config), encoding="utf-8")
    return open_lora(path, TINY)


def scales(lora):
    return lora.layers[Q].scale, lora.layers[K].scale


def adapter(prefix="transformer.", **fields):
    return {"lora_adapter_metadata": json.dumps({prefix + key: value for key, value in (PEFT | fields).items()})}


GIVEN = {
    # case: (fields besides PEFT's, scales of q and k)
    "one alpha": ({}, (4.0, 4.0)),
    "rsLoRA": ({"use_rslora": True}, (8.0, 8.0)),
    "as strong as its rank": ({"lora_alpha": RANK}, (1.0, 1.0)),
    "an alpha by the end of a name": ({"alpha_pattern": {"attn2.to_k": 2}}, (4.0, 0.5)),
    "by the whole name": ({"alpha_pattern": {"^blocks.0.attn1.to_q": 2, "to_q": 8}}, (0.5, 4.0)),
    "the first that fits": ({"alpha_pattern": {r"blocks\.\d+\.attn1\..*": 2, "to_q": 8}}, (0.5, 4.0)),
    "no part of a name": ({"alpha_pattern": {"o_q": 2, "blocks.1": 2, "^to_k": 2}}, (4.0, 4.0)),
    "ranks by name": ({"r": 64, "rank_pattern": {"to_q": RANK, "to_k": RANK}}, (4.0, 4.0)),
    "both by name": ({"rank_pattern": {"to_q": RANK}, "alpha_pattern": {"to_q": 6}, "use_rslora": True}, (3.0, 8.0)),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_configuration_in_the_header_and_beside_the_file(tmp_path, case):
    fields, expected = GIVEN[case]
    for number, prefix in enumerate(("transformer.", "diffusion_model.", "")):
        lora = opened(tmp_path / str(number), metadata=adapter(prefix, **fields))
        assert scales(lora) == expected
        told = ["style.safetensors is scaled as lora_adapter_metadata in the header says."]
        assert lora.notes() == told * (expected != (1.0, 1.0))
    lora = opened(tmp_path / "beside", config=PEFT | fields)
    assert scales(lora) == expected
    assert [CONFIG in note for note in lora.notes()] == [True] * (expected != (1.0, 1.0))


def test_the_nearest_that_fits_is_heeded(tmp_path):
    header = adapter(lora_alpha=8) | {"lora_alpha": "4"}
    own = named(PAIRS, "diffusers", 2.0)
    assert scales(opened(tmp_path / "own", metadata=header, config=PEFT, more=own)) == (0.5, 0.5)
    assert scales(opened(tmp_path / "header", metadata=header, config=PEFT)) == (2.0, 2.0)
    assert scales(opened(tmp_path / "plain", metadata={"lora_alpha": "12", "lora_rank": "4"}, config=PEFT)) == (
        3.0,
        3.0,
    )
    lora = opened(tmp_path / "foreign", metadata=adapter(r=8), config=PEFT)
    assert scales(lora) == (4.0, 4.0) and lora.notes() == [f"style.safetensors is scaled as {CONFIG} says."]
    for header in (
        {"lora_config": json.dumps(PEFT)},
        {"network_alpha": "16", "network_dim": "4"},
        {"alpha": "16", "rank": "4"},
    ):
        assert scales(opened(tmp_path / "lone", metadata=header)) == (4.0, 4.0)
    assert scales(opened(tmp_path / "bare", metadata={"alpha": "16"})) == (1.0, 1.0)  # of what, it does not say
    header = adapter(lora_alpha=8)
    half = {key: tensor for key, tensor in own.items() if "blocks.0" in key}
    assert scales(opened(tmp_path / "half", metadata=header, more=half)) == (0.5, 2.0)
    text = {"lora_adapter_metadata": json.dumps({"text_encoder.r": RANK, "text_encoder.lora_alpha": 99})}
    lora = opened(tmp_path / "text", metadata=text)
    assert scales(lora) == (1.0, 1.0) and not lora.notes()


def test_kohyas_header(tmp_path):
    header = {"ss_network_dim": str(RANK), "ss_network_alpha": "1.0"}
    assert scales(opened(tmp_path, "musubi", header)) == (0.25, 0.25)
    assert scales(opened(tmp_path, "diffusion-pipe", header)) == (1.0, 1.0), "converted: its weights hold the scale"
    lora = opened(tmp_path, "musubi", header | {"ss_network_dim": "32"})
    assert scales(lora) == (1.0, 1.0) and "pairs of other ranks (lora_unet_blocks_0_self_attn_q" in lora.notes()[0]
    lora = opened(tmp_path, "musubi", {"ss_network_dim": "None", "ss_network_alpha": "Dynamic"})
    assert (
        scales(lora) == (1.0, 1.0) and "ss_network_alpha in the header of style.safetensors cannot" in lora.notes()[0]
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PEFT | {"r": 8}, r"pairs of other ranks \(transformer.blocks.0.attn1.to_q.lora_A.weight has rank 4\)"),
        (PEFT | {"rank_pattern": {"to_k": 2}}, r"pairs of other ranks \(transformer.blocks.1.attn2.to_k"),
        (PEFT | {"lora_alpha": "16"}, "cannot be read .* is no number"),
        (PEFT | {"lora_alpha": True}, "cannot be read"),
        (PEFT | {"lora_alpha": 10**400}, "cannot be read"),
        (PEFT | {"lora_alpha": math.nan}, "cannot be read"),
        (PEFT | {"alpha_pattern": ["to_q"]}, "cannot be read .* is no table"),
        (PEFT | {"alpha_pattern": {"(to_q": 1}}, "cannot be read .* is no name of layers"),
        (PEFT | {"alpha_pattern": {"(a|a|aa)+b": 1}}, "cannot be read .* is no name of layers"),
        (PEFT | {"alpha_pattern": {".*.*.*.*b": 1}}, "cannot be read .* is no name of layers"),
        ("[1]", "cannot be read .* is no table"),
        ("[" * 100_000, "cannot be read"),
        ("{", "cannot be read"),
        ("<html>", "cannot be read"),
    ],
)
def test_what_cannot_be_heeded_is_told(tmp_path, config, words):
    lora = opened(tmp_path / "beside", config=config)
    assert scales(lora) == (1.0, 1.0)
    (note,) = lora.notes()
    assert re.search(words, note) and note.startswith(f"{CONFIG} of style") and "scale 1" in note
    header = {"lora_adapter_metadata": config if isinstance(config, str) else json.dumps(config)}
    lora = opened(tmp_path / "header", metadata=header)
    assert scales(lora) == (1.0, 1.0) and lora.notes()[0].startswith("lora_adapter_metadata in the header of style")


@pytest.mark.parametrize("kind", ["LoKr", "LoHa"])
def test_peft_scales_other_kinds_too(tmp_path, kind):
    products = lora_products(kind, layers=[layer for layer in linear_layers() if layer.startswith("blocks.0.")])
    if kind == "LoHa":  # pairs of another rank make it a file of none
        products = {name: parts for name, parts in products.items() if RANK in parts["hada_w1_b"].shape}
    config = {"peft_type": kind.upper(), "r": RANK, "alpha": 16, "alpha_pattern": {"self_attn.q": 2}}
    tensors = named_products(products, "peft")
    lora = opened(tmp_path / "beside", pairs={}, more=tensors, config=config)
    # PEFT divides by the rank it was asked for, also where a factor is so small that it is whole
    assert {name: layer.scale for name, layer in lora.layers.items()} == {
        name: 0.5 if name == Q else 4.0 for name in products
    }
    assert lora.notes() == [f"style.safetensors is scaled as {CONFIG} says."]
    lora = opened(tmp_path / "lone", pairs={}, more=tensors)
    assert {layer.scale for layer in lora.layers.values()} == {1.0} and CONFIG in lora.notes()[0]
    lora = opened(tmp_path / "other", pairs={}, more=tensors, config=config | {"r": 2})
    assert {layer.scale for layer in lora.layers.values()} == {1.0} and "pairs of other ranks" in lora.notes()[0]
    lora = opened(tmp_path / "own", pairs={}, more=named_products(products, "peft", 2.0), config=config)
    assert {layer.scale for layer in lora.layers.values()} <= {0.5, 1.0} and not lora.notes()


def test_a_pair_that_was_taken_out_of_the_weights(tmp_path):
    for start in ("pissa", "pissa_niter_16", "olora", "loftq", "corda"):
        (note,) = opened(tmp_path, config=PEFT | {"lora_alpha": RANK, "init_lora_weights": start}).notes()
        assert start in note and "another LoRA" in note
    for start in (True, "gaussian", "eva", None):
        assert not opened(tmp_path, config=PEFT | {"lora_alpha": RANK, "init_lora_weights": start}).notes()


def test_whose_configuration_it_is(tmp_path):
    lora = opened(tmp_path, "nested", config=PEFT, name=PEFT_FILE)
    assert scales(lora) == (4.0, 4.0)
    alone = tmp_path / "alone"
    assert scales(opened(alone, "nested", config="\ufeff" + json.dumps(PEFT), name="relight.SafeTensors")) == (4.0, 4.0)
    # a second file there: whose it is nobody knows
    (alone / ".hidden.safetensors").write_bytes(b"")
    assert config_beside(alone / "relight.SafeTensors") == alone / CONFIG
    lora = opened(alone, "nested", name="b.safetensors")
    assert scales(lora) == (1.0, 1.0)
    assert lora.notes() == [
        f"b.safetensors was saved by PEFT, which writes the scale into {CONFIG}: without that file its pairs run at "
        "scale 1, so put both into a folder of their own."
    ]
    assert opened(alone, "diffusers", name="b.safetensors").notes() == []
    assert scales(opened(tmp_path, "nested", name="c.safetensors")) == (1.0, 1.0)
    assert scales(opened(tmp_path, "nested", name=PEFT_FILE)) == (4.0, 4.0)


def test_a_link_into_a_hubs_cache(tmp_path):
    blob, snapshot, loras = tmp_path / "blobs" / "0a1b", tmp_path / "snapshots" / "1", tmp_path / "loras"
    write_lora(blob, named(PAIRS))
    for folder in (snapshot, loras):
        folder.mkdir(parents=True)
    try:
        (snapshot / PEFT_FILE).symlink_to("../../blobs/0a1b")
        (loras / "relight.safetensors").symlink_to(snapshot / PEFT_FILE)
    except OSError:
        pytest.skip("This system makes no links.")
    (loras / "another.safetensors").write_bytes(b"")
    assert config_beside(loras / "relight.safetensors") is None
    (snapshot / CONFIG).write_text(json.dumps(PEFT))
    for path in (snapshot / PEFT_FILE, loras / "relight.safetensors"):
        assert scales(open_lora(path, TINY)) == (4.0, 4.0)


@pytest.mark.parametrize("end", [".lora_B.bias", ".lora_B.default.bias", ".lora_up.bias"])
def test_a_bias_of_the_upper_half(tmp_path, end):
    bias = torch.arange(128.0)
    tensors = {
        "diffusion_model.patch_embedding.lora_A.weight": torch.ones(RANK, 16, 1, 2, 2),
        "diffusion_model.patch_embedding.lora_B.weight": torch.ones(128, RANK, 1, 1, 1),
        f"diffusion_model.patch_embedding{end}": bias,
        f"diffusion_model.{Q}{end}": bias.to(torch.float8_e4m3fn),
        f"diffusion_model.{K}.diff_b": bias.clone(),
    }
    lora = opened(tmp_path, "diffusion-pipe", config=PEFT, more=tensors)
    assert not lora.left_out and lora.count == 3
    state, deltas = lora.read()
    assert torch.equal(state["blocks/0/self_attn/q.bias.weight"][:, 0], 4 * bias.to(torch.float8_e4m3fn).float())
    assert torch.equal(state["blocks/1/cross_attn/k.bias.weight"][:, 0], bias), "a difference is as it is"
    assert torch.equal(deltas["patch_embedding.bias"], 4 * bias)
    assert torch.equal(deltas["patch_embedding.weight"], torch.full((128, 16, 1, 2, 2), 4.0 * RANK))


def test_a_bias_without_its_pair_or_twice(tmp_path):
    name = f"diffusion_model.{Q}"
    with pytest.raises(InputError, match="two halves, down and up"):
        opened(tmp_path, pairs={}, more={f"{name}.lora_B.bias": torch.ones(128)})
    with pytest.raises(InputError, match=f"has {Q} twice"):
        more = {f"{name}.lora_B.bias": torch.ones(128), f"{name}.diff_b": torch.ones(128)}
        opened(tmp_path, "diffusion-pipe", more=more)
