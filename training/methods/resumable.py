"""A training that can be stopped and goes on where it was: a loop over steps that keeps its state in a file."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..data.files import whole
from . import parallel
from .optimiser import Optimiser

SAVE_SECONDS = 60.0
LOG_STEPS = 50
WARM_UP = 30


@dataclass
class Progress:
    """step: the next one.  log: one entry of means for every LOG_STEPS steps."""

    step: int = 0
    seconds: float = 0.0
    log: list[dict] = field(default_factory=list)


def factor_of(step: int, steps: int, cool_down: float) -> float:
    """Of the learning rate: up in the first steps, down to nothing over the last `cool_down` of all."""
    down = (1 - step / steps) / cool_down if cool_down else 1.0
    return min(1.0, (step + 1) / WARM_UP, down)


def run(
    file: Path,
    model: torch.nn.Module,
    optimiser: Optimiser,
    steps: int,
    loss_of: Callable[[int], dict[str, torch.Tensor]],
    cool_down: float = 0.4,
    extra: Callable[[], dict] | None = None,
    say: Callable[[str], None] = print,
    stop: int | None = None,
) -> None:
    """Train to `steps` steps. file: of the state; a run that is there goes on.

    loss_of: step -> named losses, of which "loss" is followed down.  cool_down: share of the steps in which the rate
    falls.  extra: state of the caller's, kept beside (see `extra_of`).  stop: the step to stop at for now.
    """
    progress = Progress()
    if file.exists():
        state = torch.load(file, weights_only=False)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        progress = Progress(**state["progress"])
    torch.manual_seed(progress.step * parallel.workers() + parallel.rank())
    begin = saved = time.monotonic()
    sums: dict[str, float] = {}

    def save() -> None:
        nonlocal saved
        if parallel.rank():
            return
        done = {**vars(progress), "seconds": progress.seconds + time.monotonic() - begin}
        state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "progress": done}
        with whole(file) as unfinished:
            torch.save({**state, "extra": extra() if extra else None}, unfinished)
        saved = time.monotonic()

    while progress.step < min(steps, stop or steps):
        losses = loss_of(progress.step)
        losses["loss"].backward()
        parallel.share_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step(factor_of(progress.step, steps, cool_down))
        progress.step += 1
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / LOG_STEPS
        if progress.step % LOG_STEPS == 0:
            if not math.isfinite(sums["loss"]):
                raise ArithmeticError(f"The loss is {sums['loss']} at step {progress.step}: lower the rate.")
            seconds = progress.seconds + time.monotonic() - begin
            progress.log.append({"step": progress.step, "seconds": round(seconds, 1), **sums})
            if not parallel.rank():
                say(json.dumps({k: round(v, 5) for k, v in progress.log[-1].items()}))
            sums = {}
        if time.monotonic() - saved > SAVE_SECONDS:
            save()
    save()


def extra_of(file: Path) -> dict | None:
    """What `run` kept for its caller, None where nothing was."""
    return torch.load(file, weights_only=False)["extra"] if file.exists() else None
