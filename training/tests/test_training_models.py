"""The networks of the training are those of the pack and of ComfyUI, and a training goes on where it stopped."""

import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pack.dev.samples.tiny_models import random_weight
from pack.dev.samples.wan_vae import LATENTS
from pack.skyreels_v3.model.sequence import (
    Segment,
    avatar_segments,
    extension_segments,
    reference_segments,
    shot_segments,
)
from pack.skyreels_v3.recipes import RECIPES, Job
from pack.skyreels_v3.sampling.schedule import job_sigmas
from pack.training.data.jobs import Batch
from pack.training.methods import distil
from pack.training.methods.flow import drawn_levels, losses_of
from pack.training.methods.optimiser import Optimiser, orthogonal
from pack.training.methods.resumable import run
from pack.training.models.autoencoder import Autoencoder
from pack.training.models.nano import NANO, avatar_from, new_transformer, params_of
from pack.training.models.network import Speech, forward, text_of

pytestmark = pytest.mark.workshop

HEIGHT, WIDTH, FRAMES = 4, 6, 3


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in model.named_parameters():
        parameter.data = random_weight(name, tuple(parameter.shape))
    return model.requires_grad_(False)


def two_people() -> Speech:
    masks = torch.zeros(2, 3, 32, 48)
    masks[0, 0, :, :20] = masks[0, 1, :, 25:] = 1
    masks[1, 1, :, :10] = masks[1, 0, 5:, 30:] = 1
    masks[:, 2] = 1 - masks[:, 0] - masks[:, 1]
    return Speech(numbers(4, 4 * FRAMES - 3, 5, 12, 32), 2, masks)


def video(frames: int = FRAMES, channels: int = LATENTS) -> torch.Tensor:
    return numbers(2, channels, frames, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("job", "segments", "image", "speech"),
    [
        (Job.REFERENCE, reference_segments(video(), video(4)), None, None),
        (Job.EXTENSION, extension_segments(video(), video(2)), None, None),
        (Job.SHOT, shot_segments(video(), video(2)), None, None),
        (
            Job.AVATAR,
            avatar_segments(video(), video(channels=20)),
            numbers(2, 257, 64),
            Speech(numbers(2, 4 * FRAMES - 3, 5, 12, 32)),
        ),
        (Job.AVATAR, avatar_segments(video(), video(channels=20)), numbers(2, 257, 64), two_people()),
    ],
    ids=["reference", "extension", "shot", "avatar", "two people"],
)
def test_the_forward_that_is_trained_is_the_packs(job, segments, image, speech):
    model = randomised(new_transformer(params_of(job)))
    prompts, timestep = [numbers(5, 64), numbers(9, 64)], torch.tensor([999.0, 250.0])
    made = forward(model, segments, timestep, text_of(prompts), image, speech)
    for i, prompt in enumerate(prompts):
        text = torch.zeros(1, 512, 64)
        text[0, : len(prompt)] = prompt
        # the pack's network writes into what it is given
        own = [Segment(s.latents[i : i + 1].clone(), s.position, s.clean, s.predicted) for s in segments]
        given = {}
        if speech is not None:
            given = {"image": image[i : i + 1], "audio": speech.windows[i * speech.people : (i + 1) * speech.people]}
        if speech is not None and speech.people > 1:
            given["speaker_masks"] = speech.masks[i]
        expected = model(own, timestep[i : i + 1], text, **given)
        torch.testing.assert_close(made[i : i + 1], expected, atol=1e-4, rtol=0)


def test_the_autoencoder_is_comfyuis_and_can_be_standardised(comfyui):
    from comfy.ldm.wan.vae import WanVAE

    ours = randomised(Autoencoder())
    width = ours.encoder.conv1.out_channels
    theirs = WanVAE(dim=width, z_dim=LATENTS, temperal_downsample=[False, True, True])
    theirs.load_state_dict(ours.state_dict())
    frames = numbers(1, 3, 17, 32, 48).clamp(-1, 1)
    with torch.no_grad():
        latents = ours.encode(frames)
        # ComfyUI takes the mean away and divides outside of the class
        torch.testing.assert_close(latents * ours.deviation + ours.mean, theirs.encode(frames), atol=1e-4, rtol=0)
        pictures = theirs.decode(latents * ours.deviation + ours.mean)
        torch.testing.assert_close(ours.decode(latents), pictures, atol=1e-4, rtol=0)

        mean, deviation = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
        ours.standardise(mean, deviation)
        level = ours.encode(frames)
        expected = (latents - mean[:, None, None, None]) / deviation[:, None, None, None]
        torch.testing.assert_close(level, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.decode(latents), pictures, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.encode(frames[:, :, :1]), level[:, :, :1], atol=1e-4, rtol=0)


