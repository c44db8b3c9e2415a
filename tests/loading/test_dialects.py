"""Every kind of file that artists hold opens, is called what it is, and gives the numbers it stands for."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pack.dev.samples.tiny_models import TINY, transformer_weights
from pack.formats.kinds import KINDS, Precision, Products
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.tensors.stored import METADATA
from pack.model_loaders.weights import load_weights
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects

SHARD = "diffusion_pytorch_model-{:05}-of-{:05}.safetensors"
NAMES = {
    "bf16": "bf16",
    "fp16": "fp16",
    "fp8 plain": "fp8",
    "fp8 plain e5m2": "fp8",
    "fp8 old": "fp8 scaled",
    "fp8 mixed": "fp8 scaled",
    "int8 rotated": "int8",
    "nvfp4 awq": "nvfp4",
    "fp8 rows": "fp8 scaled",
    "fp8 blocks, inverse": "fp8 blocks",
    **{kind.word: kind.word for kind in KINDS.values() if kind.word in dialects.DIALECTS},
    "F16": "fp16",
}


def opened(tmp_path, dialect, job=Job.REFERENCE, **options):
    means = dialects.write(dialect, tmp_path / "r2v", job, **options)
    (path,) = tmp_path.glob("r2v.*")
    return open_checkpoint(path, job), means


@pytest.mark.parametrize("dialect", dialects.DIALECTS)
def test_numbers(tmp_path, dialect):
    """Unpacked to float32, a file gives what it stands for; kept packed, what is unpacked for a call is the same."""
    checkpoint, means = opened(tmp_path, dialect)
    assert NAMES.get(dialect, checkpoint.precision) in checkpoint.precision
    high = load_weights(checkpoint, Precision.BF16, torch.float32).tensors
    assert high.keys() == means.keys()
    for name, weight in high.items():
        torch.testing.assert_close(weight, means[name], rtol=2e-6, atol=1e-7, msg=name)
    kept = load_weights(checkpoint, Precision.AUTO, torch.float32)
    for layer, format in kept.formats.items():
        name = f"{layer}.weight"
        parts = {
            key.removeprefix(f"{layer}."): part for key, part in kept.tensors.items() if key.startswith(f"{layer}.")
        }
        weight = format.unpack(parts, *means[name].shape, torch.float32)
        torch.testing.assert_close(weight, means[name], rtol=2e-6, atol=1e-7, msg=name)
    assert bool(kept.formats) == checkpoint.is_packed == (dialect.lower() not in ("bf16", "fp16", "f16", "fp64"))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model."])
@pytest.mark.parametrize("dialect", dialects.DIALECTS)
def test_prefixes(tmp_path, dialect, prefix):
    checkpoint, means = opened(tmp_path, dialect, Job.AVATAR, prefix=prefix)
    assert checkpoint.job is Job.AVATAR
    high = load_weights(checkpoint, Precision.BF16, torch.float32).tensors
    assert all(torch.allclose(high[name], means[name], rtol=2e-6, atol=1e-7) for name in means)


@pytest.mark.parametrize("dialect", dialects.SAFETENSORS)
def test_diffusers_names(tmp_path, dialect):
    checkpoint, means = opened(tmp_path, dialect, names="diffusers")
    assert checkpoint.dialect == "diffusers"
    high = load_weights(checkpoint, Precision.BF16, torch.float32).tensors
    assert all(torch.allclose(high[name], means[name], rtol=2e-6, atol=1e-7) for name in means)


# What the file says of its layers.


def changed(tmp_path, dialect, change, name="changed", names="wan", **options):
    """What `change` makes of a file's tensors and of the table of its layers, opened, and what it stands for."""
    means = dialects.write(dialect, tmp_path / "r2v", Job.REFERENCE, names=names, **options)
    tensors = load_file(tmp_path / "r2v.safetensors")
    layers = {}
    for key in [key for key in tensors if key.endswith(".comfy_quant")]:
        layers[key.removesuffix(".comfy_quant")] = json.loads(bytes(tensors.pop(key).tolist()))
    tensors, layers = change(tensors, layers)
    path = tmp_path / f"{name}.safetensors"
    save_file(tensors, path, {METADATA: json.dumps({"layers": layers})} if layers is not None else None)
    return path, means


def check_numbers(path, means, tolerance=2e-6):
    high = load_weights(open_checkpoint(path, Job.REFERENCE), Precision.BF16, torch.float32).tensors
    for name in means:
        torch.testing.assert_close(high[name], means[name], rtol=tolerance, atol=tolerance / 20, msg=name)


