"""Nodes of ComfyUI that its newer versions bring, on ours: training, LoRAs by hooks, attention, language models."""

import importlib
import importlib.util
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from pack.dev.samples.tiny_models import TINY, transformer_weights
from pack.skyreels_v3.jobs.extension.script import parse_script
from pack.tests.support.golden import relative_error
from pack.tests.support.lora_nodes import SHAPE, folder, load, put, velocity
from pack.tests.support.loras import lora_pairs, named, write_lora

__all__ = ["folder", "load", "put", "velocity"]

pytestmark = pytest.mark.usefixtures("computes_in_float32")


@pytest.fixture
def train(comfyui):
    """train(model, positive, **inputs) -> the tensors of the LoRA that TrainLoraNode makes in one step."""
    node = importlib.import_module("comfy_extras.nodes_train").TrainLoraNode

    def train(model, positive, **inputs):
        schema = {one.id: getattr(one, "default", None) for one in node.define_schema().inputs}
        given = {**schema, "steps": 1, "rank": 4, "training_dtype": "fp32", "lora_dtype": "fp32", **inputs}
        given = {name: value for name, value in given.items() if name in schema}
        given.update(model=model, positive=positive, existing_lora="[None]")
        # Two: with one alone, 0.3.75 stumbles.
        latents = [{"samples": torch.randn(SHAPE)} for _ in range(2)]
        made = node.execute(latents=latents, **{name: [value] for name, value in given.items() if name != "latents"})
        made = made.args if hasattr(made, "args") else made  # 0.3.75 gives the model before it
        return next(one for one in made if isinstance(one, dict))

    return train


def test_training_on_our_models_is_refused_in_a_sentence(pack_nodes, load, velocity, train, reference_prompt):
    refused = pack_nodes.module("skyreels_v3.errors").InputError
    for precision in ("auto", "nf4"):
        plain = velocity(load(precision=precision))
        with pytest.raises(refused, match=r"cannot be trained.*Wan 2\.1 14B.*load it with SkyReels-V3 LoRA"):
            train(load(precision=precision), reference_prompt, bypass_mode=precision == "nf4")
        assert torch.equal(velocity(load(precision=precision)), plain), "the model still makes the same video"


def test_a_lora_trained_on_comfyuis_wan_changes_our_models(comfyui, load, put, velocity, train, tmp_path):
    import comfy.sd

    save_file(transformer_weights(TINY), tmp_path / "wan.safetensors")
    wan = comfy.sd.load_diffusion_model(str(tmp_path / "wan.safetensors"))
    tensors = train(wan, [[torch.randn(1, 512, 4096), {}]], learning_rate=0.01)
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    assert any("blocks.0.self_attn.q" in name for name in tensors)
    for precision in ("auto", "int8", "nf4"):
        changed = velocity(put(load(precision=precision), tensors))
        assert relative_error(changed, velocity(load(precision=precision))) > 1e-3
    (stock, _) = comfy.sd.load_lora_for_models(load(), None, tensors, 1.0, 0)
    assert relative_error(velocity(put(load(), tensors)), velocity(stock)) < 0.01


@pytest.mark.parametrize("precision", ["auto", "int8", "nf4"])
def test_a_lora_by_hooks_and_a_chosen_attention(pack_nodes, load, put, velocity, folder, precision):
    """LoraLoaderBypassModelOnly and ModelAttentionBackend where this ComfyUI has them (0.33), else its stock loader."""
    import comfy.sd

    tensors = named(lora_pairs())
    write_lora(folder / "style.safetensors", tensors)
    bypass = getattr(comfy.sd, "load_bypass_lora_for_models", None)
    if precision == "auto" or bypass is not None:
        loader = bypass or comfy.sd.load_lora_for_models
        hooked = velocity(loader(load(precision=precision), None, tensors, 0.7, 0)[0])
        assert relative_error(hooked, velocity(put(load(precision=precision), None, 0.7))) < 0.01
    plain = velocity(load(precision=precision))
    backend = getattr(importlib.import_module("comfy_extras.nodes_model_advanced"), "ModelAttentionBackend", None)
    if backend is not None:
        assert torch.equal(velocity(backend().patch(load(precision=precision), "pytorch attention")[0]), plain)


def test_two_models_of_one_graph_keep_their_shifts(pack_nodes, load, velocity):
    import comfy_extras.nodes_model_advanced as advanced

    first, second = load(), load(precision="int8")
    (second,) = advanced.ModelSamplingSD3().patch(second, 9.0)
    alone = velocity(first), velocity(second)
    for _ in range(2):
        assert torch.equal(velocity(first), alone[0]) and torch.equal(velocity(second), alone[1])
        assert first.get_model_object("model_sampling").shift == 5.0
        assert second.get_model_object("model_sampling").shift == 9.0


@pytest.fixture
def answers(comfyui, monkeypatch, tmp_path):
    """answers(prompt, images) -> what Generate Text makes of them with a random Qwen3-VL of two layers.

    Where this ComfyUI has no such node, a few words of one.
    """
    if importlib.util.find_spec("comfy_extras.nodes_textgen") is None:
        return lambda prompt, images: "<Token IND建设用地 {alia}\nせい HONE_subject"
    import comfy.ops
    import comfy.sd
    from comfy.text_encoders import qwen3vl

    size, name = {"hidden_size": 64, "intermediate_size": 64}, "qwen3vl_8b"
    small = partial(qwen3vl.Qwen3VL_8BConfig, **size, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
    monkeypatch.setitem(qwen3vl.QWEN3VL_CONFIGS, name, small)
    monkeypatch.setitem(qwen3vl.QWEN3VL_VISION, name, {**size, "depth": 1, "deepstack_visual_indexes": [0]})
    empty = qwen3vl.Qwen3VL({}, torch.float32, "cpu", comfy.ops.manual_cast).state_dict()
    weights = {
        key.replace("model.", "model.language_model.", 1).replace("visual.", "model.visual.", 1): (
            torch.ones(one.shape) if "norm" in key else torch.randn(one.shape) * 0.05
        )
        for key, one in empty.items()
    }
    save_file(weights, tmp_path / "qwen.safetensors")
    clip = comfy.sd.load_clip([str(tmp_path / "qwen.safetensors")])
    node = importlib.import_module("comfy_extras.nodes_textgen").TextGenerate
    return lambda prompt, images: node.execute(clip, prompt, 24, {"sampling_mode": "off"}, image=images).args[0]


@pytest.mark.parametrize(("job", "kind"), [("reference to video", "one prompt"), ("storyboard", "script")])
def test_what_a_language_model_answers_runs_or_is_left_out(pack_nodes, answers, job, kind):
    brief = pack_nodes.ready("SkyReelsPromptBrief").execute("A fox {in} snow", job, 2, "any", 5.0).args[2]
    with torch.inference_mode():
        answer = answers(brief, torch.rand(2, 64, 96, 3))
    own = "continue 2s: A fox runs."
    text, told = pack_nodes.ready("SkyReelsScriptFromText").execute(answer, kind, own, 600.0).args
    assert text and told and (kind != "script" or parse_script(text))
