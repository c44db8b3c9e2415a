"""The model among ComfyUI's own nodes: samplers, LoRA, caches, hooks, compile, interrupt, and models it must refuse."""

from pathlib import Path

import pytest
import torch

from pack.dev.samples.tiny_models import random_weight, write_transformer
from pack.tests.goldens.checks import NETWORK
from pack.tests.goldens.run import avatar_frames
from pack.tests.support.golden import read, relative_error
from pack.tests.support.loras import lora_pairs, named, write_lora

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"
SHAPE = (1, 16, 3, 8, 12)


@pytest.fixture(scope="module")
def patcher(pack_nodes, tmp_path_factory):
    """A tiny reference model as Load Model returns it."""
    Job = pack_nodes.module("skyreels_v3.recipes").Job
    path = write_transformer(tmp_path_factory.mktemp("models") / "r2v.safetensors", Job.REFERENCE)
    return pack_nodes.module("nodes.models.load").load_patcher(str(path))


@pytest.fixture
def conditioning(pack_nodes):
    """conditioning(seed, job) -> CONDITIONING with a prompt and reference slots."""
    condition = pack_nodes.module("nodes.network.condition")
    Job = pack_nodes.module("skyreels_v3.recipes").Job

    def make(seed=0, job=Job.REFERENCE, width=4096, size=(8, 12)):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, 512, width, generator=generator)
        latents = torch.randn(1, 16, 4, *size, generator=generator)
        return condition.attach([[text, {}]], condition.JobCondition(job, latents))

    return make


def sample(model, positive, negative, steps=2, cfg=1.0, batch=1, sampler="euler", shape=SHAPE, callback=None):
    import comfy.sample

    latent = torch.zeros(batch, *shape[1:])
    noise = comfy.sample.prepare_noise(latent, 5)
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "simple", positive, negative, latent, seed=5, callback=callback
    )


@pytest.mark.parametrize("name", ["pipeline_reference", "pipeline_reference_guided"])
def test_the_nodes_give_the_official_latents(pack_nodes, tmp_path, name):
    """File in diffusers names -> Load Model -> Sigmas, Guider, UniPC Sampler -> ComfyUI's sampling = the golden."""
    import comfy.latent_formats
    import comfy.sample
    from safetensors.torch import save_file

    golden = read(GOLDENS / f"{name}.safetensors")
    heads = str(golden.config["num_attention_heads"])
    save_file(golden.weights(), tmp_path / "r2v.safetensors", metadata={"num_attention_heads": heads})
    model = pack_nodes.module("nodes.models.load").load_patcher(str(tmp_path / "r2v.safetensors"))

    condition = pack_nodes.module("nodes.network.condition")
    reference = pack_nodes.module("skyreels_v3.jobs.reference")
    images = list(golden.pixels())
    height, width = images[0].shape[:2]
    latents = golden.tensors["latents"]
    plan = reference.plan_reference(
        [(image.shape[1], image.shape[0]) for image in images],
        width=width,
        height=height,
        frames=4 * latents.shape[2] - 3,
    )
    slots = reference.encode_references(images, plan, golden.vae.encode)
    job = condition.JobCondition(model.model.job, slots)
    positive = condition.attach([[golden.input("text"), {}]], job)
    negative = condition.attach([[golden.input("negative_text"), {}]], job)

    note = golden.note
    sigmas = pack_nodes["SkyReelsSigmas"].execute(model, note["steps"], note["shift"]).args[0]
    sampler = pack_nodes["SkyReelsUniPCSampler"].execute().args[0]
    guidance = note["guidance_text"], note["guidance_image"]
    guider = pack_nodes["SkyReelsGuider"].execute(model, positive, *guidance, negative).args[0]
    empty = torch.zeros(plan.latent_shape)
    noise = comfy.sample.prepare_noise(empty, note["seed"])
    out = guider.sample(noise, empty, sampler, sigmas, seed=note["seed"])
    assert relative_error(comfy.latent_formats.Wan21().process_in(out), latents) <= NETWORK


