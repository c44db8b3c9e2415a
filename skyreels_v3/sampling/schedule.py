"""Noise levels (sigmas, 1 = pure noise, 0 = clean) and the timesteps that the network is given.

Source: the schedulers of the official pipelines. Both UniPC jobs cut the straight line from 0.999 to 0 into equal steps
and then shift it. The reference job does so in float64 (diffusers' UniPCMultistepScheduler with flow sigmas); the
extension jobs start at 0.999 rounded to float32 (fm_solvers_unipc.py). The avatar's Euler steps run over linspace(1000,
1, steps) in float32, shifted, then 0.
"""

import numpy as np
import torch

from ..errors import InputError
from ..recipes import RECIPES, Job

TRAIN_STEPS = 1000  # of the noise schedule the model was trained on; a timestep is sigma times this
MAX_STEPS = 1000


def shifted(sigmas, shift: float):
    """s' = shift s / (1 + (shift - 1) s): more of the steps at high noise (arXiv 2403.03206)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def unipc_sigmas(steps: int, shift: float, job: Job = Job.REFERENCE) -> torch.Tensor:
    """Sigmas [steps + 1] float32 on the CPU of the UniPC jobs, the last one 0.

    `integer_timestep` of them is the official timestep, always. The official timesteps are cut from float64 sigmas;
    rounded to float32, a sigma next to a whole number of thousandths can fall on its other side, and is then moved by
    one float32 step.  job: REFERENCE, EXTENSION or SHOT, whose grids differ by 1e-8.
    Raises InputError for a step count or shift that makes no schedule.
    """
    _check(steps, shift)
    if job == Job.REFERENCE:
        grid = np.flip(1 - np.linspace(1, 1 / TRAIN_STEPS, steps + 1))[:-1]
    else:
        grid = np.linspace(float(np.float32(1 - 1 / TRAIN_STEPS)), 0, steps + 1)[:-1]
    exact = shifted(grid, shift)
    sigmas = torch.from_numpy(np.append(exact, 0.0).astype(np.float32))
    error = integer_timestep(sigmas) - torch.from_numpy(np.append(exact * TRAIN_STEPS, 0.0)).floor().float()
    return torch.where(error == 0, sigmas, torch.nextafter(sigmas, sigmas - error))


def euler_sigmas(steps: int, shift: float) -> torch.Tensor:
    """Sigmas [steps + 1] float32 on the CPU of the avatar job, the last one 0.

    The operations and their order are the official ones, so that sigma x 1000 is the official timestep to the bit.
    Raises InputError for a step count or shift that makes no schedule.
    """
    _check(steps, shift)
    timesteps = np.append(np.linspace(TRAIN_STEPS, 1, steps, dtype=np.float32), np.float32(0))
    return shifted(torch.from_numpy(timesteps) / TRAIN_STEPS, shift)


def job_sigmas(job: Job, steps: int | None = None, shift: float | None = None) -> torch.Tensor:
    """Sigmas [steps + 1] float32 of a job's own solver; steps and shift default to its recipe's."""
    recipe = RECIPES[job]
    steps = recipe.steps if steps is None else steps
    shift = recipe.shift if shift is None else shift
    return euler_sigmas(steps, shift) if recipe.solver == "euler" else unipc_sigmas(steps, shift, job)


def integer_timestep(sigma: torch.Tensor) -> torch.Tensor:
    """Timestep of the UniPC jobs, float32 like sigma's shape: sigma x 1000 cut down to a whole number.

    float32 throughout: a product of two float32 numbers is rounded alike on every device.
    """
    return (sigma.to(torch.float32) * TRAIN_STEPS).floor()


def timesteps_of(sigmas: torch.Tensor, integer: bool) -> torch.Tensor:
    """Timesteps float32 for sigmas: `integer` for the UniPC jobs, plain sigma x 1000 for the avatar."""
    return integer_timestep(sigmas) if integer else sigmas.to(torch.float32) * TRAIN_STEPS


def _check(steps: int, shift: float) -> None:
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"{steps} steps were asked for: choose 1 to {MAX_STEPS}; the models are made for 4 or 8.")
    if not 0 < shift < float("inf"):
        raise InputError(f"The shift is {shift}, but it must be above 0: the models are made for 5, 8 or 11.")
