"""What is told where several cards cannot share a forward here, before anything starts."""

import sys

import pytest

from pack.dev.samples.tiny_models import write_transformer
from pack.distributed import cluster, group
from pack.distributed.ranks import Ranks
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job
from pack.tests.distributed.test_worker import message, spec, worker_of
from pack.tests.support.golden import relative_error

PARAMS = TransformerParams(dim=384, ffn_dim=512, num_heads=3, num_layers=2)


def about(machine: str = "a", torch: str = "2.9", python: str = "3.12", card: str = "") -> dict:
    return {"machine": machine, "torch": torch, "python": python, "card": card}


def test_systems_without_nccl(monkeypatch):
    monkeypatch.delenv(cluster.STAND_INS, raising=False)
    for platform, name in (("win32", "Windows"), ("darwin", "macOS")):
        monkeypatch.setattr(sys, "platform", platform)
        with pytest.raises(InputError, match=f"^{name} has no NCCL.*gpus to 1.*WSL2.*tools/batch.py"):
            cluster.check_possible()


def test_ray_is_missing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package ray.*pip install ray.*gpus to 1"):
        cluster.check_possible()


def test_machines_that_differ():
    group._check_alike([about(), about(machine="b")])
    with pytest.raises(InputError, match=r"b has torch 2.8, but a has 2.9"):
        group._check_alike([about(), about(machine="b", torch="2.8")])
    with pytest.raises(InputError, match=r"b has python 3.11"):
        group._check_alike([about(), about(machine="b", python="3.11")])


def test_two_processes_on_one_card():
    group._check_alike([about(card="x"), about(card="y"), about(machine="b", card="x")])
    with pytest.raises(InputError, match="the same card on a"):
        group._check_alike([about(card="x"), about(card="y"), about(card="x")])


def test_sentences_have_no_traceback():
    assert cluster._line(ValueError("a\n  b" * 200)) == ("a b" * 200)[:200]
    assert cluster._line(ValueError()) == "ValueError"


@pytest.mark.workshop
def test_a_cluster_of_two_machines_of_which_one_goes(tmp_path, monkeypatch):
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(cluster.STAND_INS, "2")
    monkeypatch.setattr(cluster, "WAIT", 10)
    monkeypatch.setattr(cluster, "CORES", 1)
    one_each = {"num_cpus": 1, "object_store_memory": 10**8}
    machines = Cluster(initialize_head=True, head_node_args={**one_each, "include_dashboard": False})
    second = machines.add_node(**one_each)
    monkeypatch.setenv("RAY_ADDRESS", machines.address)
    path = write_transformer(tmp_path / "SkyReels-V3-V2V.safetensors", Job.EXTENSION, params=PARAMS)
    alone = worker_of(Ranks())
    alone.call("load", "m", 0, spec(path))
    wanted = alone.call("forward", 1, "m", message())[1]
    shared = group.Group(2)
    try:
        cluster.connect()
        shared.users.add("m")
        shared.load("m", spec(path), path.stat().st_size)
        assert len(set(shared.processes.nodes)) == 2
        assert relative_error(shared.forward("m", message()), wanted) <= 1e-5
        machines.remove_node(second, allow_graceful=False)
        with pytest.raises(InputError, match="gpus is 2, but no 2 cards of this cluster are free"):
            shared.forward("m", message())
        machines.add_node(**one_each)
        assert relative_error(shared.forward("m", message()), wanted) <= 1e-5
    finally:
        shared.end()
        ray.shutdown()
        machines.shutdown()