def test_the_guider_gives_the_official_frames_of_an_avatar(pack_nodes, tmp_path):
    """Windows of the guided golden sampled with Load Model, Sigmas and Guider, by text and by speech."""
    from safetensors.torch import save_file

    golden = read(GOLDENS / "pipeline_avatar_guided.safetensors")
    heads = str(golden.config["num_heads"])
    save_file(golden.weights(), tmp_path / "a2v.safetensors", metadata={"num_attention_heads": heads})
    model = pack_nodes.module("nodes.models.load").load_patcher(str(tmp_path / "a2v.safetensors"))
    condition, sampling = pack_nodes.module("nodes.network.condition"), pack_nodes.module("nodes.sampling.samplers")
    note = golden.note
    guidance = {name: note[name] for name in ("text_guidance", "audio_guidance")}
    assert min(guidance.values()) > 1
    sigmas = pack_nodes["SkyReelsSigmas"].execute(model, note["steps"], note["shift"]).args[0]

    def denoise(run, noise):
        job = condition.JobCondition(model.model.job, run.condition, run.tokens, run.speech)
        own = "text" if run.plan.is_key_pass else "connection_text"
        positive, negative = (condition.attach([[golden.input(name), {}]], job) for name in (own, "negative_text"))
        guider = pack_nodes["SkyReelsGuider"].execute(model, positive, negative=negative, **guidance).args[0]
        sampler = sampling.avatar_sampler(run.pin)
        latents = guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, seed=note["seed"])
        return model.model.latent_format.process_in(latents)

    with torch.inference_mode():
        for check in avatar_frames(golden, denoise):
            assert check.passed, check


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc", "res_multistep"])
def test_any_native_sampler_and_a_batch_of_two(patcher, conditioning, sampler):
    both = sample(patcher, conditioning(), conditioning(1), steps=3, batch=2, sampler=sampler)
    assert both.shape == (2, *SHAPE[1:])
    assert torch.isfinite(both).all()
    assert relative_error(both[0], both[1]) > 0.1


def test_batched_guidance_equals_separate_forwards(patcher, conditioning):
    positive, negative = conditioning(), conditioning(1)
    guided = sample(patcher, positive, negative, steps=1, cfg=3.0)
    apart = [sample(patcher, branch, negative, steps=1) for branch in (positive, negative)]
    assert relative_error(guided, apart[1] + 3 * (apart[0] - apart[1])) < 1e-4


def test_references_and_prompt_change_the_video(patcher, conditioning):
    first = sample(patcher, conditioning(), conditioning())
    assert relative_error(sample(patcher, conditioning(2), conditioning()), first) > 1e-3


def test_a_lora_from_the_stock_loader(patcher, comfyui, conditioning, tmp_path):
    import comfy.sd

    weight = patcher.model.diffusion_model.blocks[0].self_attn.q.weight
    name = "diffusion_model.blocks.0.self_attn.q"
    lora = {
        f"{name}.lora_A.weight": random_weight("a", (4, weight.shape[1])),
        f"{name}.lora_B.weight": random_weight("b", (weight.shape[0], 4)),
        "diffusion_model.blocks.1.cross_attn.norm_q.diff": random_weight("d.weight", (weight.shape[0],)),
    }
    plain = sample(patcher, conditioning(), conditioning())
    patched, _ = comfy.sd.load_lora_for_models(patcher, None, lora, 1.0, 0)
    assert len(patched.patches) == 2
    assert relative_error(sample(patched, conditioning(), conditioning()), plain) > 1e-3
    assert relative_error(sample(patcher, conditioning(), conditioning()), plain) < 1e-6


def test_the_shift_of_modelsamplingsd3(patcher, comfyui, conditioning):
    node = comfyui.nodes.NODE_CLASS_MAPPINGS["ModelSamplingSD3"]()
    shifted = node.patch(patcher, 1.0)[0]
    assert shifted.get_model_object("model_sampling").shift == 1.0
    assert patcher.get_model_object("model_sampling").shift == 5.0
    plain = sample(patcher, conditioning(), conditioning(), steps=3)
    assert relative_error(sample(shifted, conditioning(), conditioning(), steps=3), plain) > 1e-3


