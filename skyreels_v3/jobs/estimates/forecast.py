"""How long a forward will take, from those that this machine made before; kept in a small file.

Between two sizes that were measured, time is interpolated; beyond them it grows as the arithmetic does, of which a part
goes with the tokens and a part with their square.
"""

import contextlib
import json
import logging
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ...model.memory import IMAGE_TOKENS, TEXT_TOKENS
from ...model.params import TransformerParams

log = logging.getLogger(__name__)

FARTHEST = 8  # times more or fewer tokens than measured: beyond, a guess would not help anyone
KEPT, KEPT_OF_ONE = 200, 5  # runs in all, and of one setting and size: the newest count
LARGEST_FILE = 2**20  # bytes; ours has a tenth of that


@dataclass(frozen=True)
class Setting:
    """What decides the pace besides the tokens, in words that are the same in every run."""

    network: str
    device: str
    precision: str
    attention: str


@dataclass(frozen=True)
class Forward:
    """One forward. tokens: of one video.  batch: videos side by side.  seconds: of all of them together."""

    tokens: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """What the forwards of a sampling took, as in Forward."""

    setting: Setting
    tokens: int
    batch: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """seconds: of one forward.  tokens: the nearest number that was measured."""

    seconds: float
    tokens: int


def network_name(params: TransformerParams) -> str:
    """Networks of one name have the same arithmetic."""
    beside = ["image"] * (params.image_dim is not None) + ["audio"] * (params.audio is not None)
    return " ".join([f"{params.dim}/{params.ffn_dim} x {params.num_layers}", *beside])


def forward_flops(params: TransformerParams, tokens: int, batch: int = 1) -> float:
    """Operations of one forward, a multiplication and its addition counted as two."""
    matrices = 6 * params.dim**2 + 2 * params.dim * params.ffn_dim  # numbers that every token meets in a block
    attended = tokens + TEXT_TOKENS
    if params.image_dim is not None:
        attended += IMAGE_TOKENS
    if params.audio is not None:
        matrices += 2 * params.dim**2
    return float(params.num_layers * batch * tokens * (2 * matrices + 4 * params.dim * attended))


def estimate(
    runs: Iterable[Measurement], setting: Setting, params: TransformerParams, tokens: int, batch: int = 1
) -> Estimate | None:
    """The time of a forward, or None where nothing like it was measured. params: of the setting's network."""
    flops = forward_flops(params, tokens, batch)
    measured: dict[float, list[Measurement]] = {}
    for run in runs:
        if run.setting == setting and 1 / FARTHEST <= tokens * batch / (run.tokens * run.batch) <= FARTHEST:
            measured.setdefault(forward_flops(params, run.tokens, run.batch), []).append(run)
    if not measured:
        return None
    seconds = {work: statistics.median(run.seconds for run in some) for work, some in measured.items()}
    nearest = min(seconds, key=lambda work: abs(math.log(flops / work)))
    less = max((work for work in seconds if work <= flops), default=None)
    more = min((work for work in seconds if work >= flops), default=None)
    if less is None or more is None or less == more:
        took = seconds[nearest] * flops / nearest
    else:
        share = math.log(flops / less) / math.log(more / less)
        took = seconds[less] ** (1 - share) * seconds[more] ** share
    return Estimate(took, measured[nearest][0].tokens)


class Record:
    """The file of past runs. A missing, damaged or locked one costs the memory of them, never a run."""

    def __init__(self, path: Path):
        self.path = path

    def runs(self) -> list[Measurement]:
        """Oldest first; entries that cannot be read are left out."""
        try:
            if self.path.stat().st_size > LARGEST_FILE:
                return []
            entries = json.loads(self.path.read_text(encoding="utf-8"))["runs"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return []
        return [run for run in map(_run, entries if isinstance(entries, list) else ()) if run is not None]

    def add(self, run: Measurement) -> None:
        def alike(other: Measurement) -> bool:
            return (other.setting, other.tokens, other.batch) == (run.setting, run.tokens, run.batch)

        runs = [*self.runs(), run]
        dropped = [other for other in runs if alike(other)][:-KEPT_OF_ONE]
        runs = [other for other in runs if not any(other is one for one in dropped)][-KEPT:]
        unfinished = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps({"runs": [asdict(one) for one in runs]}, indent=1), encoding="utf-8")
            os.replace(unfinished, self.path)
        except OSError as error:
            log.debug("SkyReels-V3: the time of a forward could not be kept: %s", error)
            with contextlib.suppress(OSError):
                unfinished.unlink()


def _run(entry) -> Measurement | None:
    """A run as it stands in the file; None where anything about it is not as it should be."""
    try:
        setting = Setting(**{field.name: entry["setting"][field.name] for field in fields(Setting)})
        run = Measurement(setting, entry["tokens"], entry["batch"], entry["seconds"])
    except (KeyError, TypeError):
        return None
    words = all(isinstance(value, str) for value in asdict(setting).values())
    counts = all(type(count) is int and 0 < count < 2**40 for count in (run.tokens, run.batch))
    time = type(run.seconds) in (int, float) and 0 < run.seconds < 10**7
    return run if words and counts and time else None


class TimeLeft:
    """How long a run of many windows will still take.

    ahead: seconds of each by what was measured before; without it, nothing is known until the first is done, and all
    count alike.
    """

    def __init__(self, windows: int, ahead: Sequence[float] | None = None):
        self.known = ahead is not None
        self.each = [1.0] * windows if ahead is None else list(ahead)
        self.first: tuple[int, float] | None = None

    def at(self, window: int, now: float) -> float | None:
        """Seconds from `now`, at which `window` (from 0) begins, to the end. The first call says where a run began."""
        if self.first is None:
            self.first = window, now
        begun, then = self.first
        to_come = sum(self.each[window:])
        if window == begun:
            return to_come if self.known else None
        return to_come * (now - then) / sum(self.each[begun:window])


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "6 min", "1 h 25 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