SPELLINGS = {
    "as ComfyUI's": lambda layer: f"model.diffusion_model.{layer}",
    "a prefix that nobody knows": lambda layer: f"pipe.stage_2.dit.{layer}",
    "the weight's own name": lambda layer: f"{layer}.weight",
    "torch.compile": lambda layer: layer.replace("blocks.0.", "blocks.0._orig_mod."),
    "without the tensors' prefix": lambda layer: layer.removeprefix("diffusion_model."),
}


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_a_table_that_spells_layers_otherwise(tmp_path, spell, prefix):
    """Without it int8 would lose its rotation: an error of half of the numbers."""
    check_numbers(
        *changed(tmp_path, "int8 rotated", lambda t, ls: (t, {spell(k): v for k, v in ls.items()}), prefix=prefix)
    )


def test_a_table_in_other_names_than_the_tensors(tmp_path):
    """Those of Wan, where a tool has renamed the tensors and kept the header."""
    path, means = changed(tmp_path, "int8 rotated", lambda tensors, layers: (tensors, layers))
    table = json.loads(open_checkpoint(path, Job.REFERENCE).metadata[METADATA])["layers"]
    path, _ = changed(tmp_path, "int8 rotated", lambda tensors, _: (tensors, table), names="diffusers")
    check_numbers(path, means)


@pytest.mark.parametrize("dialect", ["int8 rotated", "fp8 mixed"])
def test_a_table_that_fits_no_layer_is_refused(tmp_path, dialect):
    def change(tensors, layers):
        return tensors, {layer.replace("blocks", "layers"): config for layer, config in layers.items()}

    with pytest.raises(InputError, match=r"describes \d+ quantised layers that the file does not have.*use the bf16"):
        open_checkpoint(changed(tmp_path, dialect, change)[0])


def test_a_table_of_more_than_the_file_has_is_harmless(tmp_path):
    more = {"blocks.99.ffn.0": {"format": "int8_tensorwise"}, "vae.decoder.conv_in": {"format": "float8_e4m3fn"}}
    check_numbers(*changed(tmp_path, "int8 rotated", lambda tensors, layers: (tensors, layers | more)))


SHARED = {
    "of its own layers": lambda layers, own, number: {name: config for name, config in layers.items() if name in own},
    "of the other's layers": lambda layers, own, number: {k: v for k, v in layers.items() if k not in own},
    "of all": lambda layers, own, number: layers,
    "of all in the first": lambda layers, own, number: layers if number == 1 else None,
    "of all in the last": lambda layers, own, number: layers if number == 3 else None,
}


def tabled(tmp_path, dialect):
    """A file's tensors, the table of its layers, and what they stand for."""
    kept = {}
    path, means = changed(tmp_path, dialect, lambda tensors, layers: kept.update(layers) or (tensors, layers))
    return load_file(path), kept, means


@pytest.mark.parametrize("dialect", ["int8 rotated", "fp8 mixed"])
@pytest.mark.parametrize("share", SHARED.values(), ids=SHARED)
def test_tables_of_shards_are_one(tmp_path, dialect, share):
    """Each shard has one, as tools that write shard by shard leave it, or one of them has that of the whole file."""
    (tensors, kept, means), folder = tabled(tmp_path, dialect), tmp_path / "R2V"
    folder.mkdir()
    names = sorted(tensors)
    for number in (1, 2, 3):
        own = {name: tensors[name] for name in names[number - 1 :: 3]}  # scales lie in other shards than their weights
        layers = share(kept, {name.rpartition(".")[0] for name in own if name.endswith(".weight")}, number)
        table = None if layers is None else {METADATA: json.dumps({"layers": layers})}
        save_file(own, folder / SHARD.format(number, 3), table)
    check_numbers(folder, means)


@pytest.mark.parametrize("rotated", [1, 2])
def test_shards_of_two_quantisations_with_tables_of_all(tmp_path, rotated):
    """As one is loaded again from elsewhere: each table holds for what lies beside it."""
    folder, elsewhere = tmp_path / "R2V", {"vae.decoder.conv_in": {"format": "float8_e4m3fn"}}
    folder.mkdir()
    means = {}
    for number in (1, 2):
        tensors, kept, all_means = tabled(tmp_path, "int8 rotated" if number == rotated else "int8")
        own = [name for name in all_means if name.startswith("blocks.0.") == (number == 1)]
        layers = {name.removesuffix(".weight") for name in own}
        mine = {key: tensor for key, tensor in tensors.items() if key in own or key.rpartition(".")[0] in layers}
        save_file(mine, folder / SHARD.format(number, 2), {METADATA: json.dumps({"layers": kept | elsewhere})})
        means |= {name: all_means[name] for name in own}
    check_numbers(folder, means)


