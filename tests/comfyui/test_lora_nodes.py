"""LoRAs on real models in ComfyUI: the node and the stock loaders, on plain and on packed weights."""

import json
import os

import pytest
import torch

from pack.dev.samples.tiny_models import TINY, random_weight, transformer_weights
from pack.formats.kinds import PACKED
from pack.model_loaders.architecture.params import expected_shapes
from pack.tests.support.golden import relative_error
from pack.tests.support.lora_nodes import folder, layer_outputs, load, put, stock, velocity
from pack.tests.support.loras import (
    ALPHA,
    RANK,
    changed_weights,
    linear_layers,
    lora_pairs,
    lora_products,
    named,
    named_products,
    write_lora,
)
from pack.tests.support.mapped import mapped_files

__all__ = ["folder", "layer_outputs", "load", "put", "stock", "velocity"]

pytestmark = pytest.mark.usefixtures("computes_in_float32")

Q, GONE = "blocks.0.self_attn.q", "blocks.0.cross_attn.k_img"
EXACT = 1e-5


def test_beside_the_layers_is_as_merged(load, put, velocity):
    pairs, other = lora_pairs(), lora_pairs(seed=1, rank=8)
    plain = velocity(load())
    for strength in (1.0, 0.35, -1.5):
        merged = velocity(load(changed_weights(pairs, strength * ALPHA / RANK)))
        out = velocity(put(load(), named(pairs, alpha=ALPHA), strength))
        assert relative_error(out, merged) < EXACT
        assert relative_error(out, plain) > 1e-3
    two = put(put(load(), named(pairs, alpha=ALPHA)), named(other, "kohya"), -0.5, "other.safetensors")
    changes = changed_weights(pairs, ALPHA / RANK)
    changes = {name: change + changed_weights(other, -0.5)[name] for name, change in changes.items()}
    assert relative_error(velocity(two), velocity(load(changes))) < EXACT
    assert relative_error(velocity(load()), plain) == 0, "the model itself stays as it was"


def test_differences_of_every_weight_are_as_merged(load, put, velocity):
    changes = {name: 0.2 * random_weight(f"{name}.d", shape) for name, shape in expected_shapes(TINY).items()}
    ends = {".weight": ".diff", ".bias": ".diff_b"}
    tensors = {}
    for name, change in changes.items():
        end = next((end for end in ends if name.endswith(end)), "")
        tensors[f"diffusion_model.{name.removesuffix(end)}{ends.get(end, '.diff')}"] = change
    assert relative_error(velocity(put(load(), tensors)), velocity(load(changes))) < EXACT
    half = put(put(load(), tensors, 0.75), None, -0.25)
    assert relative_error(velocity(half), velocity(put(load(), tensors, 0.5))) < EXACT


