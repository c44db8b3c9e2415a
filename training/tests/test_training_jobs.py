"""What the transformers are trained on: clips as latents with all that is given beside them, in batches."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pack.skyreels_v3.model.sequence import SHOT_PREFIX_POSITION
from pack.skyreels_v3.recipes import Job
from pack.training.data import jobs
from pack.training.data.clips import WorldSample
from pack.training.data.jobs import BATCHES, CHUNKS_OF, Library
from pack.training.data.latents import reference_latents, shot_latents, talk_latents, world_latents
from pack.training.methods import own_past
from pack.training.methods.flow import losses_of
from pack.training.models.autoencoder import Autoencoder
from pack.training.models.nano import new_transformer, params_of
from pack.training.world.references import references
from pack.training.world.samples import avatar_sample, extension_sample, reference_sample, shot_sample

pytestmark = pytest.mark.workshop

SIZE, COUNT = (48, 32), 3
PLANE = (4, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    vae, rng, folder = Autoencoder(), random.Random(0), tmp_path_factory.mktemp("latents")
    clips = [extension_sample(rng, size=SIZE) for _ in range(COUNT)]
    world = [WorldSample(clip, tuple(references(clip.scene, rng, SIZE, 2))) for clip in clips]
    torch.save(world_latents(vae, world), folder / "world-000.pt")
    begun = [reference_sample(rng, 25, SIZE) for _ in range(COUNT)]
    begun = [replace(sample, references=sample.references[:2]) for sample in begun]
    for kind in ("reference", "object"):
        torch.save(reference_latents(vae, begun), folder / f"{kind}-000.pt")
    torch.save(shot_latents(vae, [shot_sample(rng, 49, 9, SIZE) for _ in range(COUNT)]), folder / "shot-000.pt")
    for people in (1, 2):
        talk = [avatar_sample(rng, 33, people, SIZE) for _ in range(COUNT)]
        torch.save(talk_latents(vae, talk), folder / f"talk-00{people}.pt")
    return folder


def drawn(folder: Path, job: Job, seeds: int = 12):
    library = Library(folder, CHUNKS_OF[job])
    return [BATCHES[job](library, random.Random(seed)) for seed in range(seeds)]


def test_a_reference_batch_is_a_video_and_four_slots(folder):
    batches = drawn(folder, Job.REFERENCE, 20)
    lengths = {batch.clean.shape[2] for batch in batches}
    assert 1 in lengths and 7 in lengths
    for batch in batches:
        video, slots = batch.segments(torch.zeros_like(batch.clean))
        assert video.predicted and not slots.clean and slots.position == batch.clean.shape[2]
        assert slots.latents.shape == (COUNT, 16, 4, *PLANE)
        assert not slots.latents[:, :, 2:].any()  # two references were given
        assert not video.latents.any()  # what is to be made is nowhere but in the noisy latents
    empty = [not slots.latents[i].any() for b in batches for slots in b.segments(b.clean)[1:] for i in range(COUNT)]
    assert 0 < sum(empty) < len(empty) / 2


def test_an_extension_batch_goes_on_from_its_past(folder):
    for batch in drawn(folder, Job.EXTENSION):
        past, video = batch.segments(batch.clean)
        assert past.clean and past.position == 0 and video.position == past.latents.shape[2]
        whole = torch.cat([past.latents, batch.clean], dim=2)
        chunk = torch.load(folder / "world-000.pt", weights_only=False)["video"].float()[:, :, : whole.shape[2]]
        for one in whole:
            assert (chunk == one).flatten(1).all(1).any()


def test_an_extension_learns_from_a_past_of_its_own(folder, monkeypatch):
    monkeypatch.setattr(own_past, "OFTEN", 1.0)
    model = new_transformer(params_of(Job.EXTENSION))
    own = 0
    for seed, batch in enumerate(drawn(folder, Job.EXTENSION)):
        same = own_past.with_own_past(model, batch, random.Random(seed))
        assert torch.equal(same.clean, batch.clean) and same.past.shape == batch.past.shape
        past, _ = same.segments(same.clean)
        assert torch.equal(past.latents, same.past) and torch.equal(same.past[:, :, 0], batch.past[:, :, 0])
        own += not torch.equal(same.past, batch.past)
    assert own


def test_a_cuts_past_stands_at_positions_of_its_own(folder):
    for batch in drawn(folder, Job.SHOT, 4):
        video, past = batch.segments(batch.clean)
        assert video.predicted and past.clean and past.position == SHOT_PREFIX_POSITION
        assert past.latents.shape[2] == 3 and batch.clean.shape[2] in (7, 13)


def test_an_avatar_batch_is_given_frames_a_picture_and_speech(folder):
    people = set()
    for batch in drawn(folder, Job.AVATAR, 8):
        (segment,) = batch.segments(torch.zeros_like(batch.clean))
        mask = segment.latents[:, 16:20]
        assert segment.latents.shape == (COUNT, 36, 9, *PLANE) and mask[:, :, 0].all()
        assert not mask[:, :, 3:6].any()  # nothing is given in the middle
        people.add(batch.speech.people)
        assert batch.speech.windows.shape == (COUNT * batch.speech.people, 33, 5, 12, 32)
        assert batch.image.shape == (COUNT, 257, 64)
        assert (batch.speech.masks is None) == (batch.speech.people == 1)
        untold = batch.untold()
        assert not untold.speech.windows.any() and len(untold.text.features) == COUNT
    assert people == {1, 2}


@pytest.mark.parametrize("job", Job)
def test_every_jobs_network_learns_from_its_batches(folder, job):
    batch = drawn(folder, job, 1)[0]
    model = new_transformer(params_of(job))
    losses_of(model, batch, job, random.Random(0))["loss"].backward()
    assert torch.isfinite(model.head.head.weight.grad).all() and model.head.head.weight.grad.any()


def test_a_library_finds_what_comes_later(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_AGAIN", 2)
    library, first = Library(tmp_path, ("world",)), folder / "world-000.pt"
    (tmp_path / "world-000.pt").write_bytes(first.read_bytes())
    library.draw("world", random.Random(0), lambda chunk: 100)
    (tmp_path / "world-001.pt").write_bytes(first.read_bytes())
    for _ in range(2):
        library.draw("world", random.Random(0), lambda chunk: 100)
    assert len(library.chunks["world"]) == 2