def test_a_layer_that_no_table_of_the_shards_has(tmp_path):
    (tensors, kept, _), folder = tabled(tmp_path, "int8 rotated"), tmp_path / "R2V"
    folder.mkdir()
    for number, block in ((1, "blocks.0."), (2, "")):
        own = {name: tensors.pop(name) for name in sorted(tensors) if name.startswith(block)}
        layers = {name: config for name, config in kept.items() if number == 1 and name.startswith(block)}
        save_file(own, folder / SHARD.format(number, 2), {METADATA: json.dumps({"layers": layers})})
    with pytest.raises(InputError, match=r"In R2V, nothing tells whether the columns of .* are rotated"):
        open_checkpoint(folder, Job.REFERENCE)


def test_int8_that_nothing_describes(tmp_path):
    """Without a rotation it opens, as LightX2V's; where something speaks of one, it is refused."""
    check_numbers(*changed(tmp_path, "int8", lambda tensors, _: (tensors, None)))

    def forgotten(tensors, layers):
        return tensors, {layer: config for layer, config in layers.items() if not layer.startswith("blocks.1.")}

    for change, name in ((forgotten, "some"), (lambda tensors, _: (tensors, None), "int8_ConvRot")):
        path, _ = changed(tmp_path, "int8 rotated", change, name)
        with pytest.raises(InputError, match=r"nothing tells whether the columns of .* are rotated.*use the bf16"):
            open_checkpoint(path)


def test_codes_that_were_cast_after_they_were_rotated(tmp_path):
    def cast(tensors, layers):
        return {key: tensor.bfloat16() for key, tensor in tensors.items()}, layers

    with pytest.raises(InputError, match="holds the codes of int8_tensorwise as BF16"):
        open_checkpoint(changed(tmp_path, "int8 rotated", cast)[0])


