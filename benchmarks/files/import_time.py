"""How long ComfyUI's start waits for this pack, and what the pack imports that ComfyUI had not.

A process of its own every time, in which ComfyUI and its built-in nodes are imported as at a start; then the pack is
loaded by the function that ComfyUI loads custom nodes with. Compiled files are there already.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.harness.aims import Aim

AIM_S = 0.5
AIMS = [Aim("ComfyUI's start waits for the pack", AIM_S, lambda results: results["median_s"], unit=" s")]


def load_pack() -> dict:
    """One import of the pack in this process: {seconds, cpu: seconds, pack_modules, other_modules: names}."""
    measure.enter_comfyui()
    from comfy.cli_args import args

    with tempfile.TemporaryDirectory() as base:
        args.base_directory = base
        importlib.import_module("utils.extra_config")  # before `nodes` hides it behind comfy/utils.py
        import nodes
        import server  # noqa: F401 - ComfyUI's start imports it before custom nodes

        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
        known, classes = set(sys.modules), set(nodes.NODE_CLASS_MAPPINGS)
        start, start_cpu = time.perf_counter(), time.process_time()
        loaded = asyncio.run(nodes.load_custom_node(str(measure.ROOT)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    if not loaded or set(nodes.NODE_CLASS_MAPPINGS) == classes:
        raise SystemExit("ComfyUI could not load this pack.")
    new = sorted(set(sys.modules) - known)
    own = [name for name in new if name.startswith(str(measure.ROOT).replace(".", "_x_"))]
    others = [name for name in new if name not in own]
    return {"seconds": seconds, "cpu": cpu, "pack_modules": len(own), "other_modules": others}


def measured(quick: bool) -> dict:
    runs = []
    for _ in range(2 if quick else 8):
        done = subprocess.run([sys.executable, __file__, "--once"], check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    runs = runs[1:]  # the first may compile
    seconds, cpu = ([run.pop(key) for run in runs] for key in ("seconds", "cpu"))
    return {**measure.summary(seconds), "cpu_s": statistics.median(cpu), **runs[-1]}


def tables(result: dict) -> str:
    others = result["other_modules"]
    names = ", ".join(f"`{name}`" for name in others) if others else "none"
    seconds = [f"**{result['median_s']:.3f}**", f"{result['min_s']:.3f}", f"{result['cpu_s']:.3f}"]
    row = [*seconds, str(result["pack_modules"]), f"< {AIM_S}"]
    head = ["", "median (s)", "fastest (s)", "processor (s)", "modules of the pack", "aim (s)"]
    return measure.table(head, [["ComfyUI loads the pack", *row]]) + f"\n\nOther modules that it pulls in: {names}."


def once() -> bool:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--once", action="store_true")
    options, _ = parser.parse_known_args()
    if options.once:
        logging.disable(logging.INFO)
        print(json.dumps(load_pack()))
    return options.once


if __name__ == "__main__" and not once():
    measure.main(measured)
