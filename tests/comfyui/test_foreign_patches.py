"""What nodes for ComfyUI's own Wan network do to ours. Their patches are written here anew, by what they replace."""

import types
from unittest.mock import patch

import pytest
import torch

from pack.dev.samples.tiny_models import TINY, TINY_AVATAR, write_transformer
from pack.tests.comfyui.test_composition import SHAPE, conditioning, node_output, sample
from pack.tests.support.golden import relative_error

__all__ = ["conditioning"]


@pytest.fixture(scope="module")
def load(pack_nodes, tmp_path_factory):
    """load(precision, job) -> a tiny model as Load Model returns it."""
    Job = pack_nodes.module("skyreels_v3.recipes").Job
    folder = tmp_path_factory.mktemp("models")

    def load(precision="auto", job=Job.REFERENCE):
        path = write_transformer(
            folder / f"{job.value}.safetensors", job, params=TINY_AVATAR if job is Job.AVATAR else TINY
        )
        return pack_nodes.module("nodes.models.load").load_patcher(str(path), job.value, precision)

    return load


def with_cross_attention(model, forward):
    """As KJNodes' WanVideoNAG does: every cross-attention's forward is replaced, as a bound method."""
    model = model.clone()
    for index, block in enumerate(model.get_model_object("diffusion_model").blocks):
        bound = types.MethodType(forward, block.cross_attn)
        model.add_object_patch(f"diffusion_model.blocks.{index}.cross_attn.forward", bound)
    return model


def attend(layer, x, context, options):
    from comfy.ldm.modules.attention import optimized_attention

    q, k, v = layer.norm_q(layer.q(x)), layer.norm_k(layer.k(context)), layer.v(context)
    return optimized_attention(q, k, v, heads=layer.num_heads, transformer_options=options)


@pytest.mark.parametrize("precision", ["auto", "int8"])
def test_a_cross_attention_written_for_wan_runs(load, conditioning, precision):
    """Guidance of normalised attention (NAG), at guidance 1, and plain attention by which it is measured."""
    model = load(precision)
    positive, negative = conditioning(), conditioning(1)
    # Padded, as real prompts are: on the CPU our own attention takes the padding as one token.
    for text, _ in (*positive, *negative):
        text[:, 40:] = 0
    embedded = model.model.diffusion_model.text_embedding(negative[0][0].to(torch.float32))
    seen = []

    def plain(self, x, context, transformer_options=None, **rest):
        seen.append((x.shape[-1], context.shape[1], rest, "sigmas" in transformer_options))
        return self.o(attend(self, x, context, transformer_options))

    def guided(self, x, context, transformer_options=None, **rest):
        toward, away = (attend(self, x, text, transformer_options) for text in (context, embedded))
        return self.o(toward + 2.0 * (toward - away))

    expected = sample(model, positive, positive)
    same = sample(with_cross_attention(model, plain), positive, positive)
    assert relative_error(same, expected) < (1e-5 if precision == "auto" else 2e-2)
    assert set(map(str, seen)) == {str((128, 512, {"context_img_len": None}, True))}
    other = sample(with_cross_attention(model, guided), positive, positive)
    assert torch.isfinite(other).all()
    assert relative_error(other, expected) > 5e-2
    assert relative_error(sample(model, positive, positive), expected) < 1e-6, "the patch is gone with its model"


