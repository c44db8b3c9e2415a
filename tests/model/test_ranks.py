"""One sequence over several processes gives what one process computes: any sizes, every job, nothing padded."""

import hashlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import torch

from pack.benchmarks.harness import measure
from pack.distributed import ranks as of_ranks
from pack.distributed.ranks import ALONE, Ranks, Share, split
from pack.skyreels_v3.jobs.estimates.sharing import Sharing
from pack.skyreels_v3.model.chunking import LEVELS, USUAL, Chunking
from pack.skyreels_v3.model.memory import forward_bytes
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.model.sequence import avatar_segments, extension_segments, reference_segments, shot_segments
from pack.skyreels_v3.model.speaker_map import PositionMap
from pack.skyreels_v3.model.transformer import Runtime, SkyReelsTransformer
from pack.tests.goldens import run as goldens
from pack.tests.support.golden import relative_error
from pack.tests.support.processes import Processes

FOLDER = Path(__file__).resolve().parents[1] / "goldens"
GOLDENS = sorted(path for path in FOLDER.glob("*.safetensors") if path.stem.startswith(("dit_", "pipeline_")))
# One of each job; `workshop` has the others.
QUICK = {"pipeline_avatar_short_clip", "pipeline_extension_7s", "pipeline_reference", "pipeline_shot_2s"}
CLOSE = 1e-5  # relative, to one process


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.workshop)])
def processes(request) -> Iterator[Processes]:
    made = Processes(request.param)
    yield made
    made.close()


class Noted(Ranks):
    """Notes what this process exchanges: (which exchange, numbers for each process, numbers from each)."""

    def __init__(self, ranks: Ranks):
        self.group, self.rank, self.size = ranks.group, ranks.rank, ranks.size
        self.notes: list[tuple] = []

    def gathered(self, x, counts, dim=1):
        self.notes.append(("gathered", tuple(counts), x.shape[dim] == counts[self.rank]))
        return super().gathered(x, counts, dim)

    def largest(self, x):
        self.notes.append(("largest", x.numel(), True))
        return super().largest(x)

    def exchanged(self, given, gives, takes):
        self.notes.append(("exchanged", tuple(gives), tuple(takes)))
        return super().exchanged(given, gives, takes)


def check_exchanges(notes: list[list[tuple]]) -> None:
    """All processes must have made the same exchanges, each giving what the other takes: else they wait for ever."""
    assert notes[0]
    for each in zip(*notes, strict=True):
        assert len({kind for kind, *_ in each}) == 1
        if each[0][0] == "exchanged":
            gives, takes = [one[1] for one in each], [one[2] for one in each]
            assert gives == [tuple(taken[rank] for taken in takes) for rank in range(len(each))]
        else:
            assert len({one[1] for one in each}) == 1 and all(one[2] for one in each)


def compared(ranks: Ranks, path: str) -> tuple[list, list, list, list]:
    """A golden whose forwards run both ways: (its checks, distances to one process, digests of outputs, exchanges)."""
    errors, digests, noted, network = [], [], Noted(ranks), goldens.network

    def both(golden):
        model = network(golden)

        def forward(*args, **given):
            alone = SkyReelsTransformer.forward(model, *args, **given)
            shared = SkyReelsTransformer.forward(model, *args, **given, runtime=Runtime(ranks=noted))
            errors.append(relative_error(shared, alone))
            digests.append(hashlib.sha256(shared.contiguous().numpy().tobytes()).hexdigest())
            return shared

        model.forward = forward
        return model

    goldens.network = both
    try:
        return [(check.what, check.passed) for check in goldens.run(path)], errors, digests, noted.notes
    finally:
        goldens.network = network


def check_golden(processes: Processes, path: Path) -> None:
    checks, errors, digests, notes = zip(*processes.call(compared, str(path)), strict=True)
    assert all(passed for own in checks for _, passed in own)
    assert errors[0] and max(max(own) for own in errors) <= CLOSE
    assert all(own == digests[0] for own in digests)
    check_exchanges(list(notes))


def test_goldens_over_processes(processes):
    for path in GOLDENS:
        if path.stem.startswith("dit_") or path.stem in QUICK:
            check_golden(processes, path)


@pytest.mark.workshop
@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_goldens_over_more(size):
    processes = Processes(size)
    for path in GOLDENS:
        check_golden(processes, path)
    processes.close()