def test_pairs_on_the_patch_embedding(load, put, velocity):
    down, up = random_weight("down", (2, 16, 1, 2, 2)), random_weight("up", (128, 2, 1, 1, 1))
    name = "diffusion_model.patch_embedding"
    lora = put(load(), {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, 0.5)
    change = 0.5 * (up.flatten(1) @ down.flatten(1)).reshape(128, 16, 1, 2, 2)
    assert relative_error(velocity(lora), velocity(load({"patch_embedding.weight": change}))) < EXACT


@pytest.mark.parametrize("precision", [precision.value for precision in PACKED])
def test_packed_layers_get_the_whole_effect(load, put, velocity, layer_outputs, precision):
    pairs = lora_pairs()
    model = put(load(precision=precision), named(pairs, alpha=ALPHA))
    before = {name: part.clone() for name, part in model.model.diffusion_model.state_dict().items()}
    plain = velocity(load(precision=precision))
    assert relative_error(velocity(model), plain) > 1e-3
    assert relative_error(velocity(load(precision=precision)), plain) == 0
    assert all(torch.equal(part, before[name]) for name, part in model.model.diffusion_model.state_dict().items())

    alone, together = layer_outputs(model, loras=False), layer_outputs(model)
    for name, (down, up) in pairs.items():
        wanted = ALPHA / RANK * random_weight(f"{name}.x", (2, 3, down.shape[1])) @ down.T @ up.T
        assert relative_error(together[name] - alone[name], wanted) < 0.01


def test_another_strength_reads_and_reloads_nothing(pack_nodes, load, put, velocity):
    read_lora = pack_nodes.module("nodes.models.lora").read_lora
    model = put(load(), named(lora_pairs(seed=3)))
    velocity(model)
    reads, patches = read_lora.cache_info().misses, model.model.current_weight_patches_uuid
    places = {name: weight.data_ptr() for name, weight in model.model.diffusion_model.named_parameters()}
    out = velocity(put(load(), None, 0.5))
    assert read_lora.cache_info().misses == reads
    assert model.model.current_weight_patches_uuid == patches
    assert places == {name: weight.data_ptr() for name, weight in model.model.diffusion_model.named_parameters()}
    assert relative_error(out, velocity(model)) > 1e-4

    assert put(model, None, 0.0) is model
    velocity(put(load(), named(lora_pairs(seed=4)), 0.5))
    assert read_lora.cache_info().misses == reads + 1, "another file under the same name"


def test_its_memory_is_known_to_comfyui(load, put, velocity):
    import comfy.model_management as management

    tensors = named(lora_pairs())
    model = put(put(load(), tensors), None, 0.5)
    (patcher,) = model.get_nested_additional_models()
    assert patcher.model_size() == sum(tensor.nbytes for tensor in tensors.values())
    assert patcher.load_device == model.load_device
    velocity(model)
    assert any(patcher.is_clone(loaded) for loaded in management.loaded_models())
    management.unload_all_models()
    assert torch.isfinite(velocity(model.clone())).all()


def test_the_node_says_what_it_did(load, put, caplog):
    caplog.set_level("INFO")
    pairs = lora_pairs(layers=[Q])
    put(load(), named(pairs) | {f"diffusion_model.{GONE}.diff": torch.zeros(128, 128)}, 0.5, "FusionX.safetensors")
    assert "FusionX.safetensors: 1 layers, rank 4, strength 0.5" in caplog.text
    assert (
        f"1 of 2 layers of FusionX.safetensors fit nothing in this model and are left out (diffusion_model.{GONE})"
        in caplog.text
    )
    assert "picture burns" in caplog.text


def test_what_the_node_refuses(pack_nodes, comfyui, load, put):
    with pytest.raises(ValueError, match=r"There is no file gone.safetensors in models/loras"):
        put(load(), None, 1.0, "gone.safetensors")
    with pytest.raises(ValueError, match="a LoRA for another model"):
        put(load(), {"unet.down_blocks.0.to_q.lora_A.weight": torch.zeros(4, 4)})

    import comfy.model_patcher

    other = comfy.model_patcher.ModelPatcher(torch.nn.Linear(1, 1), torch.device("cpu"), torch.device("cpu"))
    with pytest.raises(ValueError, match="needs a SkyReels-V3 model"):
        put(other, None, 0.0)


def test_a_scale_and_biases_outside_the_pairs(pack_nodes, load, put, velocity, layer_outputs, folder):
    pairs, path = lora_pairs(), folder / "peft" / "adapter_model.safetensors"
    shapes = expected_shapes(TINY)
    biases = {name: random_weight(f"{name}.b", shapes[f"{name}.bias"]) for name in pairs if f"{name}.bias" in shapes}
    tensors = named(pairs, "nested") | {f"base_model.model.{name}.lora_B.bias": bias for name, bias in biases.items()}
    write_lora(path, tensors)
    config, name = path.with_name("adapter_config.json"), "peft/adapter_model.safetensors"
    stamps, node = pack_nodes.module("nodes.runs.identity").model_stamps, pack_nodes["SkyReelsLora"]
    seen = set()
    for alpha in (2.0, 6.0):
        config.write_text(json.dumps({"r": RANK, "lora_alpha": alpha, "use_rslora": True}))
        seen.add((*stamps([put(load(), None, 1.0, name)]), node.fingerprint_inputs(lora=name, strength=1.0)))
        scale = alpha / RANK**0.5
        changes = changed_weights(pairs, 0.5 * scale) | {f"{name}.bias": 0.5 * scale * biases[name] for name in biases}
        assert relative_error(velocity(put(load(), None, 0.5, name)), velocity(load(changes))) < EXACT
    assert len(seen) == 2, "another configuration is another job"
    model = put(load(precision="int8"), None, 0.5, name)
    velocity(model)
    alone, together = layer_outputs(model, loras=False), layer_outputs(model)
    for name, (down, up) in pairs.items():
        wanted = random_weight(f"{name}.x", (2, 3, down.shape[1])) @ down.T @ up.T + biases.get(name, 0)
        assert relative_error(together[name] - alone[name], 0.5 * scale * wanted) < 0.01


def test_a_changed_file_is_another_job(pack_nodes, load, put, folder):
    stamps = pack_nodes.module("nodes.runs.identity").model_stamps
    node = pack_nodes["SkyReelsLora"]
    model = put(load(), named(lora_pairs()))
    first, fingerprint = stamps([model]), node.fingerprint_inputs(lora="style.safetensors", strength=1.0)
    assert len(first) == len(stamps([load()])) + 1
    assert stamps([model.clone()]) == first
    model = put(load(), named(lora_pairs(rank=2)))
    assert stamps([model]) != first
    assert node.fingerprint_inputs(lora="style.safetensors", strength=1.0) != fingerprint


def test_its_file_may_be_written_to_while_it_is_on_a_model(load, put, velocity, folder):
    path = folder / "trained.safetensors"
    model = put(load(), named(lora_pairs()), name=path.name)
    wanted = velocity(model)
    assert str(path) not in mapped_files()
    os.truncate(path, 2000)
    assert torch.equal(velocity(model), wanted)
    write_lora(path, named(lora_pairs(seed=1)))
    assert torch.equal(velocity(model), wanted)


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody write to mapped files")
def test_a_file_that_comfyui_maps_ends_a_sampling_in_a_sentence(pack_nodes, load, put, velocity, folder, monkeypatch):
    import comfy.utils

    # What ComfyUI's dynamic VRAM reads by.
    reader = lambda path: comfy.utils.load_torch_file(str(path))  # noqa: E731
    monkeypatch.setattr(pack_nodes.module("nodes.versions"), "file_reader", lambda: reader)
    path = folder / "mapped.safetensors"
    model = put(load(), named(lora_pairs()), name=path.name)
    velocity(model)
    os.truncate(path, 2000)
    with pytest.raises(ValueError, match=r"mapped.safetensors has been written to .* queue again"):
        velocity(model)
    velocity(load())


def test_hooks_change_weights_in_files_for_a_while(pack_nodes, load, velocity):
    import comfy.hooks

    is_mapped = pack_nodes.module("model_loaders.tensors.file_tensors").is_mapped
    model, pairs = load(), lora_pairs()
    in_files = {name for name, weight in model.model.named_parameters() if is_mapped(weight)}
    assert len(in_files) > 40
    plain = velocity(model, 2, 1.0)
    merged = velocity(load(changed_weights(pairs, ALPHA / RANK)), 2, 1.0)
    for mode in comfy.hooks.EnumHookMode:
        hooked = model.clone()
        hooked.set_hook_mode(mode)
        hooks = comfy.hooks.create_hook_lora(named(pairs, alpha=ALPHA), 1.0, 1.0)
        assert relative_error(velocity(hooked, 2, 1.0, hooks), merged) < EXACT
        # In turns with a prompt without hooks, on and off in every step.
        assert relative_error(velocity(hooked, 2, 2.0, hooks), plain) > 1e-3
        assert {name for name, weight in model.model.named_parameters() if is_mapped(weight)} == in_files
    assert relative_error(velocity(model, 2, 1.0), plain) < EXACT
    for name, weight in transformer_weights(TINY).items():
        assert torch.equal(model.get_model_object(f"diffusion_model.{name}"), weight), name


def test_a_weight_that_moves_while_hooks_change_it_is_in_its_file_again(pack_nodes, load):
    import comfy.hooks

    is_mapped = pack_nodes.module("model_loaders.tensors.file_tensors").is_mapped
    model, layer = load().clone(), "diffusion_model.blocks.0.self_attn.q"
    hooks = comfy.hooks.create_hook_lora(named(lora_pairs(layers=[Q]), alpha=ALPHA), 1.0, 1.0)
    plain = model.get_model_object(f"{layer}.weight").clone()
    model.register_all_hook_patches(hooks, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model))
    model.patch_hooks(hooks)
    module = model.get_model_object(layer)
    assert not is_mapped(module.weight) and not torch.equal(module.weight, plain)
    module._apply(lambda weight: weight.to("meta"))
    model.unpatch_hooks()
    module._apply(lambda weight: torch.empty_like(weight, device="cpu") if weight.is_meta else weight)
    assert is_mapped(module.weight) and torch.equal(module.weight, plain)


