"""What a golden file is compared by: its kind, and how far off each number is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pack.tests.support.golden import Golden

NETWORK = 1e-4  # relative error of networks and latents
SIGMA = 1e-6
SOLVED = 1e-5
LOUDNESS = 1e-6
EXACT = 0.0


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, how far off it is, how far off it may be."""

    what: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


Runner = Callable[[Golden], Iterable[Check]]
KINDS: dict[str, Runner] = {}


def kind(name: str) -> Callable[[Runner], Runner]:
    """Registers a runner for files whose name contains `name`."""

    def register(runner: Runner) -> Runner:
        KINDS[name] = runner
        return runner

    return register


def kind_of(stem: str) -> str | None:
    """The longest registered kind that a file's name contains."""
    return max((name for name in KINDS if name in stem), key=len, default=None)
