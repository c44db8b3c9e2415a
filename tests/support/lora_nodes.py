"""Fixtures of the tests of LoRAs in ComfyUI."""

import pytest
import torch

from pack.dev.samples.tiny_models import TINY, random_weight, transformer_weights
from pack.tests.support.loras import linear_layers, write_lora

SHAPE = (1, 16, 3, 8, 12)


@pytest.fixture(scope="module")
def load(pack_nodes, tmp_path_factory):
    """load(changes, precision): a tiny float32 reference model, some of its weights changed, as Load Model returns it.

    The same checkpoint and precision give clones of one model.
    """
    from safetensors.torch import save_file

    folder, models = tmp_path_factory.mktemp("models"), {}

    def load(changes=None, precision="auto"):
        key = None if changes else precision
        if key not in models:
            path = folder / f"{len(models)}.safetensors"
            weights = transformer_weights(TINY)
            save_file({name: weight + (changes or {}).get(name, 0) for name, weight in weights.items()}, path)
            patcher = pack_nodes.module("nodes.models.load").load_patcher(str(path), "reference", precision)
            if key is None:
                return patcher
            models[key] = patcher
        return models[key].clone()

    return load


@pytest.fixture(scope="module")
def folder(comfyui):
    return comfyui.base / "models" / "loras"


@pytest.fixture
def put(pack_nodes, folder):
    """put(model, tensors, strength, name): the model after the node."""
    node = pack_nodes.ready("SkyReelsLora")

    def put(model, tensors, strength=1.0, name="style.safetensors"):
        if tensors is not None:
            write_lora(folder / name, tensors)
        return node.execute(model, name, strength).args[0]

    return put


@pytest.fixture(scope="module")
def velocity(reference_prompt):
    """velocity(model, steps, cfg, hooks): what sampling makes of fixed inputs, with hooks on the positive prompt."""
    import comfy.hooks
    import comfy.sample

    def velocity(model, steps=1, cfg=1.0, hooks=None):
        latent = torch.zeros(SHAPE)
        noise = comfy.sample.prepare_noise(latent, 5)
        hooked = comfy.hooks.set_hooks_for_conditioning(reference_prompt, hooks)
        return comfy.sample.sample(
            model, noise, steps, cfg, "euler", "simple", hooked, reference_prompt, latent, seed=5
        )

    return velocity


@pytest.fixture(scope="module")
def layer_outputs(pack_nodes):
    """layer_outputs(model, loras): Wan name -> what each linear layer makes of fixed inputs.

    Layer by layer, because int8 rounds activations as well: what differs by 1e-7 before one layer differs by 1e-3
    behind the next. loras: whether with those on the model.
    """
    applied = pack_nodes.module("skyreels_v3.model.lora").applied
    attached = pack_nodes.module("nodes.weights.lora_branches").attached

    def layer_outputs(model, loras=True):
        network = model.model.diffusion_model
        given = attached(model) if loras else ()
        with torch.no_grad(), applied(network, [(one.lora, one.strength, {}) for one in given]):
            return {
                name: network.get_submodule(name)(random_weight(f"{name}.x", (2, 3, columns)))
                for name, (_, columns) in linear_layers().items()
            }

    return layer_outputs


@pytest.fixture
def stock(comfyui, folder):
    """stock(model, tensors, strength): the model after ComfyUI's own loader."""

    def stock(model, tensors, strength=1.0):
        write_lora(folder / "stock.safetensors", tensors)
        loader = comfyui.nodes.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]()
        return loader.load_lora_model_only(model, "stock.safetensors", strength)[0]

    return stock