def test_a_cross_attention_written_for_wan_with_an_image_runs(load, pack_nodes):
    """The avatar's has CLIP tokens, which in ComfyUI's Wan network stand before the prompt, compiled too."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    Job = pack_nodes.module("skyreels_v3.recipes").Job
    condition = pack_nodes.module("nodes.network.condition")
    generator = torch.Generator().manual_seed(0)
    shapes = (1, 20, 3, 8, 12), (1, 257, 1280), (1, 9, 5, 12, 768), (1, 512, 4096)
    latents, image, speech, text = (torch.randn(shape, generator=generator) for shape in shapes)
    given = condition.attach([[text, {}]], condition.JobCondition(Job.AVATAR, latents, image, speech))
    model = load(job=Job.AVATAR)

    def plain(self, x, context, context_img_len, transformer_options=None):
        from comfy.ldm.modules.attention import optimized_attention

        tokens, text = context[:, :context_img_len], context[:, context_img_len:]
        image = self.norm_k_img(self.k_img(tokens)), self.v_img(tokens)
        looked = optimized_attention(self.norm_q(self.q(x)), *image, heads=self.num_heads)
        return self.o(attend(self, x, text, transformer_options) + looked)

    expected = sample(model, given, given)
    patched = with_cross_attention(model, plain)
    assert relative_error(sample(patched, given, given), expected) < 1e-5
    set_torch_compile_wrapper(patched, backend="eager", keys=["diffusion_model.blocks.0"])
    assert relative_error(sample(patched, given, given), expected) < 1e-5


def test_nag_does_not_depend_on_what_is_batched(load, pack_nodes, conditioning, monkeypatch):
    """KJNodes' takes a batch for one pair of positive and negative rows. Three forwards a step, and two latents."""
    import comfy.samplers

    model = load()
    embedded = model.model.diffusion_model.text_embedding(conditioning(1)[0][0].to(torch.float32))
    seen = []

    def guided(self, x, context, transformer_options=None, **rest):
        seen.append((len(x), transformer_options["cond_or_uncond"]))
        toward, *plain = x.chunk(2) if len(context) > 1 else [x]
        texts = context.chunk(2) if len(context) > 1 else [context]
        near, far = (attend(self, toward, text, transformer_options) for text in (texts[0], embedded))
        rows = [near + 2.0 * (near - far), *(attend(self, *one, transformer_options) for one in zip(plain, texts[1:]))]
        return self.o(torch.cat(rows))

    def run(batch):
        node = pack_nodes["SkyReelsGuider"]
        guider = node.execute(with_cross_attention(model, guided), conditioning(), 2.0, 3.0, conditioning(1)).args[0]
        latent = torch.zeros(batch, *SHAPE[1:])
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
        sampler, sigmas = comfy.samplers.sampler_object("euler"), torch.tensor([0.9, 0.0])
        return guider.sample(noise, latent, sampler, sigmas, seed=5)

    together = {batch: run(batch) for batch in (1, 2)}
    assert sorted(map(str, seen[:3])) == [str((1, [one])) for one in range(3)], "one row at a time"
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)
    for batch, out in together.items():
        assert relative_error(run(batch), out) < 1e-5


def test_a_cross_attention_that_fails_is_named(load, conditioning):
    def forward(self, x, context, context_img_len):
        return x

    with pytest.raises(ValueError, match=r"^test_a_cross_attention.*, which a node put in place of a cross"):
        sample(with_cross_attention(load(), forward), conditioning(), conditioning())


def test_scale_rope_places_tokens_as_asked(comfyui, load, pack_nodes, conditioning):
    model = load()
    names = ("scale_x", "shift_x", "scale_y", "shift_y", "scale_t", "shift_t")

    def scaled(*values):
        asked = node_output(comfyui, "ScaleROPE", model, **dict(zip(names, values, strict=True)))
        return sample(asked, conditioning(), conditioning())

    plain = sample(model, conditioning(), conditioning())
    assert relative_error(scaled(1.0, 0.0, 1.0, 0.0, 1.0, 0.0), plain) < 1e-6
    assert relative_error(scaled(1.0, 7.0, 1.0, -3.0, 1.0, 5.0), plain) < 1e-3, "only distances count"
    for axis in (0, 2, 4):
        values = [1.0, 0.0] * 3
        values[axis] = 0.5
        assert relative_error(scaled(*values), plain) > 1e-4


