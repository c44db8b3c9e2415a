"""A ComfyUI on each card of a Ray cluster: Ray finds the cards, and starts anew elsewhere what a machine takes with it.

Imported only where a cluster is asked for: the package ray is no requirement.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from typing import Any

from . import worker as worker_module
from .worker import Setup, Worker, free_port, is_private

PORTS = 10  # for each worker to choose from, of those that share a machine too
ANSWER = 10  # seconds that an actor may take to say how it is


class Cluster:
    """The workers of a cluster. count: how many, by default one for every `each` cards.

    Raises ConnectionError where there is no cluster, ValueError where it has too few cards, ImportError without ray.
    """

    def __init__(self, address: str, setup: Setup, port: int, count: int | None, each: float):
        import ray
        from ray import cloudpickle

        self._ray = ray
        ray.init(address=address, namespace="skyreels-workers", log_to_driver=False, logging_level="ERROR")
        try:
            self._check(setup.listen, 0 if count else each)
        except ValueError:
            ray.shutdown()
            raise
        for module in (worker_module, sys.modules[__name__]):  # other machines need not have this pack
            cloudpickle.register_pickle_by_value(module)
        options: dict[str, Any] = {"num_cpus": 1, "max_restarts": -1, "max_concurrency": 2}
        options |= {} if count else {"num_gpus": each}
        actor = ray.remote(**options)(Actor)
        number = count or int(self._cards() // each)
        self._actors = [actor.remote(setup, f"worker {one}", port + PORTS * one) for one in range(number)]
        self._addresses: list[str | None] = [None] * number

    def _cards(self) -> float:
        return self._ray.cluster_resources().get("GPU", 0.0)

    def _check(self, listen: str, needed: float) -> None:
        if self._cards() < needed:
            raise ValueError(
                f"The Ray cluster has {self._cards():g} cards, but {needed:g} are needed for a ComfyUI: start Ray on "
                "machines that have some, or give --count and -- --cpu."
            )
        open_ones = {node["NodeManagerAddress"] for node in self._ray.nodes() if node["Alive"]} if not listen else set()
        open_ones = sorted(address for address in open_ones if not is_private(address))
        if open_ones:
            raise ValueError(
                f"{', '.join(open_ones)} of the Ray cluster is no address of a private network, and whoever reaches a "
                "ComfyUI can run what he likes on its machine: start Ray there with --node-ip-address in a private one."
            )

    def __len__(self) -> int:
        return len(self._actors)

    def look(self) -> list[str]:
        """What there is to tell. Takes some seconds where a machine does not answer."""
        lines: list[str] = []
        asked = [actor.status.remote() for actor in self._actors]
        ready, _ = self._ray.wait(asked, num_returns=len(asked), timeout=ANSWER)
        for number, question in enumerate(asked):
            before = self._addresses[number]
            address = None
            if question in ready:
                try:
                    address, told = self._ray.get(question)
                    lines += told
                except self._ray.exceptions.RayError:
                    pass
            self._addresses[number] = address
            if before is not None and address is None:
                lines.append(f"worker {number}: {before} is gone; Ray starts another one where a card is free.")
        return lines

    @property
    def addresses(self) -> list[str]:
        """Of those that answer."""
        return [address for address in self._addresses if address is not None]

    def stop(self) -> None:
        stopping = [actor.stop.remote() for actor in self._actors]
        self._ray.wait(stopping, num_returns=len(stopping), timeout=worker_module.GRACE + 5)
        for actor in self._actors:
            self._ray.kill(actor)
        self._ray.shutdown()


class Actor:
    """A worker on the card that Ray gives to this process, at its machine's address. It ends with the process."""

    def __init__(self, setup: Setup, name: str, port: int):
        import ray

        listen = setup.listen or ray.util.get_node_ip_address()
        self._lines: list[str] = []
        self._stopped = False
        self._worker = Worker(replace(setup, listen=listen), name, free_port(listen, port), {})
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._stopped:
            line = self._worker.look()
            if line:
                self._lines.append(line)
            time.sleep(1)

    def status(self) -> tuple[str | None, list[str]]:
        """(its address, if it answers; what there is to tell since it was last asked)."""
        lines, self._lines = self._lines, []
        return self._worker.address if self._worker.there else None, lines

    def stop(self) -> None:
        self._stopped = True
        self._worker.stop()
        self._worker.kill()
