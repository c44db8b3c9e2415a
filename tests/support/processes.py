"""Processes that share one sequence by gloo, without Ray: those of the tests and of `goldens.py --ranks`.

A call that takes too long is a failure that shows where every process is, never a test run that hangs.
"""

import faulthandler
import importlib
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable
from typing import Any

LIMIT = 120  # seconds that a call may take
HOLD_OUT = 10  # seconds more until the processes are killed


class Processes:
    """`size` processes with one thread each. `call` runs a function in all of them at once.

    The function must be one of a module; its first argument is the process's Ranks. They keep no state that matters.
    """

    def __init__(self, size: int):
        self.size = size
        context = multiprocessing.get_context("spawn")
        ends = [context.Pipe() for _ in range(size)]
        self._ends = [ours for ours, _ in ends]
        self._started = [
            context.Process(target=_serve, args=(rank, size, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(ends)
        ]
        for one in self._started:
            one.start()
        for _, theirs in ends:
            theirs.close()
        address = self._answers([0])[0]
        for end in self._ends[1:]:
            end.send(address)
        self._answers(range(size))

    def call(self, function: Callable, *args: Any) -> list[Any]:
        """What it returned in each process. Raises RuntimeError with the traceback of the first that failed."""
        # pytest's own name of a test's module begins with `tests`, which a ComfyUI on the path may be found by.
        module = importlib.import_module("pack." + function.__module__.removeprefix("pack."))
        function = getattr(module, function.__name__)
        for end in self._ends:
            end.send((function, args))
        return self._answers(range(self.size))

    def close(self) -> None:
        for one in self._started:
            one.kill()
            one.join()

    def _answers(self, ranks) -> list[Any]:
        answers, left, until = {}, list(ranks), time.monotonic() + LIMIT + HOLD_OUT
        while left:
            for rank in [one for one in left if self._ends[one].poll(0.005)]:
                try:
                    failed, answers[rank] = self._ends[rank].recv()
                except EOFError:
                    failed, answers[rank] = True, f"process {rank} of {self.size} ended"
                left.remove(rank)
                if failed:  # the others may wait for it for ever
                    self.close()
                    raise RuntimeError(answers[rank])
            if time.monotonic() > until:
                self.close()
                raise RuntimeError(f"processes {left} of {self.size} did not answer")
        return [answers[rank] for rank in ranks]


def _serve(rank: int, size: int, end) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from pack.distributed.joining import Meeting, join, meet

    torch.set_num_threads(1)
    if rank == 0:
        meeting = Meeting()
        end.send((False, meeting.address))
        store = meeting.store
    else:
        store = meet(end.recv())
    ranks = join(store, rank, size, torch.device("cpu"))
    end.send((False, None))
    while True:
        try:
            function, args = end.recv()
        except EOFError:
            return
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        try:
            with torch.inference_mode():
                end.send((False, function(ranks, *args)))
        except Exception:
            end.send((True, traceback.format_exc()))
        faulthandler.cancel_dump_traceback_later()
