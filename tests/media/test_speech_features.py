"""Features of speech on disk: the same numbers, a window at a time, whatever becomes of the folder."""

import gc
import shutil

import psutil
import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.avatar.plan import Timing, plan_avatar
from pack.skyreels_v3.speech.features import SpeechFeatures, around_frames, audio_windows
from pack.skyreels_v3.speech.recording import silence, video_frames

PEOPLE, FRAMES, LAYERS, WIDTH = 2, 30, 3, 8


@pytest.fixture
def features():
    return torch.randn(PEOPLE, FRAMES, LAYERS, WIDTH, generator=torch.Generator().manual_seed(1))


def test_a_window_hears_what_it_would_in_memory(features):
    stored = SpeechFeatures.of(features)
    assert (stored.people, stored.frames, stored.layers, stored.width) == (PEOPLE, FRAMES, LAYERS, WIDTH)
    plan = plan_avatar((64, 64), FRAMES, width=64, height=64, people=2, timing=Timing(21, 5, 4))
    around = [plan.speech_indices(window) for window in plan.passes]  # the last ones hear the reversed tail
    for indices in [*around, around_frames(0, 10, FRAMES), around_frames(25, 60, FRAMES)]:
        heard = stored.windows(indices)
        assert heard.is_contiguous() and torch.equal(heard, audio_windows(features, indices))


def test_one_person_is_read_as_written(features):
    stored = SpeechFeatures.of(features)
    for person in range(PEOPLE):
        assert torch.equal(torch.stack([*stored.of_person(person)], dim=1), features[person])
    assert SpeechFeatures(map(stored.of_person, (0, 1))).key == stored.key


def test_silence_is_as_long_as_asked():
    with torch.device("meta"):  # lengths without samples
        assert [video_frames(len(silence(frames))) for frames in range(1, 5001)] == [*range(1, 5001)]


def test_the_key_follows_from_the_numbers(features):
    assert SpeechFeatures.of(features).key == SpeechFeatures.of(features.clone()).key
    other = features.clone()
    other[-1, -1, -1, -1] += 1
    assert len({SpeechFeatures.of(one).key for one in (features, other, features[:1], features[:, :20])}) == 4


def test_a_cleared_folder_does_no_harm_and_nothing_stays(features, tmp_path):
    folder = tmp_path / "temp"
    gc.collect()  # files that others left behind are closed at any time
    used = psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else None
    stored = SpeechFeatures((person.unbind(1) for person in features), folder)
    shutil.rmtree(folder, ignore_errors=True)
    indices = around_frames(3, 9, FRAMES)
    assert torch.equal(stored.windows(indices), audio_windows(features, indices))
    del stored
    gc.collect()
    assert not folder.exists() or not list(folder.iterdir())
    assert used is None or psutil.Process().num_fds() <= used


def test_a_folder_that_cannot_be_written_is_told(features, tmp_path):
    (tmp_path / "temp").write_text("a file")
    with pytest.raises(InputError, match=r"^What the avatar hears cannot be written to .*temp.*: make room there"):
        SpeechFeatures((person.unbind(1) for person in features), tmp_path / "temp")
