"""What the nano models can do, in numbers with bounds.

    python training/measure.py --quick          within a minute on two cores; the last line is JSON
    python training/measure.py                  more samples, every precision and setting: training/report/report.md
    python training/measure.py --models FOLDER  of other checkpoints than nano/
    python training/measure.py --company        three people at a table, as one line of JSON

A control is measured with each: what was made for another trial. A measure counts only where its control fails.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Without this folder, whose files have names that other packages use too; with tools/, for `pack`.
sys.path[:] = [str(HERE.parent / "tools"), *(entry for entry in sys.path if Path(entry or ".").resolve() != HERE)]
# Of the studios' processes, which take them over; read when torch and tqdm are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from pack.training.measures.bounds import MEASURES  # noqa: E402
from pack.training.measures.company import conversations, told  # noqa: E402
from pack.training.measures.filming import Crew, Results  # noqa: E402
from pack.training.measures.films import films  # noqa: E402
from pack.training.measures.report import PRECISIONS, SETTINGS, Variant, write_report  # noqa: E402
from pack.training.measures.studio import Studio  # noqa: E402
from pack.training.measures.trials import Trial, trials  # noqa: E402
from pack.training.models.shipped import NANO, missing_files  # noqa: E402

MINUTE = 60  # rolls
ROUNDS = 4  # of the full report
LATER = {"action", "camera"}  # asked for in the full report alone: no model does it reliably yet
OFTENER = {"object", "subject"}  # asked for as often as in the full report


def as_json(results: Results, seconds: float) -> dict:
    """Every measure with its bound, and what its control is. pass: all that are held, and no control of them."""
    measures = {}
    for measure in MEASURES:
        if not (measure.held and measure.quick) and measure.name not in results.values:
            continue
        value = results.values.get(measure.name, float("nan"))
        control = results.controls.get(measure.name, float("nan"))
        measures[measure.name] = {
            "value": _number(value),
            "bound": measure.rule,
            "held": measure.held,
            "pass": measure.passes(value),
            "control": _number(control),
            "control_fails": not measure.passes(control),
        }
    passed = all(one["pass"] and one["control_fails"] for one in measures.values() if one["held"])
    return {"pass": passed, "seconds": round(seconds, 1), "measures": measures}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if value != value else round(value, 4)


def reliable(asked: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in asked if not trial.asked & LATER]


def quick_trials() -> list[Trial]:
    """The first round, and of the others what succeeds in one scene and not in the next: two clips say little of it."""
    first = trials()
    others = trials(ROUNDS)[len(first) :]
    return reliable(first) + [trial for trial in others if trial.asked & OFTENER]


def compared(crew: Crew, variants: Sequence[Variant]) -> dict[str, Results]:
    """The results of every variant, on the first round, by its name."""
    few, found = [*reliable(trials()), *films()], {}
    for variant in variants:
        print(f"{variant.name} ...", file=sys.stderr, flush=True)
        # Twins are of one job, so both stay or go.
        chosen = [trial for trial in few if isinstance(trial, variant.jobs)]
        found[variant.name] = Results.of(crew.film(chosen, variant.settings))
    return found


def of_company(models: Path) -> list[dict]:
    """Of every conversation the people's numbers, see `Told`; `other`: of the next one's lines, as a control."""
    asked = conversations()
    studio = Studio(models)
    made = [studio.make(one) for one in asked]
    return [
        {
            "people": one.table.names,
            "told": [vars(each) for each in told(frames, one)],
            "other": [vars(each) for each in told(frames, replace(next_one, table=one.table))],
        }
        for one, frames, next_one in zip(asked, made, [*asked[1:], asked[0]])
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of trials and a little more, no report")
    parser.add_argument("--company", action="store_true", help="three people at a table alone")
    parser.add_argument("--models", type=Path, default=NANO, help="the folder of the checkpoints")
    parser.add_argument(
        "--exact", type=Path, default=HERE / "runs" / "exact", help="them before they were packed, to pack otherwise"
    )
    parser.add_argument("--report", type=Path, default=HERE / "report", help="the folder of the report")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    options = parser.parse_args()
    for folder in [options.models] if options.quick or options.company else [options.models, options.exact]:
        if missing := missing_files(folder):
            print(f"{folder} lacks {', '.join(missing)}: train them first.", file=sys.stderr)
            return 2
    if options.company:
        print(json.dumps(of_company(options.models)))
        return 0
    started = time.perf_counter()
    asked = quick_trials() if options.quick else [*trials(ROUNDS, MINUTE), *films()]
    with Crew(options.models, options.workers) as crew:
        takes = crew.film(asked)
        variants = {} if options.quick else compared(crew, SETTINGS)
    if not options.quick:
        with Crew(options.exact, options.workers) as crew:
            variants |= compared(crew, PRECISIONS)
    results = Results.of(takes)
    said = as_json(results, time.perf_counter() - started)
    if not options.quick:
        write_report(options.report, takes, results, variants)
    print(json.dumps(said))
    return 0 if said["pass"] else 1


if __name__ == "__main__":
    sys.exit(main())
