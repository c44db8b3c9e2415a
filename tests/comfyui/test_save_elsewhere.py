"""What ComfyUI's own nodes for saving and merging, and adapters of other nodes, make of packed weights and LoRAs."""

from types import SimpleNamespace

import pytest
import torch

from pack.tests.support.golden import relative_error
from pack.tests.support.lora_nodes import folder, load, put, velocity
from pack.tests.support.loras import lora_pairs, named

__all__ = ["folder", "load", "put", "velocity"]

PACKED = ("int8", "nf4", "fp8")


@pytest.fixture(scope="module")
def merging(comfyui):
    import comfy_extras.nodes_lora_extract as extract
    import comfy_extras.nodes_model_merging as merging

    return SimpleNamespace(extract=extract, **vars(merging))


@pytest.fixture
def save(merging, comfyui, tmp_path, monkeypatch):
    """save(model): the file that ComfyUI's Save Model node writes."""
    monkeypatch.setattr(comfyui.folder_paths, "get_output_directory", lambda: str(tmp_path))

    def save(model):
        node = merging.ModelSave()
        node.output_dir = str(tmp_path)
        node.save(model, "saved")
        (path,) = tmp_path.glob("saved*.safetensors")
        return path

    return save


@pytest.mark.parametrize("precision", PACKED)
def test_packed_weights_are_not_saved_as_if_they_were_numbers(load, save, merging, tmp_path, precision):
    model, plain = load(precision=precision), load()
    with pytest.raises(ValueError, match=f"stored as {precision}: save it with SkyReels-V3 Save Model"):
        save(model)
    assert not list(tmp_path.iterdir())
    for pair in ((plain, model), (model, plain)):
        with pytest.raises(ValueError, match=r"SkyReels-V3 Save Model|while it is stored as"):
            merging.ModelSubtract().merge(*pair, 1.0)


def test_a_lora_beside_the_weights_is_not_left_out(load, put, save, merging, tmp_path, comfyui):
    model = put(load(), named(lora_pairs(layers=["blocks.0.self_attn.q"])))
    with pytest.raises(ValueError, match="a SkyReels-V3 LoRA runs beside its weights: save it with SkyReels-V3 Save"):
        save(model)
    with pytest.raises(ValueError, match="a SkyReels-V3 LoRA runs beside"):
        merging.ModelSubtract().merge(load(), model, 1.0)
    for node, how in ((merging.ModelMergeSimple, (0.5,)), (merging.ModelMergeBlocks, ())):
        # Its weights would become weaker, and the LoRA would not.
        with pytest.raises(ValueError, match="a SkyReels-V3 LoRA runs beside"):
            node().merge(model, load(), *how, **({} if how else {"input": 0.5}))
    (difference,) = merging.ModelSubtract().merge(model, load(), 1.0)
    with pytest.raises(ValueError, match="a SkyReels-V3 LoRA runs beside"):
        merging.extract.LoraSave.execute("lora", 2, "standard", False, model_diff=difference)
    assert not list(tmp_path.iterdir())


def test_a_plain_model_is_saved_by_comfyui_and_loaded_again(load, save, pack_nodes, velocity):
    again = pack_nodes.module("nodes.models.load").load_patcher(str(save(load())), "reference")
    assert relative_error(velocity(again), velocity(load())) < 1e-5


@pytest.mark.parametrize("precision", PACKED)
@pytest.mark.parametrize("how", ["forward", "hook", "pre-hook"])
def test_whoever_wraps_a_layer_is_given_tensors(load, velocity, precision, how):
    """ComfyUI's bypass LoRA (0.10 and later) puts its forward in place of a layer's; others hang hooks on it."""
    model = load(precision=precision)
    wanted, seen = velocity(model), []
    layer = model.model.diffusion_model.blocks[0].self_attn.q
    own = layer.forward

    def forward(x, *args, **kwargs):
        seen.append(x)
        return own(x, *args, **kwargs)

    if how == "forward":
        layer.forward = forward
        remove = lambda: delattr(layer, "forward")  # noqa: E731
    elif how == "hook":
        remove = layer.register_forward_hook(lambda module, args, output: seen.append(args[0])).remove
    else:
        remove = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0])).remove
    try:
        assert relative_error(velocity(model), wanted) < 1e-5
    finally:
        remove()
    assert seen and all(type(x) is torch.Tensor for x in seen)
    assert torch.equal(velocity(model), wanted)