def network(heads: int, people: int = 0, dim: int | None = None) -> SkyReelsTransformer:
    torch.manual_seed(0)
    avatar = {"in_dim": 36, "image_dim": 64, "audio": AudioParams(hidden=8, width=16, tokens=4, dim=16)}
    sizes = {"ffn_dim": 96, "num_heads": heads, "num_layers": 2, "text_dim": 32, "freq_dim": 16}
    made = SkyReelsTransformer(TransformerParams(dim=dim or 12 * heads, **sizes, **(avatar if people else {})))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.requires_grad_(False)


def inputs(kind: str, people: int, batch: int, frames: int, height: int, width: int) -> tuple[tuple, dict]:
    """What the forward of a job is given; the prompt has padding behind it."""
    torch.manual_seed(1)
    video = torch.randn(batch, 16, frames, height, width)
    text = torch.randn(batch, 512, 32)
    text[:, 9:] = 0
    time = torch.full((batch,), 600.0)
    if not people:
        make = {"reference": reference_segments, "extension": extension_segments, "shot": shot_segments}[kind]
        return (make(video, torch.randn(batch, 16, 2, height, width)), time, text), {}
    masks = torch.zeros(max(people, 2) + 1, height, width)
    masks[0, :, : width // 3] = masks[1, :, -(width // 3) :] = 1
    if people > 2:
        masks[2, :, width // 3 : -(width // 3)] = 1
    masks[-1] = 1 - masks[:-1].amax(dim=0)
    given = {
        "image": torch.randn(batch, 257, 64),
        "audio": torch.randn(min(people, 2), 4 * frames - 3, 5, 12, 16),
        "speaker_masks": masks if people > 1 else None,
        "position_map": PositionMap(kind),
        "speaker_ranges": torch.randint(3, (frames, people)) if people > 2 else None,
    }
    return (avatar_segments(video, torch.randn(batch, 20, frames, height, width)), time, text), given


Case = tuple[int, str, int, int, tuple[int, int, int], Chunking]  # heads, kind, people, batch, size, chunking
SIZES = [(3, 6, 10), (5, 6, 6)]  # 45 tokens in frames of 15, and with two frames beside them 63
CASES: list[Case] = [
    *((heads, "reference", 0, 1, SIZES[0], USUAL) for heads in (1, 3, 5, 8, 10)),
    *((4, kind, 0, batch, size, USUAL) for kind, batch, size in product(("extension", "shot"), (1, 2), SIZES)),
    *((heads, "own frame", people, 1, SIZES[0], USUAL) for heads, people in product((3, 5, 8), (1, 2))),
    (4, "official", 2, 2, SIZES[1], USUAL),
    *((10, kind, people, 1, SIZES[0], LEVELS[-1]) for kind, people in (("shot", 0), ("own frame", 2))),
    (7, "extension", 0, 2, SIZES[0], Chunking(long=0, tokens=7, head_groups=3)),
    (6, "own frame", 2, 1, SIZES[0], Chunking(long=0, tokens=4, head_groups=4)),
    (6, "own frame", 3, 1, SIZES[0], USUAL),
    # Where one process would be above what is long, and where the share of one, but not of another, is.
    *((6, "reference", 0, 1, SIZES[0], Chunking(long=long, head_groups=2)) for long in (24, 25, 26, 37, 38, 74, 75)),
    # A last block of which a process has no query, and fewer tokens than processes.
    (4, "extension", 0, 1, (1, 2, 2), USUAL),
    (4, "own frame", 1, 1, (1, 2, 2), USUAL),
]


def odd_sizes(ranks: Ranks, cases: list[Case], dtype=torch.float32) -> list[tuple[float, str, list]]:
    """Of each case the distance to one process, a digest of the output, and what was exchanged."""
    found = []
    for heads, kind, people, batch, size, chunking in cases:
        model = network(heads, people).to(dtype)
        args, given = inputs(kind, people, batch, *size)
        for segment in args[0]:
            segment.latents.data = segment.latents.to(dtype)
        args = args[0], args[1], args[2].to(dtype)
        given = {
            name: one.to(dtype) if torch.is_tensor(one) and one.is_floating_point() else one
            for name, one in given.items()
        }
        noted = Noted(ranks)
        alone = model(*args, **given, runtime=Runtime(chunking=chunking))
        shared = model(*args, **given, runtime=Runtime(chunking=chunking, ranks=noted))
        digest = hashlib.sha256(shared.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        found.append((relative_error(shared, alone), digest, noted.notes))
    return found


def test_odd_sizes(processes):
    for case, *each in zip(CASES, *processes.call(odd_sizes, CASES), strict=True):
        errors, digests, notes = zip(*each, strict=True)
        assert max(errors) <= CLOSE, case
        assert len(set(digests)) == 1, case
        check_exchanges(list(notes))


@pytest.mark.parametrize("dtype, rounding", [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_precision(processes, dtype, rounding):
    cases = [case for case in CASES if case[0] == 5 or case[1] == "official"]
    for case, *each in zip(cases, *processes.call(odd_sizes, cases, dtype), strict=True):
        errors, digests, _ = zip(*each, strict=True)
        assert max(errors) <= 2 * rounding, case
        assert len(set(digests)) == 1, case


def test_ranges_are_even_and_whole():
    for tokens, parts in product((0, 1, 5, 75, 126000), (1, 2, 3, 7, 40)):
        ranges = split(slice(0, tokens), parts)
        sizes = [one.stop - one.start for one in ranges]
        assert sum(sizes) == tokens and max(sizes) - min(sizes) <= 1
        assert [one.start for one in ranges[1:]] == [one.stop for one in ranges[:-1]]


def test_what_is_exchanged_is_what_plans_count(processes):
    """Within a twentieth, of a forward without references: of the last block only queries of the video are asked."""
    cases: list[Case] = [(6, "own frame", 1, 1, size, USUAL) for size in SIZES]
    for case, *each in zip(cases, *processes.call(odd_sizes, cases), strict=True):
        heads, (frames, height, width) = case[0], case[4]
        params = network(heads, 1).params
        counted = Sharing(processes.size, 1.0).exchanged(params, frames * height * width // 4, 4)
        for rank, (_, _, notes) in enumerate(each):
            sent = sum(sum(gives) - gives[rank] for kind, gives, _ in notes if kind == "exchanged")
            assert abs(4 * sent / counted - 1) <= 0.05


class OneOf(Ranks):
    """A process of a group without the others: what would come from them is zeros."""

    def __init__(self, rank: int, size: int):
        self.group, self.rank, self.size = None, rank, size

    def exchanged(self, given, gives, takes):
        return given.new_zeros(sum(takes))

    def gathered(self, x, counts, dim=1):
        parts = [x.new_zeros([*x.shape[:dim], count, *x.shape[dim + 1 :]]) for count in counts]
        return torch.cat([*parts[: self.rank], x, *parts[self.rank + 1 :]], dim=dim)


@pytest.mark.workshop
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("chunking", [Chunking(10**9, 512), Chunking(0, 512, 4), Chunking(0, 256, 8)])
def test_the_byte_model_is_a_little_above_what_is_measured(size, chunking):
    """At most 15 %, of the tensors that live at once in a process; attention itself needs none, as on cards."""
    model, (frames, height, width) = network(40, dim=1280), (8, 32, 48)
    args, _ = inputs("extension", 0, 1, frames, height, width)
    tokens = (frames + 2) * height * width // 4
    wanted = forward_bytes(model.params, tokens, 4, chunking, size, float32_time=frozenset())
    for rank in (0, size - 1):
        runtime = Runtime(attention=lambda q, *_: q.flatten(2).clone(), chunking=chunking, ranks=OneOf(rank, size))
        peak = measure.peak_allocated(lambda runtime=runtime: model(*args, runtime=runtime))
        assert peak <= wanted <= 1.15 * peak


def test_one_process_exchanges_nothing(monkeypatch):
    monkeypatch.setattr(of_ranks, "dist", None)
    args, given = inputs("own frame", 2, 1, *SIZES[0])
    network(4, 2)(*args, **given)
    share = Share(ALONE, 45)
    assert share.held == slice(0, 45) and share.counts(slice(3, 9)) == [6]


def test_attention_meets_every_token_once():
    """No key is padding: what one process of three attends to are the tokens that there are, each head in one place."""
    made = []

    def attention(q, k, v):
        made.append((q.shape[1], k.shape[1], v.shape[1], q.shape[2]))
        return q.flatten(2)

    for rank in range(3):
        share = Share(OneOf(rank, 3), 50)
        own = share.held.stop - share.held.start
        x = torch.zeros(1, own, 7, 4)
        share.attend(x.clone(), x, x, slice(0, 50), attention, 1)
    assert made == [(50, 50, 50, heads) for heads in (3, 2, 2)]


@pytest.mark.workshop
def test_command_runs_a_golden_in_processes(capsys):
    good = str(FOLDER / "dit_shot.safetensors")
    assert goldens.main(["--ranks", "2", good]) == 0
    assert capsys.readouterr().out.endswith("ok\n")
    with pytest.raises(SystemExit):
        goldens.main(["--ranks", "many", good])
