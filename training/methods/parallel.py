"""Several processes that train one model: each takes its own batches, and all take the step of the mean gradient.

Of the two threads that one process could have on a laptop, the second gains a quarter; a second process gains most of
the rest.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist


def launch(workers: int, work: Callable[..., None], *arguments) -> None:
    """Run `work(*arguments)` in so many processes, one thread each; in this one where it is the only one."""
    if workers == 1:
        work(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meet = (Path(folder) / "meet").as_uri()
        torch.multiprocessing.spawn(_process, (workers, meet, work, arguments), nprocs=workers)


def _process(rank: int, workers: int, meet: str, work: Callable[..., None], arguments: tuple) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=workers)
    try:
        work(*arguments)
    finally:
        dist.destroy_process_group()


def workers() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Of this process, from 0; the first one writes files and says what happens."""
    return dist.get_rank() if dist.is_initialized() else 0


def share_gradients(model: torch.nn.Module) -> None:
    """Gives every process the mean of all gradients."""
    if workers() == 1:
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # What one process had no use for in its batch counts as zero, or the rest would not line up.
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= workers()
    for parameter, mean in zip(parameters, together.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = mean.view_as(parameter)
