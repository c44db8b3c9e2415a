"""Partly loaded models in a real ComfyUI: what it leaves in RAM comes block by block, with every kind of patch."""

import sys
from collections import Counter

import pytest
import torch

from pack.dev.samples.tiny_models import write_transformer
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.support import dialects
from pack.tests.support.golden import relative_error
from pack.tests.support.loras import (
    linear_layers,
    lora_pairs,
    lora_products,
    named,
    named_products,
    write_lora,
)
from pack.tests.support.mapped import writable_memory
from pack.tests.support.slow_copies import HastyComputation, HastyCopies, Trap

SHAPE = (1, 16, 3, 8, 12)
PARAMS = TransformerParams(dim=256, ffn_dim=512, num_heads=2, num_layers=4)
PRECISIONS = ["bf16", "int8", "fp8", "nf4", "Q8_0"]
LORAS = ["none", "node", "stock"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patcher_of(pack_nodes, tmp_path_factory):
    """patcher_of(precision): clones of one model, loaded from the disk."""
    load = pack_nodes.module("nodes.models.load").load_patcher
    models = {}

    def patcher_of(precision):
        if precision not in models:
            folder = tmp_path_factory.mktemp("models")
            if precision.startswith("Q"):
                dialects.write(precision, folder / "r2v", Job.REFERENCE, params=PARAMS)
                (path,) = folder.iterdir()
                models[precision] = load(str(path), "reference")
            else:
                path = write_transformer(folder / "r2v.safetensors", Job.REFERENCE, params=PARAMS, dtype=torch.float32)
                models[precision] = load(str(path), "reference", precision)
        return models[precision].clone()

    return patcher_of


@pytest.fixture(scope="module")
def with_lora(pack_nodes, comfyui):
    """with_lora(patcher, how): with a LoRA on some layers, by the pack's node or by ComfyUI's own."""
    pairs = lora_pairs(PARAMS, layers=[name for name in linear_layers(PARAMS) if name.startswith("blocks.")])

    def with_lora(patcher, how):
        if how == "none":
            return patcher
        write_lora(comfyui.base / "models" / "loras" / "streamed.safetensors", named(pairs, alpha=2.0))
        if how == "node":
            return pack_nodes.ready("SkyReelsLora").execute(patcher, "streamed.safetensors", 1.0).args[0]
        loader = comfyui.nodes.NODE_CLASS_MAPPINGS["LoraLoaderModelOnly"]()
        return loader.load_lora_model_only(patcher, "streamed.safetensors", 1.0)[0]

    return with_lora


@pytest.fixture(scope="module")
def sample(reference_prompt):
    """sample(patcher, steps): what ComfyUI's sampler makes of fixed inputs."""
    import comfy.sample

    def sample(patcher, steps=1):
        latent = torch.zeros(SHAPE)
        noise = comfy.sample.prepare_noise(latent, 5)
        return comfy.sample.sample(
            patcher, noise, steps, 1.0, "euler", "simple", reference_prompt, reference_prompt, latent, seed=5
        )

    return sample


@pytest.fixture
def small_card(pack_nodes, monkeypatch):
    """small_card(patcher, share, queues): the patcher loads as on a card with room for `share` of its weights.

    ComfyUI decides what stays and marks it, as on such a card. There the rest is on another device, which tells the
    pack that it waits; on a CPU everything is in one place, and ComfyUI's marks tell.
    """
    streaming = pack_nodes.module("nodes.weights.streaming")
    lora_key = pack_nodes.module("nodes.weights.lora_branches").KEY

    def small_card(patcher, share, queues):
        def limit(one, room):
            def partially_load(device, extra_memory=0, *args, **kwargs):
                return load(device, max(room, 0.1) - one.loaded_size(), *args, **kwargs)

            load = type(one).partially_load.__get__(one)
            monkeypatch.setattr(one, "partially_load", partially_load)

        def waiting_weights(part, device):
            if not patcher.model.model_lowvram:
                return []
            modules = [module for module in part.modules() if not getattr(module, "comfy_patched_weights", False)]
            return [streaming.Weight(one, name) for one in modules for name, _ in one.named_parameters(recurse=False)]

        patcher.model.diffusion_model.step_cache = None
        patcher.detach()
        limit(patcher, share * patcher.model_size())
        for lora in patcher.get_additional_models_with_key(lora_key):
            limit(lora, 0)
        monkeypatch.setattr(streaming, "waiting_weights", waiting_weights if queues else lambda *_: [])
        monkeypatch.setattr(streaming.versions, "queues", lambda _: queues)
        return patcher

    yield small_card
    import comfy.model_management

    comfy.model_management.unload_all_models()


def waiting(patcher):
    """The parameters of the blocks that ComfyUI has not loaded."""
    modules = patcher.model.diffusion_model.blocks.modules()
    return [
        parameter
        for module in modules
        if not getattr(module, "comfy_patched_weights", False)
        for parameter in module.parameters(recurse=False)
    ]


@pytest.mark.parametrize("lora", LORAS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_streamed_is_resident(patcher_of, with_lora, sample, small_card, precision, lora):
    plain = sample(patcher_of(precision)) if lora != "none" else None
    patcher = with_lora(patcher_of(precision), lora)
    resident = sample(patcher)
    layerwise = sample(small_card(patcher, 0.5, None))
    left = [id(parameter) for parameter in waiting(patcher)]
    assert left and (patcher.lowvram_patch_counter() > 0) is (precision == "bf16" and lora == "stock")
    for late in (True, False):
        with Trap(late) as queues:
            streamed = sample(small_card(patcher, 0.5, queues))
        assert torch.equal(streamed, layerwise) and not queues.faults and not queues.pending
        crossed = Counter(map(id, queues.copies))
        assert set(left) <= set(crossed) and set(crossed.values()) == {1}, "every weight crosses once a forward"
        assert left == [id(parameter) for parameter in waiting(patcher)], "and none comes back"
    if lora == "stock" and precision == "bf16":  # ComfyUI itself rounds what it patches on the fly otherwise
        assert relative_error(streamed, resident) < 0.02
    else:
        assert torch.equal(streamed, resident)
    assert plain is None or relative_error(streamed, plain) > 1e-3


@pytest.mark.parametrize("hasty", [HastyComputation, HastyCopies])
def test_the_trap_catches_every_missing_wait(patcher_of, sample, small_card, pack_nodes, hasty):
    resident = sample(patcher_of("bf16"))
    with hasty() as queues:
        try:
            assert not torch.equal(sample(small_card(patcher_of("bf16"), 0.3, queues)), resident)
        except pack_nodes.module("skyreels_v3.errors").InputError as error:
            assert "not finite" in str(error)


def test_hooks_around_the_blocks(patcher_of, sample, small_card):
    """Block replace patches that run a block, run it twice or leave it out, and an interrupt in the middle."""
    import comfy.model_management

    calls = {0: 1, 1: 2, 2: 0}

    def replaced(patcher):
        for index, times in calls.items():

            def replace(given, original, times=times):
                for _ in range(times):
                    given = {**given, **original["original_block"](given)}
                return {"img": given["img"]}

            patcher.set_model_patch_replace(replace, "dit", "double_block", index)
        return patcher

    resident = sample(replaced(patcher_of("int8")))
    with Trap() as queues:
        assert torch.equal(sample(small_card(replaced(patcher_of("int8")), 0.4, queues)), resident)
    assert not queues.faults

    def interrupt(given):
        if given["block_index"] == 1:
            comfy.model_management.interrupt_current_processing()
        return given

    patcher = small_card(patcher_of("int8"), 0.4, Trap())
    before = dict(patcher.model.named_parameters())
    stopped = patcher.clone()
    stopped.set_model_patch(interrupt, "double_block")
    with Trap() as queues:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            sample(small_card(stopped, 0.4, queues))
        assert queues.copies and not queues.pending
    after = dict(patcher.model.named_parameters())
    assert all(after[name] is parameter for name, parameter in before.items())
    with Trap() as queues:
        assert torch.equal(sample(small_card(patcher, 0.4, queues)), sample(patcher_of("int8")))


def test_out_of_memory_in_a_block(patcher_of, sample, small_card):
    """The step is made again in smaller parts, with buffers of its own."""
    resident = sample(patcher_of("bf16"))
    patcher, failed = patcher_of("bf16"), []

    def fail(given):
        if given["block_index"] == 2 and not failed:
            failed.append(True)
            raise torch.cuda.OutOfMemoryError("as on a full card")
        return given

    patcher.set_model_patch(fail, "double_block")
    with Trap() as queues:
        out = sample(small_card(patcher, 0.4, queues))
    assert failed and relative_error(out, resident) < 0.01 and not queues.faults and not queues.pending


def test_room_is_left_for_the_blocks_in_transit(patcher_of):
    import comfy.model_management
    import comfy.model_patcher

    patcher = patcher_of("int8")
    size = patcher.model_size()
    room = 2 * comfy.model_management.module_size(patcher.model.diffusion_model.blocks[0])
    for budget in (0.1, size * 0.3, size * 0.7, size - room - 1):
        patcher.detach()
        comfy.model_patcher.ModelPatcher.partially_load(patcher, CPU, budget)
        wanted = patcher.loaded_size()
        patcher.detach()
        for _ in range(2):  # asked again, nothing changes
            patcher.partially_load(CPU, budget + room - patcher.loaded_size())
            assert patcher.loaded_size() == wanted and patcher.model.model_lowvram
    patcher.partially_load(CPU, size * 1.01 - patcher.loaded_size())
    assert patcher.loaded_size() == size and not patcher.model.model_lowvram
    patcher.partially_load(CPU, size * 0.95 - patcher.loaded_size())
    assert patcher.loaded_size() <= size * 0.95 - room
    patcher.detach()
    patcher.partially_load(CPU, 0.1)
    assert patcher.loaded_size() == 0 and patcher.model.model_lowvram, "a card that is full of other things"
    patcher.detach()
    patcher.partially_load(CPU, 1e32)
    assert patcher.loaded_size() == size


class Driver:
    """Locks memory as the driver of a card does: only what can be written to. Stands for torch.cuda.cudart()."""

    def __init__(self):
        self.locked = {}
        self.refused = []

    def cudaHostRegister(self, address, size, _flags):
        writable = any(start <= address < end for start, end in writable_memory())
        self.locked.update({address: size} if writable else {})
        self.refused += [] if writable else [address]
        return 0 if writable else 1

    def cudaHostUnregister(self, address):
        return 0 if self.locked.pop(address, None) else 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell what can be written to")
@pytest.mark.parametrize("precision", ["auto", "Q8_0", "int8"])
def test_weights_of_mapped_files_stay_there_and_are_not_pinned(pack_nodes, patcher_of, sample, monkeypatch, precision):
    import comfy.model_management as management

    is_mapped = pack_nodes.module("model_loaders.tensors.file_tensors").is_mapped
    driver, patcher = Driver(), patcher_of(precision)
    network = patcher.model.diffusion_model
    picture = sample(patcher)
    patcher.detach()
    mapped = {name for name, weight in network.named_parameters() if is_mapped(weight)}
    assert len(mapped) > 10
    monkeypatch.setattr(torch.cuda, "cudart", lambda: driver)
    monkeypatch.setattr(management, "MAX_PINNED_MEMORY", 10**9)
    for _ in range(2):
        patcher.load(CPU, lowvram_model_memory=patcher.model_size() // 3)
        pinned = {key.removeprefix("diffusion_model.") for key in patcher.pinned}
        assert len(pinned) == len(driver.locked) and not driver.refused
        assert not pinned & mapped and (precision != "int8" or len(pinned) > 10)
        assert relative_error(sample(patcher), picture) < 1e-5
        patcher.detach()
        assert not driver.locked and not management.PINNED_MEMORY
        assert {name for name, weight in network.named_parameters() if is_mapped(weight)} == mapped


@pytest.mark.parametrize("share", [0, 0.2, 0.45, 0.8])
def test_every_share_of_a_card(patcher_of, sample, small_card, share):
    resident = sample(patcher_of("int8"))
    with Trap() as queues:
        assert torch.equal(sample(small_card(patcher_of("int8"), share, queues)), resident)
    assert queues.copies and not queues.faults


def test_a_model_that_fits_needs_no_buffers(patcher_of, sample, small_card):
    with Trap() as queues:
        sample(small_card(patcher_of("int8"), 2, queues), steps=2)
    assert not queues.copies and not queues.taken


class TwoBuffers:
    """ComfyUI's casts of weights for which dynamic VRAM finds no place on a card (0.12 and later): each lies in one of
    two buffers, into which the cast after the next one is written.
    """

    def __init__(self):
        self.buffers = [torch.empty(0, dtype=torch.uint8)] * 2
        self.casts = 0

    def cast(self, layer, input=None, dtype=None, device=None, bias_dtype=None, offloadable=False):
        """As comfy.ops.cast_bias_weight, on a CPU; like its versions up to 0.20.0 with three values in any case."""
        dtype = dtype or input.dtype
        wanted = [(layer.weight, dtype), (layer.bias, bias_dtype or dtype)]
        made = [None if tensor is None else tensor.detach().to(dtype, copy=True) for tensor, dtype in wanted]
        size = sum(tensor.nbytes for tensor in made if tensor is not None)
        which = self.casts % len(self.buffers)
        if len(self.buffers[which]) < size:
            self.buffers[which] = torch.empty(size, dtype=torch.uint8)
        self.casts, start, placed = self.casts + 1, 0, []
        for tensor in made:
            if tensor is not None:
                place = self.buffers[which][start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
                start += tensor.nbytes
                tensor = place.copy_(tensor)
            placed.append(tensor)
        return (*placed, ("a stream", None, None))


@pytest.mark.parametrize("precision, lora", [("bf16", "none"), ("nf4", "none"), ("bf16", "LoKr"), ("bf16", "LoHa")])
def test_weights_that_are_open_together_lie_apart(
    patcher_of, sample, pack_nodes, comfyui, monkeypatch, precision, lora
):
    """Those of a long sequence's layers, which its chunks share, and of LoRAs of several factors."""
    import comfy.ops

    patcher = patcher_of(precision)
    if lora != "none":
        path = comfyui.base / "models" / "loras" / "open.safetensors"
        products = lora_products(lora, PARAMS, [name for name in linear_layers(PARAMS) if name.startswith("blocks.")])
        write_lora(path, named_products(products, alpha=2.0))
        patcher = pack_nodes.ready("SkyReelsLora").execute(patcher, path.name, 1.0).args[0]
    small = pack_nodes.module("skyreels_v3.model.chunking").Chunking(long=1, tokens=7, head_groups=2)
    monkeypatch.setattr(pack_nodes.module("nodes.network.network"), "chunking_here", lambda *_: lambda *_: small)
    expected = sample(patcher)
    monkeypatch.setattr(comfy.ops, "cast_bias_weight", TwoBuffers().cast)
    monkeypatch.setattr(comfy.ops, "uncast_bias_weight", lambda *_: None)
    assert relative_error(sample(patcher), expected) < 1e-5
