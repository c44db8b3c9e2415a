"""Schedules and solvers beyond the goldens: every step count, other dtypes, bad input."""

import math

import numpy as np
import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.recipes import RECIPES, Job
from pack.skyreels_v3.sampling.schedule import euler_sigmas, integer_timestep, job_sigmas, timesteps_of, unipc_sigmas
from pack.skyreels_v3.sampling.solver import euler, unipc, unipc_steps


def official_grid(steps, job):
    """The unshifted sigmas of each official scheduler, in float64."""
    if job is Job.REFERENCE:
        return np.flip(1 - np.linspace(1, 1 / 1000, steps + 1))[:-1]
    return np.linspace(float(np.float32(0.999)), 0, steps + 1)[:-1]


@pytest.mark.parametrize("job", [Job.REFERENCE, Job.EXTENSION, Job.SHOT])
@pytest.mark.parametrize("shift", [*range(1, 21), 0.5, 1.5, 5.5, 11.3])
def test_integer_timesteps_are_the_official_ones(job, shift):
    for steps in range(1, 101):
        grid = official_grid(steps, job)
        exact = shift * grid / (1 + (shift - 1) * grid)
        sigmas = unipc_sigmas(steps, shift, job)
        assert sigmas.dtype == torch.float32 and sigmas.shape == (steps + 1,) and sigmas[-1] == 0
        assert integer_timestep(sigmas[:-1]).tolist() == (exact * 1000).astype(np.int64).tolist()
        assert np.abs(sigmas[:-1].numpy() - exact).max() < 1.3e-7
        assert (sigmas.diff() < 0).all()


def test_euler_sigmas_fall_to_zero():
    for steps in (1, 2, 4, 50):
        sigmas = euler_sigmas(steps, 11.0)
        assert sigmas[0] == 1 and sigmas[-1] == 0 and (sigmas.diff() < 0).all()


@pytest.mark.parametrize("job", list(Job))
def test_job_sigmas_follow_the_recipe(job):
    recipe = RECIPES[job]
    sigmas = job_sigmas(job)
    assert len(sigmas) == recipe.steps + 1
    assert len(job_sigmas(job, steps=3, shift=2.0)) == 4
    timesteps = timesteps_of(sigmas, recipe.integer_timesteps)
    assert timesteps.dtype == torch.float32
    assert bool((timesteps == timesteps.floor()).all()) == recipe.integer_timesteps


@pytest.mark.parametrize("steps, shift", [(0, 5), (-1, 5), (1001, 5), (8, 0), (8, -1), (8, math.nan), (8, math.inf)])
def test_impossible_schedules_are_told(steps, shift):
    for make in (unipc_sigmas, euler_sigmas):
        with pytest.raises(InputError):
            make(steps, shift)


def linear_flow(x, sigma):
    """Clean latents where the velocity is x: the flow from s to t is exp(t - s)."""
    return x - sigma * x


@pytest.mark.parametrize("start, end", [(0.9, 0.0), (0.6, 0.0), (0.95, 0.3)])
def test_unipc_converges_with_second_order(start, end):
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    exact = x * math.exp(end - start)
    errors = []
    for steps in (16, 32, 64):
        got = unipc(linear_flow, x, torch.linspace(start, end, steps + 1, dtype=torch.float64))
        errors.append((got - exact).abs().max().item())
    assert errors[0] < 2e-2
    assert errors[1] < errors[0] / 2.5 and errors[2] < errors[1] / 2.5


@pytest.mark.parametrize("solver", [unipc, euler])
def test_solvers_start_from_pure_noise(solver):
    x = torch.linspace(-2, 2, 9)
    got = solver(linear_flow, x, torch.linspace(1, 0, 257))
    assert torch.allclose(got, x * math.exp(-1), rtol=2e-3)


@pytest.mark.parametrize("solver", [unipc, euler])
def test_one_step_to_zero_gives_the_denoised(solver):
    x = torch.randn(1, 16, 2, 3, 4)
    got = solver(lambda x, sigma: x * 0 + 7, x, torch.tensor([0.99, 0.0]))
    assert torch.equal(got, torch.full_like(x, 7))


@pytest.mark.parametrize("solver", [unipc, euler])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_solvers_keep_the_dtype_and_the_input(solver, dtype):
    x = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = x.to(dtype)
    before = given.clone()
    seen = []

    def denoise(x, sigma):
        seen.append((x.dtype, sigma.dtype, sigma.shape))
        return linear_flow(x, sigma.to(x.dtype))

    sigmas = job_sigmas(Job.REFERENCE)
    got = solver(denoise, given, sigmas)
    assert got.dtype == dtype and torch.equal(given, before)
    assert seen == [(dtype, torch.float32, ())] * 8
    wanted = solver(linear_flow, x, sigmas)
    assert torch.allclose(got.double(), wanted, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("solver", [unipc, euler])
def test_callback_sees_every_step(solver):
    calls = []
    x = torch.ones(2, 2)
    solver(linear_flow, x, torch.tensor([0.9, 0.5, 0.2, 0.0]), lambda *call: calls.append(call))
    assert [step for step, _, _ in calls] == [0, 1, 2]
    assert torch.equal(calls[0][1], x) and torch.allclose(calls[0][2], x * 0.1)


def test_coefficients_are_finite_host_numbers():
    for sigmas in ([1.0, 0.5, 0.1, 0.0], [1.0, 0.999999, 0.0], job_sigmas(Job.SHOT, 100).tolist()):
        for step in unipc_steps(sigmas):
            weights = [*step.predictor, *(step.corrector or ())]
            assert all(isinstance(weight, float) and math.isfinite(weight) for weight in weights)
        assert unipc_steps(sigmas)[-1].corrector is None


@pytest.mark.parametrize("solver", [unipc, euler])
@pytest.mark.parametrize(
    "sigmas", [[], [1.0], [0.5, 0.5], [0.0, 1.0], [0.9, 0.5, 0.7], [0.5, -0.1], [14.6, 1.0, 0.0], [math.nan, 0.0]]
)
def test_sigmas_that_make_no_sense_are_told(solver, sigmas):
    with pytest.raises(InputError, match="sigma"):
        solver(linear_flow, torch.ones(1), torch.tensor(sigmas))
