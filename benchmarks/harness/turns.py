"""Long calls timed side by side in small parts, so that what else the machine does meets all of them alike.

A call comes to `pause` many times, for instance before each of its layers; there the next call goes on. A part of a few
hundredths of a second is soon undisturbed on a busy machine too, a call of seconds hardly ever: the fastest times of
all parts together, `steady`, say what a call takes by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Call = Callable[[], object]
LEAST_ROUNDS = 2


@dataclass
class Timing:
    """Seconds of a call: one list for every round, in it one number for every part between two pauses.

    processor: of all threads of this process together.
    """

    wall: list[list[float]] = field(default_factory=list)
    processor: list[list[float]] = field(default_factory=list)


_current = threading.local()


def pause(*_) -> None:
    """Lets the other calls of `in_turns` go on; does nothing elsewhere. May be a forward hook of a module."""
    if hasattr(_current, "turn"):
        _current.turn.give()


def pause_before(modules) -> None:
    """From now on these modules pause before they run."""
    for module in modules:
        module.register_forward_pre_hook(pause)


def in_turns(
    calls: Mapping[str, Call], rounds: int, seconds: float = float("inf"), least: int = LEAST_ROUNDS
) -> dict[str, Timing]:
    """The times of calls that take turns, in inference mode. What waits does not count.

    Each call has a thread of its own, only one of which runs; every round begins with another one. No round is begun
    that would probably end later than in `seconds`, but there are `least`, if so many are asked for. Raises what a
    call raises.
    """
    turns = {name: _Turn(call) for name, call in calls.items()}
    names, began, last = list(turns), time.perf_counter(), 0.0
    try:
        for number in range(rounds):
            start = time.perf_counter()
            if number >= least and start + last - began > seconds:
                break
            waiting = names[number % len(names) :] + names[: number % len(names)]
            for name in waiting:
                turns[name].begin()
            while waiting:
                waiting = [name for name in waiting if turns[name].take()]
            last = time.perf_counter() - start
    finally:
        for turn in turns.values():
            turn.end()
    return {name: turn.timing for name, turn in turns.items()}


class _Turn:
    """A call in a thread of its own, which runs only between `take` and `give`."""

    def __init__(self, call: Call):
        self.call, self.timing = call, Timing()
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._running = self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """A new round."""
        self._running = True
        self.timing.wall.append([])
        self.timing.processor.append([])

    def take(self) -> bool:
        """Lets the call go on until it pauses; False when it has returned. Raises what it raised."""
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self._running

    def give(self) -> None:
        """Waits until the others have had their turn. To be called by the call."""
        self._stop()
        self._back.release()
        self._wait()

    def end(self) -> None:
        """No more rounds. After an error a call in the middle of one stays where it is, to end with the process."""
        if not self._running:
            self._over = True
            self._go.release()
            self._thread.join()

    def _wait(self) -> None:
        self._go.acquire()
        self._started = time.perf_counter(), time.process_time()

    def _stop(self) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        self.timing.wall[-1].append(wall - self._started[0])
        self.timing.processor[-1].append(processor - self._started[1])

    def _run(self) -> None:
        import torch

        _current.turn = self
        with torch.inference_mode():
            while True:
                self._wait()
                if self._over:
                    return
                try:
                    self.call()
                except BaseException as error:  # goes on in `take`
                    self._error = error
                self._stop()
                self._running = False
                self._back.release()


def totals(rounds: list[list[float]]) -> list[float]:
    """Seconds of every round."""
    return [sum(parts) for parts in rounds]


def steady(rounds: list[list[float]]) -> float:
    """Seconds of one round that nothing disturbs: the fastest time of every part, together."""
    return sum(min(times) for times in zip(*rounds, strict=True))