def test_scaled_positions_are_those_of_comfyui(pack_nodes, comfyui):
    """Of one segment they equal ComfyUI's; another shot stays as far behind the video as it is."""
    import comfy.ldm.wan.model
    import comfy.ops

    sequence, rope = (pack_nodes.module(f"skyreels_v3.model.{name}") for name in ("sequence", "rope"))
    asked = {"scale_t": 0.5, "shift_t": 2.0, "scale_y": 1.5, "shift_y": 1.0, "scale_x": 0.8, "shift_x": -1.0}
    chosen = pack_nodes.module("nodes.network.foreign").rope_of({"rope_options": asked}, None)
    wan = comfy.ldm.wan.model.WanModel(
        dim=128, ffn_dim=128, num_heads=1, num_layers=0, operations=comfy.ops.disable_weight_init
    )
    wanted = wan.rope_encode(3, 8, 12, dtype=torch.float32, transformer_options={"rope_options": asked})
    video = torch.zeros(1, 16, 3, 8, 12)
    layout = sequence.layout_of([sequence.Segment(video, 0, predicted=True)])
    assert relative_error(rope.rotary_table(layout, 128, chosen), wanted[0, :, 0, ..., 0]) < 1e-5

    shot = chosen.positions(sequence.layout_of(sequence.shot_segments(video, video)))[:, 0].unique()
    assert shot.tolist() == [2.0, 2.5, 3.0, *(2.0 + 1024 - 3 + 1.5 + 0.5 * frame for frame in range(3))]


def test_the_rotary_embedder_of_a_wan_network_is_taken(load, conditioning):
    """As KJNodes' RIFLEx node does: it reads the sizes of the network and puts an embedder of positions into it."""
    model = load()
    network = model.model.diffusion_model
    head = network.dim // network.num_heads

    class Embedder(torch.nn.Module):
        def __init__(self, slowest: float):
            super().__init__()
            self.slowest = slowest

        def forward(self, ids):
            side = 2 * (head // 6)
            angles = []
            for axis, width in enumerate((head - 2 * side, side, side)):
                rates = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
                if axis == 0:
                    rates[5] *= self.slowest
                angles.append(ids[..., axis, None] * rates)
            angle = torch.cat(angles, dim=-1)
            turned = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1)
            return turned.unflatten(-1, (2, 2)).float().unsqueeze(1)

    plain = sample(model, conditioning(), conditioning())
    for slowest, changed in ((1.0, False), (0.3, True)):
        patched = model.clone()
        patched.add_object_patch("diffusion_model.rope_embedder", Embedder(slowest))
        error = relative_error(sample(patched, conditioning(), conditioning()), plain)
        assert error > 1e-4 if changed else error < 1e-5
    assert relative_error(sample(model, conditioning(), conditioning()), plain) < 1e-6


@pytest.mark.parametrize(
    "name", ["blocks.0.self_attn.forward", "blocks.1.forward", "head.forward", "rope_encode", "blocks.0.attn1.to_q"]
)
def test_other_parts_are_refused_where_the_node_replaces_them(load, name):
    """KJNodes' Enhance-A-Video replaces the first; ComfyUI shows the sentence on the node."""

    def modified_forward(*_, **__):
        raise AssertionError

    with pytest.raises(ValueError, match=rf"A node replaces {name} .*\(test_other_parts.*: remove that node\."):
        load().clone().add_object_patch(f"diffusion_model.{name}", modified_forward)


@pytest.mark.parametrize("name", ["default_ref_method", "params.default_ref_method"])
def test_a_setting_of_another_network_is_told_by_its_value(load, name):
    with pytest.raises(Exception, match=rf"{name} of ComfyUI's Wan network \(by 'index_timestep_zero'\)"):
        load().clone().add_object_patch(f"diffusion_model.{name}", "index_timestep_zero")


def test_a_forward_that_is_written_anew_is_told(load, conditioning):
    """TeaCache and MagCache do so within each call of the model."""
    model = load().clone()
    network = model.get_model_object("diffusion_model")

    def wrapper(function, given):
        with patch.multiple(network, forward=lambda *_, **__: None, forward_orig=lambda *_, **__: None):
            return function(given["input"], given["timestep"], **given["c"])

    model.set_model_unet_function_wrapper(wrapper)
    with pytest.raises(ValueError, match=r"^A node replaces forward_orig .*TeaCache and MagCache do.*EasyCache"):
        sample(model, conditioning(), conditioning())
    assert torch.isfinite(sample(load(), conditioning(), conditioning())).all()


