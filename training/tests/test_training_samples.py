"""What the four jobs are trained on, and the speech that goes with it."""

import itertools
import random

import numpy as np
import pytest
import torch

from pack.skyreels_v3.jobs.avatar.plan import KEY_COPIES
from pack.skyreels_v3.jobs.extension.plan import CUT_PREFIX_FRAMES, LONGEST_PREFIX
from pack.skyreels_v3.jobs.reference import encode_references, plan_reference
from pack.training.world.looks import CHARACTERS
from pack.training.world.render import SIZE
from pack.training.world.samples import (
    avatar_sample,
    extension_sample,
    given_frames,
    object_sample,
    reference_sample,
    rolls,
    shot_sample,
    signed,
)
from pack.training.world.scenes import Actor, Scene
from pack.training.world.voices import RATE, say, take_turns

pytestmark = pytest.mark.workshop

SMALL = (48, 32)


def loudness(wave: np.ndarray, frames: int) -> np.ndarray:
    return np.sqrt((wave[: frames * (RATE // 25)].reshape(frames, -1) ** 2).mean(axis=1))


@pytest.mark.parametrize("voice", CHARACTERS)
def test_the_mouth_follows_the_sound(voice):
    speech = say(voice, 2.0, seed=1)
    assert speech.wave.dtype == np.float32 and len(speech.wave) == 2 * RATE
    assert 0.1 < np.abs(speech.wave).max() <= 0.36
    mouth = speech.mouth(50)
    assert mouth.min() == 0 and 0.6 < mouth.max() <= 1
    assert np.corrcoef(mouth, loudness(speech.wave, 50))[0, 1] > 0.8
    assert np.array_equal(say(voice, 2.0, seed=1).wave, speech.wave)


def test_silence_is_silent_and_shuts_the_mouth():
    speech = say("king", 3.0, seed=2, turns=[(1.0, 1.8)])
    assert not speech.wave[: int(0.9 * RATE)].any() and not speech.wave[int(2.0 * RATE) :].any()
    mouth = speech.mouth(75)
    assert not mouth[:22].any() and not mouth[50:].any() and mouth[25:45].max() > 0.3


def test_two_people_speak_in_turns_with_voices_of_their_own():
    for seed in range(10):
        turns = sorted((*take_turns(6.0, seed)[0], *take_turns(6.0, seed)[1]))
        assert all(a[1] < b[0] for a, b in itertools.pairwise(turns)) and turns[-1][1] <= 6.0
    pitches = [_pitch(say(name, 2.0, 3).wave) for name in ("king", "ghost")]
    assert pitches[1] > 1.8 * pitches[0]


def _pitch(wave: np.ndarray) -> float:
    """Hertz where the sound is most like itself one period later."""
    loud = wave[: RATE * 2]
    spectrum = np.abs(np.fft.rfft(loud, 4 * RATE)) ** 2
    likeness = np.fft.irfft(spectrum)
    low, high = RATE // 350, RATE // 60
    return RATE / (low + int(likeness[low:high].argmax()))


def test_reference_samples_go_through_the_jobs_own_code():
    sample = reference_sample(random.Random(0), 9, SIZE)
    assert sample.frames.shape == (9, 64, 96, 3)
    images = [torch.from_numpy(reference.image) for reference in sample.references]
    plan = plan_reference([SIZE] * len(images), width=96, height=64, frames=9)
    slots = encode_references(images, plan, lambda pixels: torch.zeros(1, 16, 1, 8, 12) + pixels.mean())
    assert slots.shape == (1, 16, 4, 8, 12)
    pixels = signed(sample.frames)
    assert pixels.shape == (1, 3, 9, 64, 96) and -1 <= pixels.min() < pixels.max() <= 1


def test_an_object_is_shown_close_with_a_picture_of_it():
    for seed in range(6):
        sample = object_sample(random.Random(seed), 1, SMALL)
        assert sample.scene.subject == sample.scene.thing and sample.scene.shot == "close"
        (shown,) = [one.name for one in sample.references if one.kind == "object"]
        assert shown == sample.scene.thing and "close shot of the" in sample.prompt.lower()


def test_an_extension_goes_on_where_its_prefix_ends():
    sample = extension_sample(random.Random(2), 12, 9, SMALL)
    assert sample.prefix.shape == (9, 32, 48, 3) and sample.frames.shape == (12, 32, 48, 3)
    clip = np.concatenate([sample.prefix, sample.frames]).astype(np.float32)
    steps = np.abs(np.diff(clip, axis=0)).mean(axis=(1, 2, 3))
    assert steps[8] < 2 * steps.mean() + 1


def test_ten_rolls_are_one_scene():
    scene = Scene((Actor("rabbit", "walks right"),), "forest")
    film = rolls(scene, 10, 8, (24, 16))
    assert film.shape == (25 + 80, 16, 24, 3)
    # A later roll of it alone begins with the very same frames.
    late = extension_sample(random.Random(2), 8, 25, (24, 16), roll=9)
    assert late.start == 9 * 8 / 24


def test_a_cut_sample_keeps_who_and_where():
    rng = random.Random(5)
    for _ in range(4):
        sample = shot_sample(rng, 5, size=SMALL)
        assert sample.prompt.startswith(f"[{sample.cut}] The scene cuts to")
        assert len(sample.prefix) in CUT_PREFIX_FRAMES.values() and len(sample.prefix) <= LONGEST_PREFIX
        assert sample.frames.shape == (5, 32, 48, 3)
        assert sample.scene.actors == sample.before.actors and sample.scene.place == sample.before.place
        # The picture does change.
        assert np.abs(sample.frames[0].astype(float) - sample.prefix[-1]).mean() > 4


@pytest.mark.parametrize("people", [1, 2])
def test_an_avatar_sample_has_everyone_with_their_speech(people):
    rng = random.Random(people)
    for motion in (1, 5):
        sample = avatar_sample(rng, 13, people, SMALL, motion)
        assert sample.frames.shape == (13, 32, 48, 3) and sample.portrait.shape == (32, 48, 3)
        assert sample.mouths.shape == (people, 13) and len(sample.speech) == people
        assert sample.masks.shape == (people + 1, 32, 48)
        assert (sample.masks.sum(axis=(1, 2)) > 20).all()
        assert (sample.masks[-1] + sample.masks[:-1].max(axis=0) == 1).all()
        if people == 2:  # they stand beside each other
            first, second = (np.argwhere(mask).mean(axis=0)[1] for mask in sample.masks[:2])
            assert first < second - 5
        frames, given = given_frames(sample)
        assert given[:motion].all() and not given[motion : 13 - KEY_COPIES].any()
        assert given[-1] == (sample.key_frame is not None)
        if motion == 1:
            assert (frames[0] == sample.portrait).all()
        else:
            assert (frames[:motion] == sample.frames[:motion]).all()
