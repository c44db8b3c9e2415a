"""Flow matching: noisy latents between clean ones and noise, and the network learns the way from one to the other.

x = (1 - sigma) clean + sigma noise, and the velocity is noise - clean. Source: Lipman et al., 2210.02747; the shift of
noise levels: 2403.03206.
"""

import random

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.half_precision import in_hardware
from ...skyreels_v3.model.transformer import SkyReelsTransformer
from ...skyreels_v3.recipes import RECIPES, Job
from ...skyreels_v3.sampling.schedule import shifted, timesteps_of
from ..data.jobs import Batch
from ..models.network import forward

SHIFT = 3.0  # of the levels trained on: between what small pictures need and what the jobs' few steps stop at


def drawn_levels(count: int, rng: random.Random, shift: float = SHIFT) -> Tensor:
    """Noise levels [count] in (0, 1), one from each of `count` equal parts, so that every batch has all kinds."""
    parts = [(i + rng.random()) / count for i in range(count)]
    rng.shuffle(parts)
    return shifted(torch.tensor(parts).clamp(1e-3, 1), shift)


def at(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Latents at noise levels [B]."""
    return torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1, 1))


def velocity(model: SkyReelsTransformer, batch: Batch, noisy: Tensor, sigma: Tensor, job: Job) -> Tensor:
    """What the network says of noisy latents [B, 16, T, h, w] at levels [B]; float32."""
    timesteps = timesteps_of(sigma, RECIPES[job].integer_timesteps)
    device = noisy.device.type
    with torch.autocast(device, torch.bfloat16, enabled=in_hardware(torch.bfloat16, device)):
        return forward(model, batch.segments(noisy), timesteps, batch.text, batch.image, batch.speech)


def losses_of(model: SkyReelsTransformer, batch: Batch, job: Job, rng: random.Random) -> dict[str, Tensor]:
    sigma = drawn_levels(len(batch.clean), rng)
    noise = torch.randn_like(batch.clean)
    said = velocity(model, batch, at(batch.clean, noise, sigma), sigma, job)
    return {"loss": F.mse_loss(said, noise - batch.clean)}
