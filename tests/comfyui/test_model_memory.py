"""Where the weights of a graph's models lie: its other models count, and packed ones lie on disk where RAM is short."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from pack.dev.samples.sparse_models import SIZES, write_sparse
from pack.skyreels_v3.container import Limit
from pack.skyreels_v3.recipes import Job
from pack.tests.comfyui.test_precision_nodes import file, forward, load, same, state

__all__ = ["file", "forward", "load"]

pytestmark = pytest.mark.usefixtures("computes_in_float32")


@pytest.mark.parametrize(
    "device, vram, ram, wanted",
    [
        ("cpu", 64, 64, "auto"),
        ("cuda", 80, 128, "auto"),
        ("cuda", 24, 64, "int8"),
        ("cuda", 8, 32, "int8"),
        ("cuda", 8, 16, "nf4"),
        ("mps", 36, 36, "int8"),
    ],
)
def test_auto_follows_the_machine(pack_nodes, device, vram, ram, wanted):
    precision = pack_nodes.module("model_loaders.tensors.precision")
    chosen, why = precision.automatic(14_288_000_000, device, vram * 10**9, ram * 10**9)
    assert chosen.value == wanted and why.endswith(".") and "\n" not in why
    small, _ = precision.automatic(100_000_000, device, vram * 10**9, ram * 10**9)
    assert small.value == "auto"


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_packed_weights_lie_on_disk_where_ram_is_short(
    load, forward, pack_nodes, comfyui, file, precision, monkeypatch
):
    kept = load(str(file), precision=precision)
    monkeypatch.setattr(pack_nodes.module("model_loaders.placement"), "LEAST", 0)
    patcher = load(str(file), precision=precision, others=10**15)
    assert any("lie on the disk of ComfyUI's temp folder" in note for note in patcher.model.notes)
    assert not any("temp folder" in note for note in kept.model.notes)
    layers = [layer for layer in patcher.model.diffusion_model.blocks.modules() if hasattr(layer, "file_weights")]
    assert all(layer.lies_in_file(name) for layer in layers for name, _ in layer.named_parameters())
    assert same(state(patcher), state(kept)) and torch.equal(forward(patcher), forward(kept))


@pytest.mark.parametrize("what", ["no folder", "RAM disk", "--disable-mmap"])
def test_packed_weights_stay_in_ram_where_there_is_no_disk(
    load, pack_nodes, comfyui, file, tmp_path, what, monkeypatch
):
    import comfy.cli_args
    import psutil

    monkeypatch.setattr(pack_nodes.module("model_loaders.placement"), "LEAST", 0)
    if what == "no folder":
        tmp_path.joinpath("temp").touch()
        monkeypatch.setattr(comfyui.folder_paths, "get_temp_directory", lambda: str(tmp_path / "temp"))
    elif what == "RAM disk":
        mounts = [
            SimpleNamespace(mountpoint="/", fstype="ext4"),
            SimpleNamespace(mountpoint=comfyui.folder_paths.get_temp_directory(), fstype="tmpfs"),
        ]
        monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    else:
        monkeypatch.setattr(comfy.cli_args.args, "disable_mmap", True)
    patcher = load(str(file), precision="int8", others=10**15)
    assert any("RAM may not hold" in note for note in patcher.model.notes)
    assert not patcher.model.diffusion_model.blocks[0].ffn[0].lies_in_file("weight")


@pytest.fixture
def folder(comfyui):
    """ComfyUI's own folder of models, empty again afterwards."""
    folder = comfyui.base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        path.unlink()


def test_the_other_models_of_a_graph_are_counted(pack_nodes, folder):
    """Each of them by what it packs; what its own node will refuse counts nothing."""
    for name, job in {"r2v": Job.REFERENCE, "v2v": Job.EXTENSION, "a2v": Job.AVATAR}.items():
        write_sparse(folder / f"{name}.safetensors", SIZES[job])

    def node(name, **inputs):
        inputs = {
            "model": name and f"{name}.safetensors",
            "job": "auto",
            "precision": "int8",
            "attention": "auto",
            **inputs,
        }
        return {"class_type": "SkyReelsLoadModel", "inputs": inputs}

    graph = {
        "1": node("r2v"),
        "2:7": node("v2v"),  # in a subgraph
        "3": node("a2v"),
        "4": node("gone"),
        "5": node("r2v", precision="bf16"),  # lies in its file
        "6": node("", model=["9", 0]),
        "7": node("r2v", job="none"),
        "8": {"class_type": "UNETLoader", "inputs": {"unet_name": "r2v.safetensors"}},
    }
    others_in = pack_nodes.module("nodes.models.load").others_in
    assert others_in(graph, "1") == pytest.approx((14.05 + 18.56) * 1e9, rel=0.001)
    assert others_in(graph, "2:7") == others_in(graph, "1")
    assert others_in(graph, "3") == pytest.approx(2 * 14.05e9, rel=0.001)
    assert others_in(None, None) == others_in({}, "1") == 0


def test_the_node_looks_at_the_graph(pack_nodes, folder, file, monkeypatch):
    shutil.copy(file, folder / "tiny_r2v.safetensors")
    write_sparse(folder / "other_r2v.safetensors", SIZES[Job.REFERENCE])
    placement = pack_nodes.module("model_loaders.placement")
    monkeypatch.setattr(placement, "LEAST", 0)
    ram = 20 * 10**9
    memory = placement.Memory(ram, ram, 10**14)
    monkeypatch.setattr(pack_nodes.module("nodes.models.copies"), "memory_now", lambda: memory)
    inputs = {"model": "tiny_r2v.safetensors", "job": "auto", "precision": "int8"}
    alone = {"1": {"class_type": "SkyReelsLoadModel", "inputs": inputs}}
    other = {"class_type": "SkyReelsLoadModel", "inputs": {**inputs, "model": "other_r2v.safetensors"}}
    for graph, wanted in ((alone, False), ({**alone, "2": other}, True)):
        node = pack_nodes.ready("SkyReelsLoadModel")
        node.hidden = SimpleNamespace(prompt=graph, unique_id="1")
        (patcher,) = node.execute(**inputs).args
        assert any("other models of this graph need 14.1 GB" in note for note in patcher.model.notes) is wanted
        assert patcher.model.diffusion_model.blocks[0].ffn[0].lies_in_file("weight") is wanted


def test_a_containers_limit_counts_as_the_machines_ram(pack_nodes, monkeypatch):
    machine = pack_nodes.module("nodes.network.machine")
    total, free = machine.main_memory()
    limits = {(10**9, 4 * 10**8): (10**9, 6 * 10**8), (10**9, 2 * 10**9): (10**9, 0), (10**18, 0): (total, free)}
    for limit, wanted in limits.items():
        monkeypatch.setattr(machine, "memory_limit", lambda limit=limit: Limit(*limit))
        found = machine.main_memory()
        assert found[0] == wanted[0] and found[1] == pytest.approx(wanted[1], rel=0.2)
