"""How long a forward will take: from past ones, whatever has become of the file that holds them."""

import json
from pathlib import Path

import pytest

from pack.dev.samples.tiny_models import write_transformer
from pack.skyreels_v3.jobs.estimates.forecast import (
    KEPT,
    KEPT_OF_ONE,
    Measurement,
    Record,
    Setting,
    TimeLeft,
    duration,
    estimate,
    forward_flops,
    network_name,
)
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job

VIDEO = TransformerParams()
AVATAR = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())
HERE = Setting(network_name(VIDEO), "cuda:0 A card", "int8", "auto")


def run(tokens: int, seconds: float, batch: int = 1, setting: Setting = HERE) -> Measurement:
    return Measurement(setting, tokens, batch, seconds)


def test_the_arithmetic_is_that_of_the_models():
    # Linear and attention together, as counted by hand for 480p and 720p with 81 and 121 frames: 1e15 operations.
    assert forward_flops(VIDEO, 39_000) / 1e15 == pytest.approx(2.20, rel=0.01)
    assert forward_flops(VIDEO, 126_000) / 1e15 == pytest.approx(16.07, rel=0.01)
    assert forward_flops(AVATAR, 32_760) / 1e15 == pytest.approx(1.82, rel=0.01)
    assert forward_flops(VIDEO, 1000, batch=3) == 3 * forward_flops(VIDEO, 1000)
    assert network_name(VIDEO) != network_name(AVATAR)


def test_what_was_measured_is_told_and_nothing_where_nothing_was():
    runs = [run(39_000, seconds) for seconds in (9.0, 10.0, 14.0)]
    assert estimate(runs, HERE, VIDEO, 39_000).seconds == 10
    assert estimate(runs, HERE, VIDEO, 39_000).tokens == 39_000
    assert estimate([], HERE, VIDEO, 39_000) is None
    other = Setting(HERE.network, "cuda:0 Another card", HERE.precision, HERE.attention)
    assert estimate(runs, other, VIDEO, 39_000) is None
    assert estimate(runs, HERE, VIDEO, 1000) is estimate(runs, HERE, VIDEO, 400_000) is None


def test_other_sizes_follow_the_arithmetic_and_lie_between_their_neighbours():
    one = [run(39_000, 10)]
    larger = estimate(one, HERE, VIDEO, 78_000)
    assert 2 * 10 < larger.seconds < 4 * 10 and larger.tokens == 39_000
    assert estimate(one, HERE, VIDEO, 39_000, batch=2).seconds == pytest.approx(20)
    two = [*one, run(78_000, 50)]  # slower than the arithmetic says
    between = [estimate(two, HERE, VIDEO, tokens).seconds for tokens in (39_000, 50_000, 60_000, 78_000)]
    assert between == sorted(between) and between[0] == pytest.approx(10) and between[-1] == pytest.approx(50)
    assert estimate(two, HERE, VIDEO, 90_000).tokens == 78_000


def test_the_record_keeps_the_newest_and_stays_small(tmp_path: Path):
    record = Record(tmp_path / "folder" / "pace.json")
    assert record.runs() == []
    for number in range(1, KEPT_OF_ONE + 3):
        record.add(run(100, number))
    assert [one.seconds for one in record.runs()] == list(range(3, KEPT_OF_ONE + 3))
    for tokens in range(200, 200 + KEPT):
        record.add(run(tokens, 1))
    assert len(record.runs()) == KEPT and record.runs()[-1] == run(200 + KEPT - 1, 1)
    assert [path.name for path in record.path.parent.iterdir()] == ["pace.json"]


GOOD = {"setting": vars(HERE), "tokens": 100, "batch": 1, "seconds": 2.5}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"runs": 5}',
        "\x00" * 100,
        '{"runs": [' + "[" * 100_000,
        json.dumps(
            {"runs": [{**GOOD, "seconds": "x"}, {**GOOD, "seconds": -1}, {**GOOD, "tokens": True}, None, [], 3]}
        ),
        '{"runs": [{"setting": {}, "tokens": 1, "batch": 1, "seconds": NaN}]}',
    ],
)
def test_a_damaged_record_is_as_good_as_none(tmp_path: Path, content: str):
    record = Record(tmp_path / "pace.json")
    record.path.write_text(content)
    assert record.runs() == []
    record.add(run(100, 2.5))
    assert record.runs() == [run(100, 2.5)]


