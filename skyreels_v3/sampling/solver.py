"""The two samplers of the official pipelines, for a model that predicts the clean latent.

Sources: UniPC (arXiv 2302.04867), data prediction, order 2, B2(h), as fm_solvers_unipc.py and diffusers'
UniPCMultistepScheduler run it on flow models: signal 1 - sigma, noise sigma, lambda = log((1 - sigma) / sigma).

`denoise(x, sigma)` is the model: noisy latents and a 0-d float32 sigma on their device -> clean latents. For a velocity
v, clean = x - sigma v. `callback(step, x, denoised)` is called before every step is taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from ..errors import InputError

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Callback = Callable[[int, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class UniPCStep:
    """Coefficients of one step from sigma s to t: Python numbers, so that a step never waits for the device."""

    predictor: tuple[float, float, float]  # of the latents, and the clean predictions at s and at the sigma before s
    # Of the latents, and the clean predictions at s, at the sigma before s, and at t. None at the last step, after
    # which the model is not called again.
    corrector: tuple[float, float, float, float] | None


def unipc_steps(sigmas: list[float]) -> list[UniPCStep]:
    """Coefficients of every step down `sigmas`, in float64."""
    lambdas = [_log_signal_to_noise(sigma) for sigma in sigmas]
    steps = []
    last = len(sigmas) - 2
    for i, (s, t) in enumerate(pairwise(sigmas)):
        h = lambdas[i + 1] - lambdas[i]
        decay = t / s
        gain = (1 - t) * -math.expm1(-h)
        # Order 2 needs an earlier prediction; the last step is order 1 (lower_order_final).
        # From pure noise lambda is -infinity and the earlier prediction infinitely far: inverse becomes 0.
        second = 0 < i < last
        inverse = h / (lambdas[i - 1] - lambdas[i]) if second else 0.0
        slope = 0.5 * inverse
        predictor = (decay, gain * (1 - slope), gain * slope)
        corrector = None
        if i < last:
            here, before = _corrector_weights(h, inverse) if second else (0.5, 0.0)
            corrector = (decay, gain * (1 - here - before), gain * before, gain * here)
        steps.append(UniPCStep(predictor, corrector))
    return steps


def unipc(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, callback: Callback | None = None) -> torch.Tensor:
    """Follows the flow from sigmas[0] to sigmas[-1] with UniPC order 2; one model call a step.

    x: noisy latents of any shape, dtype and device; kept in float32 or better, returned in its own dtype.
    sigmas: [steps + 1], falling, at most 1; they may start below 1 and end above 0.
    Raises InputError where sigmas are no such schedule.
    """
    steps = unipc_steps(_checked(sigmas))
    x, dtype, levels = _prepare(x, sigmas)
    before = here = start = x  # without weight until there are others
    for i, step in enumerate(steps):
        clean = denoise(x.to(dtype), levels[i]).to(x.dtype)
        corrector = steps[i - 1].corrector if i > 0 else None
        if corrector is not None:
            x = _mix(corrector, (start, here, before, clean))
        if callback is not None:
            callback(i, x, clean)
        before, here, start = here, clean, x
        x = _mix(step.predictor, (x, here, before))
    return x.to(dtype)


def euler(denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, callback: Callback | None = None) -> torch.Tensor:
    """Follows the flow from sigmas[0] to sigmas[-1] in straight steps; arguments and errors as of `unipc`."""
    ratios = [t / s for s, t in pairwise(_checked(sigmas))]
    x, dtype, levels = _prepare(x, sigmas)
    for i, ratio in enumerate(ratios):
        clean = denoise(x.to(dtype), levels[i]).to(x.dtype)
        if callback is not None:
            callback(i, x, clean)
        x = _mix((ratio, 1 - ratio), (x, clean))
    return x.to(dtype)


def _corrector_weights(h: float, inverse: float) -> tuple[float, float]:
    """Weights in the order 2 corrector of the predictions at t and before s, as differences to that at s.

    The paper's 2 x 2 system in closed form; `inverse` is 1 / r of the earlier prediction, its difference included.
    """
    basis = math.expm1(-h)
    phi = basis / -h - 1
    b1 = phi / basis
    b2 = 2 * (phi / -h - 0.5) / basis
    before = (b1 - b2) * inverse / (inverse - 1)
    return b1 - before, before * inverse


def _log_signal_to_noise(sigma: float) -> float:
    if sigma >= 1:
        return -math.inf
    return math.log((1 - sigma) / sigma) if sigma > 0 else math.inf


def _checked(sigmas: torch.Tensor) -> list[float]:
    """The sigmas as Python numbers. Raises InputError where they are no schedule."""
    values = sigmas.detach().cpu().double().flatten().tolist()  # Apple GPUs have no float64
    if len(values) < 2:
        raise InputError(f"The schedule has {len(values)} sigmas, but needs at least 2: ask for 1 step or more.")
    if not all(s > t for s, t in pairwise(values)) or values[-1] < 0:
        raise InputError(
            "The sigmas must fall at every step and end at 0 or above: "
            f"got {', '.join(f'{sigma:g}' for sigma in values[:8])}{', ...' if len(values) > 8 else ''}."
        )
    if values[0] > 1:
        raise InputError(
            f"The first sigma is {values[0]:g}, but SkyReels-V3 is a flow model, whose noise ends at 1: "
            "make the sigmas with a flow schedule."
        )
    return values


def _prepare(x: torch.Tensor, sigmas: torch.Tensor) -> tuple[torch.Tensor, torch.dtype, torch.Tensor]:
    """x in float32 or better, its dtype, and the sigmas on its device."""
    levels = sigmas.flatten().to(x.device, torch.float32)
    return x.to(torch.promote_types(x.dtype, torch.float32)), x.dtype, levels


def _mix(weights: tuple[float, ...], tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Sum of weight x tensor; terms without weight are left out."""
    terms = [(weight, tensor) for weight, tensor in zip(weights, tensors) if weight]
    weight, tensor = terms[0]
    total = tensor * weight
    for weight, tensor in terms[1:]:
        total.add_(tensor, alpha=weight)
    return total
