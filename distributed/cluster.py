"""Ray, which finds cards, starts a process on each, says when one has ended, and ends what is left.

The one place of the pack that imports it, and only where several cards are asked for: it is an optional package.
"""

import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..skyreels_v3.errors import InputError
from .joining import HERE

log = logging.getLogger(__name__)

# Stands for so many cards where there is none: gloo processes on the processor, for tests and for those who develop.
STAND_INS = "SKYREELS_GPUS_ON_CPU"
STORE = 256 * 2**20  # bytes of Ray's store: the inputs of a forward pass through it, no weights
PACK = Path(__file__).resolve().parents[1]
# What workers on other machines do not need of the pack's folder.
LEFT_HERE = [
    ".git",
    ".venv",
    "nano",
    "showcase",
    "training",
    "tests",
    "docs",
    "web",
    "workflows",
    "subgraphs",
    "benchmarks",
    "dev",
]
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # an old name and a new one of the same variable
CORES = 0.01  # of the processor, as Ray counts them; a process computes on its card
WAIT = 60  # seconds for Ray to place a process


def stand_ins() -> int:
    """How many processes on the processor stand for cards; 0 where cards are real."""
    given = os.environ.get(STAND_INS, "")
    return int(given) if given.isdigit() else 0


def check_possible() -> None:
    """Raises InputError where this computer cannot share a forward at all."""
    if sys.platform != "linux" and not stand_ins():
        system = "Windows" if sys.platform == "win32" else "macOS" if sys.platform == "darwin" else "This system"
        raise InputError(
            f"{system} has no NCCL, by which cards exchange data: set gpus to 1, or run ComfyUI in Linux, on Windows "
            "in WSL2. To use more cards here, start one ComfyUI for each and give them to tools/batch.py."
        )
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "More than one GPU needs the package ray, which is not installed here: install it into ComfyUI's Python "
            "(python -m pip install ray), or set gpus to 1."
        )


class Lost(Exception):
    """A process has ended. why: in words."""

    def __init__(self, why: str):
        super().__init__(why)
        self.why = why


def connect() -> None:
    """Joins the Ray cluster of RAY_ADDRESS, else starts Ray on this machine for as long as this process lives."""
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS", "")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "skyreels"}
    if address:
        if address != "local":  # there may be other machines
            options["runtime_env"] = {"working_dir": str(PACK), "excludes": [f"/{name}/" for name in LEFT_HERE]}
    else:
        # Of this machine alone: whoever reaches Ray's ports can run any program.
        options |= {"include_dashboard": False, "object_store_memory": STORE, "_node_ip_address": HERE}
        if stand_ins():
            options |= {"num_cpus": 1, "num_gpus": 0}
    try:
        ray.init(address=address or "local", **options)
    except Exception as error:
        raise InputError(
            f"Ray, which starts a process on each card, does not start here ({_line(error)}): set gpus to 1, or see "
            "docs/several-devices.md."
        ) from error


def is_alone() -> bool:
    """Whether this computer has one card at most and belongs to no cluster: nothing is to be shared, and nothing of Ray
    is asked to know that."""
    return not stand_ins() and not os.environ.get("RAY_ADDRESS") and torch.cuda.device_count() <= 1


def cards() -> dict[str, int]:
    """How many cards each machine of the cluster has."""
    import ray

    if stand_ins():
        return {"stand-ins on the processor": stand_ins()}
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return {node["NodeManagerHostname"]: int(node["Resources"].get("GPU", 0)) for node in nodes}


def _process() -> type:
    """The class of a process in Ray, which makes a Worker. Sent as it is: the pack has another name there."""

    class Process:
        def __init__(self, rank: int, size: int, device: str, tools: str):
            import sys

            sys.path.insert(0, tools if os.path.isdir(tools) else os.path.join(os.getcwd(), "tools"))
            from pack.distributed.worker import Worker  # pyright: ignore[reportMissingImports]

            self.worker: Any = Worker(rank, size, device)

        def call(self, name: str, *args: Any) -> Any:
            return self.worker.call(name, *args)

        def tell(self, name: str, *args: Any) -> Any:
            """What may be asked while a call runs."""
            return getattr(self.worker, name)(*args)

        def node(self) -> str:
            import ray

            return ray.get_runtime_context().get_node_id()

        def host(self) -> str:
            import ray

            return ray.util.get_node_ip_address()

    Process.__module__ = "__main__"
    return Process


