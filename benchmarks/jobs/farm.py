"""A table over 1, 2 and 4 servers: rows a minute. What is measured is what sharing them out costs.

The servers are stand-ins whose rows take two seconds each and no processor (dev/comfyui/stand_in.py), so that the
figures are those of tools/batch.py on any machine, as far as each real server has a card of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.harness.aims import Aim

WORKERS = (1, 2, 4)
SECONDS, ROWS = 2.0, 24  # of a row, and for each server
AIMS = [
    Aim(
        f"rows a minute by {WORKERS[-1]} servers",
        0.95,
        lambda results: results["of_linear"][str(WORKERS[-1])],
        least=True,
        of=f"{WORKERS[-1]} times one",
    )
]


def measured(quick: bool) -> dict:
    seconds, rows = (0.2, 4) if quick else (SECONDS, ROWS)
    rates = {str(count): rate(count, seconds, rows * count) for count in WORKERS}
    return {
        "seconds": seconds,
        "rows": rows,
        "rows_per_minute": rates,
        "of_linear": {count: found / (int(count) * rates["1"]) for count, found in rates.items()},
    }


def rate(count: int, seconds: float, rows: int) -> float:
    """Rows a minute, from the start of the command to its end."""
    from pack.dev.comfyui.stand_in import StandIn, prompt

    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "wait.json").write_text(json.dumps(prompt(seconds)), encoding="utf-8")
        table = "note\n" + "".join(f"{number}\n" for number in range(rows))
        (folder / "rows.csv").write_text(table, encoding="utf-8")
        servers = [stack.enter_context(StandIn()) for _ in range(count)]
        command = [sys.executable, measure.ROOT / "tools" / "batch.py", folder / "wait.json", folder / "rows.csv"]
        command += [word for server in servers for word in ("--server", server.url)]
        command += ["--results", folder / "results"]
        began = time.perf_counter()
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
        took = time.perf_counter() - began
        made = len(list((folder / "results").iterdir()))
        if made != rows:
            raise RuntimeError(f"{rows} rows became {made} files")
        return 60 * rows / took


def tables(result: dict) -> str:
    rows = [
        [
            count,
            f"{result['rows'] * int(count)}",
            f"{found:.1f}",
            f"**{result['of_linear'][count]:.3f}**",
            AIMS[0].shown(),
        ]
        for count, found in result["rows_per_minute"].items()
    ]
    return measure.table(["servers", "rows", "rows a minute", "of as many times one", "aim"], rows)


if __name__ == "__main__":
    sys.exit(measure.main(measured))