def test_a_block_hook_that_fails_is_named(load, conditioning):
    """KJNodes' SkipLayerGuidanceWanVideo raises without its own TeaCache; others read what ComfyUI's Wan gives."""
    model = load().clone()

    def skip(given, extra):
        return given["vec"][1]

    model.set_model_patch_replace(skip, "dit", "double_block", 1)
    with pytest.raises(ValueError, match=r"^test_a_block_hook.* in place of block 1, .*: remove that node"):
        sample(model, conditioning(), conditioning())


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("FreeU_V2", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}, "output_block_patch"),
        ("PerturbedAttentionGuidance", {"scale": 3.0}, "attn1"),
        ("HyperTile", {"tile_size": 256, "swap_size": 2, "max_depth": 0, "scale_depth": False}, "attn1"),
    ],
)
def test_nodes_for_other_networks_are_refused_in_a_sentence(comfyui, load, conditioning, name, settings, told):
    model = node_output(comfyui, name, load(), **settings)
    with pytest.raises(ValueError, match=f"A node patched the model with {told}"):
        sample(model, conditioning(), conditioning())


def test_a_feed_forward_in_chunks_changes_nothing(load, conditioning, caplog):
    """As KJNodes' WanChunkFeedForward does."""
    model = load().clone()
    for index, block in enumerate(model.get_model_object("diffusion_model").blocks):
        model.add_object_patch(f"diffusion_model.blocks.{index}.ffn.forward", block.ffn.forward)
    plain = sample(load(), conditioning(), conditioning())
    assert relative_error(sample(model, conditioning(), conditioning()), plain) < 1e-6
    assert caplog.text.count("replaces the feed-forward without effect") == 1


SAMPLINGS = {
    "ModelSamplingAuraFlow": {"shift": 3.0},
    "ModelSamplingFlux": {"max_shift": 1.15, "base_shift": 0.5, "width": 1024, "height": 1024},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": False},
    "ModelSamplingContinuousEDM": {"sampling": "v_prediction", "sigma_max": 120.0, "sigma_min": 0.002},
    "ModelSamplingStableCascade": {"shift": 2.0},
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_sampling_of_another_family_is_refused(comfyui, load, name):
    """It ran, to noise: the network was told a thousandth of the time."""
    with pytest.raises(ValueError, match=r"the sampling of another family .* ModelSamplingSD3 changes the shift"):
        node_output(comfyui, name, load(), **SAMPLINGS[name])


def test_context_windows_are_for_the_job_whose_windows_are_alike(comfyui, load, pack_nodes, conditioning):
    """Of an extension every window would go on from the past, and of an avatar begin with the first word."""
    Job = pack_nodes.module("skyreels_v3.recipes").Job
    condition = pack_nodes.module("nodes.network.condition")
    settings = {"context_schedule": "standard_static", "context_stride": 1, "closed_loop": False}
    settings |= {"context_length": 9, "context_overlap": 4, "fuse_method": "pyramid"}
    shape, text = (1, 16, 5, 8, 12), torch.zeros(1, 512, 4096)
    extension = condition.JobCondition(Job.EXTENSION, torch.zeros(1, 16, 2, 8, 12))
    latents, image, speech = torch.zeros(1, 20, 5, 8, 12), torch.zeros(1, 257, 1280), torch.zeros(1, 17, 5, 12, 768)
    avatar = condition.JobCondition(Job.AVATAR, latents, image, speech)
    for one in (extension, avatar):
        given = condition.attach([[text, {}]], one)
        model = node_output(comfyui, "WanContextWindowsManual", load(job=one.job), **settings)
        with pytest.raises(ValueError, match=r"Context Windows cuts the latents .* windows of their own"):
            sample(model, given, given, shape=shape)
    model = node_output(comfyui, "WanContextWindowsManual", load(), **settings)
    assert torch.isfinite(sample(model, conditioning(), conditioning(), shape=shape)).all()
