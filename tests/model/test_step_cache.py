"""What is the same in every step is computed once, gives the same numbers, and is let go."""

from functools import partial
from pathlib import Path

import pytest
import torch

from pack.dev.samples.tiny_models import write_transformer
from pack.skyreels_v3.model.step_cache import StepCache
from pack.skyreels_v3.model.transformer import Runtime
from pack.tests.goldens import run as goldens

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"


def tensors(*seeds):
    return [torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) for seed in seeds]


def test_equal_inputs_share_what_was_made():
    cache, made = StepCache(1000), []
    for text in (tensors(1)[0], tensors(1)[0], tensors(2)[0], tensors(1)[0]):
        cached = cache.for_inputs(text, None)
        cached("k", lambda: made.append(1) or torch.ones(3))
    assert len(made) == 2 and cache.size == 24
    cache.for_inputs(tensors(1)[0], tensors(3)[0])("k", lambda: made.append(1) or torch.ones(3))
    cache.for_inputs(tensors(1)[0].double(), None)("k", lambda: made.append(1) or torch.ones(3))
    assert len(made) == 4


def test_what_a_name_stands_for_is_asked_later():
    """A second forward of a name takes what was made for the first, and `doubt` tells whether that was right."""
    cache = StepCache(1000)

    def value(seed: int, name: str) -> int:
        return int(cache.for_inputs(tensors(seed)[0], None, name=name)("k", lambda: torch.tensor(seed)))

    assert [value(1, "a"), value(2, "b")] == [1, 2] and cache.doubt is None
    assert value(1, "a") == 1 and bool(cache.doubt)
    assert value(3, "a") == 1 and not bool(cache.doubt)
    cache.mark_changing("a")
    assert [value(3, "a"), value(1, "a"), value(2, "a")] == [3, 1, 2] and cache.doubt is None
    # A name of inputs of another kind is no reason to doubt.
    cache.for_inputs(tensors(1)[0].double(), None, name="b")
    assert cache.doubt is None


def test_what_does_not_fit_is_made_each_time():
    cache = StepCache(20)
    cached = cache.for_inputs(*tensors(1))
    values = [cached(key, lambda: (torch.ones(2), torch.ones(2))) for key in "aabb"]
    assert values[0] is values[1] and values[2] is not values[3]
    assert cache.size == 16


def test_the_oldest_conditioning_is_let_go():
    cache = StepCache(10**6)
    for seed in range(20):
        cache.for_inputs(*tensors(seed))("k", lambda: torch.ones(4))
    assert len(cache.entries) == 6 and cache.size == 6 * 16


NAMES = ["dit_extension", "dit_avatar", "dit_avatar_two_people", "pipeline_reference_guided", "pipeline_avatar_guided"]


@pytest.mark.parametrize("name", NAMES)
def test_the_goldens_hold_with_what_is_kept(monkeypatch, name):
    """Networks are run twice on one memory, pipelines keep theirs from step to step and branch to branch."""
    networks = {}

    def keeping(golden):
        if not networks:
            model = networks["one"] = network(golden)
            model.forward = partial(model.forward, runtime=Runtime(step_cache=StepCache(10**9)))
        return networks["one"]

    network = goldens.network
    monkeypatch.setattr(goldens, "network", keeping)
    for _ in range(2 if name.startswith("dit") else 1):
        for check in goldens.run(f"{GOLDENS}/{name}.safetensors"):
            assert check.passed, check


def test_a_sampling_projects_its_prompt_once(pack_nodes, tmp_path):
    """Cross-attention's keys are made once per prompt and sampling, and nothing is held after it."""
    import comfy.sample

    Job = pack_nodes.module("skyreels_v3.recipes").Job
    condition = pack_nodes.module("nodes.network.condition")
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    patcher = pack_nodes.module("nodes.models.load").load_patcher(str(path))
    network, calls = patcher.model.diffusion_model, []
    network.blocks[1].cross_attn.k.register_forward_hook(lambda *_: calls.append(1))
    slots = torch.zeros(1, 16, 4, 8, 12)
    text = [torch.randn(1, 512, 4096, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    pair = [condition.attach([[one, {}]], condition.JobCondition(Job.REFERENCE, slots)) for one in text]
    latent = torch.zeros(1, 16, 3, 8, 12)
    noise = comfy.sample.prepare_noise(latent, 5)

    def sample(steps, cfg):
        calls.clear()
        return comfy.sample.sample(patcher, noise, steps, cfg, "euler", "simple", *pair, latent, seed=5)

    kept = sample(4, 1.0)
    assert len(calls) == 1 and network.step_cache is None
    sample(4, 3.0)
    assert len(calls) in (1, 2)  # both prompts in one batch, or in turns
    patcher.callbacks.clear()
    assert torch.equal(sample(4, 1.0), kept) and len(calls) == 4


def test_a_node_may_change_the_prompt_in_every_step(pack_nodes, tmp_path):
    """ComfyUI's name of the prompt stays the same then."""
    import comfy.sample

    Job = pack_nodes.module("skyreels_v3.recipes").Job
    condition = pack_nodes.module("nodes.network.condition")
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    patcher = pack_nodes.module("nodes.models.load").load_patcher(str(path))
    texts = [torch.randn(1, 512, 4096, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    slots, latent = torch.zeros(1, 16, 4, 8, 12), torch.zeros(1, 16, 3, 8, 12)
    pair = [condition.attach([[texts[0], {}]], condition.JobCondition(Job.REFERENCE, slots))] * 2
    seen = []

    def in_turns(apply_model, args):
        seen.append(args["c"]["transformer_options"]["uuids"])
        text = texts[len(seen) % 2].to(args["c"]["c_crossattn"])
        return apply_model(args["input"], args["timestep"], **{**args["c"], "c_crossattn": text})

    patcher.set_model_unet_function_wrapper(in_turns)

    def sample():
        seen.clear()
        noise = comfy.sample.prepare_noise(latent, 5)
        return comfy.sample.sample(patcher, noise, 4, 1.0, "euler", "simple", *pair, latent, seed=5)

    cached = sample()
    assert len(seen) == 4 and all(uuids == seen[0] for uuids in seen)
    patcher.callbacks.clear()
    assert torch.equal(cached, sample())