def test_an_avatar_begins_with_what_its_base_knows():
    base = new_transformer(NANO)
    with torch.no_grad():
        base.head.head.weight.normal_()
        base.blocks[0].ffn[2].weight.normal_()
    avatar = avatar_from(base)
    noisy, text = video(), text_of([numbers(5, 64)] * 2)
    timestep = torch.tensor([900.0, 100.0])
    with torch.no_grad():
        avatar.patch_embedding.weight[:, 16:] = 0
        for block in avatar.blocks:  # the picture's values begin at zero, but what they are added to has an offset
            torch.testing.assert_close(block.cross_attn.v_img.weight, torch.zeros_like(block.cross_attn.v_img.weight))
        alone = forward(base, [Segment(noisy, 0, predicted=True)], timestep, text)
        speech = Speech(numbers(2, 4 * FRAMES - 3, 5, 12, 32))
        told = forward(avatar, avatar_segments(noisy, video(channels=20)), timestep, text, numbers(2, 257, 64), speech)
    torch.testing.assert_close(told, alone, atol=1e-4, rtol=0)


def test_steps_of_matrices_are_orthogonal():
    made = orthogonal(numbers(3, 48, 20))
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.5 and values.max() < 1.5


def batch_of(clean: torch.Tensor) -> Batch:
    return Batch(clean, lambda noisy: [Segment(noisy, 0, predicted=True)], text_of([numbers(5, 64)] * len(clean)))


def test_flow_matching_learns_and_levels_cover_everything():
    levels = drawn_levels(64, random.Random(0))
    assert 0 < levels.min() < 0.1 and levels.max() > 0.97
    torch.manual_seed(0)
    model = new_transformer(NANO)
    optimiser, losses = Optimiser(model, 0.02), []
    batch = batch_of(torch.full((4, 16, 1, 4, 4), 0.5))
    for step in range(12):
        loss = losses_of(model, batch, Job.REFERENCE, random.Random(step))["loss"]
        loss.backward()
        optimiser.step(1.0)
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_training_that_is_stopped_goes_on_as_if_it_was_not(tmp_path):
    inputs = numbers(40, 12)

    def trained(file, *stops: int) -> torch.Tensor:
        for stop in stops:
            torch.manual_seed(0)
            model = torch.nn.Linear(12, 12)
            optimiser = Optimiser(model, 0.02)

            def loss_of(step, model=model):
                return {"loss": (model(inputs[step]) - inputs[step] ** 2).square().mean()}

            run(file, model, optimiser, 40, loss_of, say=str, stop=stop)
        return model.weight.detach()

    whole, parted = trained(tmp_path / "whole.pt", 40), trained(tmp_path / "parted.pt", 7, 25, 40)
    torch.testing.assert_close(parted, whole, atol=0, rtol=0)


@pytest.mark.parametrize("job", distil.GUIDANCE)
def test_a_student_is_asked_for_its_jobs_own_steps(job):
    sigmas = job_sigmas(job)
    rng = random.Random(0)
    asked = {distil.interval(job, rng) for _ in range(300)}
    assert len(asked) == RECIPES[job].steps
    for start, stop in asked:
        index = (sigmas - start).abs().argmin()
        assert abs(float(sigmas[index]) - start) < 1e-3 and float(sigmas[index + 1]) == stop


def test_a_teacher_arrives_where_its_velocity_leads(monkeypatch):
    """Of a velocity that is the same everywhere a student learns that velocity."""
    monkeypatch.setattr(distil, "velocity", lambda model, batch, noisy, sigma, job: model.said)
    model = SimpleNamespace(said=numbers(2, 16, 1, 4, 4))
    clean = numbers(2, 16, 1, 4, 4)
    losses = distil.losses_of(model, model, batch_of(clean), Job.SHOT, random.Random(1))
    assert losses["loss"] < 1e-9


TWO = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pack.training.methods import parallel

def work(folder):
    model = torch.nn.Linear(2, 1)
    (model.weight.sum() * (1 + parallel.rank())).backward()  # the bias has no gradient
    parallel.share_gradients(model)
    torch.save((model.weight.grad, model.bias.grad), f"{folder}/{parallel.rank()}")

if __name__ == "__main__":
    parallel.launch(2, work, sys.argv[2])
"""


def test_two_processes_take_the_mean_of_their_gradients(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO, encoding="utf-8")
    tools = Path(__file__).resolve().parents[2] / "tools"
    subprocess.run([sys.executable, script, tools, tmp_path], check=True)
    for rank in range(2):
        weight, bias = torch.load(tmp_path / str(rank))
        assert weight.tolist() == [[1.5, 1.5]] and bias.tolist() == [0.0]
