"""The passes of an avatar with stand-ins for the models; the official frames are in the goldens."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.avatar.condition import CLIP_MEAN, CLIP_STD, clip_pixels, silent, window_condition
from pack.skyreels_v3.jobs.avatar.passes import AvatarPasses, Portrait, Settings, Start, Tools, finish
from pack.skyreels_v3.jobs.avatar.pinned import Pin, pinned_euler
from pack.skyreels_v3.jobs.avatar.plan import Timing, plan_avatar
from pack.skyreels_v3.sampling.guidance import Branch, avatar_branches
from pack.skyreels_v3.sampling.schedule import euler_sigmas
from pack.skyreels_v3.sampling.solver import euler
from pack.skyreels_v3.speech.features import SpeechFeatures
from pack.tests.support.golden import LinearVAE

TIMING = Timing(window=21, motion=5, drop=4)
SIZE = {"width": 64, "height": 48}
SIGMAS = euler_sigmas(4, 11)


class Bench:
    """Tools that remember what they were asked for; the model is a function of all that it is given."""

    def __init__(self):
        self.vae = LinearVAE("avatar bench")
        self.passes, self.seen = [], []

    def tools(self) -> Tools:
        return Tools(self.vae.encode, self.vae.pieces, self.tokens, self.denoise)

    def tokens(self, pixels):
        self.seen.append(pixels)
        return pixels.mean((2, 3)).unsqueeze(1).expand(1, 257, 3)

    def denoise(self, run, noise):
        self.passes.append(run)
        shift = run.speech.mean() + run.tokens.mean()

        def clean(x, sigma):
            return 0.7 * run.condition[:, 4:] + 0.2 * torch.tanh(x) + shift

        return pinned_euler(clean, noise, SIGMAS, run.pin)


@pytest.fixture
def features():
    return torch.randn(1, 50, 2, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def image():
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    return F.interpolate(coarse, (96, 128), mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)


def run_all(bench, image, features, settings=Settings(seed=5), frames=50, restart_at=None):  # noqa: B008 - frozen
    plan = plan_avatar((128, 96), frames, **SIZE, timing=TIMING)
    features = SpeechFeatures.of(features[:, :frames])
    tools = bench.tools()
    run = AvatarPasses(plan, Portrait.of(image, plan, tools), features, tools, settings)
    made = []
    if plan.single:
        start = run.single(made.append)
        return plan, [torch.cat(made)], start
    keys, start = run.key_pass()
    for index, window in enumerate(plan.windows):
        if index == restart_at:
            torch.randn(1000)
            start = Start(**{name: tensor.clone() for name, tensor in start.tensors().items()})
            run = dataclasses.replace(run, portrait=Portrait.of(image, plan, tools))
        parts = []
        start = run.window(window, start, keys[window.key_frame], parts.append)
        made.append(torch.cat(parts))
    return plan, made, start


def test_windows_follow_each_other(image, features):
    bench = Bench()
    plan, made, end = run_all(bench, image, features)
    assert [len(frames) for frames in made] == [17, 12, 12, 9] == [window.new_frames for window in plan.windows]
    assert all(frames.dtype == torch.uint8 and frames.shape[1:] == (48, 64, 3) for frames in made)
    assert [run.pin is None for run in bench.passes] == [True, True, False, False, False]
    assert [run.plan.is_key_pass for run in bench.passes] == [True, False, False, False, False]
    assert all(run.speech.shape == (1, 21, 5, 2, 3) for run in bench.passes)
    # The last frames of the video, for the node's output.
    assert torch.equal(finish(end.motion, Settings())[-5:], made[-1][-5:])


def test_clip_sees_the_portrait_once_and_each_windows_first_motion_frame(image, features):
    bench = Bench()
    run_all(bench, image, features)
    assert len(bench.seen) == 4
    assert bench.passes[0].tokens is bench.passes[1].tokens


def test_a_job_goes_on_where_it_was(image, features):
    _, whole, _ = run_all(Bench(), image, features)
    for restart in (0, 1, 3):
        _, again, _ = run_all(Bench(), image, features, restart_at=restart)
        assert all(torch.equal(one, other) for one, other in zip(whole, again))


def test_seeds_and_settings_matter(image, features):
    _, first, _ = run_all(Bench(), image, features)
    _, other, _ = run_all(Bench(), image, features, Settings(seed=6))
    assert all((one.int() - two.int()).abs().max() > 1 for one, two in zip(first, other))
    _, cut, _ = run_all(Bench(), image, features, Settings(seed=5, official=True))
    differences = torch.cat(first).int() - torch.cat(cut).int()
    assert differences.min() == 0 and differences.max() == 1
    _, unmatched, _ = run_all(Bench(), image, features, Settings(seed=5, colour_match=0))
    assert not torch.equal(first[0], unmatched[0])


def test_short_speech_is_one_pass(image, features):
    bench = Bench()
    plan, made, _ = run_all(bench, image, features, frames=13)
    assert plan.single and len(bench.passes) == 1
    assert made[0].shape == (13, 48, 64, 3)


def test_speech_of_two_people_reaches_every_window(image):
    bench = Bench()
    run_all(bench, image, torch.randn(2, 50, 2, 3))
    assert all(run.speech.shape == (2, 21, 5, 2, 3) for run in bench.passes)
    null = silent(bench.passes[0].speech)
    assert null.shape == (1, 21, 5, 2, 3) and not null.any()


def test_the_condition_of_a_window():
    vae = LinearVAE("condition")
    plan = plan_avatar((64, 48), 50, **SIZE, timing=TIMING)
    motion, key = torch.rand(1, 3, 5, 48, 64) - 0.5, torch.rand(1, 3, 1, 48, 64) - 0.5
    clips = []

    def encode(clip):
        clips.append(clip)
        return vae.encode(clip)

    condition = window_condition(plan.windows[1], 21, motion, key, encode)
    assert condition.shape == (1, 20, 6, 6, 8)
    assert torch.equal(clips[0][:, :, :5], motion) and not clips[0][:, :, 5:16].any()
    assert torch.equal(clips[0][:, :, 16:], key.expand(-1, -1, 5, -1, -1))
    mask = condition[0, :4]
    assert torch.equal(mask, mask[..., :1, :1].expand_as(mask))
    given = mask[..., 0, 0].T.tolist()  # [latent frame][its four video frames]
    assert given == [[1] * 4, [1] * 4, [0] * 4, [0] * 4, [0, 0, 0, 1], [1] * 4]
    assert torch.equal(condition[:, 4:], vae.encode(clips[0]))

    first = window_condition(plan.windows[0], 21, motion[:, :, :1], key, encode)[0, :4, :, 0, 0].T.tolist()
    assert first == [[1] * 4, [0] * 4, [0] * 4, [0] * 4, [0, 0, 0, 1], [1] * 4]
    alone = window_condition(plan.key_pass, 21, motion[:, :, :1], None, encode)[0, :4, :, 0, 0].T.tolist()
    assert alone == [[1] * 4] + [[0] * 4] * 5


def test_motion_frames_are_held():
    generator = torch.Generator().manual_seed(0)
    motion = torch.randn(1, 16, 2, 3, 4)
    noise, levels = torch.randn(1, 16, 6, 3, 4), []

    def clean(x, sigma):
        levels.append((x[:, :, :2].clone(), sigma))
        return x * 0.5

    steps = []
    out = pinned_euler(
        clean, noise.clone(), SIGMAS, Pin(motion, generator), lambda i, x, denoised: steps.append((i, x.shape))
    )
    assert torch.equal(out[:, :, :2], motion)
    assert [step for step, _ in steps] == [0, 1, 2, 3]
    again = torch.Generator().manual_seed(0)
    for held, sigma in levels:
        wanted = (1 - sigma) * motion + sigma * torch.randn(motion.shape, generator=again)
        assert torch.allclose(held, wanted, atol=1e-6)
    free = euler(lambda x, sigma: x * 0.5, noise, SIGMAS)
    assert torch.allclose(pinned_euler(clean, noise.clone(), SIGMAS, None), free, atol=1e-6)
    assert torch.allclose(out[:, :, 2:], free[:, :, 2:], atol=1e-6)


def test_clip_pixels_are_stretched_and_not_smoothed():
    frame = torch.rand(1, 3, 1, 90, 333) * 2 - 1
    got = clip_pixels(frame)
    assert got.shape == (1, 3, 224, 224)
    back = got * torch.tensor(CLIP_STD).view(1, 3, 1, 1) + torch.tensor(CLIP_MEAN).view(1, 3, 1, 1)
    wanted = F.interpolate(frame[:, :, 0], (224, 224), mode="bicubic") / 2 + 0.5
    assert torch.allclose(back, wanted, atol=1e-6)


def test_no_numbers_stop_the_job(image, features):
    bench = Bench()
    broken = dataclasses.replace(bench.tools(), decode=lambda latents: [bench.vae.decode(latents) * float("nan")])
    plan = plan_avatar((128, 96), 50, **SIZE, timing=TIMING)
    portrait = Portrait.of(image, plan, broken)
    run = AvatarPasses(plan, portrait, SpeechFeatures.of(features), broken, Settings())
    with pytest.raises(InputError, match="no numbers"):
        run.key_pass()


@pytest.mark.parametrize(
    "text, speech, branches",
    [
        (1, 1, {Branch.POSITIVE: 1}),
        (3, 1, {Branch.POSITIVE: 3, Branch.NEGATIVE: -2}),
        (3, 0.5, {Branch.POSITIVE: 3, Branch.NEGATIVE: -2}),
        (1, 2, {Branch.POSITIVE: 2, Branch.PROMPT_ALONE: -1}),
        (3, 2, {Branch.POSITIVE: 3, Branch.NEGATIVE: -1, Branch.NONE: -1}),
        (2, 2, {Branch.POSITIVE: 2, Branch.NONE: -1}),
    ],
)
def test_guidance(text, speech, branches):
    assert avatar_branches(text, speech) == branches
    assert [
        branch.uses_references for branch in (Branch.POSITIVE, Branch.NEGATIVE, Branch.NONE, Branch.PROMPT_ALONE)
    ] == [
        True,
        True,
        False,
        False,
    ]


def test_guidance_is_a_number():
    with pytest.raises(InputError, match="audio guidance"):
        avatar_branches(1, float("nan"))