def test_good_entries_beside_damaged_ones_are_kept(tmp_path: Path):
    record = Record(tmp_path / "pace.json")
    record.path.write_text(json.dumps({"runs": [None, GOOD, {**GOOD, "batch": 0}]}))
    assert record.runs() == [run(100, 2.5)]


def test_a_record_that_cannot_be_written_stops_nobody(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    Record(tmp_path / "file" / "pace.json").add(run(100, 1))
    (tmp_path / "folder").mkdir()
    Record(tmp_path / "folder").add(run(100, 1))
    assert [path.name for path in tmp_path.iterdir() if "." in path.name] == []


def test_what_is_left_follows_from_what_was_done():
    unknown = TimeLeft(4)
    assert [unknown.at(window, 100 + 10 * window) for window in range(4)] == [None, 30, 20, 10]
    resumed = TimeLeft(4)
    assert resumed.at(2, 50) is None and resumed.at(3, 65) == 15
    known = TimeLeft(3, [10, 20, 30])
    assert known.at(0, 0) == 60
    assert known.at(1, 20) == 100, "twice as slow as before"
    assert known.at(2, 60) == 60


def test_times_are_told_as_people_say_them():
    assert [duration(seconds) for seconds in (0.2, 45, 89, 100, 3600, 7 * 3600)] == [
        "1 s",
        "45 s",
        "89 s",
        "2 min",
        "60 min",
        "7 h 0 min",
    ]


@pytest.fixture(scope="module")
def model(pack_nodes, tmp_path_factory):
    path = write_transformer(tmp_path_factory.mktemp("models") / "r2v_pace.safetensors", Job.REFERENCE)
    return pack_nodes.module("nodes.models.load").load_patcher(str(path))


def test_plan_tells_the_time_once_a_sampling_was_measured(pack_nodes, model):
    import torch

    pace, plan = pack_nodes.module("nodes.network.forecast"), pack_nodes.ready("SkyReelsPlan")
    forward = pack_nodes.module("skyreels_v3.jobs.estimates.forecast").Forward
    pace.record().path.unlink(missing_ok=True)
    assert "steps" not in plan.execute(model, 64, 64, 5).result[1]

    condition, sampling = pack_nodes.module("nodes.network.condition"), pack_nodes.module("nodes.sampling.samplers")
    latents, text = torch.randn(1, 16, 2, 8, 8), torch.randn(1, 4, 4096)
    references = condition.JobCondition(model.model.job, torch.randn(1, 16, 4, 8, 8))
    guider = pack_nodes.module("nodes.sampling.guider").BranchGuider(model)
    branches = pack_nodes.module("skyreels_v3.sampling.guidance").reference_branches(1.0, 1.0)
    guider.set_branches(condition.attach([[text, {}]], references), None, branches)
    sigmas = torch.linspace(1, 0, 5)
    guider.sample(latents, torch.zeros_like(latents), sampling.unipc_sampler(), sigmas, seed=0)

    (measured,) = pace.record().runs()
    assert (measured.tokens, measured.batch) == ((2 + 4) * 16, 1)
    assert model.model.diffusion_model.forwards == []
    told = plan.execute(model, 64, 64, 5).result[1]
    assert "for 8 steps, measured here at 96 tokens" in told and told.splitlines()[-1].startswith("It fits")
    assert "by what was measured here at 96 tokens" in plan.execute(model, 96, 96, 5).result[1]

    # One forward tells nothing: it is the one that loads.
    model.model.diffusion_model.forwards = [forward(96, 1, 5.0)]
    pace.remember(model)
    assert pace.record().runs() == [measured]


def test_plan_tells_a_modelled_time_until_one_is_measured(pack_nodes, model, monkeypatch):
    pace, plan = pack_nodes.module("nodes.network.forecast"), pack_nodes.ready("SkyReelsPlan")
    assert pace.modelled(model, 96) is None  # a processor
    pace.record().path.unlink(missing_ok=True)
    faster = (("with the attention int8, a little different,", 0.5),)
    for corrected, how in (
        (False, "no such card was measured yet"),
        (True, "such a card was measured"),
    ):
        known = pace.Modelled(45.0, corrected, faster)
        monkeypatch.setattr(pack_nodes.module("nodes.jobs.plan"), "modelled", lambda *_, known=known: known)
        lines = plan.execute(model, 64, 64, 5).result[1].splitlines()
        assert f"about 6 min for 8 steps, modelled; {how}" in lines
        assert "with the attention int8, a little different, about 3 min, modelled" in lines