class Processes:
    """A process on each of `size` cards, all on one machine where one has so many."""

    def __init__(self, size: int):
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self.handles: list[Any] = []
        self.pids: list[int] = []
        self.nodes: list[str] = []
        real = not stand_ins()
        each = {"CPU": CORES, **({"GPU": 1} if real else {})}
        self.place = placement_group([each] * size, strategy="PACK")
        if not self.place.wait(WAIT):
            ray.util.remove_placement_group(self.place)
            raise InputError(
                f"gpus is {size}, but no {size} cards of this cluster are free (there are "
                f"{', '.join(f'{machine}: {count}' for machine, count in cards().items())}): another program uses "
                "them, or gpus must be smaller."
            )
        # As in ComfyUI, but without what NCCL does not bear, and with the processor's cores shared.
        threads = str(max(1, (os.cpu_count() or 1) // size))
        variables = {"OMP_NUM_THREADS": threads, **dict.fromkeys(ALLOCATOR, "expandable_segments:True")} if real else {}
        # NCCL lets go of what was exchanged as soon as it is; newer torch does so by itself.
        variables["TORCH_NCCL_AVOID_RECORD_STREAMS"] = "1"
        passed = ("SKYREELS_", "NCCL_", "GLOO_", "TORCH_", "TRITON_")
        variables |= {name: value for name, value in os.environ.items() if name.startswith(passed)}
        actor: Any = ray.remote(_process())
        for rank in range(size):
            options = {
                "num_cpus": CORES,
                "num_gpus": 1 if real else 0,
                "max_restarts": 0,
                "max_concurrency": 2,
                "runtime_env": {"env_vars": variables},
                "scheduling_strategy": PlacementGroupSchedulingStrategy(self.place, rank),
            }
            device = "cuda:0" if real else "cpu"  # of the one card that Ray lets a process see
            self.handles.append(actor.options(**options).remote(rank, size, device, str(PACK / "tools")))

    def ask(self, method: str, *args: Any, ranks: Sequence[int] | None = None) -> dict[Any, int]:
        """Calls `call(method, ...)` in the processes; what each will answer -> its rank."""
        chosen = range(len(self.handles)) if ranks is None else ranks
        return {self.handles[rank].call.remote(method, *args): rank for rank in chosen}

    def tell(self, rank: int, method: str, *args: Any) -> Any:
        """Calls a method that runs beside a call; what it will answer."""
        return self.handles[rank].tell.remote(method, *args)

    def answers(self, asked: dict[Any, int], seconds: float) -> dict[int, Any]:
        """The answers that have come within so many seconds, at the first one at the latest: rank -> answer; they are
        taken from `asked`. Raises Lost where a process has ended."""
        import ray

        done, _ = ray.wait(list(asked), num_returns=1, timeout=seconds)
        return {asked.pop(one): answer_of(one) for one in done}

    def meet(self, seconds: float) -> str:
        """Where the first process can be reached by the others, once all have started. Raises Lost."""
        self.nodes = answer_of([handle.node.remote() for handle in self.handles], seconds)
        return answer_of(self.handles[0].host.remote(), seconds) if len(set(self.nodes)) > 1 else HERE

    def end(self) -> None:
        """Ends all processes, also those that do not answer any more."""
        import ray

        for handle in self.handles:
            try:
                ray.kill(handle)
            except Exception as error:  # it has ended, or Ray itself has
                log.debug("SkyReels-V3: %s", error)
        for node, pid in zip(self.nodes, self.pids):
            _kill(node, pid)
        try:
            ray.util.remove_placement_group(self.place)
        except Exception as error:
            log.debug("SkyReels-V3: %s", error)
        self.handles, self.pids, self.nodes = [], [], []


def put(value: Any) -> Any:
    """What every process takes `value` by, which is copied once for all processes of a machine."""
    import ray

    return ray.put(value)


def answer_of(asked: Any, seconds: float | None = None) -> Any:
    """The answer or answers, once they are there. Raises Lost where a process has ended, or after so many seconds."""
    import ray

    try:
        return ray.get(asked, timeout=seconds)
    except ray.exceptions.RayError as error:
        raise Lost(_line(error)) from None


def _line(error: Exception) -> str:
    """An error of Ray's, which may be pages, in a line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _kill(node: str, pid: int) -> None:
    """Kill a process that Ray has told to end, but which may be stopped or hang in a driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if node == ray.get_runtime_context().get_node_id():
        _signal(pid)
        return

    def there(pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass

    there.__module__ = "__main__"
    task: Any = ray.remote(there)
    task.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote(pid)


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError as error:  # it has ended
        log.debug("SkyReels-V3: %s", error)
