"""LoRAs on the models of a guider and on copies of a model: each has its own."""

from functools import partial

import pytest
import torch

from pack.tests.support.golden import relative_error
from pack.tests.support.lora_nodes import folder, load, put, stock, velocity
from pack.tests.support.loras import ALPHA, lora_pairs, named

__all__ = ["folder", "load", "put", "stock", "velocity"]

pytestmark = pytest.mark.usefixtures("computes_in_float32")

SHAPE = (1, 16, 3, 8, 12)
EXACT = 1e-5
GUIDANCE = 3.0


@pytest.fixture
def guided(reference_prompt):
    """guided(model, other): one step with the guidance of one model away from the other, called as ComfyUI 0.33's
    DualModelGuider calls them. The other is unloaded on the way where `crowded`, as on a card that cannot hold both.
    """
    import comfy.sample
    import comfy.sampler_helpers as helpers
    import comfy.samplers

    class TwoModels(comfy.samplers.CFGGuider):
        def outer_sample(self, noise, *args, **kwargs):
            given = {"negative": [one.copy() for one in self.conds["negative"]]}
            options = self.other.model_options
            self.away, given, loaded = helpers.prepare_sampling(self.other, noise.shape, given, options)
            self.given = given
            self.other.pre_run()
            try:
                return super().outer_sample(noise, *args, **kwargs)
            finally:
                self.other.cleanup()
                helpers.cleanup_models(given, loaded)

        def inner_sample(self, noise, latent, device, sampler, sigmas, mask, callback, quiet, seed, **shapes):
            if self.crowded:
                self.other.detach()
            self.given = comfy.samplers.process_conds(self.away, noise, self.given, device, latent, mask, seed)
            return super().inner_sample(noise, latent, device, sampler, sigmas, mask, callback, quiet, seed, **shapes)

        def predict_noise(self, x, timestep, model_options=None, seed=None):
            options = model_options or {}
            runs = (self.inner_model, self.conds["positive"]), (self.away, self.given["negative"])
            toward, away = (comfy.samplers.calc_cond_batch(run, [one], x, timestep, options)[0] for run, one in runs)
            return comfy.samplers.cfg_function(self.inner_model, toward, away, self.cfg, x, timestep, options)

    def guided(model, other, crowded=False):
        guider = TwoModels(model)
        guider.other, guider.crowded = other, crowded
        guider.set_conds(reference_prompt, reference_prompt)
        guider.set_cfg(GUIDANCE)
        latent = torch.zeros(SHAPE)
        noise, sampler = comfy.sample.prepare_noise(latent, 5), comfy.samplers.sampler_object("euler")
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 1)
        return guider.sample(noise, latent, sampler, sigmas, seed=5)

    return guided


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_each_model_of_a_guider_has_its_own(load, put, stock, velocity, guided, precision):
    """On the first, on the second, one on each; by our node and by ComfyUI's; with room for both models and without."""
    one, other = load(precision=precision), load({"another": 0}, precision)
    assert one.model is not other.model
    first, second = named(lora_pairs(), alpha=ALPHA), named(lora_pairs(seed=1))
    pairs = [
        (put(one, first), other),
        (one, put(other, first)),
        (put(one, first), put(other, second, -0.5, "second.safetensors")),
        (stock(one, first), stock(other, second)),
    ]
    for toward, away in pairs:
        near, far = velocity(toward), velocity(away)
        assert relative_error(near, far) > 1e-3
        wanted = far + GUIDANCE * (near - far)
        assert relative_error(guided(toward, away), wanted) < EXACT
        if toward.patches or away.patches:
            continue  # merged by ComfyUI, which leaves them out where it unloads
        assert relative_error(guided(toward, away, crowded=True), wanted) < EXACT
    assert relative_error(velocity(one), velocity(other)) == 0


def test_two_models_that_share_their_weights(load, put, stock, velocity, guided):
    style = named(lora_pairs())
    model = load()
    strong, weak = put(model, style), put(model, None, 0.5)
    for two in ((strong, model), (model, strong), (strong, weak), (stock(model, style), model)):
        with pytest.raises(ValueError, match="come from the same Load Model"):
            guided(*two)
    plain = velocity(model)
    assert relative_error(guided(model, model.clone()), plain) < EXACT
    assert relative_error(guided(strong, put(model, None)), velocity(strong)) < EXACT


def on_another_card(model):
    """The model with networks of its own, as ComfyUI copies one to another device."""
    if hasattr(model, "deepclone_multigpu"):  # 0.33
        return model.deepclone_multigpu(torch.device("cpu"))
    copy, source = model.clone(), model
    while not hasattr(source, "cached_patcher_init"):
        source = source.parent
    make, given = source.cached_patcher_init
    copy.model, copy.backup, copy.object_patches_backup = make(*given).model, {}, {}
    for key, others in model.additional_models.items():
        copy.set_additional_models(key, [on_another_card(other) for other in others])
    return copy


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_a_copy_on_another_card_has_copies_of_them(pack_nodes, load, put, stock, velocity, precision):
    attached = pack_nodes.module("nodes.weights.lora_branches").attached
    style, other = named(lora_pairs(), alpha=ALPHA), named(lora_pairs(seed=1))
    model = stock(put(put(load(precision=precision), style), other, -0.5, "other.safetensors"), style, 0.3)
    wanted, copy = velocity(model), on_another_card(model)
    assert copy.model is not model.model
    assert not {one.lora for one in attached(copy)} & {one.lora for one in attached(model)}
    assert relative_error(velocity(copy), wanted) < EXACT
    assert relative_error(velocity(put(copy, None)), velocity(put(model, None))) < EXACT, "and one more"
    assert relative_error(velocity(model), wanted) == 0


def called_on(device: torch.device, called: list[torch.device], *_) -> None:
    called.append(device)


@pytest.mark.parametrize("precision", ["auto", "nf4"])
def test_branches_of_guidance_on_two_cards(load, put, stock, velocity, precision, monkeypatch):
    """As ComfyUI 0.33's MultiGPU CFG Split makes them; two names of the processor stand for cards."""
    import comfy.model_management

    if not hasattr(comfy.model_management, "get_all_torch_devices"):
        pytest.skip("ComfyUI's MultiGPU CFG Split is in newer versions")
    import comfy.multigpu

    cards = [torch.device("cpu"), torch.device("cpu", 0)]
    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: cards)
    style, model = named(lora_pairs(), alpha=ALPHA), load(precision=precision)
    for one in (model, put(model, style), stock(put(model, style, 0.5), style, 0.3)):
        split = comfy.multigpu.create_multigpu_deepclones(one, 2)
        (other,) = split.get_additional_models_with_key("multigpu")
        assert other.load_device == cards[1] and other.model is not one.model
        wanted, called = velocity(one, cfg=GUIDANCE), []
        hooks = [
            each.model.diffusion_model.register_forward_pre_hook(partial(called_on, each.load_device, called))
            for each in (split, other)
        ]
        assert relative_error(velocity(split, cfg=GUIDANCE), wanted) < EXACT
        assert len(called) == 2 and set(called) == set(cards)
        for hook in hooks:
            hook.remove()
        more = put(split, style, 0.2), put(one, style, 0.2)
        assert relative_error(*(velocity(each, cfg=GUIDANCE) for each in more)) < EXACT
