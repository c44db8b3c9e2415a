"""Measures some sections of `make card` in this process: a line of JSON on stdout for all that happens.

    python benchmarks/card/worker.py operations blocks

An error that leaves the card without answers ends the process, with ENDED: the next sections need a new one.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
import argparse
import contextlib
import json
import os
import time
from collections.abc import Iterator

from pack.benchmarks.card.sections import MACHINE, SECTIONS

ENDED = 3
OTHER_PYTHON = "give the Python that ComfyUI runs with, as in make card PYTHON=/path/to/python"
ALL = {section.name: section for section in (MACHINE, *SECTIONS)}


def measure(names: list[str], dry: bool, tell) -> int:
    """tell: called with {"section": name} and, one after the other, "begins", "row" ..., "seconds" and "failed"."""
    try:
        import torch
    except ImportError:
        raise SystemExit(f"{sys.executable} has no torch: {OTHER_PYTHON}") from None

    from pack.benchmarks.card.bench import Bench, reason

    if not torch.cuda.is_available():
        raise SystemExit(f"torch {torch.__version__} of {sys.executable} sees no graphics card: {OTHER_PYTHON}")
    device = torch.device("cuda", 0)
    modern = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    for name in names:
        section, began = ALL[name], time.monotonic()
        tell({"section": name, "begins": section.seconds})
        until = float("inf") if dry else began + section.seconds
        bench = Bench(device, torch.bfloat16 if modern else torch.float16, until, dry)
        failed = None
        try:
            with torch.no_grad():  # which dev/fake_card knows, other than inference mode
                for row in section.load()(bench):
                    tell({"section": name, "row": row})
        except Exception as error:
            failed = reason(error)
        tell({"section": name, "seconds": time.monotonic() - began, "failed": failed})
        try:
            torch.cuda.synchronize(device)
            torch.cuda.empty_cache()
        except RuntimeError:
            return ENDED
    return 0


@contextlib.contextmanager
def pretended(card: str) -> Iterator[None]:
    """A card that is not there, see dev/fake_card: shows that everything runs; its numbers mean nothing."""
    from pack.dev.fake_card import launches, torch_device
    from pack.dev.fake_card.profiles import CARDS

    torch_device.install(CARDS[card])
    from pack import kernels

    with torch_device.measured(CARDS[card]) as meter:
        launches.install(kernels, meter, CARDS[card].has_triton)
        yield


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+", choices=ALL)
    parser.add_argument("--pretend", metavar="CARD", help="one of dev/fake_card: a dry run without a card")
    options = parser.parse_args()
    os.environ.update(HF_HUB_OFFLINE="1", DO_NOT_TRACK="1")
    lines = sys.stdout
    card = pretended(options.pretend) if options.pretend else contextlib.nullcontext()
    with contextlib.redirect_stdout(sys.stderr), card:
        dry = bool(options.pretend)
        return measure(options.names, dry, lambda event: print(json.dumps(event), file=lines, flush=True))


if __name__ == "__main__":
    sys.exit(main())
