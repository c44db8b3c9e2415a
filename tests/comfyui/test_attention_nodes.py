"""Load Model's attention in a real ComfyUI: which one runs, whose choice wins, what is kept and what is refused."""

import logging
import sys

import pytest
import torch

from pack.dev.samples.tiny_models import write_transformer
from pack.tests.comfyui.test_lora_guiders import guided
from pack.tests.support.golden import relative_error

__all__ = ["guided"]

SHAPE = (1, 16, 3, 8, 12)
LAYERS, STEPS = 2, 2
PACKAGE = """
import torch.nn.functional as F

CALLS = []


def sageattn(q, k, v, tensor_layout="HND", is_causal=False, sm_scale=None, **kwargs):
    assert tensor_layout == "NHD"
    CALLS.append(tuple(q.shape))
    out = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)))
    {behaviour}
    return out.transpose(1, 2)
"""
LATER = "out = out if len(CALLS) < 2 else out * float('nan')"


@pytest.fixture(scope="module")
def job(pack_nodes):
    return pack_nodes.module("skyreels_v3.recipes").Job.REFERENCE


@pytest.fixture(scope="module")
def file(pack_nodes, job, tmp_path_factory):
    return write_transformer(tmp_path_factory.mktemp("models") / "r2v.safetensors", job)


@pytest.fixture(scope="module")
def load(pack_nodes, file):
    """load(attention) -> the patcher of Load Model."""
    load_patcher = pack_nodes.module("nodes.models.load").load_patcher
    return lambda attention="auto": load_patcher(str(file), attention=attention)


@pytest.fixture
def attention(pack_nodes, monkeypatch, caplog):
    """nodes/network/attention.py, which trusts every attention again after the test; warnings are in caplog."""
    caplog.set_level(logging.WARNING)
    module = pack_nodes.module("nodes.network.attention")
    monkeypatch.setattr(module, "_disabled", [])
    monkeypatch.setattr(pack_nodes.module("kernels.dispatch"), "MODE", "")
    return module


@pytest.fixture
def sage(pack_nodes, attention, tmp_path, monkeypatch):
    """sage(behaviour) -> calls of a package sageattention that computes on the CPU; behaviour: about its `out`."""
    backends = pack_nodes.module("kernels.attention_backends")
    monkeypatch.syspath_prepend(str(tmp_path))
    # This ComfyUI computes in float32 on the CPU.
    monkeypatch.setattr(backends, "DTYPES", (torch.float32,))
    monkeypatch.setattr(backends.SAGE.operation, "devices", ("cpu",))

    def make(behaviour="pass"):
        monkeypatch.setattr(backends.SAGE.operation, "_tried", {})
        monkeypatch.setattr(backends.SAGE.operation, "_reported", set())
        (tmp_path / "sageattention.py").write_text(PACKAGE.format(behaviour=behaviour), encoding="utf-8")
        monkeypatch.delitem(sys.modules, "sageattention", raising=False)
        return lambda: sys.modules["sageattention"].CALLS

    yield make
    sys.modules.pop("sageattention", None)


@pytest.fixture
def sample(pack_nodes, job):
    """sample(patcher) -> the latents of two steps."""
    import comfy.sample

    condition = pack_nodes.module("nodes.network.condition")
    generator = torch.Generator().manual_seed(0)
    text, slots = torch.randn(1, 512, 4096, generator=generator), torch.randn(1, 16, 4, 8, 12, generator=generator)
    positive = condition.attach([[text, {}]], condition.JobCondition(job, slots))

    def run(patcher):
        latent = torch.zeros(SHAPE)
        noise = comfy.sample.prepare_noise(latent, 5)
        return comfy.sample.sample(patcher, noise, STEPS, 1.0, "euler", "simple", positive, positive, latent, seed=5)

    return run


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def options(patcher):
    return patcher.model_options["transformer_options"]


def test_every_choice_that_needs_no_package_gives_the_same_video(load, attention, sample):
    exact = sample(load("sdpa"))
    for choice in ("auto", "comfyui"):
        assert relative_error(sample(load(choice)), exact) < 1e-5


def test_what_load_model_says(load, attention):
    said = {choice: load(choice).model.notes[-1] for choice in ("auto", "sdpa", "comfyui")}
    assert said == {
        "auto": "Attention: PyTorch's attention, chosen by auto.",
        "sdpa": "Attention: PyTorch's attention, as chosen.",
        "comfyui": "Attention: ComfyUI's (sub-quadratic), as chosen.",
    }