def test_with_other_nodes_on_the_model(load, put, velocity):
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    for tensors in (named(lora_pairs()), named_products(lora_products("DoRA"), alpha=ALPHA)):
        model = put(load(), tensors)
        plain = velocity(model)
        compiled = model.clone()
        set_torch_compile_wrapper(model=compiled, backend="aot_eager")
        assert relative_error(velocity(compiled), plain) < 1e-4


def test_the_stock_loader_on_plain_weights(load, stock, velocity):
    pairs = lora_pairs()
    merged = velocity(load(changed_weights(pairs, 0.5 * ALPHA / RANK)))
    model = stock(load(), named(pairs, alpha=ALPHA), 0.5)
    assert len(model.patches) == len(pairs) and not model.get_nested_additional_models()
    assert relative_error(velocity(model), merged) < EXACT


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_stock_loader_says_where_it_changes_nothing(pack_nodes, load, stock, caplog, precision):
    from comfy_execution.utils import CurrentNodeContext

    running_node = pack_nodes.module("nodes.versions").running_node
    with CurrentNodeContext("a prompt", "7"):
        assert running_node() == "7"
    assert running_node() is None
    caplog.set_level("INFO")
    told = "A node changes nothing in the SkyReels-V3 model"
    pairs = lora_pairs(layers=[Q])
    for naming in ("diffusion-pipe", "musubi"):
        stock(load(precision=precision), named(pairs, naming))
    assert told not in caplog.text
    for naming in ("onetrainer", "lycoris, diffusers", "diffusers", "peft", "wan"):
        caplog.clear()
        stock(load(precision=precision), named(pairs, naming))
        assert told in caplog.text and "SkyReels-V3 LoRA reads the names of all trainers" in caplog.text, naming


