"""What a plan says: the byte model's targets, more memory never fits less, and settings that are named do fit."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import pytest

from pack.dev.samples.tiny_models import write_transformer
from pack.formats.kinds import SMALLER
from pack.model_loaders.architecture.params import expected_shapes
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.jobs.avatar.plan import Timing, plan_avatar
from pack.skyreels_v3.jobs.estimates.budget import SETTINGS, Budget, LoadedModel, Machine, planned_size, ways
from pack.skyreels_v3.jobs.extension.plan import PlanSource, plan_extension
from pack.skyreels_v3.jobs.extension.script import Line
from pack.skyreels_v3.jobs.reference import SLOTS, plan_reference
from pack.skyreels_v3.jobs.spec import SPECS
from pack.skyreels_v3.model.chunking import LEVELS, SMALL, TIGHT, USUAL
from pack.skyreels_v3.model.memory import block_numbers, forward_bytes
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import RECIPES, Job
from pack.skyreels_v3.units import GB, gb

CARDS = (6, 8, 10, 12, 16, 24, 48, 80)
SIZES = ((832, 480), (960, 544), (1280, 720), (1920, 1088))
BYTES = {"bf16": 2, **SMALLER}
VIDEO = TransformerParams()
AVATAR = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())
RESERVE = 400 * 2**20  # ComfyUI's, outside Windows


def machine(vram: float, free: float | None = None, device: str = "cuda") -> Machine:
    free = vram if free is None else free
    return Machine(device, int(vram * GB), int(free * GB), 64 * GB, 60 * GB, RESERVE)


def network(precision: str, job: Job = Job.REFERENCE) -> LoadedModel:
    params = AVATAR if job is Job.AVATAR else VIDEO
    numbers = sum(math.prod(shape) for shape in expected_shapes(params).values())
    matrices = block_numbers(params) * params.num_layers
    weights = int(matrices * BYTES[precision] + (numbers - matrices) * 2)
    return LoadedModel(params, job, 2, weights, precision, SMALLER)


def plan(vram: float, precision="bf16", size=(1280, 720), frames=0, job=Job.REFERENCE, batch=1) -> Budget:
    return Budget(network(precision, job), planned_size(job, *size, frames, batch), machine(vram))


@pytest.mark.parametrize("params, size", [(VIDEO, 28.6), (AVATAR, 37.8)])
def test_matrices_are_nearly_all_of_a_model(params, size):
    numbers = sum(math.prod(shape) for shape in expected_shapes(params).values())
    assert 2 * numbers / GB == pytest.approx(size, rel=0.01)
    assert 0.97 < block_numbers(params) * params.num_layers / numbers < 1


@pytest.mark.parametrize(
    "job, frames, made, latents, context",
    [
        (Job.REFERENCE, 0, 121, 31, 4),
        (Job.REFERENCE, 80, 81, 21, 4),
        (Job.EXTENSION, 0, 120, 30, 7),
        (Job.EXTENSION, 500, 120, 30, 7),
        (Job.EXTENSION, 1, 1, 1, 7),
        (Job.SHOT, 0, 120, 31, 9),
        (Job.SHOT, 10, 48, 13, 3),
        (Job.AVATAR, 0, 81, 21, 0),
    ],
)
def test_a_forward_holds_the_jobs_context(job, frames, made, latents, context):
    size = planned_size(job, 830, 485, frames)
    assert (size.width, size.height, size.frames) == (832, 480, made)
    assert (size.latents, size.context) == (latents, context)
    assert size.tokens == (latents + context) * 52 * 30
    assert size.notes[0].startswith("Size 830 x 485 became 832 x 480")
    assert (len(size.notes) == 2) == (frames not in (0, made))


@pytest.mark.parametrize("frames", [5, 16, 81, 121])
def test_the_plan_of_a_forward_is_the_jobs_own(frames):
    size, plan = planned_size(Job.REFERENCE, 830, 485, frames), plan_reference([(1, 1)], None, 830, 485, frames=frames)
    latents = [plan.latent_frames + SLOTS, plan.height // 16, plan.width // 16]
    assert (size.tokens, size.frames, size.notes) == (math.prod(latents), plan.frames, plan.notes)
    made = planned_size(Job.EXTENSION, 830, 485, frames)
    roll = plan_extension([Line(1, "continue", Fraction(made.frames, 24), "")], PlanSource(1, 1, 99), None, 832, 480)
    assert (made.frames, made.tokens) == (roll.new_frames, roll.tokens)
    made = planned_size(Job.SHOT, 830, 485, frames)
    roll = plan_extension([Line(1, "cut", Fraction(made.frames, 24), "")], PlanSource(1, 1, 99), None, 832, 480)
    assert (made.frames, made.tokens) == (roll.new_frames, roll.tokens)


def test_the_plan_of_an_avatars_window_is_the_jobs_own():
    plan = plan_avatar((1, 1), 1000, None, 832, 480, timing=Timing(161))
    assert planned_size(Job.AVATAR, 832, 480, 161).tokens == plan.tokens


def test_a_gigabyte_is_the_same_everywhere():
    assert (gb(13_700_000_000), gb(49_999_999)) == ("13.7 GB", "0.0 GB")


@pytest.mark.parametrize(
    "vram, precision, size, frames",
    [
        (8, "int8", (1280, 720), 121),
        (10, "bf16", (1280, 720), 121),
        (8, "bf16", (1280, 720), 121),
        (4, "int8", (832, 480), 81),
        (4, "bf16", (832, 480), 81),
    ],
)
def test_targets_hold(vram, precision, size, frames):
    target = plan(vram, precision, size, frames)
    assert target.fits and 0 < target.streamed < target.network.weights
    assert "are streamed in each step" in target.verdict()


def test_the_largest_cards_hold_everything():
    assert plan(48).streamed == 0 and plan(48).verdict() == "It fits: all weights stay on the card."
    assert plan(24, "int8").streamed == 0 and plan(24).streamed > 0


@pytest.mark.parametrize("job", Job)
def test_more_memory_never_fits_less_nor_streams_more(job):
    for precision, size, frames in itertools.product(BYTES, SIZES, (25, 81, 0)):
        plans = [plan(vram, precision, size, frames, job) for vram in CARDS]
        for small, large in itertools.pairwise(plans):
            # Larger chunks, which are faster, may take as much more than there is as keys by groups of heads save.
            assert large.fits >= small.fits
            assert large.streamed <= small.streamed + max(0, large.forward - small.forward)


@pytest.mark.parametrize("job", Job)
def test_more_work_never_fits_better(job):
    for vram, precision in itertools.product(CARDS, BYTES):
        for small, large in itertools.pairwise(SIZES):
            assert plan(vram, precision, small, 0, job).fits >= plan(vram, precision, large, 0, job).fits
        assert plan(vram, "nf4", job=job).fits >= plan(vram, "int8", job=job).fits >= plan(vram, job=job).fits


def test_what_is_told_is_what_fits():
    """For every plan that does not fit: the named settings do, and a longer video than the named one does not."""
    for vram, precision, size, job, batch in itertools.product((4, *CARDS), BYTES, SIZES, Job, (1, 4)):
        stuck = plan(vram, precision, size, 0, job, batch)
        if stuck.fits:
            continue
        for words in ways(stuck):
            changed = stuck
            for part, options in itertools.product(words.split(" and "), SETTINGS):
                changed = dict(options(changed)).get(part, changed)
            assert changed.fits, (stuck.problem(), words)
    nearest = plan(8, size=(1280, 720), frames=241)
    frames = next(int(words.split()[0]) for words in ways(nearest) if words.endswith("frames"))
    assert plan(8, frames=frames).fits and not plan(8, frames=frames + 4).fits


def test_parts_are_no_smaller_than_they_must_be():
    """A card with room takes the fastest parts, a small one says that it takes smaller ones."""
    assert plan(8).chunking == USUAL and not any("smaller parts" in line for line in plan(8).describe())
    assert plan(7.6).chunking == TIGHT and plan(7.6).fits
    assert "in smaller parts, to fit: 2,048 tokens and one of 10 groups of heads at a time" in plan(7.6).describe()
    assert plan(5.5).chunking == SMALL and plan(5.5).fits and not plan(5).fits
    params = plan(8).network.params
    for small, large in itertools.pairwise(reversed(LEVELS)):
        for tokens in (1000, 8000, 39000, 126000):
            assert forward_bytes(params, tokens, 2, small) <= forward_bytes(params, tokens, 2, large)


@pytest.mark.parametrize("job, squares", [("extension", 6), ("shot", 6), ("reference", 1), ("avatar", 0)])
def test_a_short_sequence_needs_the_times_layers_in_float32(job, squares):
    """Those that the job's recipe has in float32, each alone."""
    stream, one = 2 * 100 * VIDEO.dim, 4 * VIDEO.dim**2
    needed = forward_bytes(VIDEO, 100, 2, float32_time=RECIPES[Job(job)].float32_time)
    assert needed == (stream + squares * one if squares else forward_bytes(VIDEO, 100, 2, float32_time=frozenset()))
    assert (plan(12, size=(256, 256), frames=25, job=Job(job)).forward > 6 * one) == (squares == 6)


