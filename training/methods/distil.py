"""Distillation: a student learns to take in one step what its teacher does in several, guidance included.

The student's steps are those of the job's own schedule (8 or 4, shifted as officially). For a level s of it and the
next one t, the teacher goes from s to t in small steps, each guided; the student's velocity at s is to lead straight to
where the teacher arrives. The last step, from far up to clean, is where most is decided, and has most small steps.
Source: progressive distillation (2202.00512) with guidance (2210.03142), in one go.
"""

import itertools
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from ...skyreels_v3.model.transformer import SkyReelsTransformer
from ...skyreels_v3.recipes import Job
from ...skyreels_v3.sampling.schedule import job_sigmas
from ..data.jobs import Batch
from .flow import at, velocity

SMALL_STEP = 0.12  # of the noise level: the teacher takes as many as it needs to stay below
MOST = 5  # small steps of one
# Of the jobs that are distilled. The avatar, told so much by portrait and speech, does with four unguided steps as is.
GUIDANCE = {Job.REFERENCE: 2.0, Job.EXTENSION: 1.0, Job.SHOT: 2.0}


def interval(job: Job, rng: random.Random) -> tuple[float, float]:
    """A step of the job's schedule: from, to. The last ones, which decide about detail, are drawn more often."""
    sigmas = job_sigmas(job).tolist()
    index = min(int(len(sigmas[:-1]) * rng.random() ** 0.7), len(sigmas) - 2)
    return min(sigmas[index], 0.9995), sigmas[index + 1]


@torch.no_grad()
def arrived(teacher: SkyReelsTransformer, batch: Batch, noisy: Tensor, start: float, stop: float, job: Job) -> Tensor:
    """Where the teacher gets to from level `start` at level `stop`."""
    steps = max(1, min(MOST, round((start - stop) / SMALL_STEP)))
    levels = torch.linspace(start, stop, steps + 1)
    x, guidance, untold = noisy, GUIDANCE[job], batch.untold()
    for here, there in itertools.pairwise(levels):
        sigma = here.expand(len(x))
        v = velocity(teacher, batch, x, sigma, job)
        if guidance != 1:
            away = velocity(teacher, untold, x, sigma, job)
            v = away + guidance * (v - away)
        x = x + (there - here) * v
    return x


def losses_of(
    student: SkyReelsTransformer, teacher: SkyReelsTransformer, batch: Batch, job: Job, rng: random.Random
) -> dict[str, Tensor]:
    start, stop = interval(job, rng)
    clean = batch.clean
    noisy = at(clean, torch.randn_like(clean), torch.full((len(clean),), start))
    target = (noisy - arrived(teacher, batch, noisy, start, stop, job)) / (start - stop)
    said = velocity(student, batch, noisy, torch.full((len(clean),), start), job)
    return {"loss": F.mse_loss(said, target)}
