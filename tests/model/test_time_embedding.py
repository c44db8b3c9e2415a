"""From a timestep to the modulation: in float32 where the official code of a checkpoint has it so, else in 16 bits."""

import pytest
import torch
import torch.nn.functional as F

from pack.dev.samples.tiny_models import TINY, transformer_weights
from pack.skyreels_v3.model.block import Runtime
from pack.skyreels_v3.model.transformer import SkyReelsTransformer, sinusoidal_embedding
from pack.skyreels_v3.recipes import RECIPES, Job
from pack.tests.support.golden import normal, relative_error

HALF, FULL = torch.bfloat16, torch.float32
TIMESTEPS = torch.tensor([999.0, 937.0, 300.0])


@pytest.fixture(scope="module")
def weights():
    return {name: weight.to(HALF) for name, weight in transformer_weights(TINY).items()}


def official(weights, job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    """Time embedding [B, D] and modulation [B, 6, D] as transformer.py (extension and shot), reference_to_video/
    transformer.py and transformer_a2v.py of the official code compute them, with weights in bf16."""
    first, last = {Job.REFERENCE: (FULL, HALF), Job.AVATAR: (HALF, HALF)}.get(job, (FULL, FULL))
    x = sinusoidal_embedding(TIMESTEPS, TINY.freq_dim)
    x = x if job is Job.REFERENCE else x.to(HALF)

    def linear(x, layer):
        return F.linear(x, weights[f"{layer}.weight"].to(x.dtype), weights[f"{layer}.bias"].to(x.dtype))

    x = linear(F.silu(linear(x.to(first), "time_embedding.0")), "time_embedding.2").to(last)
    return x.float(), linear(F.silu(x), "time_projection.1").float().unflatten(1, (6, -1))


@pytest.mark.parametrize("job", list(Job))
def test_every_job_has_its_official_numbers(weights, job):
    network = SkyReelsTransformer(TINY, device="meta", dtype=HALF)
    network.load_state_dict(weights, assign=True)
    runtime = Runtime(float32_time=RECIPES[job].float32_time)
    embedding, noisy, clean = network._time(TIMESTEPS, False, HALF, runtime)
    wanted = official(weights, job)
    assert embedding.dtype == noisy.dtype == FULL and clean is None
    assert torch.equal(embedding, wanted[0]) and torch.equal(noisy, wanted[1])
    others = {one: relative_error(noisy, official(weights, one)[1]) for one in Job if one is not job}
    assert all((error == 0) == ({job, one} == {Job.EXTENSION, Job.SHOT}) for one, error in others.items())


@pytest.mark.parametrize("job", [Job.REFERENCE, Job.AVATAR, Job.EXTENSION])
def test_comfyuis_layers_compute_in_the_dtype_of_their_input(pack_nodes, weights, job):
    """A 16-bit network as a card runs it, whose layers do not cast by themselves, has the same numbers."""
    import comfy.ops

    operations = pack_nodes.module("nodes.weights.layers").branching(comfy.ops.disable_weight_init)
    network = pack_nodes.module("nodes.network.network").Network(TINY, job, operations, device="meta", dtype=HALF)
    network.load_state_dict(weights, assign=True)
    seen = []
    network.time_projection[1].register_forward_hook(lambda _, given, out: seen.append(out))
    if job is Job.AVATAR:  # of which the rest is not in these weights
        runtime = Runtime(linear=lambda layer, x: layer(x), float32_time=RECIPES[job].float32_time)
        network._time(TIMESTEPS, False, HALF, runtime)
    else:
        prefix = normal("prefix", (3, 16, 2, 4, 6)).to(HALF)
        x, text = normal("x", (3, 16, 3, 4, 6)).to(HALF), normal("text", (3, 512, TINY.text_dim)).to(HALF)
        with torch.inference_mode():
            network(x, TIMESTEPS, text, **{pack_nodes.module("nodes.network.condition").KEY: prefix})
    # Extension has a row more, for which float32 sums in another order.
    torch.testing.assert_close(seen[0][:3].float().unflatten(1, (6, -1)), official(weights, job)[1])
