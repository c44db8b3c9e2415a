"""What the benchmarks share: a ComfyUI in this process, interleaved timing, peaks of memory, Markdown tables.

Imports nothing heavy by itself, so that a process can measure what importing or loading costs.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]

Call = Callable[[], object]


@functools.cache
def benchmark(name: str) -> ModuleType:
    """The benchmark `name`."""
    return importlib.import_module(".".join(["pack", *script_of(name).relative_to(ROOT).with_suffix("").parts]))


def script_of(name: str) -> Path:
    """The file of the benchmark `name`. Raises StopIteration for none."""
    return next((ROOT / "benchmarks").glob(f"*/{name}.py"))


ENOUGH_ROUNDS, ENOUGH_SECONDS = 5, 60  # on a busy machine a measurement ends after so many of both


def device():
    """The graphics card where PyTorch sees one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device) -> str:
    """What a result says of where it was measured: the card's name, or cpu."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def waited_for(call: Call, device) -> Call:
    """The call, returning when the device is done with it."""
    import torch

    def run():
        call()
        torch.cuda.synchronize(device)

    return run if device.type == "cuda" else call


def enter_comfyui(cpu: bool = True) -> Path:
    """Makes ComfyUI's modules importable here, with PyTorch's attention; returns its folder.

    cpu: leaves a graphics card alone. Raises SetupError where there is no ComfyUI.
    """
    from pack.dev.setup.environment import comfyui_path

    host = comfyui_path()
    # Without the checkout, whose folder `nodes` has the name of a module of ComfyUI.
    sys.path[:] = [str(host), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    from comfy.cli_args import args

    args.cpu = cpu  # before comfy.model_management is imported, which looks for a GPU at once
    args.use_pytorch_cross_attention = True
    return host


def interleaved(calls: Mapping[str, Call], rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict:
    """Seconds of every call in every round, {name: [s, ...]}, after one round that does not count.

    The calls take turns, so that a change of the machine's load meets all of them, and every round starts with the next
    one, so that none always comes after the same neighbour.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    began = time.perf_counter()
    for number in range(-1, rounds):
        if number >= ENOUGH_ROUNDS and time.perf_counter() - began > ENOUGH_SECONDS:
            break
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = clock()
            calls[name]()
            if number >= 0:
                seconds[name].append(clock() - start)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "rounds": len(seconds)}


def ratios(seconds: list[float], reference: list[float]) -> dict[str, float]:
    """How much of the reference's time is needed: the median over the rounds, and of the two fastest runs."""
    rounds = [own / other for own, other in zip(seconds, reference, strict=True)]
    return {"median": statistics.median(rounds), "min": min(seconds) / min(reference)}


def peak_allocated(call: Call, device=None) -> int:
    """Bytes of tensors that lived at once in a call beyond those that lived before it, from the device's allocator.

    device: a graphics card, None for the CPU. Counts what is allocated inside operators too; the weights of libraries'
    packed copies are not tensors.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile

    if device is not None and device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    live = peak = 0
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


class PeakMemory:
    """The most memory that this process held, `peak` bytes above `before`; pages of mapped files count.

    On Linux the kernel's own high-water mark, elsewhere samples every 2 ms.
    """

    def __enter__(self) -> PeakMemory:
        import psutil

        self._process = psutil.Process()
        self.before = self._highest = self._process.memory_info().rss
        try:
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to the present size
            self._watch = None
        except OSError:
            self._done = threading.Event()
            self._watch = threading.Thread(target=self._sample, daemon=True)
            self._watch.start()
        return self

    def __exit__(self, *_) -> None:
        self.peak = self.so_far()
        if self._watch is not None:
            self._done.set()
            self._watch.join()

    def so_far(self) -> int:
        """The peak until now, bytes above `before`."""
        if self._watch is None:
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024 - self.before
        return self._highest - self.before

    def _sample(self) -> None:
        while not self._done.wait(0.002):
            self._highest = max(self._highest, self._process.memory_info().rss)


class Timeline:
    """What this process holds while something runs: `points` of (seconds since the start, bytes), every half second."""

    EVERY, MOST = 0.5, 240  # seconds between two looks; points that are kept

    def __enter__(self) -> Timeline:
        import psutil

        self._process, self._done = psutil.Process(), threading.Event()
        self._points: list[tuple[float, int]] = []
        self._began = time.perf_counter()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._watch.join()

    @property
    def points(self) -> list[tuple[float, int]]:
        """At most MOST, in each the most that was held since the one before."""
        together = -(-len(self._points) // self.MOST)
        groups = [self._points[start : start + together] for start in range(0, len(self._points), together)]
        return [(round(group[-1][0], 1), max(held for _, held in group)) for group in groups]

    def _look(self) -> None:
        while True:
            self._points.append((time.perf_counter() - self._began, self._process.memory_info().rss))
            if self._done.wait(self.EVERY):
                return


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    header = list(header)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(measured: Callable[[bool], dict]) -> None:
    """The command line of a benchmark: measures and writes the results as JSON to --out, or prints them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, not how fast")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
    results = measured(options.quick)
    if dispatch := sys.modules.get("pack.kernels.dispatch"):
        results["refused"] = dict(dispatch.REFUSED)
    text = json.dumps(results, indent=2)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