def test_a_refusal_is_one_sentence():
    assert plan(5).problem() == (
        "1280 x 720 with 121 frames cannot fit: it needs at least 5.4 GB of VRAM, but there are 5.0 GB; with 540P "
        "(960 x 544), 101 frames or the precision int8 it fits."
    )
    assert "with batch_size 2, 540P" in plan(12, batch=4).problem()
    assert plan(1, job=Job.AVATAR).problem().endswith("; no smaller setting fits, only more memory.")


def test_other_programs_are_told_to_give_back():
    busy = replace(plan(12), machine=machine(12, free=7))
    assert busy.fits and busy.verdict() == "It fits once other programs give back 0.8 GB of VRAM: close some."


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_without_memory_of_its_own_a_device_needs_the_whole_model_in_ram(device):
    whole, short = (replace(plan(ram), machine=machine(ram, device=device)) for ram in (64, 16))
    assert whole.fits and whole.streamed == 0 and "everything stays in RAM" in whole.verdict()
    assert not short.fits and "GB of RAM, but there are 16.0 GB; with the precision nf4 it fits." in short.verdict()


@pytest.fixture(scope="module")
def model(pack_nodes, tmp_path_factory):
    path = write_transformer(tmp_path_factory.mktemp("models") / "r2v.safetensors", Job.REFERENCE)
    return pack_nodes.module("nodes.models.load").load_patcher(str(path))