def test_easycache_runs(patcher, comfyui, conditioning):
    node = comfyui.nodes.NODE_CLASS_MAPPINGS["EasyCache"]
    cached = node.execute(patcher, 10.0, 0.0, 1.0, False).args[0]
    out = sample(cached, conditioning(), conditioning(), steps=6)
    assert torch.isfinite(out).all()
    plain = sample(patcher, conditioning(), conditioning(), steps=6)
    assert 1e-6 < relative_error(out, plain) < 1


def test_block_replace_and_attention_override(patcher, conditioning):
    plain = sample(patcher, conditioning(), conditioning())
    seen, calls = [], []

    def replaced(given, extra):
        before = given["img"].clone()
        out = extra["original_block"](given)
        assert torch.equal(given["img"], before), "a block must not write into what a hook holds"
        seen.append(given["transformer_options"]["block_index"])
        return out

    def override(attention, *args, **kwargs):
        calls.append(kwargs["heads"] if "heads" in kwargs else args[3])
        return attention(*args, **kwargs)

    model = patcher.clone()
    model.set_model_patch_replace(replaced, "dit", "double_block", 1)
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    same = sample(model, conditioning(), conditioning())
    assert relative_error(same, plain) < 1e-6
    assert set(seen) == {1}
    assert len(calls) == 2 * 2 * 2, "self- and cross-attention, two blocks, two steps"

    skipping = patcher.clone()
    skipping.set_model_patch_replace(lambda given, extra: given, "dit", "double_block", 0)
    assert relative_error(sample(skipping, conditioning(), conditioning()), plain) > 1e-3


def test_a_patch_that_the_model_has_no_place_for_is_refused(patcher, conditioning):
    model = patcher.clone()
    model.set_model_attn2_output_patch(lambda *args: args[0])
    with pytest.raises(ValueError, match="attn2_output_patch"):
        sample(model, conditioning(), conditioning())


@pytest.mark.parametrize(
    ("scope", "precision"),
    [
        ("blocks", "auto"),
        ("blocks", "int8"),
        pytest.param("whole", "int8", marks=pytest.mark.workshop),
    ],
)
def test_torch_compile_gives_the_same_video(pack_nodes, comfyui, conditioning, tmp_path, scope, precision):
    """Each block alone is what KJNodes' compile nodes take by default, the whole what ComfyUI's takes (in float it is
    tested with a LoRA in test_lora_nodes). A LoRA lies beside one of the two blocks.
    """
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    Job = pack_nodes.module("skyreels_v3.recipes").Job
    path = write_transformer(tmp_path / "r2v.safetensors", Job.REFERENCE)
    model = pack_nodes.module("nodes.models.load").load_patcher(str(path), precision=precision)
    lora = write_lora(tmp_path / "lora.safetensors", named(lora_pairs(layers=["blocks.0.self_attn.q"])))
    model, _ = pack_nodes.module("nodes.models.lora").with_lora(model, lora, 1.0)
    plain = sample(model, conditioning(), conditioning(), steps=3)
    blocks = [f"diffusion_model.blocks.{index}" for index in range(len(model.model.diffusion_model.blocks))]
    # This backend runs the graph that inductor would be given, without the minutes of C++.
    alone = scope == "blocks"
    set_torch_compile_wrapper(model, backend="eager", keys=blocks if alone else None, fullgraph=alone)
    frames = []

    def traced(*_):
        frames.append(torch._dynamo.utils.counters["frames"]["total"])

    out = sample(model, conditioning(), conditioning(), steps=3, callback=traced)
    assert relative_error(out, plain) < (1e-4 if precision == "auto" else 1e-2), "int8 rounds what differs by 1e-7"
    if alone:
        assert frames[1] == frames[-1], "later steps trace nothing"


def test_interrupt_stops_within_a_step(patcher, conditioning):
    import comfy.model_management as management

    steps = []

    def stop(step, *_):
        steps.append(step)
        management.interrupt_current_processing()

    with pytest.raises(management.InterruptProcessingException):
        sample(patcher, conditioning(), conditioning(), steps=6, callback=stop)
    assert steps == [0]
    sample(patcher, conditioning(), conditioning())