@pytest.mark.parametrize("where", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("shape", [(), (1,), (256, 1), (256,)], ids=str)
def test_plain_numbers_with_a_scale(tmp_path, where, shape):
    """ComfyUI multiplies by it: converters write 1 beside layers that they leave alone, casts leave the real ones."""
    weights = {name: weight.bfloat16() for name, weight in transformer_weights(TINY).items()}
    means = {name: weight.float() for name, weight in weights.items()}
    layer = "blocks.0.ffn.0"
    scale = torch.rand(shape) + 0.5
    rest = {f"blocks.0.self_attn.q.{where}": torch.ones(()), "scaled_fp8": torch.zeros(2)}
    save_file({**weights, f"{layer}.{where}": scale, **rest}, tmp_path / "r2v.safetensors")
    means[f"{layer}.weight"] = means[f"{layer}.weight"] * scale.reshape(-1, 1)
    check_numbers(tmp_path / "r2v.safetensors", means)
    kept = load_weights(open_checkpoint(tmp_path / "r2v.safetensors"))
    assert not kept.formats and kept.tensors[f"{layer}.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("dialect", ["fp8 old", "int8"])
def test_a_quantised_file_that_was_cast_as_a_whole(tmp_path, dialect):
    """The codes are plain numbers then; the scales stayed."""
    check_numbers(
        *changed(tmp_path, dialect, lambda t, _: ({key: tensor.float() for key, tensor in t.items()}, None)),
        tolerance=2e-6,
    )


# What a file says about its own arithmetic.

WISH = "full_precision_matrix_mult"
BLOCK_0 = {f"blocks.0.self_attn.{name}" for name in "qkvo"}


def wished(tmp_path, dialect, said=True, where="header"):
    """A file of a dialect in which the configuration of BLOCK_0 has the wish."""

    def wish(tensors, layers):
        for layer in BLOCK_0:
            layers[layer][WISH] = said
        prefix = "diffusion_model." if where == "prefixed header" else ""
        if where != "tensors":
            return tensors, {prefix + layer: config for layer, config in layers.items()}
        return dialects.with_formats(tensors, layers, where)[0], None

    return changed(tmp_path, dialect, wish)[0]


@pytest.mark.parametrize("where", ["tensors", "header", "prefixed header"])
@pytest.mark.parametrize("dialect", ["int8 rotated", "int8", "fp8 mixed"])
def test_a_layer_that_wishes_for_exact_products_has_them(tmp_path, dialect, where):
    wishing = open_checkpoint(wished(tmp_path, dialect, where=where))
    said = {name for name, weight in wishing.weights.items() if weight.encoding and weight.encoding.exact}
    assert said == {f"{layer}.weight" for layer in BLOCK_0}
    kept = load_weights(wishing)
    # By themselves inputs of int8 are rounded and those of fp8 are not.
    assert kept.exact == (BLOCK_0 if "int8" in dialect else set(kept.formats))
    assert load_weights(wishing, products=Products.EIGHT_BITS).exact == set()
    assert load_weights(wishing, products=Products.EXACT).exact == set(kept.formats)
    # Weights that are packed anew are not those that the file speaks of.
    anew = Precision.FP8 if "int8" in dialect else Precision.INT8
    assert load_weights(wishing, anew).exact.isdisjoint(BLOCK_0) == (anew is Precision.INT8)


@pytest.mark.parametrize("said", [False, None])
def test_a_layer_that_wishes_for_no_exact_products(tmp_path, said):
    assert load_weights(open_checkpoint(wished(tmp_path, "int8", said))).exact == set()


@pytest.mark.parametrize(("numbers", "prefix"), [(2, ""), (2, "model.diffusion_model."), (1, ""), (0, "")])
def test_the_marker_of_older_files_wishes_by_its_size(tmp_path, numbers, prefix):
    def mark(tensors, _):
        tensors["scaled_fp8"] = torch.zeros(numbers).to(torch.float8_e4m3fn)
        return {prefix + key: tensor for key, tensor in tensors.items()}, None

    checkpoint = open_checkpoint(changed(tmp_path, "fp8 old", mark)[0])
    encodings = [weight.encoding for weight in checkpoint.weights.values() if weight.encoding]
    assert encodings and {encoding.exact for encoding in encodings} == {numbers == 2}


# Names around the transformer, and what is no weight.


@pytest.mark.parametrize(
    "spell",
    [
        "_orig_mod.{}",
        "generator_ema.model.{}",
        "pipe.dit.{}",
        "module._orig_mod.{}",
        "blocks.{}",
        "_fsdp_wrapped_module.{}",
    ],
)
def test_names_of_trainers(tmp_path, spell):
    def wrapped(key):
        if spell == "blocks.{}":  # around each block
            start, dot, rest = key.partition(".0.")
            return f"{start}.0._checkpoint_wrapped_module._orig_mod.{rest}" if dot and start == "blocks" else key
        return spell.format(key)

    path, means = changed(
        tmp_path, "int8 rotated", lambda t, ls: ({wrapped(k): v for k, v in t.items()}, {wrapped(k): ls[k] for k in ls})
    )
    check_numbers(path, means)


@pytest.mark.parametrize("prefix", ["", "diffusion_model."])
def test_what_is_no_weight_is_left_out(tmp_path, prefix):
    others = {
        "model_type.SkyReels-V3-V2V-14B": torch.ones(1),
        f"{prefix}freqs": torch.ones(1024, 64),
        f"{prefix}rope.freqs_cos": torch.ones(1024, 64).double(),
        f"{prefix}blocks.0.self_attn.q._extra_state": torch.ones(8).byte(),
        f"{prefix}blocks.0.cross_attn.memory": torch.empty(0),
        "global_step": torch.tensor(5000),
        "steps_done": torch.tensor([5000], dtype=torch.int32),
        "optimizer.epoch": torch.tensor(3.0),
        "model_ema.decay": torch.tensor(0.999),
    }
    path, means = changed(tmp_path, "bf16", lambda tensors, _: (tensors | others, None), prefix=prefix)
    checkpoint = open_checkpoint(path, Job.REFERENCE)
    assert set(checkpoint.left_out) == set(others)
    check_numbers(path, means)


@pytest.mark.parametrize("key", ["blocks.0.cross_attn.gate.weight", "control_blocks.0.weight", "freqs_embedder.weight"])
def test_what_changes_the_network_is_still_refused(tmp_path, key):
    path, _ = changed(tmp_path, "bf16", lambda tensors, _: ({**tensors, key: torch.ones(2, 2)}, None))
    with pytest.raises(InputError, match=key):
        open_checkpoint(path)
