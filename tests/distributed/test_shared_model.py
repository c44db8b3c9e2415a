"""Load Model with several gpus, on a real ComfyUI: its samplers, its Stop, its memory; processes by Ray."""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from pack.dev.samples.tiny_models import write_transformer, write_vae
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.support.golden import relative_error
from pack.tests.support.loras import lora_pairs, named, write_lora

pytestmark = [pytest.mark.host, pytest.mark.workshop]  # a group takes some ten seconds to start
PARAMS = TransformerParams(dim=384, ffn_dim=512, num_heads=3, num_layers=2)


@pytest.fixture(scope="module")
def shared(pack_nodes, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A checkpoint, a LoRA, and how they are loaded and sampled by ComfyUI; two processes stand for cards."""
    import comfy.sample

    os.environ["SKYREELS_GPUS_ON_CPU"] = "2"
    folder = tmp_path_factory.mktemp("shared")
    path = write_transformer(folder / "SkyReels-V3-R2V.safetensors", Job.REFERENCE, params=PARAMS)
    lora = write_lora(folder / "lora.safetensors", named(lora_pairs(PARAMS)))
    condition = pack_nodes.module("nodes.network.condition")
    text = torch.randn(1, 512, 4096, generator=torch.Generator().manual_seed(1))
    job = pack_nodes.module("skyreels_v3.recipes").Job.REFERENCE

    def sample(model, size=(6, 10), **options):
        latent = torch.zeros(1, 16, 3, *size)
        slots = torch.randn(1, 16, 4, *size, generator=torch.Generator().manual_seed(2))
        positive = condition.attach([[text, {}]], condition.JobCondition(job, slots))
        noise = comfy.sample.prepare_noise(latent, 5)
        given = {"seed": 5, **options}
        return comfy.sample.sample(model, noise, 3, 1.0, "euler", "simple", positive, positive, latent, **given)

    load = pack_nodes.module("nodes.models.load")
    yield SimpleNamespace(
        path=path,
        lora=lora,
        sample=sample,
        load=lambda gpus=2, **options: load.load_patcher(str(path), gpus=gpus, **options),
        groups=pack_nodes.module("nodes.network.shared.groups"),
        pack=pack_nodes,
        InputError=pack_nodes.module("skyreels_v3.errors").InputError,
    )
    pack_nodes.module("nodes.network.shared.groups")._end()
    import ray

    ray.shutdown()
    del os.environ["SKYREELS_GPUS_ON_CPU"]


@pytest.fixture(scope="module")
def vae(shared, tmp_path_factory):
    import comfy.sd

    return comfy.sd.VAE(sd=load_file(write_vae(tmp_path_factory.mktemp("vae") / "vae.safetensors")))


def group(shared):
    return shared.groups._group


def test_a_video_is_the_same(shared):
    model = shared.load()
    assert any("2 cards" in note for note in model.model.notes)
    wanted = shared.sample(shared.load(gpus=1))
    seen = []
    own = shared.sample(model, callback=lambda step, denoised, x, steps: seen.append((step, denoised.shape)))
    assert relative_error(own, wanted) <= 1e-5
    assert [step for step, _ in seen] == [0, 1, 2]
    processes = group(shared).processes
    assert relative_error(shared.sample(shared.load(gpus=0)), wanted) <= 1e-5  # all that there are
    assert group(shared).processes is processes


def test_every_precision(shared):
    for precision in ("int8", "nf4"):
        wanted = shared.sample(shared.load(gpus=1, precision=precision))
        assert relative_error(shared.sample(shared.load(precision=precision)), wanted) <= 1e-5


def test_loras(shared):
    with_lora = shared.pack.module("nodes.models.lora").with_lora
    alone, plain = shared.load(gpus=1), shared.load()
    for strength in (1.0, 0.4):
        (one, file), (other, same) = (with_lora(model, shared.lora, strength) for model in (alone, plain))
        assert file.summary() == same.summary()
        assert relative_error(shared.sample(other), shared.sample(one)) <= 1e-5
    assert relative_error(shared.sample(plain), shared.sample(alone)) <= 1e-5


def later(seconds: float, act: Callable) -> threading.Thread:
    thread = threading.Timer(seconds, act)
    thread.start()
    return thread


def test_stop(shared):
    import comfy.model_management

    model = shared.load()
    wanted = shared.sample(model)
    processes = group(shared).processes
    asked = []

    def stop(*_):
        comfy.model_management.interrupt_current_processing()
        asked.append(time.monotonic())

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        shared.sample(model, callback=stop)
    assert time.monotonic() - asked[0] < 5
    assert torch.equal(shared.sample(model), wanted)
    assert group(shared).processes is processes  # the same processes go on


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_is_lost(shared, rank, how, monkeypatch):
    model = shared.load()
    wanted = shared.sample(model)
    running = group(shared)
    monkeypatch.setattr(running, "patience", 3.0)
    monkeypatch.setattr(running, "longest", 0.1)
    pids, before = list(running.processes.pids), running.restarts
    own = shared.sample(model, callback=lambda step, *_: os.kill(pids[rank], how) if not step else None)
    assert torch.equal(own, wanted)
    assert running.restarts == before + 1
    until = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.parametrize("seed", range(10))
def test_a_process_is_lost_at_any_moment(shared, vae, seed, monkeypatch):
    """While it is loaded, samples, or decodes: the video is the same, and one restart is enough."""
    import comfy.model_management

    dice, decoder = random.Random(seed), shared.pack.module("nodes.encoders.vae").decoder
    model = shared.load()
    wanted = shared.sample(model, size=(12, 20))
    running = group(shared)
    monkeypatch.setattr(running, "patience", 8.0)
    monkeypatch.setattr(running, "longest", 0.1)
    begun = time.monotonic()
    pictures = torch.cat(list(decoder(vae, running)(wanted)), 2)
    shared.sample(model, size=(12, 20))
    took, before = time.monotonic() - begun, running.restarts
    if dice.random() < 0.3:  # then it is loaded again
        comfy.model_management.unload_all_models()
    lost = list(running.processes.pids)
    how = dice.choice([signal.SIGKILL, signal.SIGSTOP])
    harm = later(dice.uniform(0, took), lambda: os.kill(dice.choice(lost), how))
    own = shared.sample(model, size=(12, 20))
    made = torch.cat(list(decoder(vae, running)(own)), 2)
    harm.join()
    assert torch.equal(own, wanted) and relative_error(made, pictures) <= 1e-5
    assert torch.equal(shared.sample(model, size=(12, 20)), wanted)  # a late one meets this
    assert running.restarts <= before + 1 and set(running.processes.pids).isdisjoint(lost)


def test_out_of_memory_in_one_process(shared):
    """The step is made again in the smallest parts, by all of them."""
    import psutil

    model = shared.load()
    shared.sample(model)
    running = group(shared)
    before, process = running.restarts, psutil.Process(running.processes.pids[1])
    # Set before the first step of this size: what one step has freed may serve the next without asking the system.
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + 2**20,) * 2)
    own = shared.sample(model, size=(48, 80))
    assert running.restarts == before + 1
    assert relative_error(own, shared.sample(model, size=(48, 80))) <= 1e-5


def test_a_process_that_is_lost_again_ends_the_run(shared):
    model = shared.load()
    wanted = shared.sample(model)
    running, lost, ended = group(shared), [], threading.Event()

    def kill() -> None:
        while not ended.is_set() and len(lost) < 2:
            pids = list(running.processes.pids) if running.processes else []
            if len(pids) == 2 and pids[1] not in lost:
                lost.append(pids[1])
                os.kill(pids[1], signal.SIGKILL)
            time.sleep(0.01)

    killer = threading.Thread(target=kill)
    with pytest.raises(shared.InputError, match=r"twice in one step|ended while it was loaded|did not start"):
        shared.sample(model, callback=lambda step, *_: killer.start() if not step else None)
    ended.set()
    killer.join()
    assert torch.equal(shared.sample(model), wanted)


def test_rows_of_the_picture_are_decoded_by_each(shared, vae):
    shared.sample(shared.load())
    decoder, running = shared.pack.module("nodes.encoders.vae").decoder, group(shared)
    latents = torch.randn(1, 16, 4, 7, 10, generator=torch.Generator().manual_seed(3))
    wanted, asked = list(decoder(vae)(latents)), []
    ask = running.ask
    running.ask = lambda method, *args, **options: asked.append(method) or ask(method, *args, **options)
    pieces = decoder(vae, running)
    for _ in range(2):
        made = list(pieces(latents))
        assert [one.shape for one in made] == [one.shape for one in wanted]
        assert relative_error(torch.cat(made, 2), torch.cat(wanted, 2)) <= 1e-5
    assert asked.count("decode") == 8 and asked.count("take_vae") == 1
    made = []
    for piece in pieces(latents):  # what is left is decoded here
        made.append(piece)
        if len(made) == 2:
            os.kill(running.processes.pids[1], signal.SIGKILL)
    assert [one.shape for one in made] == [one.shape for one in wanted]
    assert relative_error(torch.cat(made, 2), torch.cat(wanted, 2)) <= 1e-5
    before = len(asked)
    assert len(list(pieces(latents[..., :1, :]))) == 4 and len(asked) == before  # a row, two cards
    assert relative_error(torch.cat(list(pieces(latents)), 2), torch.cat(wanted, 2)) <= 1e-5
    assert asked.count("take_vae") == 2  # started anew
    del running.ask


def test_comfyui_takes_the_memory(shared):
    import comfy.model_management

    model = shared.load()
    wanted = shared.sample(model)
    assert group(shared).models and model.loaded_size() == model.model_size() > 0
    comfy.model_management.unload_all_models()
    assert not group(shared).models and model.loaded_size() == 0
    assert torch.equal(shared.sample(model), wanted)


def planned(shared, model, *size: int) -> str:
    """What Plan tells."""
    plan, sizes = shared.pack.module("nodes.jobs.plan"), shared.pack.module("nodes.network.sizes")
    budgets = shared.pack.module("skyreels_v3.jobs.estimates.budget")
    network = sizes.network_of(model)
    budget = budgets.Budget(network, budgets.planned_size(network.job, *size), sizes.machine_for(model))
    given = model, budget.size, network.job
    return "\n".join([*budget.describe(), *plan.time_needed(*given), *plan.sharing(*given)])


def test_weights_that_do_not_fit_are_kept_in_parts(shared, monkeypatch):
    wanted = shared.sample(shared.load(gpus=1))
    model = shared.load()
    network = model.model.diffusion_model
    monkeypatch.setattr(type(network), "_room", lambda self: self.weights + 1000)
    assert relative_error(shared.sample(model), wanted) <= 1e-5
    assert network.keeping.value == network.group.models[network.key][2] != "whole"
    told = planned(shared, model, 160, 96, 25)
    assert "on each of 2 cards" in told and "a card sends" in told


def test_plan_says_what_sharing_gives(shared):
    for gpus in (1, 2):
        model = shared.load(gpus=gpus)
        shared.sample(model)
    measured = planned(shared, model, 80, 48, 9)
    assert re.search(r"2 cards (are [\d.]+ times as fast as one|over this link take as long as one)", measured)
    assert "(measured)" in measured and "measured here" in measured


def test_what_works_on_one_card_only_is_told(shared):
    model = shared.load()

    def refused(match: str, act: Callable) -> None:
        with pytest.raises(shared.InputError, match=match) as told:
            act()
        assert "gpus to 1" in str(told.value)

    patched = model.clone()
    patched.set_model_patch_replace(lambda *_: None, "dit", "double_block", 0)
    refused("blocks", lambda: shared.sample(patched))
    attending = model.clone()
    attending.model_options["transformer_options"]["optimized_attention_override"] = lambda *_: None
    refused("attention", lambda: shared.sample(attending))
    refused("SkyReels-V3 LoRA", lambda: model.clone().add_patches({}))
    refused("replaces", lambda: model.clone().add_object_patch("diffusion_model.blocks.0.ffn.forward", None))
    refused("MultiGPU", model.deepclone_multigpu)
    save = shared.pack.module("nodes.models.save").SaveModel
    refused("Save Model", lambda: save.execute(model, "x", "as loaded"))


def test_all_cards_of_a_computer_with_one_or_none(shared, monkeypatch):
    """Nothing is asked of Ray."""
    monkeypatch.delenv("SKYREELS_GPUS_ON_CPU")
    model = shared.load(gpus=0)
    assert not shared.pack.module("nodes.network.shared.patcher").is_shared(model)
    with pytest.raises(shared.InputError, match="but it runs on cpu: set gpus to 1"):
        shared.load(gpus=2)


def test_too_many_cards(shared):
    with pytest.raises(shared.InputError, match=re.escape("gpus is 3, but there are 2 cards")):
        shared.load(gpus=3)
