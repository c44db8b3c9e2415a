"""The report: tables of what was measured, and sheets of what was made beside the renderer's truth."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .bounds import MEASURES, Measure
from .filming import Results, Take
from .films import FilmTrial
from .scores import Clip, singles, summary
from .studio import Settings
from .trials import AvatarTrial, ExtensionTrial, ReferenceTrial, ShotTrial, Trial

SHOWN = 6  # frames of a clip on a sheet
ROWS = 10  # clips on a sheet, at most
GAP = 4  # pixels
COLUMNS = {ReferenceTrial: 2}  # of what is given


@dataclass(frozen=True)
class Variant:
    """settings: what is changed.  jobs: kinds of trials that it changes."""

    name: str
    settings: Settings
    jobs: tuple[type[Trial], ...] = (Trial,)


SINGLE = (ReferenceTrial, ExtensionTrial, ShotTrial, AvatarTrial)
PRECISIONS = tuple(
    Variant(precision, Settings(precision=precision), SINGLE) for precision in ("bf16", "fp8", "int8", "nf4")
)
EXTENSION = (ExtensionTrial, ShotTrial)
SETTINGS = (
    Variant("our defaults", Settings()),
    Variant("half the steps", Settings(steps=4), (ReferenceTrial, *EXTENSION)),
    Variant("twice the steps", Settings(steps=16), (ReferenceTrial, *EXTENSION)),
    Variant("official seam", Settings(official=True), EXTENSION),
    Variant("no colour anchor", Settings(colour_anchor=0.0), EXTENSION),
    Variant("colour anchor 1", Settings(colour_anchor=1.0), EXTENSION),
    Variant("colour match 0", Settings(colour_match=0.0), (AvatarTrial,)),
    Variant("a film without `last`", Settings(last=False), (FilmTrial,)),
)

HEAD = """# What the nano models can do

Made by `python training/measure.py` on a processor: {clips} clips of 96 x 64, sampled with the settings that the large
models are distilled for. Shuffled is the control: every clip is measured against what was asked of another one, its
twin (training/measures/trials.py). The truth is what the renderer draws of the same scenes. No number says anything
about the published checkpoints; they say what our nodes do to a model that is known.

"""


def write_report(folder: Path, takes: Sequence[Take], results: Results, variants: dict[str, Results]) -> None:
    """report.md and a sheet of each job into `folder`. variants: name of PRECISIONS and SETTINGS -> results."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = summary(singles(take.trial, Clip(take.trial.truth())) for take in takes)
    text = HEAD.format(clips=len(takes)) + "## All measures\n\n" + measures_table(results, truth)
    text += "\n## How the weights are kept\n\n" + variants_table({one.name: variants[one.name] for one in PRECISIONS})
    rest = {one.name: variants[one.name] for one in SETTINGS}
    text += (
        "\n## Settings\n\nEmpty where a setting changes nothing. Our long extensions have a colour anchor of 0.5.\n\n"
    )
    text += variants_table(rest)
    for kind, (name, title) in SHEETS.items():
        mine = [take for take in takes if isinstance(take.trial, kind)][:ROWS]
        Image.fromarray(sheet(mine)).save(folder / f"{name}.webp", quality=85, method=6)
        text += f"\n## {title}\n\n![{title}]({name}.webp)\n\nIn each row what was given, what was made, and the truth "
        text += "below it.\n\n" + "".join(f"{i}. {take.trial.prompt}\n" for i, take in enumerate(mine, start=1))
    (folder / "report.md").write_text(text, encoding="utf-8")


def measures_table(results: Results, truth: dict[str, float]) -> str:
    rows = [("", "measure", "bound", "nano", "passes", "shuffled", "truth")]
    for measure in MEASURES:
        value, control, true = (
            found.get(measure.name, float("nan")) for found in (results.values, results.controls, truth)
        )
        passes = "yes" if measure.passes(value) and not measure.passes(control) else "**no**"
        numbers = [_shown(measure, number) for number in (value, control, true)]
        rows.append((measure.kind, measure.what, measure.rule, numbers[0], passes, *numbers[1:]))
    return _table(rows)


def variants_table(variants: dict[str, Results]) -> str:
    rows = [("", "measure", "bound", *variants)]
    for measure in MEASURES:
        numbers = [_shown(measure, found.values.get(measure.name, float("nan"))) for found in variants.values()]
        rows.append((measure.kind, measure.what, measure.rule, *numbers))
    return _table(rows)


def _shown(measure: Measure, value: float) -> str:
    return "" if value != value else f"{value:.{measure.digits}f}"


def _table(rows: Iterable[Sequence[str]]) -> str:
    lines, kind = [], None
    for i, (first, *rest) in enumerate(rows):
        lines.append("| " + " | ".join((first if first != kind else "", *rest)) + " |")
        kind = first
        if i == 0:
            lines.append("| --- | --- |" + " ---: |" * (len(rest) - 1))
    return "\n".join(lines) + "\n"


def sheet(takes: Sequence[Take]) -> np.ndarray:
    """A row for each take: what was given, then frames that were made, and below them the truth's. uint8."""
    rows = [_row(take) for take in takes]
    wide = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, GAP), (0, wide - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)


def _row(take: Take) -> np.ndarray:
    truth, made = take.trial.truth(), take.frames
    places = np.linspace(0, min(len(truth), len(made)) - 1, SHOWN).round().astype(int)
    lines = np.concatenate([np.concatenate(list(frames[places]), axis=1) for frames in (made, truth)])
    given = _GIVEN[type(take.trial)](take.trial)
    # Two above each other, as the frames beside them, in as many columns for all of a job.
    given += [np.full_like(made[0], 255)] * (2 * COLUMNS.get(type(take.trial), 1) - len(given))
    columns = [np.concatenate(given[i : i + 2]) for i in range(0, len(given), 2)]
    gap = np.full((len(lines), GAP, 3), 255, np.uint8)
    return np.concatenate([*columns, gap, lines], axis=1)


_GIVEN: dict[type[Trial], Callable[..., list[np.ndarray]]] = {
    ReferenceTrial: lambda trial: [reference.image for reference in trial.references],
    ExtensionTrial: lambda trial: [trial.prefix[0], trial.prefix[-1]],
    ShotTrial: lambda trial: [trial.prefix[0], trial.prefix[-1]],
    AvatarTrial: lambda trial: [trial.portrait],
    FilmTrial: lambda trial: [trial.hero.image],
}
SHEETS = {
    ReferenceTrial: ("reference", "Reference to video"),
    ExtensionTrial: ("extension", "Extension"),
    ShotTrial: ("shot", "Cuts"),
    AvatarTrial: ("avatar", "Talking avatar"),
    FilmTrial: ("film", "Films of eight shots"),
}