@pytest.mark.parametrize("precision", [precision.value for precision in PACKED])
def test_the_stock_loader_on_packed_weights(load, put, stock, velocity, layer_outputs, precision):
    tensors = named(lora_pairs(), alpha=ALPHA) | {"diffusion_model.blocks.0.ffn.0.diff_b": torch.ones(256)}
    change = 0.1 * random_weight("o", (128, 128))
    tensors["diffusion_model.blocks.1.self_attn.o.diff"] = change
    for end in ("A", "B"):
        del tensors[f"diffusion_model.blocks.1.self_attn.o.lora_{end}.weight"]
    del tensors["diffusion_model.blocks.1.self_attn.o.alpha"]
    model = stock(load(precision=precision), tensors, 0.5)
    assert len(model.patches) > 0 and len(model.get_nested_additional_models()) == 1
    assert relative_error(velocity(model), velocity(load(precision=precision))) > 1e-3  # ComfyUI's patches are in now
    for again, strength in ((model, 0.5), (stock(model, tensors, 0.5), 1.0)):
        velocity(again)
        stock_outputs = layer_outputs(again)
        velocity(load(precision=precision))  # and out again
        for name, out in layer_outputs(put(load(precision=precision), tensors, strength)).items():
            assert relative_error(stock_outputs[name], out) < EXACT, name


