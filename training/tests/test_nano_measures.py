"""The measures of the nano models: the renderer's truth passes them, what was made for another trial does not."""

import random
from dataclasses import replace

import numpy as np
import pytest

from pack.training import measure as command
from pack.training.measures.bounds import MEASURES
from pack.training.measures.company import SIZE, conversations, told
from pack.training.measures.filming import Results, film_twins
from pack.training.measures.films import FilmTrial, films
from pack.training.measures.report import PRECISIONS, SETTINGS, write_report
from pack.training.measures.scores import Clip, singles, summary
from pack.training.measures.studio import Settings
from pack.training.measures.trials import AvatarTrial, ExtensionTrial, ReferenceTrial, ShotTrial, swapped, trials
from pack.training.tests.test_training_measures import degraded

pytestmark = [pytest.mark.workshop, pytest.mark.host]  # they are filmed on a real ComfyUI
BOUNDS = {measure.name: measure for measure in MEASURES}
CLEAR = 0.1  # of a bound: what is nearer to it may be otherwise on another processor


def margin(name: str, value: float) -> float:
    """By what share of its bound a measure passes, below 0 where it fails."""
    measure = BOUNDS[name]
    return (measure.bound - value if measure.at_most else value - measure.bound) / measure.bound


@pytest.fixture(scope="module")
def takes():
    """What a perfect model would make, with a blur and noise."""
    asked = [*trials(rolls=2), *films()]

    def make(trial, _):
        return degraded(trial.truth(), trial.seed)

    return [take for i in range(0, len(asked), 2) for take in film_twins(make, asked[i : i + 2], Settings())]


@pytest.fixture(scope="module")
def results(takes):
    return Results.of(takes)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_the_truth_passes_and_its_control_fails(measure, results):
    value, control = results.values[measure.name], results.controls[measure.name]
    assert measure.passes(value) and margin(measure.name, value) > CLEAR, value
    assert not measure.passes(control) and margin(measure.name, control) < -CLEAR, control


def test_every_measure_has_a_bound(results):
    assert list(results.values) == [name for name in results.values if name in BOUNDS]
    assert set(results.values) == set(BOUNDS)
    assert not BOUNDS["lips.lag"].passes(float("nan")) and not BOUNDS["lips.two"].passes(float("nan"))


def test_whose_mouth_follows_whom_at_a_table_is_seen():
    """Of the truth, and not where another one's lines are held against it."""
    _, one, other = conversations()
    frames = one.frames
    mouths = one.mouths(frames)
    shown = np.stack([one.table.render(mouths[:, frame], SIZE) for frame in range(frames)])
    for each in told(degraded(shown, 1), one):
        assert each.own > 0.9 and each.better > 0.9 and each.still < 0.05 < each.speaks
    assert max(each.own for each in told(degraded(shown, 1), replace(other, table=one.table))) < 0.6


def damaged(takes, change, kind=object) -> set[str]:
    """Names of the measures that clearly fail once the frames of one kind of trials are changed."""
    mine = [take for take in takes if isinstance(take.trial, kind)][::2]  # one of each twins
    values = summary(singles(take.trial, Clip(change(take.frames))) for take in mine)
    return {name for name, value in values.items() if margin(name, value) < -CLEAR}


def test_a_late_mouth_fails(takes):
    # Six frames are 0.24 s; none of them is the end of another moment, which would come round to the start.
    failed = damaged(takes, lambda frames: frames[np.maximum(np.arange(len(frames)) - 6, 0)], AvatarTrial)
    assert failed >= {"lips.correlation", "lips.lag"}


def test_frames_out_of_order_fail(takes):
    def shuffled(frames):
        return frames[random.Random(1).sample(range(len(frames)), len(frames))]

    assert damaged(takes, shuffled, ReferenceTrial) >= {"prompt.action", "prompt.camera"}
    assert damaged(takes, shuffled, ExtensionTrial) >= {"extension.motion"}
    assert damaged(takes, shuffled, AvatarTrial) >= {"lips.correlation", "lips.lag", "lips.two"}


def test_swapped_channels_fail(takes):
    assert damaged(takes, lambda frames: frames[..., ::-1], ReferenceTrial) >= {
        "reference.character",
        "reference.likeness",
        "reference.place",
    }
    assert damaged(takes, lambda frames: frames[..., ::-1], ExtensionTrial) >= {"extension.psnr", "extension.seam"}


@pytest.mark.parametrize("kind", [ReferenceTrial, ExtensionTrial, ShotTrial, AvatarTrial, FilmTrial])
def test_black_and_noise_fail(takes, kind):
    asked = {name for take in takes if isinstance(take.trial, kind) for name in take.values}
    noise = np.random.default_rng(0)
    for change in (np.zeros_like, lambda frames: noise.integers(0, 256, frames.shape, np.uint8)):
        assert damaged(takes, change, kind) == asked


def test_what_fits_best_in_noise_does_not_count(takes):
    """What that is depends on the last digit of a sum, and so on the processor."""
    heads, things = [], []
    for seed, take in enumerate(takes[::3]):
        clip = Clip(np.random.default_rng(seed).integers(0, 256, take.frames.shape, np.uint8))
        heads += clip.lasting("heads")
        things += clip.lasting("bare_things")
        assert clip.mouth(take.trial.scene.actors[0].character) is None
    for seen in (heads, things):
        assert np.mean([one is not None for one in seen]) < 0.15


def test_a_report_is_written(takes, results, tmp_path):
    few = [next(take for take in takes if isinstance(take.trial, kind)) for kind in (ReferenceTrial, ShotTrial)]
    few += [
        next(take for take in takes if isinstance(take.trial, kind))
        for kind in (ExtensionTrial, AvatarTrial, FilmTrial)
    ]
    write_report(tmp_path, few, results, {variant.name: results for variant in (*PRECISIONS, *SETTINGS)})
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(measure.what in text for measure in MEASURES)
    assert all(take.trial.prompt in text for take in few)
    assert {file.name for file in tmp_path.iterdir()} == {
        "report.md",
        *(f"{job}.webp" for job in ("reference", "extension", "shot", "avatar", "film")),
    }


def test_what_is_said_of_results(results):
    said = command.as_json(results, 1.0)
    assert said["pass"] and all(one["pass"] and one["control_fails"] for one in said["measures"].values())
    lost = command.as_json(Results({**results.values, "lips.lag": float("nan")}, results.controls), 1.0)
    assert not lost["pass"] and lost["measures"]["lips.lag"]["value"] is None
    passing = command.as_json(Results(results.values, results.values), 1.0)
    assert not passing["pass"], "a measure whose control passes shows nothing"


def test_missing_checkpoints_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["measure.py", "--quick", "--models", str(tmp_path)])
    assert command.main() == 2
    assert "lacks reference.safetensors" in capsys.readouterr().err


def test_twins_are_asked_for_different_things():
    asked = trials(rounds=2, rolls=2)
    for one, other in zip(asked, swapped(asked)):
        assert type(one) is type(other) and one.seed == other.seed
        assert one.truth(1).shape == other.truth(1).shape
    assert len({trial.prompt for trial in asked if isinstance(trial, ReferenceTrial)}) < len(
        [trial for trial in asked if isinstance(trial, ReferenceTrial)]
    ), "some differ in their pictures alone"
