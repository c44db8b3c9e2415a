"""The official solvers in the form of ComfyUI's SAMPLER."""

from functools import partial

import comfy.samplers
import torch
from tqdm.auto import tqdm

from ...skyreels_v3.jobs.avatar.pinned import pinned_euler
from ...skyreels_v3.sampling.solver import unipc

FULL_NOISE = 0.99  # a schedule that starts above this makes a video from noise alone


@torch.no_grad()
def sample_with(solver, model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A solver of skyreels_v3, called as (denoise, x, sigmas, callback), in the form of ComfyUI's sampler functions."""
    batch = x.new_ones([x.shape[0]])
    if sigmas[0] >= FULL_NOISE:
        # ComfyUI scales the noise by the first sigma (0.9998); the official pipelines start from the noise itself.
        x = model.noise.to(x)
    bar = tqdm(total=len(sigmas) - 1, disable=disable)

    def denoise(x, sigma):
        return model(x, sigma * batch, **(extra_args or {}))

    def report(step, x, denoised):
        bar.update()
        if callback is not None:
            sigma = sigmas[step]
            callback({"x": x, "i": step, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})

    with bar:
        return solver(denoise, x, sigmas, callback=report)


def unipc_sampler() -> comfy.samplers.KSAMPLER:
    """The official solver of reference and extension as a SAMPLER."""
    return comfy.samplers.KSAMPLER(partial(sample_with, unipc))


def avatar_sampler(pin) -> comfy.samplers.KSAMPLER:
    """The avatar's solver as a SAMPLER. pin: holds the motion frames, see skyreels_v3.jobs.avatar.pinned; or None."""

    def solver(denoise, x, sigmas, callback):
        return pinned_euler(denoise, x.clone(), sigmas, pin, callback)

    return comfy.samplers.KSAMPLER(partial(sample_with, solver))