def as_comfyui(parts, weight, alpha=ALPHA):
    """A weight as ComfyUI's own adapter for these parts of a layer changes it."""
    import comfy.lora
    import comfy.weight_adapter

    def changed(given, magnitude=None):
        tensors = {f"x.{part}": tensor for part, tensor in given.items()}
        found = (adapter.load("x", tensors, alpha, magnitude, set()) for adapter in comfy.weight_adapter.adapters)
        adapter = next(adapter for adapter in found if adapter is not None)
        return comfy.lora.calculate_weight([(1.0, adapter, 1.0, None, None)], weight.clone(), "x")

    if "dora_scale" not in parts:
        return changed(parts)
    # ComfyUI divides by the lengths of the old rows, but DoRAs are trained on those of the new ones (its PR 15458).
    lengths = [some.norm(dim=1, keepdim=True) for some in (weight, changed(parts))]
    return changed(parts, parts["dora_scale"] * lengths[0] / lengths[1])


@pytest.mark.parametrize("kind", ["LoKr", "LoHa", "DoRA"])
def test_other_kinds_are_as_comfyui_merges_them(pack_nodes, load, put, velocity, kind):
    weight_changes = pack_nodes.module("nodes.models.weight_changes").weight_changes
    products = lora_products(kind)
    other = {f"{name}.weight": 0.2 * random_weight(f"{name}.o", shape) for name, shape in linear_layers().items()}
    for model, own in ((load(), {}), (load(other), other)):  # two models share what is read of a file
        weights = {name: weight + own.get(name, 0) for name, weight in transformer_weights(TINY).items()}
        changes = {}
        for name, parts in products.items():
            weight = weights[f"{name}.weight"]
            changes[f"{name}.weight"] = -0.6 * (as_comfyui(parts, weight) - weight)
        merged = velocity(load({name: change + own.get(name, 0) for name, change in changes.items()}))
        assert relative_error(velocity(model), merged) > 1e-3
        for naming in ("musubi", "lycoris, diffusers", "peft"):
            lora = put(model, named_products(products, naming, ALPHA), -0.6)
            assert relative_error(velocity(lora), merged) < EXACT, naming
        for name, change in weight_changes(lora).items():
            saved = change(weights[name].clone()) - weights[name]
            assert relative_error(saved, changes[name]) < EXACT, name


BIASES = {"ffn.0": 256, "self_attn.q": 128}  # layers and their rows


def test_several_are_saved_as_they_run(pack_nodes, load, put, velocity):
    """A DoRA after another: what the node shows is in the file."""
    weight_changes = pack_nodes.module("nodes.models.weight_changes").weight_changes
    files = {kind: named_products(lora_products(kind), alpha=ALPHA) for kind in ("DoRA", "LoKr")}
    biases = {f"diffusion_model.blocks.0.{layer}.diff_b": torch.ones(rows) for layer, rows in BIASES.items()}
    files["LoRA"], weights = named(lora_pairs(seed=2), alpha=ALPHA) | biases, transformer_weights(TINY)
    for kinds in (("LoRA", "DoRA"), ("DoRA", "LoRA"), ("LoKr", "DoRA", "DoRA")):
        model = load()
        for number, kind in enumerate(kinds):
            model = put(model, files[kind], 1 - 0.4 * number, f"{number}.safetensors")
        saved = {name: change(weights[name].clone()) for name, change in weight_changes(model).items()}
        merged = load({name: weight - weights[name] for name, weight in saved.items()})
        assert relative_error(velocity(model), velocity(merged)) < EXACT, kinds