def test_a_model_from_another_loader_refuses_our_conditioning(comfyui, conditioning, pack_nodes):
    import comfy.ldm.wan.model
    import comfy.ops
    import comfy.sd

    wan = comfy.ldm.wan.model.WanModel(
        model_type="t2v", dim=128, ffn_dim=128, num_heads=1, num_layers=1, operations=comfy.ops.disable_weight_init
    )
    weights = {name: torch.zeros_like(weight) for name, weight in wan.state_dict().items()}
    model = comfy.sd.load_diffusion_model_state_dict(weights)
    with pytest.raises(ValueError, match="another loader: load the checkpoint with SkyReels-V3 Load Model"):
        sample(model, conditioning(), conditioning())
    with pytest.raises(ValueError, match="needs a SkyReels-V3 model"):
        pack_nodes["SkyReelsSigmas"].execute(model)


def test_conditioning_that_does_not_fit_is_told_in_a_sentence(patcher, conditioning, pack_nodes):
    Job = pack_nodes.module("skyreels_v3.recipes").Job
    plain = [[torch.zeros(1, 512, 4096), {}]]
    cases = [
        (plain, SHAPE, "did not come through Reference to Video"),
        (conditioning(job=Job.SHOT), SHAPE, "made for the shot job, but the model does the reference job"),
        (conditioning(width=768), SHAPE, "768 wide, but this model needs 4096"),
        (conditioning(size=(8, 10)), SHAPE, "96 x 64 pixels, but Reference to Video prepared 80 x 64"),
        (conditioning(), (1, 48, 3, 8, 12), "video latents of 16 channels"),
        (conditioning(size=(7, 11)), (1, 16, 3, 7, 11), "multiples of 16 pixels"),
    ]
    for positive, shape, message in cases:
        with pytest.raises(ValueError, match=message):
            sample(patcher, positive, conditioning(), shape=shape)
    # A negative that guidance 1 never runs does no harm.
    assert torch.isfinite(sample(patcher, conditioning(), plain)).all()


def test_guidance_without_a_negative_prompt(patcher, conditioning, pack_nodes):
    with pytest.raises(ValueError, match="connect negative"):
        pack_nodes["SkyReelsGuider"].execute(patcher, conditioning(), 3.0)


def test_a_negative_prompt_that_is_not_connected_is_no_prompt_of_zeros(patcher, reference_prompt, pack_nodes):
    import comfy.samplers

    condition = pack_nodes.module("nodes.network.condition")
    positive, negative = condition.attach_pair(reference_prompt, None, condition.condition_of(reference_prompt))
    assert torch.isfinite(sample(patcher, positive, negative)).all()
    guider = pack_nodes["SkyReelsGuider"].execute(patcher, positive, 3.0, negative=negative).args[0]
    with pytest.raises(ValueError, match="connect a CLIP Text Encode to its negative"):
        sample(patcher, positive, negative, cfg=3.0)
    with pytest.raises(ValueError, match="connect a CLIP Text Encode to its negative"):
        euler = comfy.samplers.sampler_object("euler")
        guider.sample(torch.randn(SHAPE), torch.zeros(SHAPE), euler, torch.tensor([1.0, 0.0]))


