"""Euler steps that hold a window's first frames to the motion frames."""

from itertools import pairwise

import torch

from ...sampling.solver import Callback, Denoise, euler


class Pin:
    """Holds a window's first latent frames to the motion frames while the rest is sampled.

    The official code puts them, with noise of the level reached, into the noise before the first step and into the
    latents after every step. The noise is new each time.
    """

    def __init__(self, motion: torch.Tensor, generator: torch.Generator):
        """motion: clean latents [1, 16, n, h, w].  generator: on the CPU."""
        self.motion = motion
        self.generator = generator

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor | float) -> torch.Tensor:
        """x [1, 16, T, h, w] at noise level `sigma`, its first frames replaced; written into x."""
        noise = torch.randn(self.motion.shape, generator=self.generator).to(x)
        x[:, :, : self.motion.shape[2]] = (1 - sigma) * self.motion.to(x) + sigma * noise
        return x


def pinned_euler(
    denoise: Denoise, x: torch.Tensor, sigmas: torch.Tensor, pin: Pin | None, callback: Callback | None = None
) -> torch.Tensor:
    """`solver.euler` that holds the motion frames: the sampler of this job. x is written into."""
    if pin is not None:
        x = pin(x, sigmas[0].to(x))
    for index, pair in enumerate(pairwise(sigmas)):

        def report(_, x, clean, index=index):
            if callback is not None:
                callback(index, x, clean)

        x = euler(denoise, x, torch.stack(pair), report)
        if pin is not None:
            x = pin(x, pair[1].to(x))
    return x
