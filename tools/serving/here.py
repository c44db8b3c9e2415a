"""The cards of this machine, and a ComfyUI on each."""

from __future__ import annotations

import os
import subprocess

from .worker import Setup, Worker, free_port

COUNT = "import torch; print(torch.cuda.device_count())"


def cards_of(python: str) -> int:
    """How many cards ComfyUI's Python sees. Raises OSError where it cannot be asked."""
    pipe = subprocess.PIPE
    said, wrong = subprocess.Popen([python, "-c", COUNT], stdout=pipe, stderr=pipe, text=True).communicate()
    try:
        return int(said.split()[-1])
    except (ValueError, IndexError):
        last = (wrong.strip().splitlines() or ["it said nothing"])[-1]
        raise OSError(f"{python} has no torch that works ({last})") from None


def on_cards(setup: Setup, cards: list[int], port: int) -> list[Worker]:
    """A worker on each of `cards`, which count among those that this process may see. Raises OSError."""
    visible = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    workers: list[Worker] = []
    for card in cards:
        one = visible[card].strip() if card < len(visible) else str(card)
        environment = {"CUDA_VISIBLE_DEVICES": one, "HIP_VISIBLE_DEVICES": one, "ASCEND_RT_VISIBLE_DEVICES": one}
        workers.append(Worker(setup, f"card {card}", _next(setup, port, workers), environment))
    return workers


def without_cards(setup: Setup, count: int, port: int) -> list[Worker]:
    """So many workers, whatever they run on. Raises OSError."""
    workers: list[Worker] = []
    for number in range(count):
        workers.append(Worker(setup, f"worker {number}", _next(setup, port, workers), {}))
    return workers


def _next(setup: Setup, port: int, workers: list[Worker]) -> int:
    return free_port(setup.listen, port, frozenset(worker.port for worker in workers))