def test_a_choice_whose_package_is_missing_is_refused_before_the_file_is_read(pack_nodes, attention, monkeypatch):
    load_patcher = pack_nodes.module("nodes.models.load").load_patcher
    for backends in attention.BACKENDS.values():
        for backend in backends:
            monkeypatch.setattr(backend, "package", f"no_{backend.package}")
    for choice, package, name in (
        ("flash", "flash_attn", "flash-attn"),
        ("sage", "sageattention", "sageattention"),
        ("int8", "comfy_kitchen", "comfy-kitchen"),
    ):
        with pytest.raises(ValueError) as refusal:
            load_patcher("there is no such file", attention=choice)
        assert str(refusal.value) == (
            f"The attention {choice} needs the package no_{package}, which is not installed here: install it into "
            f"ComfyUI's Python (python -m pip install {name}), or choose auto."
        )
    with pytest.raises(ValueError, match=r"attention is 'xformers', but it must be one of auto, comfyui, sdpa, flash"):
        load_patcher("there is no such file", attention="xformers")


def test_a_choice_that_the_device_does_not_run_is_replaced_and_told(load, sage, sample, pack_nodes, monkeypatch):
    calls = sage()
    monkeypatch.setattr(pack_nodes.module("kernels.attention_backends").SAGE.operation, "devices", ("cuda",))
    patcher = load("sage")
    assert patcher.model.notes[-1] == (
        "Attention: PyTorch's attention, because SageAttention does not run on this device (cpu)."
    )
    assert torch.equal(sample(patcher), sample(load("sdpa")))
    with pytest.raises(KeyError):
        calls()  # never imported


def test_the_choice_runs_and_travels_with_the_model(load, sage, sample, caplog):
    calls = sage("out = out * 1.001")
    patcher = load("sage")
    assert "Attention: SageAttention, as chosen; it rounds to 8 bits" in patcher.model.notes[-1]
    out = sample(patcher)
    assert len(calls()) == 1 + LAYERS * STEPS, "a trial, then self-attention: the prompt is attended exactly"
    assert 1e-6 < relative_error(out, sample(load("sdpa"))) < 0.01
    before = len(calls())
    assert torch.equal(sample(patcher.clone().clone()), out)
    make, arguments = patcher.cached_patcher_init[:2]
    assert torch.equal(sample(make(*arguments, disable_dynamic=True)), out)
    assert len(calls()) == before + 2 * LAYERS * STEPS
    assert not warnings(caplog)


def test_each_model_of_a_guider_has_its_own(load, sage, guided):
    calls = sage("out = out * 1.001")
    for choices in (("sage", "sdpa"), ("sdpa", "sage")):
        before = len(calls()) if choices[0] == "sdpa" else 1  # the first one is tried before
        guided(*map(load, choices))
        assert len(calls()) == before + LAYERS, choices


@pytest.mark.parametrize("choice", ["auto", "sdpa", "sage"])
def test_an_attention_set_by_another_node_wins(load, sage, sample, attention, choice):
    sage()
    seen = []

    def override(function, *args, **kwargs):
        seen.append(kwargs["low_precision_attention"])
        return function(*args, **kwargs)

    model = load(choice).clone()
    options(model)[attention.OVERRIDE] = override
    sample(model)
    assert seen == [True, False] * LAYERS * STEPS, "self-attention, then the prompt, which is not to be rounded"


def test_a_start_flag_of_comfyui_wins_over_auto_alone(load, attention, sample, monkeypatch):
    import comfy.cli_args
    import comfy.ldm.modules.attention as theirs

    def choose(choice):
        return attention.choose(choice, torch.device("cpu"), {})

    monkeypatch.setattr(comfy.cli_args.args, "use_sage_attention", True)
    rounding = theirs.attention_sage
    monkeypatch.setattr(theirs, "optimized_attention", rounding)
    chosen = choose("auto")
    assert chosen.sentence() == (
        "Attention: ComfyUI's (SageAttention), because it was started with --use-sage-attention; it rounds to 8 bits, "
        "so that the video differs a little from the exact one."
    )
    assert choose("sdpa").name == attention.PYTORCH
    assert choose("comfyui").name == "ComfyUI's (SageAttention)"
    # ComfyUI 0.3.75 would round the prompt as well.
    q = torch.randn(1, 4, 2, 64)
    monkeypatch.setattr(theirs, "sageattn", None, raising=False)
    assert torch.equal(chosen.run(q, q, q, precise=True), attention.attention(q, q, q))


