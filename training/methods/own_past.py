"""An extension's past as it will be: after the first roll it is the model's own, and never as clean as a clip's.

One that has only seen clean pasts lets small errors of colour and shape grow from roll to roll. Source: the idea of
Self Forcing (2506.08009), here in one step instead of a whole roll.
"""

import random

import torch

from ...skyreels_v3.model.transformer import SkyReelsTransformer
from ...skyreels_v3.recipes import Job
from ..data.jobs import Batch, going_on
from .flow import at, velocity

OFTEN = 0.6  # of the batches
LEVELS = (0.3, 0.95)  # of noise, from which the model makes the past in one step
TRUE = (1, 3)  # latent frames that stay as they are: the model makes those after them


def with_own_past(model: SkyReelsTransformer, batch: Batch, rng: random.Random) -> Batch:
    """An extension's batch, most of whose past the model has made itself from noisy latents."""
    true = rng.choice(TRUE)
    if batch.past.shape[2] <= true or rng.random() >= OFTEN:
        return batch
    begin, rest = batch.past[:, :, :true], batch.past[:, :, true:]
    sigma = torch.full((len(rest),), rng.uniform(*LEVELS))
    noisy = at(rest, torch.randn_like(rest), sigma)
    with torch.no_grad():
        said = velocity(model, going_on(rest, begin, batch.text), noisy, sigma, Job.EXTENSION)
    made = noisy - sigma.view(-1, 1, 1, 1, 1) * said
    return going_on(batch.clean, torch.cat([begin, made], dim=2), batch.text)