def test_the_node_tells_and_hands_the_model_on(pack_nodes, model):
    same, text = pack_nodes.ready("SkyReelsPlan").execute(model, 830, 480, 0).result
    assert same is model
    lines = text.splitlines()
    assert lines[0].startswith("Size 830 x 480 became 832 x 480")
    assert lines[1].startswith(f"832 x 480, {SPECS[Job.REFERENCE].frames} frames: 54,600 tokens a forward (4 of 35 ")
    assert lines[-1].startswith("It fits")


def test_the_plan_is_what_comfyui_is_told(pack_nodes, model):
    """The same bytes as the model asks ComfyUI for."""
    module, nodes = pack_nodes.module("skyreels_v3.jobs.estimates.budget"), pack_nodes.module("nodes.jobs.plan")
    size = module.planned_size(model.model.job, 832, 480, 81, 2)
    machine = pack_nodes.module("nodes.network.machine").machine_of(model.load_device)
    planned = module.Budget(nodes.network_of(model), size, machine)
    key = pack_nodes.module("nodes.network.condition").KEY
    shape, slots = [2, 16, 21, 60, 104], [1, 16, 4, 60, 104]
    assert planned.forward == model.model.memory_required(shape, {key: [slots]})


def test_a_long_job_is_stopped_only_where_one_forward_is_larger_than_the_card():
    for vram, device in ((8, "cuda"), (6, "cpu"), (6, "mps")):
        machine(vram, device=device).check_forward(7 * GB)
    with pytest.raises(InputError, match=r"^A forward needs 7\.0 GB of VRAM beside the weights, but there are 6\.0 GB"):
        machine(6).check_forward(7 * GB)


def test_sizes_that_make_no_video_are_told():
    with pytest.raises(InputError, match="a side may have 4096 pixels"):
        planned_size(Job.REFERENCE, 5000, 480)
