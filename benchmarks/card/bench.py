"""What the sections of `make card` share: the card, a section's time, and how an error is told in one line."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

# One line of a table: column -> text or number. Columns that are named for a unit hold numbers.
Row = dict[str, object]
ROUNDS, ENOUGH = 5, 1.5  # calls that are timed, and seconds after which no further one is
LINE = 160  # characters of a reason


@dataclass
class Bench:
    """dtype: of 16 bits, what the card computes in.  until: when the section's time is over, of time.monotonic.
    dry: the card is not there, no call is made twice.
    """

    device: torch.device
    dtype: torch.dtype
    until: float
    dry: bool = False

    def left(self) -> float:
        """Seconds of the section's time."""
        return self.until - time.monotonic()

    def sizes(self, all: Iterable) -> list:
        """Those that are measured: of a dry run the first."""
        return list(all)[: 1 if self.dry else None]

    def room(self) -> int:
        """Bytes of the card that nothing holds."""
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def seconds(self, call: Callable[[], object]) -> float:
        """Median of a call by the card's clock, after one that does not count."""
        if not self.dry:
            call()
        torch.cuda.synchronize(self.device)
        times, began = [], time.monotonic()
        while len(times) < (1 if self.dry else ROUNDS) and (not times or time.monotonic() - began < ENOUGH):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1e3)
        return statistics.median(times)

    def tried(self, what: Row, measure: Callable[[], Row]) -> Row:
        """The row of `what`, with why where it cannot be measured. Raises where the card answers nothing any more."""
        try:
            return {**what, **measure()}
        except Exception as error:
            why = reason(error)
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()
        return {**what, "failed": why}

    def while_there_is_time(self, cases: Iterable) -> Iterator:
        """The cases, until the section's time is over. Raises TimeoutError where some are left then."""
        for number, case in enumerate(cases):
            if number and self.left() < 0:
                raise TimeoutError("its time was over before the rest was measured")
            yield case


def reason(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LINE].rstrip(": ")


def relative(own: torch.Tensor, exact: torch.Tensor) -> float:
    """The error of a result, as a share of the exact one."""
    own, exact = own.float(), exact.float()
    return float((own - exact).norm() / exact.norm())