def test_what_another_pack_put_in_the_place_of_comfyuis_attention_wins_over_auto(load, attention, sample, monkeypatch):
    import comfy.ldm.modules.attention as theirs

    calls = []

    def patched(*args, **kwargs):
        calls.append(kwargs["heads"])
        return theirs.attention_pytorch(*args, **kwargs)

    monkeypatch.setattr(theirs, "optimized_attention", patched)
    patcher = load()
    assert patcher.model.notes[-1].startswith("Attention: ComfyUI's (set by another pack), because that pack set it")
    sample(patcher)
    assert calls
    calls.clear()
    sample(load("sdpa"))
    assert not calls


def test_numbers_that_are_not_finite_are_computed_again(load, sage, sample, caplog):
    calls = sage(LATER)
    exact = sample(load("sdpa"))
    patcher = load("sage")
    assert torch.equal(sample(patcher), exact)
    assert warnings(caplog) == [
        "SkyReels-V3: SageAttention gave numbers that are not finite on cpu; PyTorch's attention runs from this step "
        "on."
    ]
    before = len(calls())
    assert torch.equal(sample(patcher), exact) and torch.equal(sample(load("sage")), exact)
    assert len(calls()) == before == 1 + LAYERS and len(warnings(caplog)) == 1
    note = "Attention: PyTorch's attention, since SageAttention gave numbers that are not finite."
    assert load("sage").model.notes[-1] == note


def test_the_same_for_the_attention_of_another_node(load, attention, sample, caplog):
    exact = sample(load("sdpa"))
    calls = []

    def override(function, *args, **kwargs):
        calls.append(1)
        return function(*args, **kwargs) * float("nan")

    model = load().clone()
    options(model)[attention.OVERRIDE] = override
    assert torch.equal(sample(model), exact) and torch.equal(sample(model.clone()), exact)
    assert len(calls) == 2 * LAYERS and len(warnings(caplog)) == 1
    assert "that of another node gave numbers that are not finite" in caplog.text


def test_a_broken_model_is_not_blamed_on_the_attention(load, sage, sample, attention, caplog):
    sage()
    patcher = load("sage")
    weight = patcher.model.diffusion_model.blocks[0].ffn[0].weight
    weight.data = weight.data.clone()  # what is mapped cannot be written to
    weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="output is not finite, because its file holds broken numbers"):
        sample(patcher)
    assert not attention._disabled and not warnings(caplog)


def test_an_approximate_attention_is_another_long_job(pack_nodes, load, sage):
    sage()
    module = pack_nodes.module("nodes.runs.identity")
    exact = module.model_stamps([load()])
    assert module.model_stamps([load("sdpa")]) == module.model_stamps([load("comfyui")]) == exact
    rounded = module.model_stamps([load("sage")])
    assert rounded != exact and rounded == module.model_stamps([load("sage").clone()])

    def graph(**chosen):
        inputs = {"model": "r2v.safetensors", "job": "auto", **chosen}
        node = {"class_type": "SkyReelsLoadModel", "inputs": inputs}
        graph = {"1": node, "2": {"class_type": "SkyReelsTalkingAvatar", "inputs": {"model": ["1", 0]}}}
        return module.upstream(graph, "2", ["model"])

    assert graph(attention="sage") == graph(), "what it comes to is in the stamps"
    assert graph(model="sub/r2v.safetensors") == graph(), "so is the file"
    assert graph(precision="int8") != graph()


def test_a_changed_choice_loads_again(pack_nodes, comfyui, file):
    node = pack_nodes["SkyReelsLoadModel"]
    (comfyui.base / "models" / "diffusion_models").mkdir(exist_ok=True)
    comfyui.folder_paths.add_model_folder_path("diffusion_models", str(file.parent))
    comfyui.folder_paths.filename_list_cache.clear()
    choices = [{}, {"attention": "sage"}, {"products": "exact"}, {"gpus": 2}]
    prints = [node.fingerprint_inputs(model=file.name, job="auto", **chosen) for chosen in choices]
    assert all(prints[0] != changed for changed in prints[1:])
    said = {"precision": "auto", "attention": "auto", "products": "auto", "gpus": 1}
    assert prints[0] == node.fingerprint_inputs(model=file.name, job="auto", **said)
    assert list(node.INPUT_TYPES()["optional"]) == list(said)