# Node of ComfyUI that works on guidance -> its settings for two blocks and few steps.
GUIDANCE_NODES = {
    "SkipLayerGuidanceDiT": {"scale": 3.0, "start_percent": 0.0, "end_percent": 1.0, "double_layers": "1"},
    "SkipLayerGuidanceDiTSimple": {"start_percent": 0.0, "end_percent": 1.0, "double_layers": "1"},
    "CFGZeroStar": {},
    "CFGNorm": {"strength": 0.5},
    "RescaleCFG": {"multiplier": 0.7},
    "APG": {"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.0},
    "TCFG": {},
    "Mahiro": {},
    "FreSca": {"scale_low": 1.0, "scale_high": 1.5, "freq_cutoff": 2},
    "Epsilon Scaling": {"scaling_factor": 1.1},
    "TemporalScoreRescaling": {"tsr_k": 0.95, "tsr_sigma": 1.0},
    "RenormCFG": {"cfg_trunc": 100.0, "renorm_cfg": 0.5},
}


def node_output(comfyui, name, model, **settings):
    """The MODEL that a node of ComfyUI makes, in the old form or the new; what newer ones ask for is at its default."""
    node = comfyui.nodes.NODE_CLASS_MAPPINGS[name]
    if hasattr(node, "execute"):
        inputs = node.define_schema().inputs
        settings = {one.id: one.default for one in inputs if getattr(one, "default", None) is not None} | settings
    function = getattr(node(), node.FUNCTION) if not hasattr(node, "execute") else node.execute
    out = function(model, **settings)
    return getattr(out, "args", out)[0]


@pytest.fixture
def guided(pack_nodes, patcher, conditioning):
    """guided(model, text, image, ours): the latents of our Guider, or of ComfyUI's CFGGuider at the text guidance."""
    import comfy.sample
    import comfy.samplers

    def guided(model, text=3.0, image=1.0, ours=True, negative=True):
        positive, other = conditioning(), conditioning(1)
        if ours:
            node = pack_nodes["SkyReelsGuider"]
            guider = node.execute(model, positive, text, image, other if negative else None).args[0]
        else:
            guider = comfy.samplers.CFGGuider(model)
            guider.set_conds(positive, other)
            guider.set_cfg(text)
        latent = torch.zeros(SHAPE)
        sigmas = pack_nodes["SkyReelsSigmas"].execute(patcher, 2).args[0]
        noise = comfy.sample.prepare_noise(latent, 5)
        return guider.sample(noise, latent, comfy.samplers.sampler_object("euler"), sigmas, seed=5)

    return guided


@pytest.mark.parametrize("name", GUIDANCE_NODES)
def test_nodes_that_work_on_guidance_do_so_behind_our_guider(comfyui, patcher, guided, name):
    model = node_output(comfyui, name, patcher, **GUIDANCE_NODES[name])
    out = guided(model)
    assert relative_error(out, guided(model, ours=False)) < 1e-5
    assert relative_error(out, guided(patcher)) > 1e-3


def test_a_node_that_works_on_guidance_by_the_images_or_at_guidance_1(comfyui, patcher, guided):
    model = node_output(comfyui, "SkipLayerGuidanceDiT", patcher, **GUIDANCE_NODES["SkipLayerGuidanceDiT"])
    for text, image in ((1.0, 1.0), (1.0, 2.0), (3.0, 3.0)):
        assert relative_error(guided(model, text, image), guided(patcher, text, image)) > 1e-3
    with pytest.raises(ValueError, match=r"sampler_post_cfg_function.* each step takes three: set one of them to 1"):
        guided(model, 3.0, 2.0)


def test_a_node_that_needs_the_negative_prompt_at_guidance_1(patcher, guided):
    seen = []

    def look(args):
        seen.append(float(args["uncond_denoised"].std()))
        return args["denoised"]

    model = patcher.clone()
    model.set_model_sampler_post_cfg_function(look, disable_cfg1_optimization=True)
    assert relative_error(guided(model, 1.0), guided(patcher, 1.0)) < 1e-5
    assert min(seen) > 0, "the negative prompt was run"
    with pytest.raises(ValueError, match="connect negative"):
        guided(model, 1.0, negative=False)


def test_guidance_by_what_a_job_does_not_have(patcher, conditioning, pack_nodes):
    with pytest.raises(ValueError, match="does the reference job, which hears no speech: set it to 1"):
        pack_nodes["SkyReelsGuider"].execute(patcher, conditioning(), audio_guidance=2.0)


def test_long_prompts_are_cut_as_officially(patcher, conditioning, caplog):
    short = conditioning()
    text, extra = short[0]
    long = [[torch.cat([text, torch.ones(1, 100, 4096)], dim=1), extra]]
    assert relative_error(sample(patcher, long, short), sample(patcher, short, short)) < 1e-6
    assert "612 tokens" in caplog.text


def test_a_clone_shares_the_weights(patcher):
    assert patcher.clone().model.diffusion_model is patcher.model.diffusion_model