@pytest.mark.parametrize("precision", [precision.value for precision in PACKED])
@pytest.mark.parametrize("kind", ["LoKr", "LoHa", "DoRA"])
def test_other_kinds_beside_packed_layers(load, put, stock, layer_outputs, kind, precision):
    products = lora_products(kind)
    plain = load(precision=precision)
    models = [put(plain, named_products(products, "onetrainer", ALPHA), 0.5)]
    models.append(stock(plain, named_products(products, "diffusion-pipe", ALPHA), 0.5))
    layers = {name: plain.model.diffusion_model.get_submodule(name) for name in products}
    packed = {name: layer for name, layer in layers.items() if hasattr(layer, "format")}
    assert len(packed) > 10
    alone, together = layer_outputs(plain), [layer_outputs(model) for model in models]
    for name, layer in packed.items():
        x, weight = random_weight(f"{name}.x", (2, 3, layer.in_features)), layer.unpacked(torch.float32)
        wanted = 0.5 * x @ (as_comfyui(products[name], weight) - weight).T
        if kind == "DoRA":  # it turns what the layer makes, which multiplies 8 bits of x as it does without
            wanted += (
                0.5
                * (products[name]["dora_scale"][:, 0] / turned(products[name], weight) - 1)
                * (alone[name] - layer.bias - x @ weight.T)
            )
        for outputs in together:
            assert relative_error(outputs[name] - alone[name], wanted) < 1e-4, name


def turned(parts, weight):
    """The lengths of the rows of a weight to which a DoRA's product was added."""
    return as_comfyui({part: tensor for part, tensor in parts.items() if part != "dora_scale"}, weight).norm(dim=1)


def test_gains_of_a_dora_are_those_of_one_sampling(pack_nodes, load, put, stock, velocity):
    """Another node's patches change the weights between two samplings, and with them the lengths of their rows."""
    attached = pack_nodes.module("nodes.weights.lora_branches").attached
    tensors = named_products(lora_products("DoRA"), alpha=ALPHA)
    model = put(load(), tensors)
    first = velocity(model)
    velocity(put(stock(load(), named(lora_pairs(seed=7), alpha=ALPHA)), tensors))
    assert relative_error(velocity(model), first) == 0
    assert not any(one.gains for one in attached(model)) and not model.model.diffusion_model.loras


def test_what_packed_weights_cannot_take(comfyui, load, stock):
    import comfy.hooks

    model = load(precision="int8")
    name = f"diffusion_model.{Q}"
    cases = [
        ({f"{name}.lokr_w1": torch.ones(16, 16)}, "stored as int8: use"),
        ({f"{name}.lokr_w1": torch.ones(16, 16), f"{name}.lokr_w2": torch.ones(6, 6)}, "for a weight of 96 x 96"),
        (named(lora_pairs(layers=[Q])) | {f"{name}.dora_scale": torch.ones(1, 128)}, "stored as int8: use SkyReels"),
        ({f"{name}.oft_blocks": torch.ones(4, 32, 32)}, "stored as int8: use one that was trained as a LoRA"),
        ({f"{name}.set_weight": torch.ones(128, 128)}, "stored as int8: use"),
        ({f"{name}.diff": torch.ones(96, 96)}, "for a weight of 96 x 96 at blocks.0.self_attn.q"),
        ({f"{name}.lora_A.weight": torch.ones(4, 96), f"{name}.lora_B.weight": torch.ones(96, 4)}, "96 x 96"),
    ]  # fmt: skip
    for tensors, message in cases:
        with pytest.raises(ValueError, match=message):
            stock(model, tensors)
    for key in ((f"{name}.weight", (0, 0, 64)), f"{name}.weight"):
        with pytest.raises(ValueError, match="stored as int8"):
            model.clone().add_patches({key: ("diff", (torch.ones(128, 128),))}, 1.0, 0.5)
    with pytest.raises(ValueError, match="stored as int8"):
        model.clone().add_hook_patches(comfy.hooks.WeightHook(), {f"{name}.weight": ("diff", (torch.ones(1),))})
    assert not model.clone().add_patches({"diffusion_model.none.weight": ("diff", (torch.ones(1),))})


def test_the_patcher_is_one_class(pack_nodes, load):
    patcher_class = pack_nodes.module("nodes.network.patcher").patcher_class
    import comfy.model_patcher

    cpu = torch.device("cpu")
    assert patcher_class(True, cpu) is patcher_class(False, cpu) is patcher_class(False)
    assert issubclass(patcher_class(False), comfy.model_patcher.ModelPatcher)
    assert type(load().clone()) is type(load())
    assert patcher_class(True, cpu).__name__ == "ModelPatcher"
